"""Hair: what hangs behind the head, what lies on it, what falls beside the face, and beards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from photomaker.synthetic.anatomy import Placed, Proportions, Surface
from photomaker.synthetic.canvas import Array, Light, capsule, disc, fill, mix, noise, rgb, step
from photomaker.synthetic.factors import BEARDS, HAIRSTYLES, Person

TONES = tuple(
    rgb(code) for code in ("231d1c", "4a2e1c", "74431f", "dcb266", "b4491d", "7a2b1c", "8f8f92", "e6e4df")
)


def hair_colour(person: Person) -> Array:
    """Colour of the person's hair, RGB; in the old classes mostly grey."""
    tone = TONES[person.hair_colour]
    return mix(tone, rgb("d3d2d0"), 0.80) if person.is_old else tone


@dataclass(frozen=True)
class Cut:
    """How a hairstyle is built: growth over the skull, lift of the top, and which parts it has."""

    grow: float
    lift: float
    rough: float = 0.0
    hang: float = 0.0
    back: float = 0.0
    waves: float = 0.0


CUTS = {
    "cropped": Cut(0.012, 0.018),
    "short": Cut(0.035, 0.065),
    "parted": Cut(0.040, 0.075),
    "swept": Cut(0.035, 0.135),
    "curly": Cut(0.075, 0.115, rough=0.055),
    "round": Cut(0.175, 0.190, rough=0.030),
    "bob": Cut(0.055, 0.070, hang=0.42, back=0.46),
    "fringe": Cut(0.045, 0.070),
    "long": Cut(0.045, 0.060, hang=0.95, back=1.15),
    "wavy": Cut(0.070, 0.075, hang=0.90, back=1.10, waves=0.035),
    "tied": Cut(0.022, 0.035),
    "receding": Cut(0.022, 0.010),
}


class Hair:
    """One head of hair.

    Args:
        person: Whose.
        shape: The head's measures.
        yaw: Turn of the head in radians.
        covered: Whether a hat presses it down.
        pixel: Width of a pixel in head coordinates.
    """

    def __init__(self, person: Person, shape: Proportions, yaw: float, covered: bool, pixel: float) -> None:
        """Choose the cut and build its surface."""
        self.person, self.shape, self.yaw, self.edge = person, shape, yaw, pixel * 1.3
        self.style = HAIRSTYLES[person.hairstyle]
        cut = CUTS[self.style]
        volume = 1 + 0.22 * person.hair_volume
        grow, lift = cut.grow * volume, cut.lift * volume
        if covered:
            grow, lift = min(grow, 0.05), min(lift, 0.03)
        if person.is_feminine and self.style in ("fringe", "parted"):
            cut = Cut(cut.grow, cut.lift, hang=0.55, back=0.60)
        self.cut, self.grow, self.lift, self.covered = cut, grow, lift, covered
        self.colour = hair_colour(person)
        self.surface = Surface(shape, yaw, grow=grow, top=shape.top + lift, chin=shape.chin + 0.05)

    def strands(self, along: Array, across: Array) -> Array:
        """Light and dark strands, around 1."""
        fine = noise(across * 3.1, along * 0.22, 128, 1)
        coarse = noise(across * 1.3, along * 0.20, 32, 2)
        return np.float32(0.66) + np.float32(0.42) * fine + np.float32(0.26) * coarse

    def _tone(self, light: Light, normal: tuple[Array, Array, Array], strands: Array) -> Array:
        diffuse = light.lit(normal)
        colour = light.shade(self.colour * strands, diffuse)
        sheen = np.exp(-((normal[1] + np.float32(0.42)) ** 2) * np.float32(30)) * np.clip(normal[2], 0, 1)
        gloss = sheen * diffuse * (strands - np.float32(0.45)) * np.float32(0.26)
        return colour + gloss * mix(self.colour, np.ones((3, 1, 1), dtype=np.float32), 0.55)

    def behind(self, x: Array, v: Array, light: Light) -> tuple[Array, Array]:
        """Cover and colour of the hair behind neck and ears."""
        s, cut = self.shape, self.cut
        inside = np.full(x.shape, -1, dtype=np.float32)
        drift = np.float32(-0.10 * np.sin(self.yaw))
        if cut.back:
            wave = (
                np.float32(cut.waves) * np.sin(v * np.float32(19) + np.sign(x))
                if cut.waves
                else np.float32(0)
            )
            half = (
                np.float32(s.width + self.grow + 0.055)
                + wave
                - np.clip(-0.1 - v, 0, 1) ** 2 * np.float32(1.5)
            )
            if cut.back < 0.8:  # short back hair is rounded at its lower end
                half = half - np.clip(v - (cut.back - 0.14), 0, 1) ** 2 * np.float32(3.0)
            inside = np.minimum(
                half - np.abs(x - drift), np.minimum(np.float32(cut.back) - v, v + np.float32(0.5))
            )
        if self.style == "tied" and not self.covered:
            bun = (1 - np.hypot((x - 1.2 * drift) / 0.20, (v + s.top + 0.085) / 0.16)) * np.float32(0.16)
            inside = np.maximum(inside, bun)
        if self.style == "tied":
            tail = capsule(x, v, (-0.30 + float(drift), 0.1, -0.44 + float(drift), 0.62), 0.075)
            inside = np.maximum(inside, tail) if self.person.is_feminine else inside
        elif self.style != "receding":
            inside = np.maximum(inside, np.minimum(self.surface.at(x, v).inside, np.float32(0.06) - v))
        if cut.rough:
            inside = np.maximum(inside, self._rough(self.surface.at(x - drift * 0.5, v), x, v))
        depth = step(0.0, 0.25, inside)
        normal = (x * np.float32(0.9), v * np.float32(0.3), np.float32(0.55) + np.float32(0.3) * depth)
        colour = self._tone(light, normal, self.strands(v, x)) * np.float32(0.74)
        return fill(inside, self.edge), colour

    def _rough(self, at: Placed, x: Array, v: Array) -> Array:
        curls = noise(x * 1.6 + 0.3, v * 1.6, 32, 3) - np.float32(0.5)
        return np.minimum(at.inside, np.float32(0.22) - v) + curls * np.float32(self.cut.rough * 1.6)

    def _line(self, at: Placed) -> Array:
        """How far each pixel lies above the hairline, positive where there is hair."""
        s, t = self.shape, at.u / np.float32(self.shape.width + self.grow)
        side = np.where(at.front < 0, np.float32(2) - np.minimum(t * t, 1), np.minimum(t * t, 1))
        base = np.float32(s.hairline) + side * side * np.float32(0.40) + side * np.float32(0.09)
        if self.style == "parted":
            base = base - np.float32(0.02) + np.float32(0.15) * step(-0.42, 0.35, t) * step(1.15, 0.5, t)
        elif self.style == "swept":
            base = base - np.float32(0.03) + np.float32(0.02) * t
        elif self.style == "fringe":
            cut = np.float32(s.brow_y - 0.035) + side * np.float32(0.10)
            jag = (noise(at.u * 2.6, at.v * 0, 64, 4) - np.float32(0.5)) * np.float32(0.05)
            base = np.maximum(base, cut + jag)
        elif self.style in ("bob", "long", "wavy"):
            base = base - np.float32(0.05) + np.abs(t) ** 1.5 * np.float32(0.20)
        elif self.style == "receding":
            base = (
                np.float32(s.hairline - 0.26)
                + side * side * np.float32(0.62)
                + step(0.62, 0.86, np.abs(t)) * np.float32(0.2)
            )
        elif self.cut.rough:
            base = base + (noise(at.u * 1.9, at.v * 1.9, 32, 5) - np.float32(0.5)) * np.float32(0.07)
        line = base - at.v
        return line if self.cut.hang else np.minimum(line, np.float32(0.09) - at.v)

    def on_head(self, x: Array, v: Array, light: Light) -> tuple[Array, Array]:
        """Cover and colour of the hair on the skull."""
        at = self.surface.at(x, v)
        inside = self._rough(at, x, v) if self.cut.rough and not self.covered else at.inside
        cover = fill(
            np.minimum(inside, self._line(at)), self.edge * (2.2 if self.style == "cropped" else 1.2)
        )
        if self.style == "cropped":
            cover = cover * np.float32(0.90)
        if self.style == "swept":
            strands = self.strands(at.v * 1.0 + at.u * 0.2, at.u * 1.2)
        elif self.cut.rough:
            curls = noise(x * 2.4, v * 2.4, 64, 6)
            strands = np.float32(0.50) + curls * np.float32(0.95)
        else:
            strands = self.strands(at.v, at.u * 1.0 + at.v * at.u * 0.8)
        colour = self._tone(light, at.normal, strands)
        if self.style == "parted":
            where = at.u / np.float32(self.shape.width) + np.float32(0.42) + (at.v + 0.4) * np.float32(0.3)
            colour *= 1 - (np.exp(-(where**2) * 900) * step(-0.30, -0.42, at.v) * np.float32(0.55))
        return cover, colour

    def beside(self, x: Array, v: Array, light: Light) -> tuple[Array, Array] | None:
        """Cover and colour of the locks that fall beside the face, if the style has any."""
        cut, s = self.cut, self.shape
        if not cut.hang:
            return None
        inside = np.full(x.shape, -1, dtype=np.float32)
        wave = np.float32(cut.waves) * np.sin(v * np.float32(19)) if cut.waves else np.float32(0)
        for side in (-1, 1):
            turn = -0.05 * float(np.sin(self.yaw)) + side * self.grow * 0.5
            ends = (side * (s.width - 0.015) + turn, -0.20, side * (s.width + 0.035) + turn, cut.hang)
            inside = np.maximum(inside, capsule(x + wave * side, v, ends, 0.072 + self.grow * 0.3))
        inner = np.abs(x) - np.float32(s.width)
        normal = (inner * 3 * np.sign(x), v * np.float32(0.1), np.float32(0.8) + x * 0)
        return fill(inside, self.edge), self._tone(light, normal, self.strands(v, x + wave))


def beard_behind(person: Person, shape: Proportions, yaw: float) -> Surface | None:
    """The outline of a full beard, larger than the jaw; None for people without one."""
    if BEARDS[person.beard] != "beard":
        return None
    return Surface(shape, yaw, grow=0.012, chin=shape.chin + 0.065)


def beard_cover(person: Person, shape: Proportions, at: Placed, edge: float) -> Array | None:
    """Cover 0..1 of the beard over the face; None for people without one."""
    kind, s = BEARDS[person.beard], shape
    if kind == "none":
        return None
    u, v = at.u, at.v
    side = np.abs(u)
    lips = disc(u, v, (0, s.mouth_y), (s.mouth_width * 1.10, s.lips * 1.75), edge * 2)
    line = (
        np.float32(s.mouth_y + 0.035)
        - side * side * np.float32(3.0)
        - step(0.16, 0.40, side) * np.float32(0.05)
    )
    moustache = fill(
        np.minimum(
            np.float32(s.mouth_width * 1.22) - side,
            np.minimum(
                v - np.float32(s.nose_y + 0.034) - side * 0.15,
                np.float32(s.mouth_y + 0.01) + side * np.float32(0.32) - v,
            ),
        ),
        edge * 2,
    )
    goatee = fill(
        np.minimum(np.float32(s.mouth_width * 0.86) - side, v - np.float32(s.mouth_y - 0.02)), edge * 2
    )
    full = fill(v - np.minimum(line, np.float32(s.mouth_y + 0.03)), edge * 3)
    grain = noise(u * 3, v * 1.6, 128, 7)
    if kind == "stubble":
        return np.maximum(full, moustache) * (1 - lips) * (np.float32(0.14) + np.float32(0.42) * grain)
    parts = {
        "moustache": moustache,
        "goatee": np.maximum(moustache, goatee),
        "beard": np.maximum(full, moustache),
    }
    return parts[kind] * (1 - lips) * (np.float32(0.80) + np.float32(0.18) * grain)
