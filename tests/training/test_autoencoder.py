"""The small autoencoder's training: discriminators beside the other terms, pictures of several sizes, more blocks."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_world import FakeWorld
from test_base import tiny_autoencoder

from photomaker.errors import SettingsError, WeightsError
from photomaker.faces.bundled import BundledRecogniser
from photomaker.faces.networks import MixerConfig, MixerRecogniser
from photomaker.pipelines.autoencoder import SmallAutoencoder
from photomaker.synthetic.composed import ComposedDataset, ComposedPlan, write_compositions
from photomaker.training.losses.discriminators import Critics
from photomaker.training.recipes.autoencoder import SEEN, AutoencoderRecipe, AutoencoderSettings
from photomaker.training.running.loop import TrainSettings, train


@pytest.fixture(scope="module")
def composed(tmp_path_factory):
    return ComposedDataset.open_all(
        write_compositions(tmp_path_factory.mktemp("composed"), ComposedPlan(0, 6, 4))
    )


def first(recipe, rows=(0, 1, 2, 3)):
    return recipe.loss(np.array(rows), np.random.default_rng(0), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_a_pull_is_in_proportion_to_the_errors_of_pixels(share):
    decoded = torch.rand(2, 3, 8, 8, requires_grad=True)
    others, fooled = (decoded - 0.3).abs().mean(), (decoded * torch.rand(3, 8, 8)).sum() * 37
    (alone,) = torch.autograd.grad(others, decoded, retain_graph=True)
    (wanted,) = torch.autograd.grad(fooled, decoded, retain_graph=True)
    pull = AutoencoderRecipe._pull(others, fooled, decoded, share)
    assert float(pull.detach()) == 0
    (found,) = torch.autograd.grad(pull, decoded)
    assert float(found.norm()) == pytest.approx(share * float(alone.norm()), rel=1e-4)
    torch.testing.assert_close(found / found.norm(), wanted / wanted.norm())


def test_discriminators_learn_beside_and_are_not_exported(tmp_path):
    recipe = AutoencoderRecipe(FakeWorld(), tiny_autoencoder(), AutoencoderSettings(realism=0.5))
    before = {name: one.detach().clone() for name, one in recipe.critics.named_parameters()}
    figures = train(
        recipe, TrainSettings(steps=3, batch_size=4, ema_decay=0.9, save_every=0, log_every=1), tmp_path
    )
    assert {"critics", "lead", "validation_sharpness"} <= set(figures)
    # both sides pull the last bias alike
    moved = {name for name, one in recipe.critics.named_parameters() if not torch.equal(before[name], one)}
    assert moved >= {name for name in before if "weight" in name}
    assert {one.name for one in (tmp_path / "export").iterdir()} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
    }
    loss, figures = first(AutoencoderRecipe(FakeWorld(), tiny_autoencoder()))
    assert "critics" not in figures and loss > 0


def test_a_window_is_all_that_the_first_discriminator_sees():
    critics = Critics()
    pixels = torch.rand(1, 3, 128, 128, requires_grad=True)
    nobody = torch.zeros(1, 4)
    critics.fooled(pixels, nobody, (slice(32, 32 + SEEN), slice(0, SEEN))).backward()
    inside = torch.zeros(128, 128, dtype=torch.bool)
    inside[32 : 32 + SEEN, :SEEN] = True
    moved = pixels.grad[0].abs().sum(0) > 0
    assert moved[inside].all() and not moved[~inside].any()


def test_what_a_recogniser_sees_pulls_at_the_face_alone():
    world = FakeWorld()
    recipe = AutoencoderRecipe(world, tiny_autoencoder(), AutoencoderSettings(noise=0, perceptual=0.5))
    pixels, boxes, _ = recipe.shown(np.array([0]))
    box = torch.from_numpy(boxes[:, 0])
    target = pixels / 2 + 0.5
    assert float(recipe.faces.apart(target, target, box)) == pytest.approx(0, abs=1e-6)
    other = (target + 0.2 * torch.rand_like(target)).requires_grad_()
    apart = recipe.faces.apart(other, target, box)
    apart.backward()
    assert 0 < float(apart.detach()) < 4
    left, top, right, bottom = (int(edge) for edge in box[0])
    reach = 24  # the crop is half as large again as the longer side
    outside = other.grad.abs().sum((0, 1))
    assert outside[top:bottom, left:right].max() > 0
    outside[max(0, top - reach) : bottom + reach, max(0, left - reach) : right + reach] = 0
    assert outside.max() == 0
    with torch.no_grad():
        plain = first(AutoencoderRecipe(world, tiny_autoencoder(), AutoencoderSettings(noise=0)))[0]
    loss, figures = first(recipe)
    # a pull moves gradients and not the figure
    assert float(loss.detach()) == pytest.approx(float(plain)) and figures["faces"] > 0
    with pytest.raises(WeightsError, match="mixer-recogniser has no layers to compare"):
        BundledRecogniser(MixerRecogniser(MixerConfig())).apart(target, target, box)


def test_windows_show_a_face_and_know_where_it_is(composed):
    world = FakeWorld()
    recipe = AutoencoderRecipe(world, tiny_autoencoder(), AutoencoderSettings(window=64), more=composed)
    assert set(recipe.groups) == {0}
    rows = recipe.rows[:: max(1, len(recipe.rows) // 40)]
    pixels, boxes, landmarks = recipe.windows(rows, np.random.default_rng(0))
    assert pixels.shape == (len(rows), 3, 64, 64) and landmarks.shape == (len(rows), boxes.shape[1], 5, 2)
    whole = [recipe.shown(rows[at : at + 1]) for at in range(len(rows))]
    for at, (picture, places, _) in enumerate(whole):
        known = places[0][places[0][:, 2] > places[0][:, 0]]
        shift = [known[k, :2] - boxes[at, 0, :2] for k in range(len(known))]
        corner = next(
            one for one, box in zip(shift, known, strict=True) if np.allclose(box[2:] - boxes[at, 0, 2:], one)
        )
        left, top = (round(float(edge)) for edge in corner)
        torch.testing.assert_close(pixels[at], picture[0, :, top : top + 64, left : left + 64])
        centre = (boxes[at, 0, :2] + boxes[at, 0, 2:]) / 2
        assert (centre > 0).all() and (centre < 64).all()
    assert len({tuple(recipe.windows(rows[:1], np.random.default_rng(k))[1][0, 0]) for k in range(9)}) > 3
    loss, _ = recipe.loss(rows[:4], np.random.default_rng(0), torch.Generator())
    assert loss > 0


def test_compositions_of_every_size_are_seen_and_every_face_counts(tmp_path, composed):
    recipe = AutoencoderRecipe(
        FakeWorld(), tiny_autoencoder(), AutoencoderSettings(realism=0.5), more=composed
    )
    start = len(FakeWorld().images)
    for one in composed:
        pixels, boxes, landmarks = recipe.shown(np.array([start, start + len(one) - 1]))
        assert pixels.shape == (2, 3, *one.images.shape[1:3])
        np.testing.assert_array_equal(boxes[0], one.boxes[0])
        np.testing.assert_array_equal(landmarks[1], one.landmarks[-1])
        start += len(one)
    assert start == recipe.rows.max() + 1 and len(np.unique(recipe.groups)) == len(
        {o.images.shape[1:3] for o in composed} | {(128, 128)}
    )
    boxes = np.array([[[8, 8, 24, 24], [40, 8, 56, 24]], [[8, 8, 24, 24], [-1, -1, -1, -1]]], np.float32)
    weight = recipe.weight(boxes, np.full((2, 2, 5, 2), -99, np.float32), (32, 64))[:, 0]
    face = recipe.settings.face
    assert weight[0, 10, 10] == weight[0, 10, 50] == weight[1, 10, 10] == face
    assert weight[0, 10, 30] == weight[1, 10, 50] == 1 and weight[1].max() == face
    landmarks = np.full((2, 2, 5, 2), -99, np.float32)
    landmarks[:, 1, 0] = (50, 10)
    near = recipe.weight(boxes, landmarks, (32, 64))[:, 0]
    assert near[0, 10, 50] == recipe.settings.features and near[1, 10, 50] == 1
    train(recipe, TrainSettings(steps=8, batch_size=2, ema_decay=0, save_every=0), tmp_path)


def test_more_blocks_change_nothing_at_first():
    sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
    from train_small.autoencoder import grown

    old = tiny_autoencoder()
    new = grown(
        old, SmallAutoencoder.from_config({**old.config, "encoder_blocks": (2, 3), "decoder_blocks": (1, 4)})
    )
    picture = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(new(picture).sample, old(picture).sample)
    assert sum(one.numel() for one in new.parameters()) > sum(one.numel() for one in old.parameters())


@pytest.mark.parametrize("window", [32, 90, 104, -96])
def test_a_window_that_does_not_fit_is_refused(window):
    with pytest.raises(SettingsError, match=f"window is {window}; give 0, or a multiple of 8 from 64 to 96"):
        AutoencoderSettings(window=window)
