"""Datasets on disk: the same rows however often a run was interrupted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from photomaker.errors import SettingsError
from photomaker.synthetic import TEST, person, render, view, with_class
from photomaker.synthetic.dataset import WorldDataset, WorldPlan, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> WorldDataset:
    return WorldDataset.open(write_world(tmp_path_factory.mktemp("world"), WorldPlan(TEST, 22, 3)))


def test_rows_are_what_the_renderer_draws(world: WorldDataset) -> None:
    assert len(world) == 66
    row = 40
    someone = person(TEST + row // 3)
    shown = with_class(someone, world.words(row)["person_class"])
    picture = render(shown, view(someone, (TEST + row // 3) * 3 + row % 3))
    assert np.array_equal(world.images[row], picture.image) and np.array_equal(world.masks[row], picture.mask)
    assert np.allclose(world.landmarks[row], picture.landmarks) and np.allclose(world.boxes[row], picture.box)


def test_rows_of_a_person_and_their_attributes_fit(world: WorldDataset) -> None:
    assert list(world.person[world.rows_of(7)]) == [7, 7, 7]
    assert world.factors.shape[0] == 22
    for row in range(len(world)):
        assert (world.attributes["hat_colour"][row] == -1) == (world.words(row)["hat"] == "none")
    assert np.array_equal(world.is_photo, [world.words(row)["style"] == "photo" for row in range(len(world))])


def test_captions_of_rows_name_the_class_shown_or_once_in_a_while_a_person(world: WorldDataset) -> None:
    rng = np.random.default_rng(0)
    generic = 0
    for row in [*range(66)] * 6:
        text = world.caption(row, rng, trigger="img")
        generic += " person img" in text
        assert world.words(row)["person_class"] + " img" in text or " person img" in text
    assert 4 < generic < 40


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, world: WorldDataset) -> None:
    plan = WorldPlan(TEST, 22, 3)
    write_world(tmp_path, plan)
    (tmp_path / "done" / "20").unlink()
    images = np.lib.format.open_memmap(tmp_path / "images.npy", mode="r+")
    images[60:] = 0
    images.flush()
    with pytest.raises(SettingsError, match="lacks 1 group"):
        WorldDataset.open(tmp_path)
    write_world(tmp_path, plan)
    assert np.array_equal(WorldDataset.open(tmp_path).images, world.images)


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="has no dataset"):
        WorldDataset.open(tmp_path)
    with pytest.raises(SettingsError, match="views"):
        WorldPlan(0, 3, 1)
    write_world(tmp_path, WorldPlan(0, 1, 2))
    with pytest.raises(SettingsError, match="another dataset"):
        write_world(tmp_path, WorldPlan(0, 2, 2))


def test_the_first_people_of_a_dataset_are_a_dataset(tmp_path: Path) -> None:
    write_world(tmp_path, WorldPlan(5, 3, 2))
    whole, two = WorldDataset.open(tmp_path), WorldDataset.open(tmp_path, 2)
    assert (len(two), two.images.shape[0], two.plan) == (4, 4, WorldPlan(5, 2, 2))
    assert np.array_equal(two.images, whole.images[:4]) and np.array_equal(two.boxes, whole.boxes[:4])
    assert [someone.seed for someone in two.people] == [someone.seed for someone in whole.people[:2]]
    with pytest.raises(SettingsError, match="4 people are requested"):
        WorldDataset.open(tmp_path, 4)
