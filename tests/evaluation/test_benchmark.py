"""The whole benchmark on fakes whose true figures are known."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.evaluation.fakes import FACELESS, TOOLS, FakeMethod, FakeWorld, noise, vector_of

from photomaker.errors import SettingsError
from photomaker.evaluation.metrics import Interval, kernel_distance, ratio_of_means
from photomaker.evaluation.plans.cast import Cast, Part
from photomaker.evaluation.plans.evaluate import mixing, page, quality
from photomaker.evaluation.plans.evaluate.columns import BARS, Bar, figures
from photomaker.evaluation.plans.evaluate.plan import prompt_table, run
from photomaker.evaluation.plans.evaluate.settings import EvaluationSettings
from photomaker.evaluation.plans.grid import Grid, per_person
from photomaker.evaluation.prompts import ATTRIBUTES, PROMPTS
from photomaker.evaluation.report import files, plots
from photomaker.evaluation.report.files import Result
from photomaker.evaluation.running.runner import Runner
from photomaker.evaluation.running.store import Store

ROOT = Path(__file__).parents[2]
SMALL = EvaluationSettings(
    people=9,
    gallery=15,
    sweep_people=6,
    pairs=3,
    processes=1,
    samples=50,
    method="fake",
    merges=(0.0, 0.2, 0.4),
)


def quiet(stage: str, done: int, total: int) -> None:
    assert stage
    assert 0 <= done <= total


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run(replace(SMALL, out=tmp_path_factory.mktemp("out")), quiet, TOOLS)


@pytest.fixture
def cast(tmp_path: Path) -> Cast:
    return Cast(SMALL, Runner(SMALL, TOOLS, Store(tmp_path / "c", "models"), quiet), 0.2, None)


def test_everything_asked_for_is_in_the_json(result: Result) -> None:
    found = json.loads(result.json.read_text())
    assert found["schema"] == files.SCHEMA
    heading = "name method command settings chosen machine versions models judge world seconds"
    assert set(heading.split()) <= set(found)
    wanted = {
        "likeness", "likeness_cosine", "ceiling_cosine", "stranger_cosine", "likeness_over_stranger", "text_only",
        "retrieval", "copy_paste", "prompt_accuracy", "prompt_accuracy_real", "likeness_1_photos", "likeness_4_photos",
        "mixing_0.5_to_a", "age_accuracy", "gender_likeness", "face_diversity",
    }  # fmt: skip
    assert wanted <= set(found["figures"])
    for name in wanted:
        figure = found["figures"][name]
        assert figure["low"] <= figure["value"] <= figure["high"], name
        assert figure["people"] in (9, 3)
    assert [row["figure"] for row in found["verdicts"]] == [
        *BARS,
        "counts",
        "mixing",
    ]
    assert found["detail"]["cost"]["seconds_one"] >= 0
    assert found["detail"]["cost"]["peak_memory_mib"] > 10


def test_the_fakes_figures_are_what_they_were_built_to_be(result: Result) -> None:
    values = {name: found["value"] for name, found in result.document["figures"].items()}
    assert values["prompt_accuracy_real"] == 1
    assert 0.6 < values["likeness"] < 1
    assert abs(values["text_only_cosine"]) < 0.15
    assert abs(values["real_stranger_cosine"]) < 0.2
    assert values["retrieval_rate_real"] == 1
    assert values["age_accuracy_real"] == 1
    assert result.document["detail"]["mixing"]["monotone"]
    assert abs(values["copy_paste_real"]) < 0.03
    assert values["copy_paste"] > 0.03


def test_the_person_without_a_face_in_the_photos_is_counted(result: Result) -> None:
    faces = result.document["detail"]["faces"]
    photo_prompts = 10
    assert faces["generated_photos"] == {"pictures": 9 * photo_prompts * 2, "without_face": photo_prompts * 2}
    assert faces["real_photos"]["without_face"] == 0


def test_likeness_equals_a_straightforward_computation(cast: Cast) -> None:
    grid = cast.generated.photos()
    expected = []
    world = FakeWorld()
    for person in cast.people:
        unseen = np.stack([vector_of(photo) for photo in world.photos(person, "unseen", SMALL.unseen)])
        pictures = cast.runner.pictures(cast.picture_task(person, cast.prompts, SMALL.seeds))
        kept = [
            pictures[2 * index + seed]
            for index, prompt in enumerate(cast.prompts)
            if prompt.is_photo
            for seed in (0, 1)
        ]
        expected.append([np.mean([vector_of(picture) @ photo for photo in unseen]) for picture in kept])
    assert np.allclose(grid.score(cast.likeness).reshape(len(cast.people), -1), expected, atol=1e-5)


def with_figures(part: Part) -> Part:
    return replace(part, figures=figures(part, SMALL.samples))


def test_what_likeness_does_not_see(cast: Cast) -> None:
    part = with_figures(quality.measure(cast))
    found = cast.generated.photos().found
    assert part.figures["sharpness"].value == pytest.approx(found.mean())
    # the third recogniser of the fakes sees the same vectors backwards, whose cosines are the same
    likeness = ratio_of_means(
        *(per_person(grid.photos().score(cast.likeness)) for grid in (cast.generated, cast.real))
    )
    assert part.figures["likeness_third"].value == pytest.approx(likeness, abs=1e-5)
    grid, real = cast.generated.photos(), cast.real.photos()
    scale = real.embeddings[real.found].std(0) + 1e-6
    expected = kernel_distance(
        *((one.embeddings[one.found] - real.embeddings[real.found].mean(0)) / scale for one in (grid, real))
    )
    assert part.figures["face_kid"].value == pytest.approx(expected)
    chance = part.figures["face_kid_real"]
    assert 0 < chance.low < chance.value < chance.high
    assert part.detail["face_kid_over_real"] == pytest.approx(expected / chance.value)
    assert set(part.detail["sharpness_by_style"]) == {
        "photo",
        "sketch",
        "painting",
        "pixel art",
        "watercolour",
    }


def test_the_worst_style_is_the_worst(cast: Cast) -> None:
    labels = dict(cast.generated.labels)
    sketches = [at for at, prompt in enumerate(cast.prompts) if prompt.states["style"] == "sketch"]
    labels["style"] = labels["style"].copy()
    labels["style"][:, sketches] = "photo"
    cast.__dict__["generated"] = replace(cast.generated, labels=labels)
    part = with_figures(quality.measure(cast))
    assert part.detail["worst_style_name"] == "sketch"
    classes = cast.classes[: len(cast.people)]
    counted = cast.generated.where(lambda prompt: prompt.states["style"] == "sketch").accuracy(classes)
    assert part.figures["worst_style"].value == pytest.approx(counted[0].sum() / counted[1].sum())


def test_a_judge_that_measures_no_more_is_enough(cast: Cast) -> None:
    for name in ("generated", "real"):
        cast.__dict__[name] = replace(getattr(cast, name), more={})
    assert set(with_figures(quality.measure(cast)).figures) == {"worst_style"}


def test_marks_count_where_they_belong(cast: Cast) -> None:
    def seeing(grid: Grid, with_mole: str, without: str) -> Grid:
        words = np.full(grid.embeddings.shape[:3], without, dtype="<U8")
        for row, person in enumerate(cast.people):
            if cast.runner.world.marks_of(person)["mole"] == "chin":
                words[row] = with_mole
        words[:, 0] = "none"
        return replace(grid, labels={**grid.labels, "mole": words})

    cast.__dict__["real"] = seeing(cast.real, "chin", "none")
    grids = cast.generated.photos(), cast.real.photos()
    prompts = len(grids[0].prompts)
    cast.__dict__["generated"] = seeing(cast.generated, "chin", "none")
    part = with_figures(quality.measure(cast))
    assert part.figures["marks_kept"].value == pytest.approx(1)
    assert part.detail["marks"]["mole"]["seen_real"] == pytest.approx((prompts - 1) / prompts)
    assert part.detail["marks"]["mole"]["people"] == sum(one % 2 for one in cast.people)
    assert part.detail["marks_made_up"] == 0
    cast.__dict__["generated"] = seeing(cast.generated, "left cheek", "chin")
    part = with_figures(quality.measure(cast))
    assert part.figures["marks_kept"].value == 0
    assert part.detail["marks_made_up"] == pytest.approx((prompts - 1) / prompts)


def test_prompt_accuracy_counts_only_what_is_stated(cast: Cast) -> None:
    correct, stated = cast.real.accuracy(cast.classes)
    hats = sum("hat" in prompt.states for prompt in cast.prompts)
    column = ATTRIBUTES.index("hat")
    assert stated[0, column] == hats * SMALL.seeds
    assert np.array_equal(correct, stated)
    labels = {name: np.where(words == "cap", "beret", words) for name, words in cast.real.labels.items()}
    wrong, _ = replace(cast.real, labels=labels).accuracy(cast.classes)
    assert np.all(stated[:, column] - wrong[:, column] == SMALL.seeds)


def test_settings_are_chosen_by_the_sweep_on_other_people_and_then_used(result: Result) -> None:
    sweep, chosen = result.document["detail"]["sweep"], result.document["chosen"]
    assert sweep["split"] == "validation"
    assert [point["merge"] for point in sweep["points"][:3]] == [0.0, 0.2, 0.4]
    good = [point for point in sweep["points"][:3] if point["accuracy"] >= SMALL.accuracy_bar]
    assert chosen["merge"] == max(good, key=lambda point: point["likeness"])["merge"] == 0.2
    assert [point["merge"] for point in sweep["points"][3:]] == [0.2] * 3


def test_given_settings_stay(tmp_path: Path) -> None:
    settings = replace(SMALL, out=tmp_path, merge=0.4, guidance=2.0, parts=("sweep", "main"))
    chosen = run(settings, quiet, TOOLS).document["chosen"]
    assert (chosen["merge"], chosen["guidance"]) == (0.4, 2.0)


def test_one_part_alone_writes_only_its_figures_and_a_second_run_generates_nothing(tmp_path: Path) -> None:
    settings = replace(SMALL, out=tmp_path, parts=("main",), seeds=1)
    first = run(settings, quiet, TOOLS)
    assert "likeness_1_photos" not in first.document["figures"]
    assert "sweep" not in first.document["detail"]
    made, text = FakeMethod.generated, first.markdown.read_text()
    second = run(settings, quiet, TOOLS)
    assert FakeMethod.generated == made
    assert second.document["figures"] == first.document["figures"]
    assert re.sub("; .*minutes", "", second.markdown.read_text()) == re.sub("; .*minutes", "", text)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".cache",
        "fake.json",
        "fake.md",
        "fake_pictures.png",
    ]


def test_other_weights_are_measured_afresh(tmp_path: Path) -> None:
    settings = replace(SMALL, out=tmp_path, parts=("mixing",))
    run(settings, quiet, TOOLS)
    made = FakeMethod.generated
    run(replace(settings, adapter="other"), quiet, TOOLS)
    assert FakeMethod.generated > made


def test_plots_are_pictures_and_the_page_shows_them(result: Result) -> None:
    names = {path.name for path in result.plots}
    assert names == {"fake_tradeoff.png", "fake_photos.png", "fake_mixing.png", "fake_pictures.png"}
    for path in result.plots:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 200
    text = result.markdown.read_text()
    assert all(f"]({name})" in text for name in names)


def test_the_page_has_well_formed_tables_with_a_plain_yes_or_no(result: Result) -> None:
    text = result.markdown.read_text()
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1, block
    row = next(line for line in text.splitlines() if line.startswith("| retrieval of the person"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:4] == ["50 %", "80 %"]
    assert set(cells[4:]) <= {"yes", "no"}
    assert result.reached == all(row["reaches_must"] for row in result.document["verdicts"])


def test_bars_look_the_right_way() -> None:
    high, low = Bar(0.75, 0.9), Bar(0.08, 0.03, lower_is_better=True)
    assert (high.reaches(0.8, 0.75), high.reaches(0.7, 0.75), high.reaches(None, 0.75)) == (
        True,
        False,
        False,
    )
    assert (low.reaches(0.05, 0.08), low.reaches(0.1, 0.08)) == (True, False)


def test_an_undefined_figure_is_written_as_such() -> None:
    rows = page.verdicts({"likeness": Interval(None, None, None, 3)}, {})
    assert rows[0]["value"] is None
    assert rows[0]["reaches_must"] is False
    assert '"value": null' in files.as_json({"figures": {"a": {"value": None}}})


def test_json_refuses_what_json_does_not_know() -> None:
    with pytest.raises(ValueError, match="JSON"):
        files.as_json({"a": float("nan")})


def test_pairs_are_of_one_class_and_everybody_is_in_one_pair_at_most() -> None:
    classes = ["man", "woman", "man", "man", "woman", "girl", "man"]
    pairs = mixing.pairs_of_a_class(classes, 10)
    assert sorted(pairs) == [(0, 2), (1, 4), (3, 6)]
    assert len(mixing.pairs_of_a_class(classes, 2)) == 2
    assert {classes[first] for first, _ in mixing.pairs_of_a_class(classes, 2)} == {"man", "woman"}


def test_without_matplotlib_the_run_says_so_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(SettingsError, match=r"photomaker\[eval\]"):
        run(replace(SMALL, out=tmp_path), quiet, TOOLS)
    assert not list(tmp_path.iterdir())


def test_a_sheet_takes_rows_of_different_lengths() -> None:
    picture = Image.new("RGB", (16, 16), "red")
    data = plots.sheet([[picture, picture], [picture]], size=16, gap=2)
    with Image.open(io.BytesIO(data)) as sheet:
        assert sheet.size == (2 * 18 + 2, 2 * 18 + 2)
        assert [sheet.getpixel(at) for at in ((3, 3), (20, 20), (3, 21), (21, 21))] == [
            (255, 0, 0), (255, 255, 255), (255, 0, 0), (255, 255, 255),
        ]  # fmt: skip


def test_a_sheet_says_what_its_columns_and_rows_are() -> None:
    picture = Image.new("RGB", (64, 64), "red")
    plain, named = (
        Image.open(io.BytesIO(data))
        for data in (
            plots.sheet([[picture]], size=64, gap=4),
            plots.sheet([[picture]], size=64, gap=4, heads=["a_long_name"], labels=["1: a photo"]),
        )
    )
    left, top = named.width - plain.width, named.height - plain.height
    assert left > 0 and top > 0
    assert np.array_equal(np.asarray(named)[top:, left:], np.asarray(plain))
    assert np.asarray(named)[:top].min() < 128
    assert np.asarray(named)[top:, :left].min() < 128


def test_the_fakes_tell_people_apart() -> None:
    assert abs(float(noise(FACELESS) @ noise(FACELESS + 1))) < 0.9


def test_the_documentation_lists_the_prompts_and_every_setting_it_names() -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert prompt_table(PROMPTS) in page
    options = {name.replace("_", "-") for name in EvaluationSettings.__dataclass_fields__}
    readme = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8").splitlines()
    ours = "\n".join(line for line in readme if "photomaker evaluate" in line)
    assert ours
    named = re.findall(r"(?<!-)--([a-z][a-z-]*)", page + ours)
    assert {name.removeprefix("no-") for name in named} <= options
