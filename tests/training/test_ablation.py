"""The variants of an ablation: each differs from the reference in what it says and in nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_world import FakeWorld
from test_adapter import SIZES
from test_base import tiny_parts

from photomaker.config import plain
from photomaker.encoders.adapter_file import read_adapter
from photomaker.encoders.id_encoder import PhotoMakerIDEncoder
from photomaker.training.ablation import REFERENCE, VARIANTS, fresh_encoder, train_variant
from photomaker.training.data.latents import cached_latents
from photomaker.training.data.photos import draw_references, photo_tensor
from photomaker.training.losses.diffusion import DiffusionSettings
from photomaker.training.recipes.adapter import FILE, AdapterRecipe
from photomaker.training.recipes.base import BaseParts
from photomaker.training.recipes.id_tower import tower_config
from photomaker.training.recipes.people import Ingredients
from photomaker.training.running.loop import TrainSettings

CAPTION = "a photo of a man img in the snow"


@pytest.fixture(scope="module")
def world() -> FakeWorld:
    return FakeWorld()


@pytest.fixture(scope="module")
def start(world: FakeWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base folder `base`, and `photomaker.safetensors`, an adapter with a LoRA that does something."""
    folder = tmp_path_factory.mktemp("start")
    parts = tiny_parts(world)
    parts.save(folder / "base", DiffusionSettings())
    torch.manual_seed(7)
    encoder = PhotoMakerIDEncoder(tower_config(SIZES, (32, 32)))
    latents = cached_latents(parts.autoencoder, world, folder / "other")
    recipe = AdapterRecipe(Ingredients(world, latents, parts, encoder, REFERENCE))
    with torch.no_grad():
        for name, parameter in parts.unet.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    recipe.export(folder)
    return folder


@pytest.fixture(scope="module")
def latents(world: FakeWorld, start: Path) -> np.ndarray:
    return cached_latents(BaseParts.load(start / "base").autoencoder, world, start / "latents")


def recipe_of(name: str, world: FakeWorld, latents: np.ndarray, start: Path) -> AdapterRecipe:
    parts = BaseParts.load(start / "base")
    encoder = fresh_encoder(read_adapter(start / FILE), 0)
    return AdapterRecipe(Ingredients(world, latents, parts, encoder, replace(VARIANTS[name], rank=4)))


def leaves(values: dict, prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in values.items():
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def test_each_variant_differs_in_the_one_setting_that_it_is_named_for() -> None:
    reference = leaves(plain(REFERENCE))
    changed = {
        name: {key: value for key, value in leaves(plain(variant)).items() if value != reference[key]}
        for name, variant in VARIANTS.items()
    }
    assert changed == {
        "reference": {},
        "average": {"stack": "average"},
        "linear": {"stack": "linear"},
        "no_mask": {"masked": 0.0},
        "no_noise": {"photo.noise": 0.0},
        "target_among": {"target_among": True},
        "no_class_word": {"class_word": False},
    }
    assert (REFERENCE.stack, REFERENCE.masked, REFERENCE.class_word) == ("stacked", 0.5, True)


def test_all_start_with_the_trained_tower_and_nothing_else_of_it(start: Path) -> None:
    file = read_adapter(start / FILE)
    trained, first, again, other = (
        file.build_encoder().float(),
        fresh_encoder(file, 0),
        fresh_encoder(file, 0),
        fresh_encoder(file, 1),
    )
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
        if name.startswith("vision_model."):
            assert torch.equal(tensor, trained.state_dict()[name]), name
        elif name == "fuse_module.layer_norm.weight":
            assert torch.all(tensor == trained.state_dict()[name].mean())
        elif "layer" not in name and not name.endswith("bias"):
            assert not torch.equal(tensor, trained.state_dict()[name]), name
            assert not torch.equal(tensor, other.state_dict()[name]), name
    assert all(parameter.requires_grad for parameter in first.parameters())


def test_one_embedding_takes_one_token_whatever_the_order_of_the_photos(
    world: FakeWorld, latents: np.ndarray, start: Path
) -> None:
    changed = {}
    for name in ("reference", "average", "linear"):
        recipe = recipe_of(name, world, latents, start)
        recipe.settings = replace(
            recipe.settings, photo=replace(recipe.settings.photo, noise=0, brightness=0, shift=0)
        )
        found = []
        for rows in ([1, 2, 3], [3, 1, 2]):
            with torch.no_grad():
                arguments = [CAPTION] * 2, [np.array(rows), np.array([4])], np.array([False, False])
                found.append(recipe.condition(*arguments, np.random.default_rng(0)).embeds)
        text = recipe.parts.tokenizers[0].tokenize(CAPTION.replace(" img", ""))
        place = text.index("man</w>") + 1
        changed[name] = [(found[0] - found[1]).abs().amax(-1) > 1e-5, place]
    stacked, place = changed["reference"]
    assert stacked[0, place : place + 3].all() and not stacked[1].any()
    for name in ("average", "linear"):
        assert not changed[name][0].any(), name


def test_the_class_word_is_fused_or_not(world: FakeWorld, latents: np.ndarray, start: Path) -> None:
    for name, alike in (("reference", False), ("no_class_word", True)):
        recipe = recipe_of(name, world, latents, start)
        embeds = torch.randn(2, 77, 64, generator=torch.Generator().manual_seed(0))
        features = torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(1)).expand(2, 1, 64)
        mask = torch.zeros(2, 77, dtype=torch.bool)
        mask[:, 5] = True
        with torch.no_grad():
            fused = recipe.id_encoder.fuse(embeds, features, mask)
        assert torch.equal(fused[0, 5], fused[1, 5]) == alike
        assert recipe.id_encoder.stacks


def test_the_mask_is_used_in_half_of_the_rows_or_never(
    world: FakeWorld, latents: np.ndarray, start: Path
) -> None:
    for name, share in (("reference", 0.5), ("no_mask", 0.0)):
        recipe = recipe_of(name, world, latents, start)
        seen: list[np.ndarray] = []
        weight = recipe.weight

        def spied(rows: np.ndarray, masked: np.ndarray, weight=weight, seen=seen) -> torch.Tensor:
            seen.append(masked)
            return weight(rows, masked)

        recipe.weight = spied  # type: ignore[method-assign]
        with torch.no_grad():
            for step in range(4):
                recipe.loss(np.arange(16), np.random.default_rng(step), torch.Generator().manual_seed(0))
        assert np.concatenate(seen).mean() == pytest.approx(share, abs=0.2 * bool(share))


def test_backgrounds_are_noise_in_half_of_the_photos_or_never(world: FakeWorld) -> None:
    for name, share in (("reference", 0.5), ("no_noise", 0.0)):
        settings = replace(VARIANTS[name].photo, shift=0)
        photos = photo_tensor(world, np.full(60, 3), settings, np.random.default_rng(0))
        ground = torch.from_numpy(world.masks[3] == 0)
        noisy = photos[:, 0][:, ground].std(1) > 0.3
        assert float(noisy.float().mean()) == pytest.approx(share, abs=0.2 * bool(share))


def test_the_target_is_among_its_photos_or_never() -> None:
    world, rng = FakeWorld(), np.random.default_rng(0)
    for name, among in (("reference", False), ("target_among", True)):
        settings = VARIANTS[name]
        drawn = [
            draw_references(world, 3, settings.photos, settings.photo, rng, settings.target_among)
            for _ in range(60)
        ]
        assert any(3 in rows for rows in drawn) == among
        assert all(len(set(rows)) == len(rows) and set(world.person[rows]) == {0} for rows in drawn)


@pytest.mark.parametrize("name", ["linear", "no_class_word"])
def test_a_variant_is_trained_exported_and_then_left_alone(
    name: str, world: FakeWorld, latents: np.ndarray, start: Path, tmp_path: Path
) -> None:
    settings = TrainSettings(steps=2, batch_size=4, ema_decay=0, save_every=0, log_every=1)
    paths = start / "base", start / FILE
    made = train_variant(name, world, latents, *paths, settings, tmp_path)
    assert made is not None
    assert not (tmp_path / "checkpoints").exists()
    encoder = read_adapter(made).build_encoder()
    assert encoder.fuse_module.class_word == (name != "no_class_word")
    assert encoder.stacks == (name != "linear")
    if name == "linear":
        assert encoder.one_embedding.score.weight.abs().max() > 0
    before = made.stat().st_mtime_ns
    assert train_variant(name, world, latents, *paths, settings, tmp_path) == made
    assert made.stat().st_mtime_ns == before


@pytest.mark.parametrize("new", [False, True])
def test_the_lora_starts_as_it_was_trained_or_anew(
    new: bool, world: FakeWorld, latents: np.ndarray, start: Path, tmp_path: Path
) -> None:
    settings = TrainSettings(steps=1, batch_size=2, ema_decay=0, save_every=0)
    paths = start / "base", start / FILE
    made = train_variant("reference", world, latents, *paths, settings, tmp_path, new)
    assert made is not None
    before, after = (
        torch.cat(
            [tensor.flatten() for name, tensor in sorted(read_adapter(path).lora.items()) if ".up." in name]
        )
        for path in (start / FILE, made)
    )
    assert before.mean() == pytest.approx(0.1, abs=1e-3)
    assert after.mean() == pytest.approx(0.0 if new else 0.1, abs=0.01)
