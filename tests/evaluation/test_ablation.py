"""Scores of an ablation: pooling and intervals against figures known by hand, and measuring on fakes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.evaluation.fakes import TOOLS, FakeMethod, FakeWorld, vector_of

from photomaker.evaluation.plans.ablate import figures as ablation
from photomaker.evaluation.plans.ablate.figures import COLUMNS, measure
from photomaker.evaluation.plans.ablate.page import drawings, markdown
from photomaker.evaluation.plans.ablate.settings import AXES, REFERENCE
from photomaker.evaluation.plans.cast import measured_cast
from photomaker.evaluation.plans.evaluate.settings import EvaluationSettings
from photomaker.evaluation.plans.grid import Scores
from photomaker.evaluation.report import tables

SETTINGS = EvaluationSettings(
    method="fake",
    split="validation",
    people=3,
    gallery=3,
    prompts=5,
    seeds=1,
    references=4,
    parts=("main",),
    processes=1,
)


def scores(likeness: list[float], correct: float = 1.0) -> Scores:
    people = len(likeness)
    stated = np.full((people, 2), 4.0)
    stated[:, 1] = 0  # an attribute that no prompt states
    return Scores(
        np.array(likeness),
        np.full(people, 0.8),
        np.full(people, 0.3),
        np.full(people, 3.0),
        stated * correct,
        stated,
    )


def test_figures_of_scores_known_by_hand() -> None:
    assert tables.values(COLUMNS, vars(scores([0.2, 0.4, 0.6], 0.75))) == pytest.approx(
        {"likeness": 0.5, "prompt_accuracy": 0.75, "copy_paste": 0.1}
    )


def test_seeds_are_averaged_person_by_person_before_people_are_resampled() -> None:
    """Two people who change places between two seeds are alike on average: no other people could move the mean."""
    seeds = [scores([0.2, 0.6]), scores([0.6, 0.2])]
    found = ablation.found(seeds, None, 200)
    assert found["figures"]["likeness"] == pytest.approx({"value": 0.5, "low": 0.5, "high": 0.5, "people": 2})
    assert found["by_seed"]["likeness"] == pytest.approx([0.5, 0.5])
    assert "difference" not in found
    apart = ablation.found([scores([0.2, 0.6])] * 2, None, 200)["figures"]["likeness"]
    assert (apart["value"], apart["low"], apart["high"]) == pytest.approx((0.5, 0.25, 0.75))


def test_differences_are_of_the_same_people() -> None:
    """People differ widely, and each is 0.08 better than before: the difference has no width, the figures have."""
    before, after = scores([0.1, 0.4, 0.7], 0.5), scores([0.18, 0.48, 0.78], 0.75)
    found = ablation.found([after], [before], 200)
    assert found["difference"]["likeness"] == pytest.approx(
        {"value": 0.1, "low": 0.1, "high": 0.1, "people": 3}
    )
    assert found["difference"]["prompt_accuracy"]["value"] == pytest.approx(0.25)
    assert found["difference"]["copy_paste"]["value"] == pytest.approx(0)
    assert found["figures"]["likeness"]["high"] - found["figures"]["likeness"]["low"] > 0.3


def test_a_figure_without_any_face_is_undefined() -> None:
    faceless = replace(scores([0.0, 0.0]), excess=np.zeros(2), faces=np.zeros(2))
    found = ablation.found([faceless], [scores([0.1, 0.1])], 20)
    assert found["by_seed"]["copy_paste"] == [None]
    assert found["figures"]["copy_paste"]["value"] is None
    assert found["difference"]["copy_paste"]["value"] is None
    document = a_document({REFERENCE: ablation.found([faceless], None, 20), "no_mask": found})
    assert "undefined" in markdown(document, {"mask": "mask.png"})
    assert drawings(document)["mask"].startswith(b"\x89PNG")


def test_scores_survive_the_disk(tmp_path: Path) -> None:
    kept = {1: scores([0.1, 0.3]), 4: scores([0.2, 0.5])}
    ablation.write_scores(tmp_path / "new" / "scores.json", kept)
    again = ablation.read_scores(tmp_path / "new" / "scores.json")
    assert list(again) == [1, 4]
    for count, one in kept.items():
        for name in Scores.__dataclass_fields__:
            assert np.array_equal(getattr(again[count], name), getattr(one, name))


def test_an_adapter_is_measured_like_the_benchmark_and_pictures_are_kept(tmp_path: Path) -> None:
    real = measured_cast(SETTINGS, TOOLS, tmp_path / "real", lambda *_: None)
    found = measure(SETTINGS, real, TOOLS, (1, 4), tmp_path / "one", lambda *_: None)
    one, four = found[1], found[4]
    assert four.likeness.mean() > one.likeness.mean()  # the fake method gains by more photos
    assert four.excess.sum() > 0  # and keeps the photos in mind
    assert np.array_equal(four.ceiling, one.ceiling)
    # a person's ceiling by hand
    world, person = FakeWorld(), real.people[0]
    unseen = np.stack([vector_of(photo) for photo in world.photos(person, "unseen", SETTINGS.unseen)])
    task = real.context_task(person, [p for p in real.prompts if p.is_photo], 1)
    pictures = [
        world.context(person, seed, dict(stated))
        for seed, stated in zip(task.seeds, task.states, strict=True)
    ]
    assert four.ceiling[0] == pytest.approx(
        np.mean([vector_of(picture) @ unseen.T for picture in pictures]), abs=1e-5
    )
    made = FakeMethod.generated
    again = measure(SETTINGS, real, TOOLS, (4,), tmp_path / "one", lambda *_: None)
    assert FakeMethod.generated == made
    assert np.array_equal(again[4].likeness, four.likeness)
    measure(SETTINGS, real, TOOLS, (4,), tmp_path / "two", lambda *_: None)
    assert FakeMethod.generated == made + 3 * 5


def a_document(variants: dict) -> dict:
    return {
        "axes": ["mask"], "command": "photomaker ablate", "split": "validation", "references": 4, "interval": "i",
        "variants": variants, "photos": {}, "shipped": variants[REFERENCE], "models": {"base": "b"}, "seconds": 60.0,
        "settings": {
            "seeds": 2, "steps": 300, "batch_size": 16, "train_people": 9, "people": 3, "prompts": 2,
            "sampling_steps": 20, "guidance": 2.0, "merge": 0.1, "new_lora": False,
        },
        "machine": {"processor": "p", "cores": 2, "processes": 2, "threads": 1},
    }  # fmt: skip


def test_the_page_has_a_table_with_every_figure_and_its_plot() -> None:
    reference, other = scores([0.2, 0.4]), scores([0.4, 0.6], 0.5)
    variants = {
        REFERENCE: ablation.found([reference] * 2, None, 50),
        "no_mask": ablation.found([other] * 2, [reference] * 2, 50),
    }
    page = markdown(a_document(variants), {"mask": "ablation_mask.png"})
    row = next(line for line in page.splitlines() if line.startswith("| none masked"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1].startswith("62.5 %") and cells[2].startswith("25.0 %")
    assert cells[3].startswith("50.0 %") and cells[4].startswith("-50.0 %")
    assert cells[-1] == "62.5, 62.5"
    assert "4,800 pictures" in page and "](ablation_mask.png)" in page
    assert "2 variants" in page
    for block in page.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1, block


def test_every_axis_is_read_from_the_reference_and_explained_in_the_documents() -> None:
    page = (Path(__file__).parents[2] / "docs" / "ablations.md").read_text(encoding="utf-8")
    for name, axis in AXES.items():
        assert f"`{name}`" in page
        assert axis.labels is None or next(iter(axis.labels)) == REFERENCE
