"""The ID encoder that a training starts from: an adapter's, a small image tower's, or one around CLIP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from photomaker import hub
from photomaker.encoders.adapter_file import AdapterFile, read_adapter
from photomaker.encoders.id_encoder import PhotoMakerIDEncoder, vision_config
from photomaker.encoders.id_encoder_v2 import (
    PhotoMakerIDEncoder_CLIPInsightfaceExtendtoken,
    vision_config_v2,
)
from photomaker.errors import WeightsError
from photomaker.training.config import BUNDLED, TrainConfig
from photomaker.training.recipes.base import BaseParts
from photomaker.training.recipes.id_tower import FILE as TOWER_FILE
from photomaker.training.recipes.id_tower import load_tower, tower_config, tower_sizes
from photomaker.weights import bundled


def id_encoder(config: TrainConfig, parts: BaseParts) -> tuple[PhotoMakerIDEncoder, Any]:
    """The ID encoder to start from, in float32, and the LoRA that goes with it or None.

    Raises:
        WeightsError: It is missing or damaged, or of another version.
    """
    choice, widths = config.encoder, tuple(int(one.config.hidden_size) for one in parts.text_encoders)
    tower = Path(choice.start)
    if (tower / TOWER_FILE).is_file() or (tower.is_file() and tower.name == TOWER_FILE):
        torch.manual_seed(config.loop.seed)
        encoder = PhotoMakerIDEncoder(tower_config(tower_sizes(tower), (widths[0], widths[1])))
        load_tower(tower, encoder)
        return encoder, None
    adapter = _adapter(choice.start)
    if adapter is None:
        return from_clip(choice.start, choice.version, (widths[0], widths[1]), config.loop.seed), None
    if adapter.version != choice.version:
        raise WeightsError(
            f"{choice.start} is a {adapter.version} adapter and encoder.version is {choice.version}; give one of that "
            "version, or an image encoder"
        )
    encoder = adapter.build_encoder().float().requires_grad_(True)
    if not choice.anew:
        return encoder, adapter.lora
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.loop.seed)
        fresh = type(encoder)(encoder.config)
    fresh.vision_model.load_state_dict(encoder.vision_model.state_dict())
    return fresh, None


def _adapter(start: str) -> AdapterFile | None:
    """The adapter that is meant, or None if an image encoder is."""
    if start == BUNDLED:
        return read_adapter(bundled("adapter/photomaker.safetensors"))
    if Path(start).is_file() or start in hub.ADAPTER_FILES or start.endswith((".bin", ".safetensors")):
        return read_adapter(hub.adapter_file(start))
    return None


def from_clip(place: str, version: str, widths: tuple[int, int], seed: int) -> PhotoMakerIDEncoder:
    """An ID encoder around a trained CLIP image encoder; projections, resampler and fusion start from scratch.

    CLIP's own projection is kept where it has the width of the first text encoder, as it has in SDXL.

    Args:
        place: Folder or hub id of a CLIP model.
        version: "v1" or "v2".
        widths: Of the two text encoders.
        seed: Of the new weights.

    Raises:
        WeightsError: There is no CLIP model.
    """
    from transformers import CLIPVisionModelWithProjection

    folder = hub.model_folder(place)
    try:
        clip = CLIPVisionModelWithProjection.from_pretrained(folder, dtype=torch.float32)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise WeightsError(f"{place} is not a CLIP image encoder in safetensors; give another") from error
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size",
             "image_size", "hidden_act")  # fmt: skip
    sizes = {name: getattr(clip.config, name) for name in names}
    sizes |= {"projection_dim": widths[0], "projection_dim_2": widths[1]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = (
            PhotoMakerIDEncoder(vision_config(**sizes))
            if version == "v1"
            else PhotoMakerIDEncoder_CLIPInsightfaceExtendtoken(vision_config_v2(**sizes))
        )
    encoder.vision_model.load_state_dict(clip.vision_model.state_dict())
    if clip.visual_projection.weight.shape == encoder.visual_projection.weight.shape:
        encoder.visual_projection.load_state_dict(clip.visual_projection.state_dict())
    return encoder
