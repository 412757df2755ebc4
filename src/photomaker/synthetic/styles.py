"""Styles: what turns a photo-like picture into a sketch, a painting, pixel art or a watercolour."""

from __future__ import annotations

import numpy as np

from photomaker.synthetic.canvas import Array, box_blur, mix, noise, rgb, step, tint

_LUMA = tint(0.299, 0.587, 0.114)


def _grid(picture: Array) -> tuple[Array, Array]:
    size = picture.shape[-1]
    axis = ((np.arange(size) + 0.5) * (2 / size) - 1).astype(np.float32)
    return np.broadcast_to(axis, (size, size)), np.broadcast_to(axis[:, None], (size, size))


def _sketch(picture: Array, person: Array) -> Array:
    x, y = _grid(picture)
    grey = (picture * _LUMA).sum(0)
    smooth = box_blur(grey, 1)
    dy, dx = np.gradient(smooth)
    lines = np.clip(np.hypot(dx, dy) * 7.5 - 0.12, 0, 1)
    wide = np.clip((box_blur(grey, 3) - grey) * 4.0, 0, 1)
    hatch = (np.sin((x + y) * 95) * 0.5 + 0.5) * step(0.46, 0.16, grey) * 0.5
    cross = (np.sin((x - y) * 95) * 0.5 + 0.5) * step(0.26, 0.08, grey) * 0.4
    strength = np.float32(0.45) + np.float32(0.55) * person
    tone = np.clip(0.88 - grey, 0, 1) * 0.38
    dark = np.clip(np.maximum(lines, wide) * 0.85 + hatch + cross + tone, 0, 0.92) * strength
    paper = rgb("f6f2e8") * (0.97 + 0.04 * noise(x * 2, y * 2, 128, 21))
    return paper + (rgb("2e2b2b") - paper) * dark


def _painting(picture: Array, person: Array) -> Array:
    """Each pixel takes the mean of its calmest neighbouring quarter, as a flat brush would (Kuwahara)."""
    del person
    radius = 2
    grey = (picture * _LUMA).sum(0)
    stack = np.concatenate([picture, grey[None], (grey * grey)[None]])
    stack = np.pad(stack, ((0, 0), (radius, radius), (radius, radius)), mode="edge")
    means = box_blur(stack, radius // 2)
    best, least = picture, np.full(grey.shape, 9.0, dtype=np.float32)
    for shift in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        moved = np.roll(means, shift, axis=(1, 2))[:, radius:-radius, radius:-radius]
        spread = moved[4] - moved[3] ** 2
        calmer = spread < least
        least = np.where(calmer, spread, least)
        best = np.where(calmer, moved[:3], best)
    x, y = _grid(picture)
    strokes = noise(x * 1.6 + y * 0.5, y * 0.7 - x * 0.5, 64, 22) + noise(x * 0.8, y * 1.7, 64, 23) - 1
    grey = (best * _LUMA).sum(0)
    rich = grey + (best - grey) * 1.32
    return (np.round(rich * 11) / 11 * 0.55 + rich * 0.45) * (1 + 0.20 * strokes) * tint(1.03, 0.99, 0.92)


def _pixel_art(picture: Array, person: Array) -> Array:
    del person
    size = picture.shape[-1]
    cell = max(1, size // 42)
    cells = size // cell
    edge = cells * cell
    small = picture[:, :edge, :edge].reshape(3, cells, cell, cells, cell).mean((2, 4))
    small = np.round(np.clip((small - 0.5) * 1.12 + 0.5, 0, 1) * 6) / 6
    large = small.repeat(cell, 1).repeat(cell, 2)
    return np.pad(large, ((0, 0), (0, size - edge), (0, size - edge)), mode="edge")


def _watercolour(picture: Array, person: Array) -> Array:
    x, y = _grid(picture)
    wash = box_blur(picture, 1)
    wet = box_blur(picture, 3)
    flow = mix(wash, wet, 0.35) * 0.74 + 0.26
    dy, dx = np.gradient(box_blur((picture * _LUMA).sum(0), 1))
    pooled = np.clip(np.hypot(dx, dy) * 4.2, 0, 0.55)
    flow = flow * (1 - pooled * 0.62)
    bloom = noise(x * 0.6, y * 0.6, 16, 24) - 0.5
    flow = flow + (bloom * 0.14)
    border = step(0.72, 1.02, np.maximum(np.abs(x), np.abs(y)) + bloom * 0.35) * (1 - 0.6 * person)
    paper = rgb("fbf8f1") * (0.96 + 0.05 * noise(x * 2.2, y * 2.2, 128, 25))
    return (flow + (1 - flow) * border) * paper


_PAINTERS = {"sketch": _sketch, "painting": _painting, "pixel art": _pixel_art, "watercolour": _watercolour}


def stylise(style: str, picture: Array, person: Array) -> Array:
    """Apply a style.

    Args:
        style: One of `photomaker.synthetic.factors.STYLES`; "photo" leaves the picture as it is.
        picture: float32 [3, size, size] in 0..1.
        person: float32 [size, size], cover of the person in 0..1.

    Returns:
        float32 [3, size, size] in 0..1.
    """
    if style == "photo":
        return picture
    return np.clip(_PAINTERS[style](picture, person), 0, 1)
