"""The tower and the adapter: they learn, leave the base alone, train the condition of inference, and export loads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_world import FakeWorld
from safetensors import safe_open
from test_base import tiny_parts

from photomaker.encoders.adapter_file import read_adapter
from photomaker.encoders.id_encoder import PhotoMakerIDEncoder
from photomaker.errors import SettingsError, WeightsError
from photomaker.training.data.latents import cached_latents
from photomaker.training.data.photos import PhotoSettings, draw_references, face_crop, prepared_photo, shifted
from photomaker.training.losses.attention import person_attention_loss, shrunk_mask
from photomaker.training.losses.diffusion import encode_ids
from photomaker.training.recipes.adapter import AdapterRecipe
from photomaker.training.recipes.base import token_ids
from photomaker.training.recipes.id_tower import (
    TowerRecipe,
    TowerSizes,
    load_tower,
    margin_loss,
    tower_config,
    tower_sizes,
)
from photomaker.training.recipes.people import SMALL, Ingredients
from photomaker.training.running.loop import TrainSettings, train

SIZES = TowerSizes(width=32, layers=1, patch=32, mlp=1)


def logged(out: Path, name: str) -> list[float]:
    rows = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [row[name] for row in rows if name in row]


def tiny_adapter(tmp_path: Path, **settings: float) -> AdapterRecipe:
    world = FakeWorld()
    parts = tiny_parts(world)
    torch.manual_seed(1)
    encoder = PhotoMakerIDEncoder(tower_config(SIZES, (32, 32)))
    latents = cached_latents(parts.autoencoder, world, tmp_path / "latents")
    return AdapterRecipe(Ingredients(world, latents, parts, encoder, replace(SMALL, rank=4, **settings)))


def test_references_are_other_pictures_of_the_same_person() -> None:
    world, rng = FakeWorld(), np.random.default_rng(0)
    counts = set()
    for _ in range(200):
        target = int(rng.integers(len(world.images)))
        rows = draw_references(world, target, 4, PhotoSettings(), rng)
        assert target not in rows and len(set(rows)) == len(rows)
        assert set(world.person[rows]) == {world.person[target]}
        counts.add(len(rows))
    assert counts == {1, 2, 3, 4}
    with pytest.raises(ValueError, match="only picture"):
        draw_references(FakeWorld(people=2, each=1), 0, 4, PhotoSettings(), rng)


def test_photos_change_only_their_background() -> None:
    image, mask = np.full((32, 32, 3), 200, np.uint8), np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = 255
    rng = np.random.default_rng(0)
    still = {"brightness": 0.0, "shift": 0}
    noisy = prepared_photo(image, mask, PhotoSettings(noise=1, grey=0, **still), rng)
    assert np.all(noisy[mask > 0] == 200) and noisy[mask == 0].std() > 50
    grey = prepared_photo(image, mask, PhotoSettings(noise=0, grey=1, **still), rng)
    assert np.all(grey[mask > 0] == 200) and np.all(grey[mask == 0] == 128)
    assert np.array_equal(prepared_photo(image, mask, PhotoSettings(noise=0, grey=0, **still), rng), image)
    ramp = image + np.arange(32, dtype=np.uint8)[:, None, None]
    assert np.array_equal(shifted(ramp, 3, 0)[3:20, 0, 0], np.arange(200, 217))


def test_a_crop_is_filled_by_the_face() -> None:
    image = np.zeros((128, 128, 3), np.float32)
    image[40:80, 50:90] = 200
    crop = face_crop(image, np.array([50, 40, 90, 80]), 1.5, np.random.default_rng(0))
    assert crop.shape == image.shape
    assert (crop[:, :, 0] > 100).mean() == pytest.approx(1 / 1.5**2, rel=0.15)
    assert np.all(crop[56:72, 56:72] == 200)


def test_margin_loss_by_hand() -> None:
    cosines = torch.tensor([[0.5, 0.1]])
    wanted = -torch.log_softmax(torch.tensor([10 * (0.5 - 0.2), 10 * 0.1]), 0)[0]
    assert margin_loss(cosines, torch.tensor([0]), 0.2, 10.0).item() == pytest.approx(wanted.item())


def test_tower_learns_and_loads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    recipe = TowerRecipe(FakeWorld(), tower_config(SIZES, (32, 32)))
    train(recipe, TrainSettings(steps=60, batch_size=8, ema_decay=0.9, log_every=6, save_every=0), tmp_path)
    losses = logged(tmp_path, "factors")
    assert np.mean(losses[-3:]) < 0.7 * losses[0]
    assert tower_sizes(tmp_path / "export") == SIZES
    encoder = PhotoMakerIDEncoder(tower_config(SIZES, (16, 16)))
    load_tower(tmp_path / "export", encoder)
    state = torch.load(sorted((tmp_path / "checkpoints").glob("*.pt"))[-1])["average"]
    assert all(torch.equal(t, state[f"tower.{n}"]) for n, t in encoder.vision_model.named_parameters())
    with pytest.raises(WeightsError, match="other sizes"):
        load_tower(tmp_path / "export", PhotoMakerIDEncoder(tower_config(TowerSizes(64, 1, 32, 1), (16, 16))))
    with pytest.raises(WeightsError, match="no trained tower"):
        load_tower(tmp_path / "nowhere", encoder)


def test_adapter_learns_leaves_the_base_alone_and_exports(tmp_path: Path) -> None:
    recipe = tiny_adapter(tmp_path, lr=1e-2)

    def measured() -> float:
        with torch.no_grad():
            return float(
                recipe.loss(np.arange(24), np.random.default_rng(0), torch.Generator().manual_seed(0))[0]
            )

    before = measured()
    frozen = {n: p.clone() for n, p in recipe.parts.unet.named_parameters() if not p.requires_grad}
    train(
        recipe,
        TrainSettings(steps=40, batch_size=8, ema_decay=0.9, log_every=3, save_every=20),
        tmp_path / "run",
    )
    assert measured() < 0.9 * before
    assert logged(tmp_path / "run", "validation_loss_of_stranger")
    after = dict(recipe.parts.unet.named_parameters())
    assert frozen and all(torch.equal(frozen[n], after[n]) for n in frozen)
    assert {n.split(".")[-3] for n, p in after.items() if p.requires_grad} == {"lora_A", "lora_B"}
    path = tmp_path / "run" / "export" / "photomaker.safetensors"
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
    assert all(n.startswith(("id_encoder.", "lora_weights.unet.")) for n in names)
    adapter = read_adapter(path)
    encoder = adapter.build_encoder()
    average = torch.load(sorted((tmp_path / "run/checkpoints").glob("*.pt"))[-1])["average"]
    for name, tensor in encoder.named_parameters():
        assert torch.allclose(tensor.float(), average[f"id_encoder.{name}"], atol=2e-3), name


def test_adapter_goes_on_from_an_adapter_file(tmp_path: Path) -> None:
    first = tiny_adapter(tmp_path, lr=1e-2)
    train(first, TrainSettings(steps=4, batch_size=8, ema_decay=0, save_every=0), tmp_path / "run")
    file = read_adapter(tmp_path / "run" / "export" / "photomaker.safetensors")
    start = tiny_adapter(tmp_path)
    world, parts = FakeWorld(), tiny_parts(FakeWorld())
    encoder = file.build_encoder().float().requires_grad_(True)
    second = AdapterRecipe(
        Ingredients(world, start.latents, parts, encoder, replace(SMALL, rank=4)), lora=file.lora
    )

    def predicted(recipe: AdapterRecipe) -> torch.Tensor:
        with torch.no_grad():
            arguments = np.arange(8), np.random.default_rng(0), torch.Generator().manual_seed(0)
            return recipe.loss(*arguments)[0]

    # the file is in half precision
    torch.testing.assert_close(predicted(second), predicted(first), rtol=1e-3, atol=0)
    assert abs(float(predicted(start) / predicted(first)) - 1) > 1e-2
    assert any(p.requires_grad for p in second.id_encoder.parameters())


def test_adapter_resumes_exactly(tmp_path: Path) -> None:
    settings = TrainSettings(steps=6, batch_size=4, ema_decay=0.9, log_every=1, save_every=3)
    train(tiny_adapter(tmp_path), settings, tmp_path / "whole")
    train(tiny_adapter(tmp_path), settings, tmp_path / "parts")
    for path in (tmp_path / "parts/checkpoints").glob("*6.pt"):
        path.unlink()
    train(tiny_adapter(tmp_path), settings, tmp_path / "parts")
    assert logged(tmp_path / "whole", "loss") == logged(tmp_path / "parts", "loss")


def test_the_condition_has_one_class_token_a_photo_and_none_in_text_only_rows(tmp_path: Path) -> None:
    recipe, rng = tiny_adapter(tmp_path), np.random.default_rng(0)
    captions = ["a photo of a man img in the snow"] * 3
    references = [np.array([1]), np.array([1, 2, 3]), np.array([1, 2])]
    with torch.no_grad():
        condition = recipe.condition(captions, references, np.array([False, False, True]), rng)
        plain, plain_pooled = encode_ids(
            recipe.parts.text_encoders, token_ids(recipe.parts.tokenizers, ["a photo of a man in the snow"])
        )
    place = 5  # begin mark, a, photo, of, a
    embeds, pooled = condition.embeds, condition.pooled
    differs = (embeds - plain).abs().amax(-1) > 1e-4
    assert differs[0].nonzero()[:, 0].tolist() == [place]
    assert differs[1, place : place + 3].all() and not differs[1, :place].any()
    assert not differs[2].any() and torch.allclose(pooled[2:], plain_pooled, atol=1e-5)


def test_a_masked_row_counts_the_person_only(tmp_path: Path) -> None:
    recipe = tiny_adapter(tmp_path)
    weight = recipe.weight(np.array([0, 0]), np.array([True, False]))
    outside = (
        torch.nn.functional.max_pool2d(torch.from_numpy(recipe.data.masks[:1]).float()[:, None], 8)[0, 0] == 0
    )
    assert not weight[0, 0][outside].any() and weight[1, 0][outside].min() == 1
    assert weight[0].max() == 2


def test_person_attention_loss_by_hand() -> None:
    attention = torch.zeros(2, 2, 2, 4)
    attention[0, :, 0, 1:3] = torch.tensor([[0.1, 0.15], [0.4, 0.4]])  # shares .25 and .8 of the two heads
    attention[0, :, 1, 1:3] = 0.01  # beside the person
    tokens = torch.tensor([[False, True, True, False], [False] * 4])
    mask = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    loss, share = person_attention_loss(attention, tokens, mask, 0.5)
    assert loss.item() == pytest.approx(np.log(0.5 / 0.25) / 2, rel=1e-3)
    assert share.item() == pytest.approx((0.25 + 0.8) / 2)
    nothing = person_attention_loss(attention, tokens & False, mask, 0.5)
    assert [one.item() for one in nothing] == [0, 0]


def test_a_mask_is_shrunk_to_the_places_of_a_layer() -> None:
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, :2] = 1
    mask[..., 0, 2] = 1
    assert shrunk_mask(mask, 16).tolist() == [mask.flatten().tolist()]
    assert shrunk_mask(mask, 4).tolist() == [[1, 0.25, 0, 0]]


def test_the_loss_on_attention_has_faces_look_at_the_person(tmp_path: Path) -> None:
    settings = TrainSettings(steps=12, batch_size=8, log_every=1, save_every=0, ema_decay=0.0)
    shares = {}
    for weight in (1e-9, 0.5):
        recipe = tiny_adapter(tmp_path, attention=weight, attention_share=0.9, lr=2e-2, fusion_lr=2e-2)
        out = tmp_path / f"run_{weight}"
        train(recipe, settings, out)
        shares[weight] = logged(out, "attention_share")
    assert shares[0.5][0] == pytest.approx(shares[1e-9][0])
    assert shares[0.5][-1] > 1.5 * shares[0.5][0]
    assert shares[0.5][-1] > 1.2 * shares[1e-9][-1]


def test_without_its_weight_there_is_no_loss_on_attention(tmp_path: Path) -> None:
    rows, losses = np.arange(8), []
    for weight in (0.0, 1e-12):
        recipe = tiny_adapter(tmp_path, attention=weight)
        recipe.prepare(torch.device("cpu"))
        loss, figures = recipe.loss(rows, np.random.default_rng(0), torch.Generator().manual_seed(0))
        losses.append(loss.item())
        assert ("attention" in figures) == bool(weight)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"attention": -1.0},
        {"attention": 0.1, "attention_share": 0.0},
        {"attention": 0.1, "gradient_checkpointing": True},
    ],
)
def test_settings_of_the_loss_on_attention_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="attention"):
        replace(SMALL, **wrong)
