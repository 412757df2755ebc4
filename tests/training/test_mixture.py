"""Several datasets of several sizes under one base."""

import numpy as np
import pytest
import torch
from fake_world import FakeWorld
from test_base import SIZES, tiny_autoencoder, tiny_parts

from photomaker.synthetic.composed import ComposedDataset, ComposedPlan, write_compositions
from photomaker.training.data.latents import cached_latents
from photomaker.training.data.mixture import Mixture, Sized
from photomaker.training.data.tokenizer import build_tokenizers
from photomaker.training.recipes.base import BaseParts, BaseRecipe, ids_of_size, kept_ids, token_ids
from photomaker.training.running.loop import TrainSettings, train


class Stub:
    """Pictures that are only numbers: latents, boxes and captions tell dataset and row."""

    def __init__(self, name, count, cells, people=None):
        self.name, shape = name, (count, 4) if people is None else (count, people, 4)
        self.boxes = np.full(shape, -1.0, np.float32)
        self.latents = np.broadcast_to(np.arange(count)[:, None, None, None], (count, 2, *cells)).astype(
            np.float16
        )

    def caption(self, row, rng, describe):
        return f"{self.name} {row} {describe:g}"


@pytest.fixture
def parts():
    return [Stub("a", 40, (4, 4)), Stub("b", 5, (3, 6), 2), Stub("c", 7, (4, 4), 2)]


def test_rows_are_laid_end_to_end_and_grouped_by_size(parts):
    mixed = Mixture([Sized(one, one.latents) for one in parts], held_out=8)
    assert mixed.held_out.tolist() == list(range(32, 40))
    assert len(mixed.rows) == 32 + 5 + 7
    assert mixed.groups.tolist() == [0] * 32 + [1] * 5 + [0] * 7
    rng = np.random.default_rng(0)
    assert mixed.captions(np.array([0, 39, 40, 51]), np.array([0, 0.5, 1, 0]), rng) == [
        "a 0 0",
        "a 39 0.5",
        "b 0 1",
        "c 6 0",
    ]
    assert mixed.latents(np.array([3, 51]))[:, 0, 0, 0].tolist() == [3, 6]
    assert mixed.latents(np.array([40, 44])).shape == (2, 2, 3, 6)


def test_every_face_counts_and_nobody_counts_nothing(parts):
    parts[1].boxes[2] = [[0, 0, 8, 8], [40, 16, 48, 24]]
    parts[1].boxes[3, 0] = [8, 8, 16, 16]
    mixed = Mixture([Sized(one, one.latents) for one in parts], held_out=0)
    found = mixed.faces(np.array([42, 43, 44]))
    assert found.shape == (3, 1, 3, 6)
    assert found[0, 0].nonzero().tolist() == [[0, 0], [2, 5]]
    assert found[1, 0].nonzero().tolist() == [[1, 1]]
    assert not found[2].any()


def test_size_conditioning_has_the_height_first():
    assert ids_of_size(torch.zeros(2, 4, 12, 22)).tolist() == [[96, 176, 0, 0, 96, 176]] * 2


def test_a_base_is_trained_on_portraits_and_compositions(tmp_path):
    world, torch_model = FakeWorld(), tiny_autoencoder()
    composed = ComposedDataset.open_all(write_compositions(tmp_path / "composed", ComposedPlan(0, 6, 4)))
    captions = [
        one.caption(row, np.random.default_rng(row), 0.5) for one in composed for row in range(len(one))
    ]
    made = BaseParts.new(torch_model, build_tokenizers(captions), SIZES)
    more = [Sized(one, cached_latents(torch_model, one, tmp_path / "latents")) for one in composed]
    recipe = BaseRecipe(world, cached_latents(torch_model, world, tmp_path / "latents"), made, more=more)
    shapes = set()

    def seen(_, args):
        shapes.add(tuple(args[0].shape[2:]))

    hook = made.unet.register_forward_pre_hook(seen)
    train(recipe, TrainSettings(steps=24, batch_size=4, ema_decay=0, save_every=0), tmp_path / "run")
    hook.remove()
    assert shapes == {(one.images.shape[1] // 8, one.images.shape[2] // 8) for one in composed} | {(16, 16)}


def test_captions_made_beforehand_are_the_rows_own(tmp_path):
    world = FakeWorld()
    parts = tiny_parts(world)
    latents = cached_latents(parts.autoencoder, world, tmp_path)
    alone, forked = (
        BaseRecipe(world, latents, parts, kept=kept_ids(parts.tokenizers, [world], 0.4, 3, count))
        for count in (1, 2)
    )
    assert alone.kept.shape == forked.kept.shape == (len(world.images), 3, 2, 77)
    rng = np.random.default_rng(0)
    for recipe in (alone, forked):
        rows = np.arange(len(world.images))
        ids = recipe.ids(rows, rng)
        bare, described = (
            token_ids(parts.tokenizers, recipe.data.captions(rows, np.full(len(rows), share), rng))
            for share in (0.0, 1.0)
        )
        for own, *known in zip(ids, bare, described, strict=True):
            assert all((own == one).all(1).any() for one in known)
            assert torch.stack([(own == one).all(1) for one in known]).any(0).all()
    figures = train(alone, TrainSettings(steps=2, batch_size=4, ema_decay=0, save_every=0), tmp_path / "run")
    assert figures["loss"] > 0
