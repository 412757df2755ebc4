"""A finished dataset of a few pictures, a CLIP image encoder of a few numbers, and a training's settings for both."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tests.tiny import V2, VISION

from photomaker import config
from photomaker.dataset.base import Photo
from photomaker.dataset.shards import FINAL, INDEX, write_shard, write_table
from photomaker.training.plan import TrainConfig

SIZES = ((64, 64), (100, 60), (60, 100), (80, 80))
"""Heights and widths, in turn."""


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def photo(key: str, person: int, size: tuple[int, int], rng: np.random.Generator) -> Photo:
    """A rectangle in the person's colour on a plain ground."""
    height, width = size
    colour = np.random.default_rng(person).integers(0, 255, 3)
    image = np.broadcast_to(rng.integers(0, 255, 3), (height, width, 3)).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    y, x = int(rng.integers(4, height - 34)), int(rng.integers(4, width - 34))
    image[y : y + 30, x : x + 30], mask[y : y + 30, x : x + 30] = colour, 255
    caption = "a photo of a man, in (the snow)"
    row: dict[str, Any] = dict.fromkeys(FINAL.names)
    row |= {
        "key": key, "person": f"person {person}", "source": "test", "sha256": key, "width": width, "height": height,
        "box": [x, y, x + 30.0, y + 30.0], "landmarks": [1.0] * 10, "caption": caption, "class_word": "man",
        "class_start": 13, "class_end": 16, "embedding": rng.normal(size=V2["id_embeddings_dim"]).tolist(),
    }  # fmt: skip
    return Photo(row, {"png": png(image), "mask.png": png(mask)})


def write_shards(folder: Path, people: int = 4, each: int = 4, **changes: Any) -> Path:
    """Two shards with an index; `changes` go over the columns of the first picture."""
    rng = np.random.default_rng(0)
    photos = [
        photo(f"{person:03d}{number:03d}", person, SIZES[number % len(SIZES)], rng)
        for person in range(people)
        for number in range(each)
    ]
    photos[0] = Photo({**photos[0].row, **changes}, photos[0].files)
    half = len(photos) // 2
    rows = [*write_shard(folder, 0, photos[:half]), *write_shard(folder, 1, photos[half:])]
    write_table(folder / INDEX, rows, FINAL)
    return folder


def write_clip(folder: Path) -> Path:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    sizes = {name: value for name, value in VISION.items() if name != "projection_dim_2"}
    CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes)).save_pretrained(folder)
    return folder


def settings(out: Path, shards: Path, base: Path, start: Path | str, **changes: Any) -> TrainConfig:
    """A training of a few steps; `changes` name settings with `__` between table and name."""
    values: dict[str, Any] = {
        "out": str(out),
        "data": {"folder": str(shards), "resolution": 64},
        "base": {"model": str(base), "dtype": "fp32"},
        "encoder": {"start": str(start)},
        "recipe": {"rank": 4, "lr": 1e-2, "fusion_lr": 1e-3, "vision_lr": 1e-3},
        "loop": {"steps": 4, "batch_size": 2, "log_every": 1, "save_every": 2, "ema_decay": 0.9},
        "preview": {"people": 1, "photos": 2, "steps": 2, "prompts": ["a photo of a {}"]},
    }
    for name, value in changes.items():
        table, _, last = name.partition("__")
        values.setdefault(table, {})[last] = value
    return config.make(values, TrainConfig)
