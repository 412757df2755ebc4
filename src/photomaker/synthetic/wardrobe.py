"""What people wear: clothes, hats, glasses."""

from __future__ import annotations

import numpy as np

from photomaker.synthetic.anatomy import Placed, Proportions, Surface
from photomaker.synthetic.canvas import (
    Array,
    Light,
    band,
    bump,
    capsule,
    disc,
    fill,
    mix,
    noise,
    rgb,
    step,
    tint,
)
from photomaker.synthetic.factors import Person, View

DYES = dict(
    zip(
        ("red", "blue", "green", "yellow", "black", "white", "purple", "orange"),
        (
            rgb(code)
            for code in ("c8272d", "2b57c4", "2f8f3e", "f0c929", "26262b", "f1f1ee", "7b3aa8", "ee7a1c")
        ),
        strict=True,
    )
)
_WHITE, _DARK = rgb("f4f3ef"), rgb("1d1d22")


class Body:
    """Neck, shoulders and clothes, in body coordinates (x, y).

    Args:
        person: Who wears them; the class sets the build.
        view: Which clothes.
        pixel: Width of a pixel in body coordinates.
        whole: Whether the arms end the body; a close portrait never shows that far.
    """

    def __init__(self, person: Person, view: View, pixel: float, whole: bool = False) -> None:
        """Take the build from the class."""
        self.whole = whole
        self.view, self.edge = view, pixel * 1.3
        self.neck = 0.145 if person.is_child else 0.155 if person.is_feminine else 0.205
        self.shoulders = 0.60 if person.is_child else 0.74 if person.is_feminine else 0.90
        self.dye = DYES[view.clothing_colour]

    def bare(self, x: Array, y: Array) -> Array:
        """Cover of the neck and the skin in the neckline."""
        half = np.float32(self.neck) + step(0.55, 0.80, y) * np.float32(0.10)
        return fill(np.minimum(half - np.abs(x), y - np.float32(0.2)), self.edge)

    def _torso(self, x: Array, y: Array) -> Array:
        t = np.minimum(np.abs(x) / np.float32(self.shoulders), 1.6)
        inside = y - np.float32(0.655) - np.float32(0.30) * t ** np.float32(2.6)
        if self.whole:
            half = np.float32(self.shoulders * 0.98) - step(1.0, 2.4, y) * np.float32(0.14)
            inside = np.minimum(inside, half - np.abs(x))
        return inside

    def clothes(self, x: Array, y: Array, light: Light) -> tuple[Array, Array]:
        """Cover and colour of the clothes."""
        inside = self._torso(x, y)
        kind = self.view.clothing
        side = np.abs(x)
        if kind == "t-shirt":
            neckline = (1 - np.hypot(x / 0.235, (y - 0.635) / 0.150)) * np.float32(0.15)
        elif kind in ("shirt", "suit"):
            deep = 0.86 if kind == "shirt" else 0.80
            neckline = np.minimum(
                np.float32(deep) - y, (np.float32(deep) - y) * np.float32(0.62) - side + np.float32(0.02)
            )
        elif kind == "hoodie":
            neckline = (1 - np.hypot(x / 0.20, (y - 0.66) / 0.125)) * np.float32(0.125)
        else:
            neckline = np.full(x.shape, -1, dtype=np.float32)
        cover = fill(np.minimum(inside, -neckline), self.edge)
        colour = np.broadcast_to(self.dye, (3, *x.shape)).copy()
        getattr(self, "_" + kind.replace("-", ""))(x, y, side, neckline, colour)
        if kind in ("hoodie", "sweater"):
            cover = np.maximum(cover, self._collar(x, y, colour))
        folds = noise(x * 0.7, y * 0.5, 16, 8) - np.float32(0.5)
        nx = x / np.float32(self.shoulders) * np.float32(0.85) + folds * np.float32(0.5)
        ny = np.float32(-0.42) + step(0.65, 1.0, y) * np.float32(0.34)
        nz = np.sqrt(np.clip(1 - nx * nx - ny * ny, 0.05, 1))
        return cover, light.shade(colour, light.lit((nx, ny, nz)))

    def _tshirt(self, x: Array, y: Array, side: Array, neckline: Array, colour: Array) -> None:
        del x, y, side
        rib = band(neckline + np.float32(0.022), 0.020, self.edge)
        colour *= 1 - (rib * np.float32(0.28))

    def _shirt(self, x: Array, y: Array, side: Array, neckline: Array, colour: Array) -> None:
        del neckline
        point = np.minimum(np.float32(0.86) - y, side - (np.float32(0.86) - y) * np.float32(0.60))
        flap = fill(
            np.minimum(point, np.float32(0.13) - (side - (np.float32(0.86) - y) * np.float32(0.60)) * 1.15),
            self.edge,
        )
        colour += (mix(self.dye, _WHITE, 0.42) - colour) * flap
        edge = band(point, 0.006, self.edge) + band(side, 0.006, self.edge) * (y > 0.86)
        colour *= 1 - (np.clip(edge, 0, 1) * np.float32(0.45))
        for height in (0.905, 0.975):
            button = disc(x, y, (0.0, height), (0.018, 0.018), self.edge)
            colour += (mix(self.dye, _WHITE, 0.75) - colour) * button

    def _hoodie(self, x: Array, y: Array, side: Array, neckline: Array, colour: Array) -> None:
        del neckline
        string = band(side - np.float32(0.075) - (y - 0.80) * np.float32(0.10), 0.011, self.edge)
        string = string * (y > 0.78) * (y < 0.95)
        colour += (mix(self.dye, _WHITE, 0.8) - colour) * string
        colour *= 1 - (band(x, 0.006, self.edge) * (y > 0.80) * np.float32(0.35))

    def _suit(self, x: Array, y: Array, side: Array, neckline: Array, colour: Array) -> None:
        del neckline
        opening = (np.float32(1.06) - y) * np.float32(0.56) - side
        shirt = fill(opening, self.edge)
        colour += (_WHITE - colour) * shirt
        tie = np.minimum(
            np.float32(0.026) + np.clip(y - 0.80, 0, 1) * np.float32(0.14) - np.abs(x), y - np.float32(0.79)
        )
        knot = (1 - np.hypot(x / 0.052, (y - 0.81) / 0.034)) * np.float32(0.034)
        silk = _DARK if self.view.clothing_colour in ("red", "orange", "white", "yellow") else rgb("b3212c")
        colour += (silk - colour) * fill(np.maximum(tie, knot), self.edge)
        lapel = band(opening + np.float32(0.060), 0.060, self.edge) * (1 - shirt)
        colour *= 1 - (lapel * np.float32(0.24))
        colour *= 1 - (band(opening + np.float32(0.122), 0.006, self.edge) * np.float32(0.5))

    def _sweater(self, x: Array, y: Array, side: Array, neckline: Array, colour: Array) -> None:
        del neckline, side, y
        knit = np.sin(x * np.float32(70)) * np.float32(0.09)
        colour *= 1 + knit

    def _collar(self, x: Array, y: Array, colour: Array) -> Array:
        """The turtleneck of a sweater or the hood of a hoodie, which stand round the neck."""
        if self.view.clothing == "sweater":
            half = np.float32(self.neck + 0.030) + step(0.62, 0.74, y) * np.float32(0.10)
            inside = np.minimum(half - np.abs(x), np.minimum(y - np.float32(0.535), np.float32(0.76) - y))
            ribs = np.float32(1) + np.sin(x * np.float32(70)) * np.float32(0.12) * (y < 0.70)
            colour *= ribs * (
                1 - band(y - np.float32(0.715), 0.012, self.edge) * np.float32(0.3) * (inside > 0)
            )
            return fill(inside, self.edge)
        outer = (1 - np.hypot(x / 0.42, (y - 0.655) / 0.205)) * np.float32(0.205)
        inner = (1 - np.hypot(x / 0.20, (y - 0.66) / 0.125)) * np.float32(0.125)
        ring = np.minimum(outer, -inner)
        shade = bump(ring, 0.0, 0.035) * np.float32(0.42) * (outer > -0.04)
        colour *= 1 - shade
        return fill(ring, self.edge)


class Hat:
    """A hat on a head, in head coordinates.

    Args:
        view: Which hat.
        shape: The head's measures.
        pixel: Width of a pixel in head coordinates.
    """

    def __init__(self, view: View, shape: Proportions, pixel: float) -> None:
        """Keep the measures."""
        self.view, self.shape, self.edge = view, shape, pixel * 1.3
        self.dye = DYES[view.hat_colour]
        self.lean = 0.20 * float(np.sin(view.yaw))

    def draw(self, x: Array, v: Array, light: Light) -> tuple[Array, Array]:
        """Cover and colour."""
        return getattr(self, "_" + self.view.hat.replace(" ", "_"))(x, v, light)

    def _dome(self, x: Array, v: Array, grow: float, top: float) -> Placed:
        return Surface(self.shape, self.view.yaw, grow=grow, top=top).at(x, v)

    def _beanie(self, x: Array, v: Array, light: Light) -> tuple[Array, Array]:
        at = self._dome(x, v, 0.062, self.shape.top + 0.085)
        line = np.float32(-0.255) + (at.u / np.float32(self.shape.width)) ** 2 * np.float32(0.05)
        knit = np.sin(at.u * np.float32(62)) * np.float32(0.09)
        colour = self.dye * (1 + knit)
        fold = fill(at.v - (line - np.float32(0.13)), self.edge)
        colour = colour + (mix(self.dye, _WHITE, 0.24) * (1 + knit * 1.6) - colour) * fold
        colour = light.shade(colour, light.lit(at.normal))
        colour *= 1 - (band(at.v - line + np.float32(0.13), 0.012, self.edge) * np.float32(0.35))
        ball = (
            1 - np.hypot((x - self.lean * 0.3) / 0.105, (v + self.shape.top + 0.135) / 0.105)
        ) * np.float32(0.105)
        ball = ball + (noise(x * 2, v * 2, 64, 9) - np.float32(0.5)) * np.float32(0.03)
        puff = fill(ball, self.edge)
        nub = light.shade(np.broadcast_to(mix(self.dye, _WHITE, 0.55), colour.shape), step(-0.02, 0.09, ball))
        colour = colour + (nub - colour) * puff
        return np.maximum(fill(np.minimum(at.inside, line - at.v), self.edge), puff), colour

    def _cap(self, x: Array, v: Array, light: Light) -> tuple[Array, Array]:
        at = self._dome(x, v, 0.050, self.shape.top + 0.085)
        line = np.float32(-0.285)
        colour = np.broadcast_to(self.dye, (3, *x.shape)).copy()
        seams = band(np.abs(at.u) - np.float32(0.20) - (at.v + 0.3) * np.float32(0.25), 0.005, self.edge)
        colour *= 1 - (np.clip(seams + band(at.u, 0.005, self.edge), 0, 1) * np.float32(0.22))
        badge = disc(at.u - self.lean * 0.2, at.v, (0, -0.435), (0.075, 0.062), self.edge)
        colour += (mix(_WHITE, self.dye, 0.75 if self.view.hat_colour == "white" else 0.08) - colour) * badge
        colour = light.shade(colour, light.lit(at.normal))
        dome = fill(np.minimum(at.inside, line - at.v), self.edge)
        bx = x - np.float32(self.lean * 1.5)
        curve = bx * bx * np.float32(0.36)
        brim = np.minimum(
            (1 - np.hypot(bx / 0.43, (v - curve + 0.295) / 0.125)) * np.float32(0.125),
            v - curve + np.float32(0.315),
        )
        rise = step(0.10, -0.02, v - curve + np.float32(0.29))
        peak = light.shade(
            np.broadcast_to(self.dye * np.float32(0.78), colour.shape),
            np.float32(0.35) + np.float32(0.55) * rise,
        )
        colour += (peak - colour) * fill(brim, self.edge)
        return np.maximum(dome, fill(brim, self.edge)), colour

    def _felt(
        self, x: Array, crown: Array, brim: Array, normal: tuple[Array, Array, Array], light: Light
    ) -> tuple[Array, Array]:
        """A crown above a brim, with a ribbon between them given by the caller's colours."""
        del x
        colour = light.shade(np.broadcast_to(self.dye, (3, *crown.shape)), light.lit(normal))
        flat = (
            normal[0] * np.float32(0.3),
            np.float32(-0.55) + normal[1] * 0,
            np.float32(0.75) + normal[2] * 0,
        )
        under = light.shade(np.broadcast_to(self.dye * np.float32(0.86), colour.shape), light.lit(flat))
        cover = fill(brim, self.edge)
        colour += (under - colour) * cover
        return np.maximum(fill(crown, self.edge), cover), colour

    def _cowboy_hat(self, x: Array, v: Array, light: Light) -> tuple[Array, Array]:
        hx = x - np.float32(self.lean * 0.4)
        width = np.float32(0.40) - np.clip(-0.36 - v, 0, 1) * np.float32(0.20)
        dent = np.float32(-0.83) - np.float32(0.05) * np.cos(np.clip(hx * 9, -3.1, 3.1)) * -1
        crown = np.minimum(np.minimum(width - np.abs(hx), v - dent), np.float32(-0.36) - v)
        lift = hx * hx * np.float32(0.27)
        brim = (1 - np.hypot(hx / 0.80, (v + 0.350 + lift) / 0.082)) * np.float32(0.082)
        normal = (
            hx * np.float32(2.2),
            np.float32(-0.25) + x * 0,
            np.sqrt(np.clip(1 - (hx * 2.2) ** 2, 0.05, 1)),
        )
        cover, colour = self._felt(x, crown, brim, normal, light)
        ribbon = fill(
            np.minimum(
                np.minimum(v + np.float32(0.50), np.float32(-0.42) - lift * 0.6 - v), width - np.abs(hx)
            ),
            self.edge,
        )
        return cover, colour * (1 - (ribbon * np.float32(0.55)))

    def _top_hat(self, x: Array, v: Array, light: Light) -> tuple[Array, Array]:
        hx = x - np.float32(self.lean * 0.3)
        width = np.float32(0.345) + np.clip(-0.40 - v, 0, 1) * np.float32(0.06)
        crown = np.minimum(
            np.minimum(width - np.abs(hx), v + np.float32(0.955) - hx * hx * 0.18), np.float32(-0.37) - v
        )
        lift = hx * hx * np.float32(0.10)
        brim = (1 - np.hypot(hx / 0.60, (v + 0.365 + lift) / 0.060)) * np.float32(0.060)
        normal = (
            hx * np.float32(2.7),
            np.float32(-0.05) + x * 0,
            np.sqrt(np.clip(1 - (hx * 2.7) ** 2, 0.05, 1)),
        )
        cover, colour = self._felt(x, crown, brim, normal, light)
        ribbon = fill(
            np.minimum(np.minimum(v + np.float32(0.56), np.float32(-0.425) - v), width - np.abs(hx)),
            self.edge,
        )
        silk = mix(self.dye, _WHITE if self.view.hat_colour in ("black", "blue", "purple") else _DARK, 0.72)
        return cover, colour + (silk - colour) * (ribbon * np.float32(0.9))

    def _beret(self, x: Array, v: Array, light: Light) -> tuple[Array, Array]:
        bx, bv = x - np.float32(0.07 + self.lean * 0.3), v + np.float32(0.50) - (x - 0.07) * np.float32(0.16)
        r = np.hypot(bx / 0.56, bv / 0.205)
        at = self._dome(x, v, 0.045, self.shape.top + 0.06)
        headband = np.minimum(at.inside, np.minimum(np.float32(-0.33) - v, v + np.float32(0.55)))
        inside = np.maximum((1 - r) * np.float32(0.205), headband)
        normal = (
            bx * np.float32(1.3),
            bv * np.float32(2.6) - np.float32(0.2),
            np.sqrt(np.clip(1 - r * r * 0.85, 0.05, 1)),
        )
        colour = light.shade(np.broadcast_to(self.dye, (3, *x.shape)), light.lit(normal))
        colour *= 1 - (fill(np.minimum(headband, v + np.float32(0.41)), self.edge) * np.float32(0.30))
        stem = capsule(x, v, (0.07 + self.lean * 0.3, -0.70, 0.085 + self.lean * 0.3, -0.755), 0.022)
        colour *= 1 - (fill(stem, self.edge) * np.float32(0.25))
        return np.maximum(fill(inside, self.edge), fill(stem, self.edge)), colour


def draw_eyewear(view: View, shape: Proportions, at: Placed, colour: Array, edge: float) -> None:
    """Draw glasses or sunglasses onto a shaded face, in place."""
    s, u, v = shape, at.u, at.v
    dark = view.eyewear == "sunglasses"
    wide, high = (0.148, 0.112) if dark else (0.138, 0.108)
    inside = np.full(u.shape, -1, dtype=np.float32)
    for side in (-1, 1):
        p, q = (u - side * (s.eye_x + 0.004)) / np.float32(wide), (v - s.eye_y - 0.012) / np.float32(high)
        p, q = p * p, q * q
        inside = np.maximum(inside, (1 - np.sqrt(np.sqrt(p * p + q * q))) * np.float32(high))
    lens = fill(inside, edge)
    if dark:
        glare = np.float32(0.10) + np.float32(0.30) * step(0.06, -0.10, v - s.eye_y + u * 0.25)
        glass = rgb("15161c") + glare * tint(0.42, 0.46, 0.55)
        colour += (glass - colour) * (lens * np.float32(0.97))
    else:
        streak = bump(u * np.float32(0.8) + v - s.eye_y, 0.0, 0.03) + bump(
            np.abs(u) - s.eye_x + (v - s.eye_y), 0.06, 0.018
        )
        colour += (1 - colour) * (lens * (np.float32(0.05) + np.float32(0.12) * streak))
    rim = band(inside, 0.0135 if dark else 0.0125, edge)
    bridge = band(v - s.eye_y + np.float32(0.028) - u * u * 2.0, 0.012, edge) * (
        np.abs(u) < s.eye_x - wide + 0.02
    )
    temple = band(v - s.eye_y + np.float32(0.025), 0.012, edge) * (np.abs(u) > s.eye_x + wide - 0.01)
    frame = np.clip(rim + bridge + temple, 0, 1)
    colour += (rgb("1a1716") - colour) * (frame * np.float32(0.95))
