"""What gets between a face and the camera: a hand, a cup, a phone.

Drawn over a finished person, from random numbers of its own: pictures without a cover stay as they are.
"""

from __future__ import annotations

import numpy as np

from photomaker.errors import SettingsError
from photomaker.synthetic.anatomy import shade_skin
from photomaker.synthetic.canvas import Array, capsule, fill, tint
from photomaker.synthetic.factors import Person, View
from photomaker.synthetic.renderer import Picture, Portrait, finished, paint_backdrop
from photomaker.synthetic.wardrobe import DYES

COVERS = ("hand", "cup", "phone")
PARTS = ("left eye", "right eye", "mouth")
"""What of a face is covered, left and right as seen in the picture."""
_FINGERS = ((-0.125, 0.25), (-0.043, 0.31), (0.043, 0.30), (0.122, 0.23))
"""Place across the palm and length of each finger, in head coordinates."""
_RADIUS, _PALM = 0.047, 0.10
Parts = tuple[tuple[float, float, float, float], float]
"""A part of a hand: the ends of its axis, across and along the hand, and its radius."""


def covered(person: Person, view: View, cover: str, part: str, seed: int, size: int = 128) -> Picture:
    """Draw a person with something before a part of the face.

    Args:
        person: Who.
        view: In which circumstances.
        cover: One of `COVERS`.
        part: One of `PARTS`.
        seed: How it is held, 0 or more.
        size: Pixels to a side.

    Returns:
        The picture, whose landmarks and box are those of the face underneath.

    Raises:
        SettingsError: The cover or the part is none.
    """
    for name, value, known in (("cover", cover, COVERS), ("part", part, PARTS)):
        if value not in known:
            raise SettingsError(f"{name} is {value!r}; give one of {', '.join(known)}")
    rng = np.random.default_rng((31, person.seed, view.seed, seed))
    portrait = Portrait(person, view, size)
    paint_backdrop(portrait.canvas, view, size)
    portrait.paint()
    u, v = _middle(portrait, part)
    middle = (
        portrait.head.to_screen(u, v) + float(rng.uniform(-0.02, 0.02)),
        v + float(rng.uniform(-0.02, 0.02)),
    )
    if cover == "hand":
        _hand(portrait, middle, part, rng)
    elif cover == "cup":
        _cup(portrait, middle, rng)
    else:
        _phone(portrait, middle, rng)
    image, mask = finished(portrait.canvas, view.style)
    shown = np.where(mask > 0.5, 255, 0).astype(np.uint8)
    return Picture(image, shown, portrait.box(), portrait.landmarks())


def _middle(portrait: Portrait, part: str) -> tuple[float, float]:
    s = portrait.shape
    side = {"left eye": -1, "right eye": 1}.get(part, 0)
    return (side * s.eye_x, s.eye_y + 0.03) if side else (0.0, s.mouth_y - 0.01)


def _turned(
    portrait: Portrait, middle: tuple[float, float], angle: float
) -> tuple[tuple[slice, slice], Array, Array]:
    """The whole canvas in coordinates of a thing that points upwards at angle 0."""
    window = portrait.canvas.window(-1, -1, 1, 1)
    x, v = portrait.frame.to_head(portrait.canvas.x[window], portrait.canvas.y[window])
    dx, dy = x - np.float32(middle[0]), v - np.float32(middle[1])
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return window, dx * cosine + dy * sine, dy * cosine - dx * sine


def _hand(portrait: Portrait, middle: tuple[float, float], part: str, rng: np.random.Generator) -> None:
    """A flat hand with its fingers together, from below or from the side, and the sleeve behind it."""
    side = {"left eye": -1.0, "right eye": 1.0}.get(part, float(rng.choice([-1.0, 1.0])))
    low, high = (-0.5, 0.15) if part != "mouth" else (-1.7, -1.2)
    angle = side * float(rng.uniform(low, high))
    window, x, y = _turned(portrait, middle, angle)
    y = y - np.float32(rng.uniform(-0.02, 0.10))  # fingers or palm over the middle
    arm = capsule(x, y, (0.0, 0.32, 0.06 * side, 1.6), 0.16)
    cloth = DYES[portrait.view.clothing_colour] * (0.7 + 0.3 * np.clip(arm / np.float32(0.16), 0, 1))
    portrait.canvas.over(window, fill(arm, portrait.pixel * 1.3), cloth)
    parts: list[Parts] = [((0.0, 0.02, 0.0, 0.24), _PALM + 0.075)]
    parts += [((0.8 * at, 0.0, at, -length), _RADIUS) for at, length in _FINGERS]
    parts.append(((-0.12 * side, 0.18, -0.25 * side, -0.02), _RADIUS * 1.05))
    for ends, radius in parts:
        _limb(portrait, window, x, y, ends, radius, angle)


def _limb(
    portrait: Portrait,
    window: tuple[slice, slice],
    x: Array,
    y: Array,
    ends: tuple[float, float, float, float],
    radius: float,
    angle: float,
) -> None:
    """A finger or the palm: round across its axis, dark where it meets the next."""
    inside = capsule(x, y, ends, radius)
    across = np.clip(1 - inside / np.float32(radius), 0, 1)
    sign = np.sign(x - np.float32((ends[0] + ends[2]) / 2)) * across * np.float32(0.8)
    depth = np.sqrt(np.clip(1 - sign * sign, 0.05, 1))
    normal = (sign * np.float32(np.cos(angle)), sign * np.float32(np.sin(angle)), depth)
    colour, _ = shade_skin(portrait.light, np.broadcast_to(portrait.skin, (3, *x.shape)), normal)
    colour = colour * (1 - np.clip((across - np.float32(0.72)) / np.float32(0.28), 0, 1) * np.float32(0.35))
    portrait.canvas.over(window, fill(inside, portrait.pixel * 1.3), colour * tint(1.0, 0.97, 0.96))


def _cup(portrait: Portrait, middle: tuple[float, float], rng: np.random.Generator) -> None:
    window, x, y = _turned(portrait, middle, float(rng.uniform(-0.3, 0.3)))
    half = np.float32(rng.uniform(0.19, 0.24))
    wide = half - (y + np.float32(0.2)) * np.float32(0.1)
    inside = np.minimum(wide - np.abs(x), np.minimum(y + np.float32(0.17), np.float32(0.34) - y))
    handle = np.float32(0.028) - np.abs(np.hypot(x - half, (y - np.float32(0.08)) * 1.1) - np.float32(0.11))
    colour = DYES[str(rng.choice(list(DYES)))]
    round_ = np.float32(0.62) + np.float32(0.42) * np.sqrt(np.clip(1 - (x / wide) ** 2, 0, 1))
    portrait.canvas.over(window, fill(np.maximum(inside, handle), portrait.pixel * 1.3), colour * round_)


def _phone(portrait: Portrait, middle: tuple[float, float], rng: np.random.Generator) -> None:
    window, x, y = _turned(portrait, middle, float(rng.uniform(-0.2, 0.2)))
    half, high = np.float32(rng.uniform(0.17, 0.21)), np.float32(0.38)
    inside = np.minimum(half - np.abs(x), high - np.abs(y))
    grey = float(rng.uniform(0.03, 0.12))
    colour = tint(grey, grey, grey * 1.1) + np.clip(-y, 0, 1) * np.float32(0.06)
    portrait.canvas.over(window, fill(inside, portrait.pixel * 1.3), colour)
    lens = np.float32(0.035) - np.hypot(x + half * np.float32(0.5), y + high * np.float32(0.75))
    portrait.canvas.over(window, fill(lens, portrait.pixel * 1.3), tint(0.2, 0.22, 0.28))
