"""Drawing with arrays: soft shapes, noise, light, and a canvas that they are laid over.

Coordinates run from -1 to 1 over the picture, x to the right and y down. Colours are
float32 RGB in 0..1, channels first, so that one factor a pixel applies to all three without copies.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

Array = np.ndarray
Colour = tuple[float, float, float]

NOISE_SIZE = 256


def tint(red: float, green: float, blue: float) -> Array:
    """A colour as float32 [3, 1, 1], which multiplies and adds to pictures."""
    return np.array([red, green, blue], dtype=np.float32).reshape(3, 1, 1)


def rgb(code: str) -> Array:
    """A colour, float32 [3, 1, 1], from its six hexadecimal digits."""
    return tint(*(int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)))


def mix(first: Array, second: Array, share: float) -> Array:
    """`first` at share 0, `second` at share 1."""
    return first + (second - first) * np.float32(share)


def step(low: float, high: float, value: Array) -> Array:
    """Smooth step from 0 at `low` to 1 at `high`; falls where `low` is greater than `high`."""
    t = np.clip((value - low) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def bump(value: Array, centre: float, width: float) -> Array:
    """A bell of height 1."""
    t = (value - np.float32(centre)) * np.float32(1 / width)
    return np.exp(-t * t)


def disc(x: Array, y: Array, centre: tuple[float, float], radii: tuple[float, float], edge: float) -> Array:
    """Cover 0..1 of an ellipse whose edge is `edge` wide."""
    u, v = (
        (x - np.float32(centre[0])) / np.float32(radii[0]),
        (y - np.float32(centre[1])) / np.float32(radii[1]),
    )
    return np.clip((1 - np.sqrt(u * u + v * v)) * np.float32(min(radii) / edge) + np.float32(0.5), 0, 1)


def band(distance: Array, half: Array | float, edge: float) -> Array:
    """Cover 0..1 of a stroke: 1 where |distance| < half."""
    return np.clip((half - np.abs(distance)) * np.float32(1 / edge) + np.float32(0.5), 0, 1)


def fill(inside: Array, edge: float) -> Array:
    """Cover 0..1 of the region where `inside`, a distance, is positive."""
    return np.clip(inside * np.float32(1 / edge) + np.float32(0.5), 0, 1)


def capsule(x: Array, y: Array, ends: tuple[float, float, float, float], radius: float) -> Array:
    """Distance into a thick line from (x0, y0) to (x1, y1), positive inside."""
    x0, y0, x1, y1 = ends
    dx, dy = x1 - x0, y1 - y0
    t = np.clip(((x - x0) * dx + (y - y0) * dy) / np.float32(dx * dx + dy * dy + 1e-9), 0, 1)
    return np.float32(radius) - np.hypot(x - x0 - t * dx, y - y0 - t * dy)


@lru_cache(maxsize=32)
def noise_texture(octave: int, seed: int = 0) -> Array:
    """Smooth tileable noise in 0..1, float32 [256, 256], with `octave` cells to a side."""
    grid = np.random.default_rng((3, octave, seed)).random((octave, octave))
    at = np.arange(NOISE_SIZE) * octave / NOISE_SIZE
    low = np.floor(at).astype(int)
    t = at - low
    t = t * t * (3 - 2 * t)
    high = (low + 1) % octave
    rows = grid[low] * (1 - t)[:, None] + grid[high] * t[:, None]
    return (rows[:, low] * (1 - t) + rows[:, high] * t).astype(np.float32)


def noise(x: Array, y: Array, octave: int, seed: int = 0) -> Array:
    """Smooth noise 0..1 that repeats every 2 units of x and y, with `octave` cells in that span."""
    rows = (y * (NOISE_SIZE / 2)).astype(np.int32) & (NOISE_SIZE - 1)
    columns = (x * (NOISE_SIZE / 2)).astype(np.int32) & (NOISE_SIZE - 1)
    return noise_texture(octave, seed)[rows, columns]


def box_blur(picture: Array, radius: int) -> Array:
    """Mean over a square of 2 * radius + 1 pixels, edges repeated."""
    width = 2 * radius + 1
    for axis in (-2, -1):
        pad = [(0, 0)] * picture.ndim
        pad[axis] = (radius + 1, radius)
        total = np.cumsum(np.pad(picture, pad, mode="edge"), axis=axis, dtype=np.float32)
        ends = [np.take(total, range(start, start + picture.shape[axis]), axis=axis) for start in (width, 0)]
        picture = (ends[0] - ends[1]) / np.float32(width)
    return picture


class Light:
    """A key light, warm or cold, over soft light from all sides.

    Args:
        azimuth: Radians, positive from the picture's right.
        height: Radians above the horizon.
        warmth: -1 cold .. 1 warm.
        ambient: Colour of the light from all sides.
    """

    def __init__(self, azimuth: float, height: float, warmth: float, ambient: Array) -> None:
        """Set up direction and colours."""
        self.direction = np.array(
            [np.sin(azimuth) * np.cos(height), -np.sin(height), np.cos(azimuth) * np.cos(height)],
            dtype=np.float32,
        )
        self.key = tint(1 + 0.10 * warmth, 1.0, 1 - 0.12 * warmth)
        self.ambient = ambient

    def lit(self, normal: tuple[Array, Array, Array]) -> Array:
        """How much key light a surface gets, 0..1, wrapped softly round its shadow side."""
        nx, ny, nz = normal
        lx, ly, lz = (float(part) for part in self.direction)
        diffuse = np.clip((nx * lx + ny * ly + nz * lz) * np.float32(0.62) + np.float32(0.38), 0, 1)
        return diffuse * np.sqrt(diffuse)

    def shade(self, albedo: Array, diffuse: Array, shadow: float = 0.0) -> Array:
        """Colour of a matt surface; `shadow` warms its shadow side, as light under skin does."""
        light = self.ambient * np.float32(0.50) + diffuse * (self.key * np.float32(0.66))
        if shadow:
            light = light + ((1 - diffuse) * np.float32(shadow)) * tint(0.10, 0.02, 0.0)
        return albedo * light

    def gloss(self, normal: tuple[Array, Array, Array], power: float) -> Array:
        """Highlight 0..1 seen from the front."""
        nx, ny, nz = normal
        half = self.direction + np.array([0, 0, 1], dtype=np.float32)
        half /= np.linalg.norm(half)
        facing = np.clip(nx * half[0] + ny * half[1] + nz * half[2], 0, 1)
        return np.exp((facing - 1) * np.float32(power))


class Canvas:
    """A square picture in the making.

    Args:
        size: Pixels to a side.

    Attributes:
        colour: float32 [3, size, size] in 0..1.
        person: float32 [size, size], how much of each pixel belongs to the person, 0..1.
        x: float32 [size, size], horizontal coordinate of each pixel.
        y: float32 [size, size], vertical coordinate of each pixel.
        pixel: Width of a pixel in the picture's coordinates.
    """

    def __init__(self, size: int) -> None:
        """Start with black."""
        self.size = size
        self.colour = np.zeros((3, size, size), dtype=np.float32)
        self.person = np.zeros((size, size), dtype=np.float32)
        axis = ((np.arange(size) + 0.5) * (2 / size) - 1).astype(np.float32)
        self.x, self.y = np.broadcast_to(axis, (size, size)), np.broadcast_to(axis[:, None], (size, size))
        self.pixel = 2 / size

    def window(self, left: float, top: float, right: float, bottom: float) -> tuple[slice, slice]:
        """The rows and columns that cover a rectangle."""
        edges = [int(np.clip((edge + 1) / self.pixel, 0, self.size)) for edge in (top, bottom, left, right)]
        return slice(edges[0], min(self.size, edges[1] + 1)), slice(edges[2], min(self.size, edges[3] + 1))

    def over(self, window: tuple[slice, slice], cover: Array, colour: Array, person: bool = True) -> None:
        """Lay a colour (one, or one for each pixel) over a window, as opaque as `cover` says."""
        below = self.colour[:, *window]
        below += (colour - below) * cover
        if person:
            mine = self.person[window]
            mine += (1 - mine) * cover
