"""The planted world: what is planted is there, the truth fits it, and the same plan writes the same bytes."""

import csv
import hashlib
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from photomaker.errors import SettingsError
from photomaker.synthetic.distributions import TEST
from photomaker.synthetic.planted import PLANTED, PlantedPlan, write_planted, write_urls
from photomaker.synthetic.served import WAYS

PLAN = PlantedPlan(people=6, photos=14, size=72)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_planted(tmp_path_factory.mktemp("planted") / "world", PLAN)


@pytest.fixture(scope="module")
def truth(world):
    return json.loads((world / "truth.json").read_text())["files"]


def picture(world, name):
    with Image.open(world / "photos" / name) as opened:
        return opened.convert("RGB")


def test_every_file_has_a_truth_and_every_kind_is_planted(world, truth):
    there = {path.relative_to(world / "photos").as_posix() for path in (world / "photos").glob("*/*")}
    assert there == set(truth) and len(truth) == 6 * 14
    assert sum(PLANTED.values()) == pytest.approx(1)
    kinds = Counter(one["planted"] for one in truth.values())
    assert set(kinds) == set(PLANTED) and kinds["none"] > len(truth) / 2
    first = [
        truth[f"{TEST + person}/{place:03d}.jpg"]["planted"] for person in range(6) for place in range(3)
    ]
    assert set(first) == {"none"}


def test_the_truth_is_about_whom_the_photo_shows(world, truth):
    cast = {str(TEST + person) for person in range(6)}
    strangers = []
    for name, one in truth.items():
        person = name.split("/")[0]
        shown = [face["person"] for face in one["faces"]]
        match one["planted"]:
            case "stranger":
                strangers += shown
                assert not set(shown) & cast
            case "two people":
                strangers += shown[1:]
                assert shown[0] == person and shown[1] not in cast
                assert picture(world, name).width > picture(world, name).height
            case "no face" | "corrupt":
                assert not shown and one["mask"] is None and not one["class_words"]
            case _:
                assert shown == [person] and "person" in one["class_words"]
    assert len(strangers) == len(set(strangers)) > 3


def test_boxes_lie_on_the_person(world, truth):
    for name, one in truth.items():
        if one["mask"] is None:
            continue
        mask = np.asarray(Image.open(world / one["mask"]))
        assert mask.shape[::-1] == picture(world, name).size and set(np.unique(mask)) == {0, 255}
        inside = []
        for face in one["faces"]:
            x0, y0, x1, y1 = (round(value) for value in face["box"])
            assert 0 <= x0 < x1 <= mask.shape[1] and 0 <= y0 < y1 <= mask.shape[0]
            inside.append((mask[y0:y1, x0:x1] > 0).mean())
        assert inside[0] > 0.9 and all(share < 0.3 for share in inside[1:]), name


def test_small_faces_are_small_and_others_are_not(truth):
    sides = {"small": [], "other": []}
    for one in truth.values():
        for face in one["faces"]:
            x0, y0, x1, y1 = face["box"]
            sides["small" if one["planted"] == "small face" else "other"].append(
                min(x1 - x0, y1 - y0) / PLAN.size
            )
    assert max(sides["small"]) < 0.22 < min(sides["other"])


def test_duplicates_are_what_they_are_called(world, truth):
    for name, one in truth.items():
        if not one["planted"].endswith("duplicate"):
            assert one["original"] is None
            continue
        copy, original = (world / "photos" / place for place in (name, one["original"]))
        assert truth[one["original"]]["planted"] == "none"
        if one["planted"] == "exact duplicate":
            assert copy.read_bytes() == original.read_bytes()
        else:
            assert copy.read_bytes() != original.read_bytes()
            first, second = (
                np.asarray(picture(world, place).resize((16, 16))).astype(float)
                for place in (name, one["original"])
            )
            assert 0 < np.abs(first - second).mean() < 12


def test_corrupt_files_cannot_be_read(world, truth):
    for name, one in truth.items():
        if one["planted"] == "corrupt":
            with pytest.raises((OSError, UnidentifiedImageError)):
                picture(world, name)


def test_the_same_plan_writes_the_same_and_a_finished_folder_is_left_alone(world, tmp_path):
    def digests(folder):
        return {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*")
            if path.is_file()
        }

    small = PlantedPlan(people=2, photos=5, size=72)
    one, two = write_planted(tmp_path / "one", small), write_planted(tmp_path / "two", small, workers=2)
    assert digests(one) == digests(two)
    before = (world / "truth.json").stat().st_mtime_ns
    write_planted(world, PLAN)
    assert (world / "truth.json").stat().st_mtime_ns == before
    with pytest.raises(SettingsError, match="holds another planted world"):
        write_planted(world, small)


def test_a_list_of_addresses(world, truth, tmp_path):
    path = write_urls(world, 8, tmp_path / "list.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert {row["url"].removeprefix("http://127.0.0.1:8/plain/") for row in rows} == set(truth)
    assert all(row["url"].split("/")[-2] == row["name"] for row in rows)


def test_how_photos_are_served_changes_no_photo(tmp_path):
    plain, served = (
        write_planted(tmp_path / str(given), PlantedPlan(people=2, photos=24, size=72, served=given))
        for given in (False, True)
    )
    for path in plain.glob("*/*/*"):
        assert path.read_bytes() == (served / path.relative_to(plain)).read_bytes()
    before, after = (json.loads((folder / "truth.json").read_text())["files"] for folder in (plain, served))
    assert {one["served"] for one in before.values()} == {"plain"}
    assert len({one["served"] for one in after.values()}) > 8
    for name, one in after.items():
        assert {**one, "served": "plain", "due": before[name]["due"]} == before[name]
        assert one["due"] == (WAYS[one["served"]].reason or before[name]["due"])
        assert before[name]["due"] == ("corrupt" if one["planted"] == "corrupt" else "")
        if name.endswith(("000.jpg", "001.jpg", "002.jpg")):
            assert not one["due"]


@pytest.mark.parametrize(
    "change", [{"people": 0}, {"photos": 3}, {"size": 71}, {"size": 1025}, {"start": -1}]
)
def test_plans_that_cannot_be(change):
    with pytest.raises(SettingsError, match="is not a planted world"):
        PlantedPlan(**change)
