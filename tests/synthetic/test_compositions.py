"""Formats, distances and pairs: what is drawn is where the truth says, and old pictures stay."""

from dataclasses import replace

import numpy as np
import pytest

from photomaker.errors import SettingsError
from photomaker.synthetic import person, render, view
from photomaker.synthetic.captions import caption_of_two
from photomaker.synthetic.composed import ComposedDataset, ComposedPlan, write_compositions
from photomaker.synthetic.compositions import FARTHEST, FORMATS, compose, composition


def cells(image, count=4):
    """Mean brightness of count x count cells."""
    side = image.shape[0] // count
    return image.reshape(count, side, count, side, 3).astype(float).mean((1, 3, 4)).ravel()


def test_portraits_of_old_seeds_stay_as_they_are():
    """As they were before there were compositions, so that benchmarks of different days stay comparable.

    Processors round differently in the last place, so brightness is compared and not bytes.
    """
    for index, (brightness, nose) in enumerate(OLD):
        picture = render(person(index * 37), view(person(index * 37), index))
        assert np.abs(cells(picture.image) - brightness).max() < 0.3
        assert np.abs(picture.landmarks[2] - nose).max() < 0.01


OLD = [
    (
        [
            192.7,
            189.0,
            191.9,
            192.7,
            196.5,
            77.5,
            100.1,
            204.0,
            159.4,
            51.3,
            42.7,
            144.4,
            137.9,
            174.1,
            150.6,
            145.1,
        ],
        [62.428, 82.878],
    ),
    (
        [
            93.3,
            103.7,
            123.1,
            100.4,
            82.2,
            100.0,
            130.4,
            84.3,
            74.3,
            63.6,
            96.0,
            79.2,
            83.2,
            121.0,
            110.7,
            74.4,
        ],
        [77.809, 87.054],
    ),
    (
        [
            176.1,
            216.2,
            205.1,
            182.5,
            152.9,
            107.7,
            122.7,
            149.2,
            96.6,
            70.5,
            85.0,
            101.6,
            122.6,
            130.5,
            152.8,
            121.7,
        ],
        [67.72, 80.445],
    ),
    (
        [
            234.0,
            212.5,
            211.5,
            224.8,
            217.0,
            147.1,
            142.5,
            212.7,
            227.6,
            142.0,
            139.0,
            221.4,
            207.0,
            168.3,
            166.7,
            211.3,
        ],
        [54.937, 79.914],
    ),
    (
        [
            97.4,
            93.5,
            81.3,
            104.6,
            83.5,
            75.5,
            132.0,
            91.4,
            80.9,
            128.6,
            147.9,
            86.6,
            77.4,
            133.1,
            142.7,
            80.6,
        ],
        [80.223, 84.099],
    ),
    (
        [
            199.8,
            203.4,
            197.7,
            197.1,
            188.8,
            148.7,
            120.4,
            191.1,
            183.6,
            92.1,
            73.0,
            184.2,
            194.6,
            164.1,
            138.0,
            198.4,
        ],
        [66.607, 84.827],
    ),
]
"""Brightness of the cells of some pictures, and where the nose is."""


@pytest.mark.parametrize("name", FORMATS)
def test_a_composition_has_its_format_and_its_people_lie_where_the_truth_says(name):
    width, height = FORMATS[name]
    for seed in range(6):
        one = composition(person(seed), seed, format=name, style="photo")
        picture = compose(one)
        assert picture.image.shape == (height, width, 3)
        assert picture.owners.shape == (height, width)
        (box,), (points,) = picture.boxes, picture.landmarks
        assert 0 <= box[0] < box[2] <= width
        assert 0 <= box[1] < box[3] <= height
        for x, y in points:
            assert 0 <= x < width
            assert 0 <= y < height
            assert picture.owners[int(y), int(x)] == 1
        again = compose(composition(person(seed), seed, format=name, style="photo"))
        assert np.array_equal(again.image, picture.image)


def test_two_people_are_told_apart_from_left_to_right():
    for seed in range(12):
        one = composition(person(seed), seed, person(500 + seed), style="photo")
        assert one.format == "wide"
        assert {who.seed for who in one.people} == {person(seed).seed, person(500 + seed).seed}
        assert len({seen.scene for seen in one.views}) == len({seen.light for seen in one.views}) == 1
        picture = compose(one)
        assert picture.boxes[0, 2] <= picture.boxes[1, 2]
        assert (picture.boxes[:, 3] - picture.boxes[:, 1] > 20).all()
        for at, points in enumerate(picture.landmarks):
            assert all(picture.owners[int(y), int(x)] in (at + 1, one.front + 1) for x, y in points)
        assert set(np.unique(picture.owners)) == {0, 1, 2}


def test_people_stand_on_both_sides_and_far_and_near():
    first = [composition(person(1), seed, person(2)).people[0].seed == person(1).seed for seed in range(60)]
    assert 15 < sum(first) < 45
    sizes = [composition(person(1), seed).size for seed in range(100)]
    assert FARTHEST <= min(sizes) < 0.5
    assert max(sizes) > 1
    assert {composition(person(1), seed).format for seed in range(40)} == {
        "square", "large", "portrait", "landscape"
    }  # fmt: skip


def test_the_farthest_faces_are_fifteen_percent_of_a_square():
    shares = []
    for index in range(20):
        one = composition(person(index), 3, format="square")
        picture = compose(replace(one, views=(replace(one.views[0], scale=FARTHEST),)))
        shares.append((picture.boxes[0, 2] - picture.boxes[0, 0]) / 128)
    assert 0.13 < np.median(shares) < 0.18
    assert min(shares) < 0.15


def test_a_larger_picture_is_the_same_picture():
    one = composition(person(4), 4, person(5), style="photo")
    small, large = compose(one), compose(one, 2)
    shrunk = large.image.reshape(96, 2, 176, 2, 3).mean((1, 3))
    assert np.abs(shrunk - small.image).mean() < 4
    np.testing.assert_allclose(large.boxes / 2, small.boxes, atol=0.6)


def test_an_unknown_format_is_refused():
    with pytest.raises(SettingsError, match="the format is 'round'; choose one of square, large"):
        composition(person(0), 0, format="round")


def test_captions_say_who_is_where():
    one = composition(person(6), 6, person(7), style="photo", scene="beach")
    names = ("style", "scene", "clothing", "clothing_colour", "hat", "hat_colour", "eyewear")
    stated = [{name: getattr(seen, name) for name in names} for seen in one.views]
    for seed in range(30):
        text = caption_of_two(
            one.people, stated, np.random.default_rng(seed), 0.1, ("img", "img"), (None, "person")
        )
        left, right = text.index("on the left"), text.index("on the right")
        mine = text.index(f"{one.people[0].person_class} img")
        theirs = text.index("person img")
        assert (mine < left) and (theirs < right)
        assert (left < theirs) == (mine < theirs)
        assert text.count("beach") <= 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_compositions(tmp_path_factory.mktemp("composed"), ComposedPlan(10, 12, 4))


def test_a_dataset_holds_what_its_plan_says(folder):
    found = ComposedDataset.open_all(folder)
    assert sum(map(len, found)) == 48
    for one in found:
        width, height = FORMATS[one.format]
        assert one.images.shape[1:] == (height, width, 3)
        assert (one.people[:, 0] >= 10).all() and (one.people < 22).all()
        assert (one.people[:, 0] != one.people[:, 1]).all()
        for row in range(len(one)):
            count = 1 + (one.people[row, 1] >= 0)
            assert set(np.unique(one.owners[row])) <= set(range(count + 1))
            text = one.caption(row, np.random.default_rng(row), 0.2, "img")
            assert text.count(" img") == count
            assert ("on the left" in text) == (count == 2)
    pairs = sum(int((one.people[:, 1] >= 0).sum()) for one in found)
    assert 5 <= pairs <= 26


def test_a_dataset_is_gone_on_with_and_another_plan_is_refused(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.done")}
    removed = sorted(before)[0]
    removed.unlink()
    with pytest.raises(SettingsError, match="lacks 1 groups"):
        ComposedDataset.open_all(folder)
    kept = np.load(removed.parent / "images.npy").copy()
    write_compositions(folder, ComposedPlan(10, 12, 4))
    assert np.array_equal(np.load(removed.parent / "images.npy"), kept)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items() if path != removed)
    with pytest.raises(SettingsError, match="holds another dataset"):
        write_compositions(folder, ComposedPlan(10, 12, 5))
    with pytest.raises(SettingsError, match="has no compositions"):
        ComposedDataset.open_all(folder / "wide")
    with pytest.raises(SettingsError, match="people 2 or more"):
        ComposedPlan(0, 1, 1)
