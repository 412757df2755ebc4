"""An adapter that learns pictures of two people: whose photos go where, and where they are read."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_adapter import SIZES as TOWER
from test_base import SIZES, tiny_autoencoder

from photomaker.encoders.id_encoder import PhotoMakerIDEncoder
from photomaker.synthetic.composed import ComposedDataset, ComposedPlan, write_compositions
from photomaker.synthetic.dataset import WorldDataset, WorldPlan, write_world
from photomaker.training.data.albums import WorldAlbum
from photomaker.training.data.frames import Frames
from photomaker.training.data.latents import cached_latents
from photomaker.training.data.tokenizer import build_tokenizers
from photomaker.training.recipes.adapter import AdapterRecipe
from photomaker.training.recipes.base import BaseParts
from photomaker.training.recipes.id_tower import tower_config
from photomaker.training.recipes.people import SMALL, Ingredients
from photomaker.training.recipes.reward import RewardRecipe, RewardSettings
from photomaker.training.running.loop import TrainSettings, train

PEOPLE = 8


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    people = WorldDataset.open(write_world(folder / "people", WorldPlan(0, PEOPLE, 4)))
    composed = ComposedDataset.open_all(write_compositions(folder / "composed", ComposedPlan(0, PEOPLE, 6)))
    album = WorldAlbum(people, composed, pairs=True)
    captions = [album.caption(row, np.random.default_rng(row), 0.0) for row in range(len(album))]
    parts = BaseParts.new(tiny_autoencoder(), build_tokenizers(captions), SIZES)
    latents = album.latents([cached_latents(parts.autoencoder, one, folder) for one in (people, *composed)])
    frames = Frames(album.sizes, album.boxes, sorted(map(tuple, np.unique(album.sizes, axis=0).tolist())))
    encoder = PhotoMakerIDEncoder(tower_config(TOWER, (32, 32)))
    settings = replace(SMALL, rank=4, plain_captions=1.0, masked=0.0)
    return AdapterRecipe(Ingredients(album, latents, parts, encoder, settings, 2, frames))


def pairs(recipe):
    return np.flatnonzero(recipe.pair)


def test_photos_of_both_people_are_drawn_and_none_shows_the_target(made):
    rows = pairs(made)
    assert len(rows) > 3 and made.pair[made.rows].any() and not made.pair[made.held_out].any()
    for row, photos in zip(rows, made._references(rows, np.random.default_rng(0)), strict=True):
        left, right = made.data.people_of(row)
        first, second = made._by_person(photos)
        assert set(made.data.person[first]) == {left} and set(made.data.person[second]) == {right}
        assert photos.max() < len(made.data.portraits)


def test_each_persons_tokens_are_marked_where_the_caption_names_them(made):
    rows = pairs(made)[:2]
    rng = np.random.default_rng(0)
    references = made._references(rows, rng)
    left_first = "a photo of a man img on the left and a woman img on the right"
    right_first = "a photo of a woman img on the right and a man img on the left"
    found = made.condition([left_first, right_first], references, np.zeros(2, bool), rng).more
    counts = [[len(own) for own in made._by_person(photos)] for photos in references]
    assert found["subjects"].sum(2).tolist() == [[float(n) for n in own] for own in counts]
    for row, order in enumerate(((0, 1), (1, 0))):
        places = [found["subjects"][row, person].nonzero().flatten() for person in order]
        assert places[0].max() < places[1].min()
        assert torch.equal(found["subjects"][row].sum(0) > 0, found["class_tokens"][row])
    features = made.id_features([references[1]], np.random.default_rng(1))
    assert features.shape[1] == sum(counts[1])


def test_in_training_too_everybody_is_read_where_they_are(made):
    row = pairs(made)[0]
    single = next(
        int(one)
        for one in made.rows
        if not made.pair[one] and (made.data.sizes[one] == made.data.sizes[row]).all()
    )
    rows, rng = np.array([row, single]), np.random.default_rng(0)
    captions = [made._caption(int(one), rng) for one in rows]
    condition = made.condition(captions, made._references(rows, rng), np.zeros(2, bool), rng)
    masks = []
    layer = next(one for name, one in made.parts.unet.named_modules() if name.endswith("attn2"))
    hook = layer.register_forward_hook(
        lambda _, args, kwargs, __: masks.append(kwargs.get("attention_mask")), with_kwargs=True
    )
    noised = made.noised(rows, torch.Generator().manual_seed(0))
    made.predict(noised, condition)
    hook.remove()
    assert not layer._forward_pre_hooks
    (mask,) = masks
    high, wide = noised.noisy.shape[-2:]
    shape = (high, wide) if mask.shape[1] == high * wide else (-(-high // 2), -(-wide // 2))
    seen = mask.detach().unflatten(1, shape)
    left, right = (condition.more["subjects"][0, person] > 0 for person in (0, 1))
    assert (seen[0, :, 0][:, right] < -5).all() and (seen[0, :, -1][:, left] < -5).all()
    assert (seen[0, :, 0][:, left] > -0.1).all() and (seen[0, :, -1][:, right] > -0.1).all()
    assert not seen[1].any()


def test_text_only_rows_and_empty_conditions_have_no_places(made):
    rows, rng = pairs(made)[:2], np.random.default_rng(0)
    captions = [made._caption(int(one), rng) for one in rows]
    references = made._references(rows, rng)
    plain = made.condition(captions, references, np.array([True, False]), rng)
    assert not plain.more["subjects"][0].any() and plain.more["subjects"][1].any()
    assert not plain.kept(torch.tensor([True, False])).more["subjects"][1].any()


def test_an_adapter_learns_on_pictures_of_one_and_two(made, tmp_path):
    before = [one.detach().clone() for one in made.id_encoder.fuse_module.parameters()]
    figures = train(made, TrainSettings(steps=16, batch_size=2, ema_decay=0, save_every=0), tmp_path)
    assert np.isfinite(figures["validation_loss"]) and np.isfinite(figures["loss"])
    after = made.id_encoder.fuse_module.parameters()
    assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_likeness_is_asked_of_pictures_of_one_alone(made):
    finishing = RewardRecipe(made, RewardSettings(steps=2, through=1), detector=object())
    assert not made.pair[finishing.rows].any() and len(finishing.groups) == len(finishing.rows)
    free = RewardRecipe(made, RewardSettings(steps=2, through=1, likeness=0.0), detector=object())
    assert len(free.rows) == len(made.rows)
