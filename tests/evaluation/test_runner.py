"""Tasks are carried out once, resumed, and shared among processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.evaluation.fakes import FACELESS, TOOLS, FakeMethod, FakeWorld, vector_of

from photomaker.errors import OutputError, WeightsError
from photomaker.evaluation.plans.cast import open_runner
from photomaker.evaluation.plans.evaluate.settings import EvaluationSettings
from photomaker.evaluation.running.methods import Entry
from photomaker.evaluation.running.picture_sets import Contexts, Photos, Pictures, key
from photomaker.evaluation.running.runner import Runner
from photomaker.evaluation.running.store import Store
from photomaker.evaluation.running.worker import Worker

PERSON = 2_000_000
SETTINGS = EvaluationSettings(processes=1)
TEXT = "a photo of an old man img in a studio"
TASK = Pictures((PERSON,), (), 4, (TEXT, TEXT), (1, 2), 5, None, None)


def runner(folder: Path, **changes: object) -> Runner:
    return open_runner(replace(SETTINGS, **changes), TOOLS, folder, "models", lambda *_: None)  # type: ignore[arg-type]


def test_keys_change_with_the_task_its_kind_and_the_models() -> None:
    tasks = [
        TASK,
        replace(TASK, merge=0.1),
        replace(TASK, seeds=(1, 3)),
        Photos(1, "unseen", 2),
        Contexts(1, (), ()),
    ]
    assert len({key(task, "a") for task in tasks} | {key(task, "b") for task in tasks}) == 10
    assert key(TASK, "a") == key(replace(TASK), "a")


def test_results_come_in_the_order_of_the_tasks_and_are_kept(tmp_path: Path) -> None:
    tasks = [Photos(PERSON + index, "unseen", 2) for index in range(3)]
    with runner(tmp_path / "c" / "x") as shop:
        found = shop.measure("photos", [*tasks, TASK])
        for task, measured in zip(tasks, found[:3], strict=True):
            expected = [vector_of(photo) for photo in FakeWorld().photos(task.person, "unseen", 2)]
            assert np.allclose(measured.embeddings, expected)
        assert set(found[3].labels["scene"]) == {"studio"}
        assert [picture.size for picture in shop.pictures(TASK)] == [(32, 32)] * 2
        assert len(shop.pictures(tasks[0])) == 2
    made = FakeMethod.generated
    with runner(tmp_path / "c" / "x") as shop:
        again = shop.measure("photos", [TASK])[0]
        assert FakeMethod.generated == made
        assert np.array_equal(again.embeddings, found[3].embeddings)
    with runner(tmp_path / "c" / "x", resume=False) as shop:
        shop.measure("photos", [TASK])
        assert FakeMethod.generated == made + 2
    assert (tmp_path / "c" / ".gitignore").read_text() == "*\n"


def test_progress_is_told_including_what_was_found_done(tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    tasks = [Photos(PERSON + index, "unseen", 1) for index in range(3)]
    with Runner(
        SETTINGS, TOOLS, Store(tmp_path / "x", "models"), lambda *said_now: said.append(said_now)
    ) as shop:
        shop.measure("a", tasks[:2])
        shop.measure("b", tasks)
    assert said[0] == ("a", 0, 2)
    assert ("b", 2, 3) in said
    assert said[-1] == ("b", 3, 3)


def test_a_person_whose_photos_are_refused_counts_as_without_a_face(tmp_path: Path) -> None:
    with runner(tmp_path / "x") as shop:
        found = shop.measure("pictures", [replace(TASK, people=(FACELESS,))])[0]
    assert not found.found.any()
    assert all(set(words) == {""} for words in found.labels.values())


def test_mixing_interpolates_between_two_people() -> None:
    worker = Worker(SETTINGS, TOOLS)
    halves = replace(TASK, people=(PERSON, PERSON + 3), weights=(0.5, 0.5)).identity(worker).tensors["v"]
    ends = [replace(TASK, people=(person,)).identity(worker).tensors["v"] for person in (PERSON, PERSON + 3)]
    assert float(halves @ ends[0]) == pytest.approx(float(halves @ ends[1]), abs=1e-5)


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    tasks = [TASK, Photos(PERSON, "unseen", 2), replace(TASK, people=(PERSON + 3,))]
    with runner(tmp_path / "one") as shop:
        alone = shop.measure("x", tasks)
    with runner(tmp_path / "two", processes=2) as shop:
        together = shop.measure("x", tasks)
    for first, second in zip(alone, together, strict=True):
        assert np.array_equal(first.embeddings, second.embeddings)
        assert all(np.array_equal(first.labels[name], second.labels[name]) for name in first.labels)


def test_an_unwritable_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another output folder"):
        Store(tmp_path / "file" / "x").begin()


def broken_method(entry: Entry, settings: object) -> FakeMethod:
    raise WeightsError(f"there is no {entry.name}; get it")


def test_an_error_of_the_callers_passes_through_as_it_is(tmp_path: Path) -> None:
    tools = replace(TOOLS, method=broken_method)
    with (
        Runner(SETTINGS, tools, Store(tmp_path / "x", "models"), lambda *_: None) as shop,
        pytest.raises(WeightsError, match="there is no photomaker; get it"),
    ):
        shop.measure("x", [TASK])
    assert not list((tmp_path / "x").glob("*"))
