"""Backgrounds: one small painter for each scene, out of focus as behind a portrait."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from photomaker.synthetic.canvas import Array, band, box_blur, disc, fill, mix, noise, rgb, step, tint

WHITE = np.ones((3, 1, 1), dtype=np.float32)


class Backdrop:
    """A picture that scenes are painted on.

    Args:
        size: Pixels to a side.
        seed: Where the details come from.
    """

    def __init__(self, size: int, seed: int) -> None:
        """Start with black."""
        axis = ((np.arange(size) + 0.5) * (2 / size) - 1).astype(np.float32)
        self.x, self.y = np.broadcast_to(axis, (size, size)), np.broadcast_to(axis[:, None], (size, size))
        self.colour = np.zeros((3, size, size), dtype=np.float32)
        self.rng = np.random.default_rng((5, seed))
        self.edge = 5 / size

    def gradient(self, top: str, bottom: str, low: float = -1.0, high: float = 1.0) -> None:
        """Fill with a vertical gradient."""
        t = np.clip((self.y - low) / (high - low), 0, 1)
        self.colour[:] = rgb(top) + (rgb(bottom) - rgb(top)) * t

    def lay(self, cover: Array, colour: Array) -> None:
        """Lay a colour over the picture."""
        self.colour += (colour - self.colour) * cover

    def jitter(self, low: float, high: float) -> float:
        """A number between two bounds."""
        return float(self.rng.uniform(low, high))

    def shift(self) -> tuple[float, float]:
        """Where to look into a noise texture."""
        return self.jitter(0, 2), self.jitter(0, 2)


def _studio(b: Backdrop) -> None:
    grey = b.jitter(0.62, 0.76)
    glow = np.exp(-((b.x - b.jitter(-0.3, 0.3)) ** 2 + (b.y + 0.2) ** 2) * 0.9)
    b.colour[:] = (np.float32(grey - 0.16) + glow * np.float32(0.26)) * tint(0.99, 1.0, 1.02)


def _beach(b: Backdrop) -> None:
    b.gradient("59b4ee", "cfeafa", -1, 0.1)
    horizon = b.jitter(0.02, 0.18)
    b.lay(fill(b.y - horizon, b.edge), mix(rgb("1f8fb8"), rgb("57c7cf"), 0.4))
    shore = b.y - horizon - 0.28 - 0.05 * np.sin(b.x * 3 + b.jitter(0, 6))
    b.lay(band(shore, 0.03, b.edge), rgb("f4fbfb"))
    b.lay(fill(shore, b.edge), rgb("ecd6a0"))
    side = b.jitter(0.70, 0.85) * (1 if b.rng.random() < 0.5 else -1)
    trunk = band(b.x - side - 0.08 * np.cos(b.y * 2), 0.035, b.edge) * (b.y > -0.5)
    b.lay(trunk, rgb("7c5a36"))
    for angle in np.linspace(0, 2 * np.pi, 7, endpoint=False):
        cx, cy = side + 0.19 * np.cos(angle), -0.52 + 0.13 * np.sin(angle)
        b.lay(disc(b.x, b.y, (cx, cy), (0.16, 0.065), b.edge), rgb("2f8b45"))


def _snow(b: Backdrop) -> None:
    b.gradient("b9cbdc", "e8eef4", -1, 0.3)
    for at in np.linspace(-0.95, 0.95, 6):
        cx, high = at + b.jitter(-0.1, 0.1), b.jitter(0.55, 0.9)
        inside = np.minimum((b.y - (0.25 - high)) * 0.30, 0.3 - b.y) - np.abs(b.x - cx)
        b.lay(fill(inside, b.edge), mix(rgb("4f6f6a"), WHITE, 0.15))
        b.lay(
            fill(np.minimum(inside - 0.05, (b.y - (0.25 - high)) * 0.30 - np.abs(b.x - cx) - 0.02), b.edge)
            * 0.5,
            WHITE,
        )
    b.lay(fill(b.y - 0.22 - 0.05 * np.sin(b.x * 2 + b.jitter(0, 6)), b.edge), rgb("f7fafd"))
    sx, sy = b.shift()
    b.lay(step(0.80, 0.86, noise(b.x + sx, b.y + sy, 32, 11)) * 0.9, WHITE)


def _forest(b: Backdrop) -> None:
    b.gradient("7fae5f", "274a24", -1, 1)
    sx, sy = b.shift()
    b.colour *= 0.65 + 0.7 * noise(b.x * 0.8 + sx, b.y * 0.8 + sy, 16, 12)
    for at in np.linspace(-0.95, 0.95, 6):
        cx, half = at + b.jitter(-0.12, 0.12), b.jitter(0.05, 0.10)
        b.lay(band(b.x - cx - 0.02 * np.sin(b.y * 3), half, b.edge), rgb("4b3421"))
    b.lay(step(0.74, 0.82, noise(b.x * 1.1 + sy, b.y * 1.1 + sx, 16, 13)) * 0.6, rgb("cfe58e"))


def _towers(b: Backdrop, wall: tuple[str, ...], lit: str, share: float) -> None:
    left = -1.05
    while left < 1:
        width, top = b.jitter(0.24, 0.40), b.jitter(-0.85, -0.15)
        wx, wy = (b.x - left) * 11, (b.y - top) * 9
        inside = np.minimum(np.minimum(b.x - left, left + width - b.x), b.y - top)
        b.lay(fill(inside, b.edge), rgb(wall[int(b.rng.integers(len(wall)))]))
        cell = ((np.floor(wx) * 7 + np.floor(wy) * 13 + int(b.rng.integers(99))) * 0.377) % 1
        window = ((wx % 1) > 0.35) & ((wy % 1) > 0.4) & (inside > 0.03) & (cell < share)
        b.lay(window.astype(np.float32) * 0.85, rgb(lit))
        left += width + b.jitter(-0.02, 0.05)


def _city(b: Backdrop) -> None:
    b.gradient("9cc4e8", "e6eff6", -1, 0.5)
    _towers(b, ("8b93a1", "a39c94", "6f7c8e", "b3aaa0"), "dbe9f5", 0.95)


def _night(b: Backdrop) -> None:
    b.gradient("0a0e25", "2a2550", -1, 0.8)
    _towers(b, ("171a30", "1f2138", "141726"), "ffd66b", 0.5)
    for _ in range(7):
        tone = rgb(("ff7ab8", "6fd3ff", "ffd66b")[int(b.rng.integers(3))])
        b.lay(disc(b.x, b.y, (b.jitter(-1, 1), b.jitter(-0.2, 0.6)), (0.07, 0.07), b.edge * 2) * 0.55, tone)


def _desert(b: Backdrop) -> None:
    b.gradient("7ec0ee", "fbe7bd", -1, 0.15)
    b.lay(disc(b.x, b.y, (b.jitter(-0.8, 0.8), -0.7), (0.13, 0.13), b.edge), rgb("fff3c4"))
    for base, tone in ((0.05, "e0a55c"), (0.28, "d08d43")):
        b.lay(fill(b.y - base - 0.09 * np.sin(b.x * b.jitter(1.5, 3) + b.jitter(0, 6)), b.edge), rgb(tone))
    side = b.jitter(0.68, 0.85) * (1 if b.rng.random() < 0.5 else -1)
    green = rgb("3f7d42")
    b.lay(band(b.x - side, 0.055, b.edge) * (b.y > -0.35) * (b.y < 0.35), green)
    b.lay(band(b.y - 0.05, 0.045, b.edge) * (np.abs(b.x - side) < 0.19), green)
    b.lay(band(np.abs(b.x - side) - 0.17, 0.04, b.edge) * (b.y > -0.18) * (b.y < 0.09), green)


def _space(b: Backdrop) -> None:
    b.gradient("07061a", "1a1140", -1, 1)
    sx, sy = b.shift()
    cloud = noise(b.x * 0.7 + sx, b.y * 0.7 + sy, 8, 14)
    b.lay(step(0.45, 0.95, cloud) * 0.5, rgb("8a3fb0"))
    b.lay(step(0.86, 0.90, noise(b.x * 1.2 + sy, b.y * 1.2 + sx, 64, 15)), WHITE)
    cx, cy = b.jitter(0.55, 0.85) * (1 if b.rng.random() < 0.5 else -1), b.jitter(-0.75, -0.45)
    b.lay(disc(b.x, b.y, (cx, cy), (0.27, 0.27), b.edge), rgb("d98c4a"))
    b.lay(disc(b.x, b.y, (cx + 0.09, cy + 0.07), (0.23, 0.23), 0.12) * 0.45, rgb("4a2118"))


def _sunset(b: Backdrop) -> None:
    t = np.clip((b.y + 1) / 1.3, 0, 1)
    top, middle, low = rgb("4a2a6b"), rgb("e8623f"), rgb("ffc65c")
    b.colour[:] = np.where(
        t < 0.55, top + (middle - top) * (t / 0.55), middle + (low - middle) * ((t - 0.55) / 0.45)
    )
    b.lay(disc(b.x, b.y, (b.jitter(-0.7, 0.7), 0.12), (0.22, 0.22), b.edge), rgb("fff0b0"))
    b.lay(fill(b.y - 0.26 - 0.05 * np.sin(b.x * 2.5 + b.jitter(0, 6)), b.edge), rgb("3a1c3c"))


def _library(b: Backdrop) -> None:
    b.colour[:] = rgb("4a2f1d")
    tones = [rgb(code) for code in ("8c2f2f", "2f4f7a", "3f6b45", "b58a3c", "6a4a7d", "c9b79a", "31404d")]
    for shelf in range(4):
        top, left = -1.0 + shelf * 0.52, -1.0
        while left < 1:
            width, gap = b.jitter(0.07, 0.14), b.jitter(0.0, 0.1)
            inside = (
                (b.x > left) & (b.x < left + width - 0.012) & (b.y > top + 0.05 + gap) & (b.y < top + 0.46)
            )
            b.lay(inside.astype(np.float32), tones[int(b.rng.integers(len(tones)))])
            left += width


def _kitchen(b: Backdrop) -> None:
    b.colour[:] = rgb("e9e3d6")
    tiles = ((b.x * 6) % 1 < 0.06) | ((b.y * 6) % 1 < 0.06)
    b.lay(tiles * np.float32(0.5), rgb("b9c4c6"))
    cupboard = rgb(("4f8a8b", "7a9e7e", "c77d4f")[int(b.rng.integers(3))])
    b.lay(fill(-0.45 - b.y, b.edge), cupboard)
    b.lay(
        band((b.x * 1.6 + b.jitter(0, 1)) % 1 - 0.5, 0.02, b.edge) * (b.y < -0.47), cupboard * np.float32(0.6)
    )
    b.lay(fill(b.y - 0.38, b.edge), rgb("a9744a"))
    b.lay(fill(b.y - 0.46, b.edge), rgb("80522f"))
    for side in (-1, 1):
        b.lay(
            disc(b.x, b.y, (side * b.jitter(0.65, 0.9), 0.27), (0.10, 0.13), b.edge),
            rgb("c0392b" if side > 0 else "3b6fa0"),
        )


def _meadow(b: Backdrop) -> None:
    b.gradient("6fb9f0", "d8eefb", -1, 0.0)
    b.lay(fill(b.y - b.jitter(-0.12, 0.02) - 0.05 * np.sin(b.x * 3 + b.jitter(0, 6)), b.edge), rgb("76b843"))
    sx, sy = b.shift()
    for octave, tone in ((32, "f5d33b"), (32, "e8559a"), (16, "ffffff")):
        spots = step(
            0.76, 0.82, noise(b.x + sx + octave / 7, b.y + sy + len(tone), octave, 16 + ord(tone[0]))
        )
        b.lay(spots * (b.y > 0.02), rgb(tone))


def _mountains(b: Backdrop) -> None:
    b.gradient("6da6dc", "dbe7f1", -1, 0.3)
    for base, tone, cap in ((-0.05, "7b8aa3", True), (0.25, "55657c", False)):
        ridge = np.full(b.x.shape, 9.0, dtype=np.float32)
        for at in np.linspace(-1, 1, 4):
            ridge = np.minimum(
                ridge, base - b.jitter(0.35, 0.75) + np.abs(b.x - at - b.jitter(-0.2, 0.2)) * 1.1
            )
        b.lay(fill(b.y - ridge, b.edge), rgb(tone))
        if cap:
            b.lay(
                fill(b.y - ridge, b.edge) * fill(ridge * 0 - 0.38 + 0.05 * np.sin(b.x * 14) - b.y, b.edge),
                rgb("f6f9fc"),
            )
    b.lay(fill(b.y - 0.42, b.edge), rgb("4f7a4c"))


def _sea(b: Backdrop) -> None:
    b.gradient("2fa7d0", "063a66", -1, 1)
    for _ in range(4):
        cx = b.jitter(-1, 1)
        ray = band(b.x - cx - (b.y + 1) * b.jitter(-0.3, 0.3), 0.05 + (b.y + 1) * 0.08, 0.1)
        b.lay(ray * step(0.9, -1, b.y) * 0.28, rgb("d5f6ff"))
    for _ in range(9):
        spot = (b.jitter(-1, 1), b.jitter(-1, 1))
        b.lay(disc(b.x, b.y, spot, (0.05, 0.05), b.edge) * 0.55, rgb("bfeaf7"))
    for tone in ("f39c3d", "f4d03f"):
        side, cy = b.jitter(0.62, 0.88) * (1 if b.rng.random() < 0.5 else -1), b.jitter(-0.7, 0.3)
        b.lay(disc(b.x, b.y, (side, cy), (0.13, 0.07), b.edge), rgb(tone))
        b.lay(
            fill(0.10 - np.abs(b.x - side - 0.17) - np.abs(b.y - cy) * 0.9, b.edge) * (b.x > side), rgb(tone)
        )


_PAINTERS: dict[str, Callable[[Backdrop], None]] = {
    "studio": _studio,
    "beach": _beach,
    "snow": _snow,
    "forest": _forest,
    "city": _city,
    "desert": _desert,
    "space": _space,
    "sunset": _sunset,
    "library": _library,
    "kitchen": _kitchen,
    "meadow": _meadow,
    "mountains": _mountains,
    "night": _night,
    "sea": _sea,
}

AMBIENT = {
    name: tint(*light)
    for name, light in {
        "snow": (0.97, 1.0, 1.06),
        "forest": (0.94, 1.0, 0.93),
        "space": (0.86, 0.86, 1.04),
        "sunset": (1.10, 0.94, 0.84),
        "night": (0.84, 0.84, 1.0),
        "sea": (0.84, 1.0, 1.08),
        "desert": (1.05, 1.0, 0.92),
        "library": (1.05, 0.98, 0.90),
    }.items()
}


def paint_scene(scene: str, size: int, seed: int) -> Array:
    """Paint a scene.

    Args:
        scene: One of `photomaker.synthetic.factors.SCENES`.
        size: Pixels to a side.
        seed: Where its details come from.

    Returns:
        float32 [3, size, size] in 0..1.
    """
    backdrop = Backdrop(size, seed)
    _PAINTERS[scene](backdrop)
    return np.clip(box_blur(backdrop.colour, max(1, size // 128)), 0, 1)


def ambient(scene: str) -> Array:
    """Colour of the light from all sides in a scene, around 1."""
    return AMBIENT.get(scene, WHITE)
