"""Picture sizes by name, and the sizes a base was trained on; read from its settings, without loading a model."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from photomaker.errors import SettingsError, WeightsError
from photomaker.outside import read_object
from photomaker.types import MOST_SIDE

SHAPES = {"portrait": 3 / 4, "square": 1.0, "landscape": 4 / 3}
"""Width over height."""
MULTIPLE = 8
"""Pixels per latent of SDXL's autoencoder. SDXL itself was trained in steps of 64."""
_BUCKET = 64
_PIXELS = re.compile(r"(\d{1,6})\s*[xX*]\s*(\d{1,6})")
FAR_PIXELS, FAR_SHAPE = 1.35, 2.5
"""Ratio of pixels, and aspect ratio, from which a size is far from the base's training: SDXL's own buckets reach 4:1
with few pictures, and 2.4:1 with many."""


@dataclass(frozen=True)
class BaseSize:
    """The sizes that a base was trained on.

    Attributes:
        side: Side of its own square pictures, in pixels.
        step: Sides in training were multiples of this many pixels.
        square_only: Whether it has seen only squares of this size, like the bundled base.
    """

    side: int
    step: int = _BUCKET
    square_only: bool = False


def base_size(folder: Path, bundled: bool) -> BaseSize:
    """Read the sizes of a base.

    Args:
        folder: In diffusers' layout.
        bundled: Whether it is the bundled one.

    Raises:
        WeightsError: Its settings files are missing or damaged.
    """
    try:
        latent = int(_settings(folder / "unet" / "config.json")["sample_size"])
        blocks = len(_settings(folder / "vae" / "config.json")["block_out_channels"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"the settings of the base model {folder} cannot be read; give a diffusers SDXL folder"
        ) from error
    side = latent * 2 ** (blocks - 1)
    return BaseSize(side, MULTIPLE if bundled or side < 8 * _BUCKET else _BUCKET, bundled)


def _settings(path: Path) -> dict[str, Any]:
    return read_object(path.read_text(encoding="utf-8"))


def resolve(text: str, base: BaseSize) -> tuple[int, int]:
    """Width and height in pixels.

    Args:
        text: `portrait` (3:4), `landscape` (4:3) or `square` at the base's own number of pixels, for SDXL its buckets
            896 x 1152 and 1152 x 896; or `640x480`.
        base: The sizes of the base.

    Raises:
        SettingsError: It is none of these, or a side is not a multiple of 8 or out of range.
    """
    name = text.strip().lower()
    if name in SHAPES:
        width = base.side * math.sqrt(SHAPES[name])
        return _stepped(width, base.step), _stepped(base.side**2 / width, base.step)
    found = _PIXELS.fullmatch(name)
    if found is None:
        raise SettingsError(
            f"size is {text!r}; give {', '.join(SHAPES)}, or width and height such as 640x480"
        )
    width_, height = int(found[1]), int(found[2])
    if width_ % MULTIPLE or height % MULTIPLE or not (0 < width_ <= MOST_SIDE and 0 < height <= MOST_SIDE):
        near = [max(MULTIPLE, min(MOST_SIDE, _stepped(side, MULTIPLE))) for side in (width_, height)]
        raise SettingsError(f"size is {text!r}; give multiples of {MULTIPLE}, such as {near[0]}x{near[1]}")
    return width_, height


def _stepped(side: float, step: int) -> int:
    return max(step, round(side / step) * step)


def size_note(width: int, height: int, base: BaseSize) -> str | None:
    """One sentence if a size is far from the base's training; None otherwise."""
    asked = f"{width} x {height}"
    if base.square_only and (width, height) != (base.side, base.side):
        return (
            f"the size is {asked}, but the bundled model has only seen {base.side} x {base.side}; faces and bodies "
            "may look wrong"
        )
    share = width * height / base.side**2
    shape = max(width, height) / min(width, height)
    if not 1 / FAR_PIXELS <= share <= FAR_PIXELS or shape > FAR_SHAPE:
        return (
            f"{asked} is far from what this base was trained on, the area of {base.side} x {base.side} pixels; people "
            "may come out double or cut off; portrait, landscape and square are safe"
        )
    return None
