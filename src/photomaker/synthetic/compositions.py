"""Pictures other than portraits: other formats, people farther away, and two people side by side.

Everything here draws from random streams of its own, so that the portraits of old seeds stay what they were. A picture
that is not square is a window in a square one, whose painters know nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from photomaker.errors import SettingsError
from photomaker.synthetic.canvas import Array, Canvas
from photomaker.synthetic.distributions import view
from photomaker.synthetic.factors import Person, View
from photomaker.synthetic.renderer import (
    HEAD_Y,
    SUPERSAMPLING,
    Portrait,
    finished,
    paint_backdrop,
)

FORMATS: Mapping[str, tuple[int, int]] = {
    "square": (128, 128),
    "large": (160, 160),
    "portrait": (112, 144),
    "landscape": (144, 112),
    "wide": (176, 96),
}
"""Width and height in pixels, multiples of 16; all but "large" have about the pixels of the square."""
PAIRS = 0.15 / 0.5
"""Share of pairs among these pictures, which are half of all: 15 % of what a base sees."""
DISTANT = 0.5
"""Share of the pictures of one person in which the person is farther away than in a portrait."""
FARTHEST = 0.42
"""Size of the farthest person over a portrait's: the face is then 15 % of a square picture's width."""
AFAR = 0.66
"""Size below which a caption may say so."""
_HEADROOM = 0.92
"""From the middle of a head to the top of its hair or hat, in head coordinates."""


@dataclass(frozen=True)
class Composition:
    """The people and their positions in a picture.

    Attributes:
        format: One of `FORMATS`.
        people: One person, or two from left to right.
        views: The circumstances of each; scene, style and light are the same.
        front: Number of the person who covers the other where they meet.
        size: How large the people are, over the largest that the format has room for.
    """

    format: str
    people: tuple[Person, ...]
    views: tuple[View, ...]
    front: int = 0
    size: float = 1.0


@dataclass(frozen=True)
class ComposedPicture:
    """A drawn composition and its ground truth, by person from left to right.

    Attributes:
        image: uint8 [height, width, 3], RGB.
        owners: uint8 [height, width]: 0 if nobody is, else the number of the person from 1.
        boxes: float32 [people, 4] face boxes x0, y0, x1, y1 in pixels.
        landmarks: float32 [people, 5, 2] pixels; see `renderer.Picture`.
    """

    image: Array
    owners: Array
    boxes: Array
    landmarks: Array


def composition(someone: Person, seed: int, other: Person | None = None, **fixed: Any) -> Composition:
    """A composition, always the same one for a seed.

    Args:
        someone: The person; with another one it is drawn by lot who stands on the left.
        seed: Any whole number from 0 up.
        other: A second person; two people stand side by side in the format "wide".
        **fixed: `format` and factors of `View` to hold at a value.

    Raises:
        SettingsError: The format is unknown, or see `distributions.view`.
    """
    rng = np.random.default_rng((17, someone.seed, seed))
    draws = rng.random(12)
    chosen = str(fixed.pop("format", "") or (list(FORMATS)[int(draws[0] * 4)] if other is None else "wide"))
    if chosen not in FORMATS:
        raise SettingsError(f"the format is {chosen!r}; choose one of {', '.join(FORMATS)}")
    first = view(someone, seed, **fixed)
    if other is None:
        size = FARTHEST + draws[1] * (1 - FARTHEST) if draws[2] < DISTANT else 0.92 + 0.16 * draws[1]
        return Composition(chosen, (someone,), (_placed(first, chosen, size, draws[3:5], 0.0, 1.0),), 0, size)
    shared = {name: getattr(first, name) for name in ("scene", "style", "light", "light_height", "warmth")}
    second = replace(view(other, seed, **shared), seed=first.seed)
    size = 0.72 + 0.24 * draws[1]
    ordered = [(someone, first), (other, second)] if draws[5] < 0.5 else [(other, second), (someone, first)]
    views = tuple(
        _placed(seen, chosen, size * (0.94 + 0.12 * draws[6 + at]), draws[8 + 2 * at :][:2], at - 0.5, 0.5)
        for at, (_, seen) in enumerate(ordered)
    )
    return Composition(chosen, tuple(who for who, _ in ordered), views, int(draws[3] * 2), size)


def _placed(seen: View, name: str, size: float, draws: Array, middle: float, share: float) -> View:
    """The view with the person in the window: `middle` -0.5..0.5 and `share` of its width are this person's."""
    width, height = FORMATS[name]
    side = max(width, height)
    across, down = width / side * share, height / side
    scale = size * min(across * (1.0 if share == 1 else 1.15), down)
    room = max(0.0, across - 0.72 * scale) if size < 1 else 0.07 * scale
    top, bottom = -down + _HEADROOM * scale, down - 0.80 * scale
    x = middle * width / side + (2 * draws[0] - 1) * room * (0.9 if share == 1 else 0.5)
    y = top + draws[1] * max(0.0, min(bottom - top, 0.45 * scale + 0.12))
    return replace(seen, scale=scale, shift_x=float(x), shift_y=float(y) - HEAD_Y)


def compose(one: Composition, scale: int = 1) -> ComposedPicture:
    """Draw a composition.

    Args:
        one: Who stands where.
        scale: Pixels of the picture for each of `FORMATS`, from 1 up.

    Returns:
        The picture. The same arguments give the same bytes.
    """
    width, height = (side * scale for side in FORMATS[one.format])
    side = max(width, height)
    canvas = Canvas(side * SUPERSAMPLING)
    paint_backdrop(canvas, one.views[0], side)
    portraits = [Portrait(who, seen, side, canvas) for who, seen in zip(one.people, one.views, strict=True)]
    covers = [np.zeros_like(canvas.person) for _ in portraits]
    everybody = np.zeros_like(canvas.person)
    for at in sorted(range(len(portraits)), key=lambda at: at == one.front):
        canvas.person[:] = 0
        portraits[at].paint()
        for place in range(len(covers)):
            covers[place] *= 1 - canvas.person
        covers[at] += canvas.person
        everybody += (1 - everybody) * canvas.person
    canvas.person[:] = everybody
    image, _ = finished(canvas, one.views[0].style)
    left, top = (side - width) // 2, (side - height) // 2
    window = slice(top, top + height), slice(left, left + width)
    seen = np.stack([_averaged(cover) for cover in covers])
    owners = np.where(seen.sum(0) > 0.5, seen.argmax(0) + 1, 0).astype(np.uint8)
    boxes = np.array([portrait.box() for portrait in portraits], dtype=np.float32)
    boxes = np.clip(boxes - np.array([left, top] * 2, np.float32), 0, [width, height] * 2)
    landmarks = np.stack([portrait.landmarks() for portrait in portraits]) - np.array([left, top], np.float32)
    return ComposedPicture(
        np.ascontiguousarray(image[window]), owners[window], boxes.astype(np.float32), landmarks
    )


def _averaged(cover: Array) -> Array:
    side = len(cover) // SUPERSAMPLING
    return cover.reshape(side, SUPERSAMPLING, side, SUPERSAMPLING).mean((1, 3))
