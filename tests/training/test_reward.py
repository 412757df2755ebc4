"""Finishing by reward: drawn as users draw, judged by rewards, and only what shall learn learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from test_adapter import tiny_adapter

from photomaker.errors import SettingsError
from photomaker.pipelines import PhotoMakerStableDiffusionXLPipeline
from photomaker.registry import register
from photomaker.training.data.photos import PhotoSettings
from photomaker.training.losses.discriminators import Critics
from photomaker.training.recipes.people import Condition
from photomaker.training.recipes.reward import (
    Drawn,
    Likeness,
    Reward,
    RewardRecipe,
    RewardSettings,
    TowerLikeness,
    _doubled,
    stated,
)
from photomaker.training.running.loop import TrainSettings, train
from photomaker.types import Face

PLAIN = RewardSettings(steps=4, likeness=0, diffusion=0)
STILL = PhotoSettings(noise=0, grey=0, brightness=0, shift=0)


class Middle:
    """Finds a face in the middle of every picture that is not black."""

    def detect(self, image):
        size = image.width
        box = (size * 0.25, size * 0.25, size * 0.75, size * 0.75)
        return [Face(box, 1.0, np.zeros((5, 2)))] if np.asarray(image).any() else []


class Red(Reward):
    """Wants red pictures."""

    def __call__(self, drawn):
        return 1 + drawn.pixels[:, 1:].mean((1, 2, 3)) - drawn.pixels[:, 0].mean((1, 2))


register("reward", "red", "test_reward:Red")


def finishing(tmp_path, settings, **more):
    return RewardRecipe(tiny_adapter(tmp_path, **more), settings, Middle())


def step(recipe, rows=(0, 1, 6)):
    rows = np.array(rows)
    return recipe.loss(rows, np.random.default_rng(0), torch.Generator().manual_seed(0))


def test_pictures_are_drawn_as_the_pipeline_draws_them(tmp_path):
    settings = replace(PLAIN, guidance=2.0, merge=0.25)
    recipe = finishing(tmp_path, settings, photo=STILL, plain_captions=1.0)
    inner, row = recipe.inner, np.array([7])
    with torch.no_grad():
        drawn = recipe.drawn(row, np.random.default_rng(3), torch.Generator().manual_seed(11))
    references, _ = recipe._photos(row, np.random.default_rng(3))
    parts = inner.parts
    pipeline = PhotoMakerStableDiffusionXLPipeline(
        vae=parts.autoencoder, text_encoder=parts.text_encoders[0], text_encoder_2=parts.text_encoders[1],
        tokenizer=parts.tokenizers[0], tokenizer_2=parts.tokenizers[1], unet=parts.unet, scheduler=parts.scheduler,
        id_encoder=inner.id_encoder, force_zeros_for_empty_prompt=True, add_watermarker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    photos = [Image.fromarray(inner.data.images[int(one)]) for one in references[0]]
    picture = pipeline(
        drawn.captions[0], identity=pipeline.encode_identity(photos), start_merge_step=0, num_inference_steps=4,
        guidance_scale=2.0, height=128, width=128, generator=torch.Generator().manual_seed(11), output_type="pt",
    ).images[0]  # fmt: skip
    torch.testing.assert_close(drawn.pixels[0], picture, atol=2e-2, rtol=0)
    with torch.no_grad():
        late = recipe.drawn(row, np.random.default_rng(3), torch.Generator().manual_seed(12))
    assert (late.pixels - drawn.pixels).abs().max() > 0.05


def test_only_the_last_steps_keep_gradients(tmp_path):
    calls = []
    recipe = finishing(tmp_path, replace(PLAIN, through=3, rewards={"red": 1.0}))
    hook = recipe.inner.parts.unet.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    loss, _ = step(recipe)
    hook.remove()
    assert calls == [False, True, True, True]
    loss.backward()
    trained = [one for one in recipe.inner.parts.unet.parameters() if one.requires_grad]
    assert trained and all(one.grad is not None for one in trained)
    assert any(
        float(one.grad.abs().max()) > 0
        for one in recipe.inner.id_encoder.parameters()
        if one.grad is not None
    )


def test_steps_are_drawn_anew_where_that_is_asked_for(tmp_path):
    recipe = finishing(tmp_path, replace(PLAIN, fewest=2, through=1, rewards={"red": 1.0}))
    calls = []
    hook = recipe.inner.parts.unet.register_forward_hook(lambda *_: calls.append(1))
    counts = set()
    for seed in range(12):
        calls.clear()
        recipe.loss(np.array([0, 1]), np.random.default_rng(seed), torch.Generator().manual_seed(seed))
        counts.add(len(calls))
    hook.remove()
    assert counts == {2, 3, 4}


def test_a_reward_is_earned_and_the_base_stays(tmp_path):
    recipe = finishing(tmp_path, replace(PLAIN, rewards={"red": 1.0}), lr=3e-2)
    base = {
        name: one.detach().clone()
        for name, one in recipe.inner.parts.unet.named_parameters()
        if "lora_" not in name
    }
    before = float(step(recipe)[0].detach())
    train(
        recipe,
        TrainSettings(steps=12, batch_size=3, ema_decay=0, save_every=0, warmup=0, log_every=1),
        tmp_path / "run",
    )
    assert float(step(recipe)[0].detach()) < before - 0.02
    after = dict(recipe.inner.parts.unet.named_parameters())
    assert all(torch.equal(one, after[name]) for name, one in base.items())
    assert (tmp_path / "run" / "export" / "photomaker.safetensors").is_file()
    assert not (tmp_path / "run" / "export" / "base").exists()


def test_the_base_may_learn_too_and_is_exported_without_the_adapter(tmp_path):
    from diffusers import StableDiffusionXLPipeline

    recipe = finishing(tmp_path, replace(PLAIN, rewards={"red": 1.0}, base_lr=1e-3))
    groups = recipe.parameter_groups()
    counted = [id(one) for group in groups for one in group["params"]]
    assert len(counted) == len(set(counted))
    assert {id(one) for one in recipe.inner.parts.unet.parameters()} <= set(counted)
    assert groups[-1]["lr"] == 1e-3
    name, weight = next(
        (n, p) for n, p in recipe.inner.parts.unet.named_parameters() if n == "conv_in.weight"
    )
    before = weight.detach().clone()
    train(recipe, TrainSettings(steps=2, batch_size=2, ema_decay=0, save_every=0, warmup=0), tmp_path / "run")
    assert not torch.equal(weight, before), name
    base = StableDiffusionXLPipeline.from_pretrained(tmp_path / "run" / "export" / "base")
    assert not any("lora" in name for name in base.unet.state_dict())
    torch.testing.assert_close(base.unet.conv_in.weight, weight.detach(), atol=1e-3, rtol=1e-2)


def test_photos_to_compare_with_are_not_those_that_the_adapter_gets(tmp_path):
    recipe = finishing(tmp_path, replace(PLAIN, towards=2))
    data, rng = recipe.inner.data, np.random.default_rng(0)
    for row in recipe.rows[:12]:
        (given,), (others,) = recipe._photos(np.array([row]), rng)
        assert set(data.person[others]) == {data.person[row]}
        assert data.is_photo[others].all()
        left = set(data.rows_of(data.person[row])[data.is_photo[data.rows_of(data.person[row])]]) - {
            *given,
            row,
        }
        if left:
            assert set(others) <= left and len(others) == min(2, len(left))


def test_likeness_is_one_minus_the_cosine_and_one_without_a_face(tmp_path):
    recipe = finishing(tmp_path, PLAIN)
    rows = recipe.rows[:2]
    recipe.inner.data.is_photo[:] = True
    pictures = torch.from_numpy(recipe.inner.data.images[rows]).permute(0, 3, 1, 2).float() / 255
    boxes = torch.from_numpy(recipe.inner.data.boxes[rows])
    same = Drawn(pictures, pictures, boxes, boxes, rows, ["a"] * 2, [rows[:1], rows[1:]], recipe.inner)
    assert Likeness()(same).tolist() == pytest.approx([0, 0], abs=1e-3)
    assert TowerLikeness()(same).tolist() == pytest.approx([0, 0], abs=1e-3)
    lost = replace(same, boxes=torch.stack([boxes[0], torch.zeros(4)]))
    assert Likeness()(lost).tolist() == pytest.approx([0, 1], abs=1e-3)
    recipe.inner.data.is_photo[rows[0]] = False
    assert Likeness()(lost).tolist() == pytest.approx([0, 1], abs=1e-3)
    assert TowerLikeness()(same)[0] == 0


def test_opinions_teach_either_the_adapter_or_the_critics():
    critics = Critics()
    pixels = torch.rand(2, 3, 128, 128, requires_grad=True)
    boxes = torch.tensor([[32.0, 32.0, 96.0, 96.0], [0.0, 0.0, 0.0, 0.0]])
    critics.fooled(pixels, boxes).backward()
    assert pixels.grad.abs().max() > 0
    assert all(one.grad is None and one.requires_grad for one in critics.parameters())
    pixels.grad = None
    real = (torch.rand(2, 3, 128, 128), boxes)
    loss, lead = critics.loss((pixels, boxes), real, 1.0)
    loss.backward()
    assert pixels.grad is None
    assert all(one.grad is not None for one in critics.parameters() if one.requires_grad)
    assert isinstance(lead, float)
    plain, _ = critics.loss((pixels, boxes), real, 0.0)
    assert plain < loss


def test_critics_learn_to_tell_pictures_apart():
    torch.manual_seed(0)
    critics = Critics()
    optimiser = torch.optim.Adam(critics.parameters(), 2e-3, betas=(0.5, 0.99))
    boxes = torch.tensor([[32.0, 32.0, 96.0, 96.0]]).expand(4, 4)
    losses = []
    for _ in range(30):
        dark, bright = torch.rand(4, 3, 128, 128) * 0.4, 1 - torch.rand(4, 3, 128, 128) * 0.4
        loss, _ = critics.loss((dark, boxes), (bright, boxes), 0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]


def test_realism_runs_beside_rewards_and_the_ordinary_loss(tmp_path):
    recipe = finishing(tmp_path, replace(PLAIN, realism=0.1, diffusion=1.0, rewards={"red": 1.0}))
    loss, figures = step(recipe)
    assert {"red", "realism", "critics", "lead", "diffusion", "faces"} <= set(figures)
    assert float(loss.detach()) == pytest.approx(
        figures["red"] + 0.1 * figures["realism"] + 0.02 * figures["critics"] + figures["diffusion"], rel=1e-4
    )
    assert "critics" in recipe.modules()
    train(recipe, TrainSettings(steps=2, batch_size=2, ema_decay=0.9, save_every=0), tmp_path / "run")


def test_the_empty_condition_stands_before_the_condition():
    one = Condition(
        torch.ones(2, 3, 4),
        torch.ones(2, 5),
        {"tokens": torch.ones(2, 1)},
        {"tokens": torch.full((2, 1), 9.0)},
    )
    twice = _doubled(one)
    assert twice.embeds[:, 0, 0].tolist() == twice.pooled[:, 0].tolist() == [0, 0, 1, 1]
    assert twice.more["tokens"].flatten().tolist() == [9, 9, 1, 1]


def test_what_a_caption_states():
    shown = {
        "style": "photo", "person_class": "old man", "scene": "beach", "clothing": "shirt", "clothing_colour": "red",
        "hat": "none", "hat_colour": "blue", "eyewear": "glasses",
    }  # fmt: skip
    text = "a photo of an old man img wearing glasses on the beach"
    assert stated(shown, text) == {
        "style": "photo", "person_class": "old man", "scene": "beach", "eyewear": "glasses", "hat": "none",
    }  # fmt: skip
    worn = stated(shown | {"hat": "cap"}, "a photo of a person img wearing a red shirt and a blue cap")
    assert worn == {
        "style": "photo", "eyewear": "glasses", "hat": "cap", "hat_colour": "blue", "clothing": "shirt",
        "clothing_colour": "red",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": -1}, "reward.steps is -1"),
        ({"steps": 4, "through": 5}, "reward.steps is 4 and reward.through 5"),
        ({"steps": 4, "through": 0}, "reward.through 0"),
        ({"steps": 4, "through": 2, "fewest": 1}, "reward.fewest is 1; give a number from through"),
        ({"steps": 4, "fewest": 5}, "reward.fewest is 5"),
        ({"merge": 1.0}, "reward.merge is 1.0"),
        ({"towards": 0}, "reward.towards is 0"),
        ({"realism": -0.1}, "reward.realism is -0.1"),
        ({"prompt": 1.0}, "reward.prompt is 1.0 and there is no reward.classifier"),
    ],
)
def test_settings_out_of_range(change, message):
    with pytest.raises(SettingsError, match=message):
        RewardSettings(**change)
