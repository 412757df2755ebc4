"""Portraits and compositions as one album, and a base that is trained on by captions alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_adapter import SIZES as TOWER
from test_base import SIZES, tiny_autoencoder

from photomaker.encoders.id_encoder import PhotoMakerIDEncoder
from photomaker.errors import SettingsError
from photomaker.synthetic.composed import ComposedDataset, ComposedPlan, write_compositions
from photomaker.synthetic.dataset import WorldDataset, WorldPlan, write_world
from photomaker.training.data.albums import WorldAlbum
from photomaker.training.data.frames import Frames
from photomaker.training.data.latents import cached_latents
from photomaker.training.data.tokenizer import build_tokenizers
from photomaker.training.recipes.base import BaseParts
from photomaker.training.recipes.id_tower import tower_config
from photomaker.training.recipes.people import SMALL, Ingredients
from photomaker.training.recipes.reward import RewardRecipe, RewardSettings
from photomaker.training.recipes.tuned_base import TunedBaseRecipe
from photomaker.training.running.loop import TrainSettings, train

PEOPLE = 6


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    portraits = WorldDataset.open(write_world(folder / "people", WorldPlan(0, PEOPLE, 3)))
    return portraits, ComposedDataset.open_all(
        write_compositions(folder / "composed", ComposedPlan(0, PEOPLE, 6))
    )


def test_rows_tell_the_same_as_the_datasets_that_they_come_from(drawn):
    portraits, composed = drawn
    album = WorldAlbum(portraits, composed, pairs=True)
    assert len(album) == len(portraits) + sum(map(len, composed))
    row = len(portraits)
    for one in composed:
        for place in range(len(one)):
            np.testing.assert_array_equal(album.images[row], one.images[place])
            np.testing.assert_array_equal(album.masks[row] > 0, one.owners[place] > 0)
            np.testing.assert_array_equal(album.boxes[row], one.boxes[place, 0])
            np.testing.assert_array_equal(album.landmarks[row], one.landmarks[place, 0])
            assert tuple(album.sizes[row]) == one.images.shape[1:3]
            assert (album.person[row], album.is_photo[row]) == (one.people[place, 0], one.is_photo[place])
            say = (np.random.default_rng(row), 0.5, "img")
            assert album.caption(row, *say) == one.caption(place, np.random.default_rng(row), 0.5, "img")
            assert bool(album.words(row)) == (one.people[place, 1] < 0)
            row += 1
    np.testing.assert_array_equal(album.masks[1], portraits.masks[1])
    assert album.words(2) == portraits.words(2)


def test_only_portraits_stand_for_a_person_and_pairs_are_left_out(drawn):
    portraits, composed = drawn
    album = WorldAlbum(portraits, composed)
    singles = sum(int((one.people[:, 1] < 0).sum()) for one in composed)
    assert len(album) == len(portraits) + singles < len(WorldAlbum(portraits, composed, pairs=True))
    for person in range(PEOPLE):
        np.testing.assert_array_equal(album.rows_of(person), portraits.rows_of(person))
    assert all(album.words(row) for row in range(len(album)))


def test_compositions_of_other_people_are_refused(drawn, tmp_path):
    portraits, _ = drawn
    others = ComposedDataset.open_all(write_compositions(tmp_path, ComposedPlan(50, 3, 2)))
    with pytest.raises(
        SettingsError, match=r"show people 0 to 5\d and there are portraits of 0 to 5; draw both"
    ):
        WorldAlbum(portraits, others)


def test_of_equal_shapes_the_nearest_size_is_taken():
    frames = Frames(
        np.array([[128, 128], [160, 160], [150, 152]]), np.zeros((3, 4)), [(128, 128), (160, 160)]
    )
    assert frames.targets.tolist() == [[128, 128], [160, 160], [160, 160]]


def recipe(drawn, tmp_path, **settings):
    portraits, composed = drawn
    album = WorldAlbum(portraits, composed, pairs=True)
    captions = [album.caption(row, np.random.default_rng(row), 1.0) for row in range(len(album))]
    parts = BaseParts.new(tiny_autoencoder(), build_tokenizers(captions), SIZES)
    latents = album.latents(
        [cached_latents(parts.autoencoder, one, tmp_path) for one in (portraits, *composed)]
    )
    frames = Frames(album.sizes, album.boxes, sorted(map(tuple, np.unique(album.sizes, axis=0).tolist())))
    encoder = PhotoMakerIDEncoder(tower_config(TOWER, (32, 32)))
    return TunedBaseRecipe(Ingredients(album, latents, parts, encoder, replace(SMALL, **settings), 1, frames))


def test_a_base_goes_on_learning_on_pictures_of_every_size(drawn, tmp_path):
    made = recipe(drawn, tmp_path / "latents", lr=1e-3)
    before = {name: one.detach().clone() for name, one in made.parts.unet.named_parameters()}
    texts = [one.detach().clone() for encoder in made.parts.text_encoders for one in encoder.parameters()]
    shapes = set()
    hook = made.parts.unet.register_forward_pre_hook(lambda _, args: shapes.add(tuple(args[0].shape[2:])))
    train(made, TrainSettings(steps=24, batch_size=2, ema_decay=0, save_every=0), tmp_path / "run")
    hook.remove()
    assert len(shapes) == len(np.unique(made.data.sizes, axis=0))
    moved = [name for name, one in made.parts.unet.named_parameters() if not torch.equal(one, before[name])]
    assert len(moved) == len(before)
    after = [one for encoder in made.parts.text_encoders for one in encoder.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(texts, after, strict=True))
    exported = BaseParts.load(tmp_path / "run" / "export")
    torch.testing.assert_close(
        exported.unet.conv_in.weight, made.parts.unet.conv_in.weight.detach(), atol=1e-3, rtol=1e-2
    )


def test_captions_of_a_base_have_no_trigger_and_photos_are_not_looked_at(drawn, tmp_path):
    made = recipe(drawn, tmp_path, plain_captions=0.0)
    rng = np.random.default_rng(0)
    captions = [made._caption(row, rng) for row in range(0, len(made.data), 3)]
    assert not any(" img" in text for text in captions)
    one, other = (
        made.condition(captions[:2], [np.array([photo])] * 2, np.array([text_only] * 2), rng)
        for photo, text_only in ((0, False), (9, True))
    )
    torch.testing.assert_close(one.embeds, other.embeds)
    torch.testing.assert_close(one.pooled, other.pooled)


def test_a_base_is_finished_by_realism(drawn, tmp_path):
    class Nobody:
        def detect(self, image):
            return []

    made = recipe(drawn, tmp_path / "latents", lr=1e-3)
    settings = RewardSettings(steps=2, through=1, likeness=0.0, realism=0.1, merge=0.0)
    finishing = RewardRecipe(made, settings, Nobody())
    before = made.parts.unet.conv_in.weight.detach().clone()
    train(finishing, TrainSettings(steps=6, batch_size=2, ema_decay=0, save_every=0), tmp_path / "run")
    assert not torch.equal(before, made.parts.unet.conv_in.weight)
    assert (tmp_path / "run" / "export" / "model_index.json").is_file()
