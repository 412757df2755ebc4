"""The head as a surface, and the face on it.

The head is a stack of ellipses, one at each height, so that the place of every pixel on it has a closed form
also when the
head is turned: at height v the ellipse has half width w(v) and depth d(v); turned by an angle it spans R(v)
on the screen, and
the pixel at X lies at longitude asin(X / R) - phi. Features are painted in face coordinates (u, v) and turn
with the head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from photomaker.synthetic.canvas import Array, Light, band, bump, disc, fill, mix, noise, rgb, step, tint
from photomaker.synthetic.factors import Person, View

_ENTRIES = 1536
_LOW, _HIGH = -1.0, 0.8

SKIN = tuple(rgb(code) for code in ("fbe3d4", "f3cdb0", "e3ac85", "c68a5e", "96603c", "643d27", "432a1f"))
IRIS = tuple(rgb(code) for code in ("5b3518", "8a6a2f", "4f8a4a", "3f7fc4", "8c979f", "1d1512"))


def skin_colour(person: Person) -> Array:
    """The person's skin, RGB."""
    at = person.skin * (len(SKIN) - 1)
    low = min(int(at), len(SKIN) - 2)
    tone = mix(SKIN[low], SKIN[low + 1], at - low)
    warm = tint(0.02, 0.0, -0.03) * person.undertone
    return np.clip(tone + warm, 0, 1).astype(np.float32)


@dataclass(frozen=True)
class Proportions:
    """Measures of a face in half pictures; v grows downwards from the middle of the head."""

    width: float
    top: float
    chin: float
    jaw: float
    point: float
    cheeks: float
    eye_x: float
    eye_y: float
    eye_width: float
    eye_height: float
    eye_tilt: float
    brow_y: float
    brow: float
    brow_tilt: float
    nose_y: float
    nose_width: float
    mouth_y: float
    mouth_width: float
    lips: float
    hairline: float


def proportions(person: Person) -> Proportions:
    """A person's measures: the class sets the average, the shape factors vary around it."""
    p = person
    child, feminine, old = p.is_child, p.is_feminine, p.is_old
    length = 0.52 + 0.065 * p.face_length - (0.075 if child else 0.0)
    eye_y = 0.0 + 0.03 * p.eye_height + (0.05 if child else 0.0)
    nose_y = eye_y + 0.205 + 0.045 * p.nose_length - (0.055 if child else 0.0)
    mouth_y = nose_y + (length - nose_y) * (0.40 + 0.08 * p.mouth_height)
    return Proportions(
        width=0.425 + 0.05 * p.face_width - (0.01 if child else 0.0) - (0.012 if feminine else 0.0),
        top=0.60,
        chin=length,
        jaw=2.55 + 0.75 * p.jaw - (0.45 if feminine or child else 0.0),
        point=2.05 - 0.35 * p.chin,
        cheeks=0.02 * p.cheeks + (0.02 if child else 0.0),
        eye_x=0.178 + 0.03 * p.eye_spacing,
        eye_y=eye_y,
        eye_width=(0.088 + 0.016 * p.eye_size) * (1.16 if child else 1.06 if feminine else 1.0),
        eye_height=(0.050 + 0.012 * p.eye_size)
        * (1.28 if child else 1.12 if feminine else 0.86 if old else 1.0),
        eye_tilt=0.16 * p.eye_tilt,
        brow_y=eye_y - 0.125 - 0.028 * p.brow_height,
        brow=(0.022 + 0.010 * p.brow_thickness) * (0.75 if feminine or child else 1.15),
        brow_tilt=0.18 * p.brow_tilt,
        nose_y=nose_y,
        nose_width=(0.074 + 0.022 * p.nose_width) * (0.78 if child else 0.9 if feminine else 1.0),
        mouth_y=mouth_y,
        mouth_width=(0.142 + 0.032 * p.mouth_width) * (0.82 if child else 1.0),
        lips=(0.032 + 0.014 * p.lips) * (1.12 if feminine else 0.8 if old or child else 0.92),
        hairline=-0.37 - 0.05 * p.hairline,
    )


class Surface:
    """A closed surface of stacked ellipses: the skull, or hair or a hat that fits over it.

    Args:
        shape: The face's measures.
        yaw: Turn in radians.
        grow: Added to every half width.
        top: Height of the top above v = 0.
        chin: Depth of the chin below v = 0.
    """

    def __init__(
        self,
        shape: Proportions,
        yaw: float,
        grow: float = 0.0,
        top: float | None = None,
        chin: float | None = None,
    ) -> None:
        """Tabulate the ellipses."""
        v = np.linspace(_LOW, _HIGH, _ENTRIES)
        top, chin, middle = top or shape.top, chin or shape.chin, -0.06
        up = np.clip((middle - v) / (top + middle), 0, 1)
        down = np.clip((v - middle) / (chin - middle), 0, 1)
        round_top = np.sqrt(1 - up**2.3)
        jaw = (1 - down**shape.jaw) ** (1 / shape.point)
        cheeks = shape.cheeks * np.exp(-(((v - 0.22) / 0.13) ** 2))
        w = np.where(v < middle, round_top, jaw) * (shape.width + grow) + cheeks * (jaw > 0)
        w = np.where((v > -top) & (v < chin), np.maximum(w, 1e-4), 1e-4)
        d = (0.46 + grow) * (w / (shape.width + grow)) ** 0.85
        across, along = w * np.cos(yaw), d * np.sin(yaw)
        span = np.hypot(across, along)
        self._w, self._d, self._span = w.astype(np.float32), d.astype(np.float32), span.astype(np.float32)
        self._phi = np.arctan2(along, across).astype(np.float32)
        self._dw, self._dd = (np.clip(np.gradient(a, v), -9, 9).astype(np.float32) for a in (w, d))
        self._slope = np.sqrt(1 + np.clip(np.gradient(span, v), -9, 9) ** 2).astype(np.float32)
        self._turn = float(np.sin(yaw)), float(np.cos(yaw))

    def at(self, x: Array, v: Array) -> Placed:
        """Where the pixels with head coordinates (x, v) lie on the surface."""
        row = np.clip((v - _LOW) * ((_ENTRIES - 1) / (_HIGH - _LOW)), 0, _ENTRIES - 1).astype(np.int32)
        span = self._span[row]
        inside = np.where(span > 0.001, (span - np.abs(x)) / self._slope[row], np.float32(-1))
        longitude = np.arcsin(np.clip(x / span, -1, 1)) - self._phi[row]
        w, d, sine, cosine = self._w[row], self._d[row], np.sin(longitude), np.cos(longitude)
        nx, nz = d * sine, w * cosine
        ny = -(self._dw[row] * d * sine * sine + self._dd[row] * w * cosine * cosine)
        sin_yaw, cos_yaw = self._turn
        nx, nz = nx * cos_yaw + nz * sin_yaw, nz * cos_yaw - nx * sin_yaw
        inverse = 1 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-12)
        return Placed(w * sine, v, cosine, inside, (nx * inverse, ny * inverse, nz * inverse))

    def to_screen(self, u: float, v: float) -> float:
        """Screen x of the point of the surface at face coordinates (u, v)."""
        row = int(np.clip((v - _LOW) * (_ENTRIES - 1) / (_HIGH - _LOW), 0, _ENTRIES - 1))
        longitude = np.arcsin(np.clip(u / self._w[row], -1, 1))
        return float(self._span[row] * np.sin(longitude + self._phi[row]))


@dataclass(frozen=True)
class Placed:
    """Pixels on a surface.

    Attributes:
        u: Face coordinate to the right.
        v: Face coordinate downwards.
        front: Cosine of the longitude, negative behind the ears.
        inside: Distance into the outline, positive inside.
        normal: Components of the unit normals, z towards the viewer.
    """

    u: Array
    v: Array
    front: Array
    inside: Array
    normal: tuple[Array, Array, Array]


def _eye(u: Array, v: Array, shape: Proportions, side: int) -> tuple[Array, Array]:
    """Eye coordinates: p from the inner (-1) to the outer corner (1), q from -1 to 1 downwards."""
    p, q = (u * side - shape.eye_x), v - shape.eye_y
    tilt = shape.eye_tilt
    return (p + q * tilt) / np.float32(shape.eye_width), (q + p * tilt) / np.float32(shape.eye_height)


class FacePainter:
    """Paints one face: skin relief, eyes, brows, nose, mouth, and the marks of age.

    Args:
        person: Whose face.
        view: In which circumstances.
        shape: The person's measures.
        hair: Colour of the hair, RGB.
        pixel: Width of a pixel in head coordinates.
    """

    def __init__(self, person: Person, view: View, shape: Proportions, hair: Array, pixel: float) -> None:
        """Keep what every feature needs."""
        self.person, self.view, self.shape, self.hair = person, view, shape, hair
        self.edge = pixel * 1.3
        self.skin = skin_colour(person)
        self.lean = float(np.sin(view.yaw)) * 0.13

    def relief(self, at: Placed) -> Array:
        """Height of the face over the surface, in half pictures."""
        s, u, v = self.shape, at.u, at.v
        ridge = step(s.eye_y - 0.06, s.nose_y, v) * step(s.nose_y + 0.075, s.nose_y + 0.01, v)
        centre = u - self.lean * ridge
        nose = ridge * bump(centre, 0, 0.028 + s.nose_width * 0.34) * np.float32(0.060)
        tip = bump(centre, 0, s.nose_width * 0.62) * bump(v, s.nose_y - 0.012, 0.042) * np.float32(0.042)
        beside = np.abs(centre) - np.float32(s.nose_width * 0.74)
        wings = bump(beside, 0, 0.026) * bump(v, s.nose_y + 0.004, 0.030) * np.float32(0.024)
        side = np.abs(u)
        sockets = bump(side, s.eye_x, 0.105) * bump(v, s.eye_y - 0.01, 0.085) * np.float32(-0.026)
        ridge_brow = bump(side, s.eye_x, 0.13) * bump(v, s.brow_y, 0.05) * np.float32(0.012)
        cheeks = (
            bump(side, 0.235, 0.105) * bump(v, s.nose_y - 0.02, 0.095) * np.float32(0.024 + 0.4 * s.cheeks)
        )
        chin = bump(u, 0, 0.10) * bump(v, s.chin - 0.075, 0.055) * np.float32(0.022)
        return nose + tip + wings + sockets + ridge_brow + cheeks + chin

    def albedo(self, at: Placed) -> Array:
        """Skin with blush, freckles, mole, stubble and wrinkles, RGB for each pixel."""
        s, p, u, v = self.shape, self.person, at.u, at.v
        side = np.abs(u)
        colour = np.broadcast_to(self.skin, (3, *u.shape)).copy()
        blush = bump(side, 0.235, 0.10) * bump(v, s.nose_y - 0.005, 0.085)
        nose_red = bump(u - self.lean, 0, 0.075) * bump(v, s.nose_y, 0.055) * np.float32(0.5)
        amount = 0.34 if p.is_child or p.person_class == "woman" else 0.20
        colour *= 1 - ((blush + nose_red) * np.float32(amount)) * tint(0.02, 0.30, 0.26)
        if p.freckles > 0.02:
            spots = step(
                0.80 - 0.16 * p.freckles, 0.86 - 0.12 * p.freckles, noise(u * 2.2 + 0.11, v * 2.2, 64, p.seed)
            )
            place = bump(side, 0.15, 0.19) * bump(v, s.nose_y - 0.075, 0.10)
            colour *= 1 - (spots * place * np.float32(min(1.0, 0.45 + p.freckles))) * tint(0.30, 0.44, 0.52)
        if p.mole:
            where = (
                (-0.235, s.mouth_y - 0.055),
                (0.235, s.mouth_y - 0.055),
                (0.10, s.mouth_y - 0.075),
                (0.085, s.chin - 0.09),
            )
            mole = disc(u, v, where[p.mole - 1], (0.021, 0.021), self.edge)
            colour += (self.skin * np.float32(0.30) - colour) * mole
        if p.is_old:
            colour *= 1 - self._wrinkles(u, v)
        shade = step(0.0, 0.16, v - self._hair_edge(u)) * np.float32(0.22) + np.float32(0.78)
        return colour * shade

    def _hair_edge(self, u: Array) -> Array:
        return np.float32(self.shape.hairline) + u * u * np.float32(1.4)

    def _wrinkles(self, u: Array, v: Array) -> Array:
        s, side = self.shape, np.abs(u)
        brow = s.brow_y - 0.075
        forehead = sum(bump(v + u * u * 0.25, brow - 0.055 * line, 0.011) for line in range(3)) * bump(
            u, 0, 0.2
        )
        fold = side - np.float32(s.nose_width + 0.03) - (v - s.nose_y) * np.float32(0.42)
        folds = (
            bump(fold, 0, 0.013)
            * step(s.nose_y - 0.03, s.nose_y + 0.03, v)
            * step(s.mouth_y + 0.07, s.mouth_y, v)
        )
        bags = bump(v - (side - s.eye_x) ** 2 * -2.2, s.eye_y + s.eye_height + 0.040, 0.012) * bump(
            side, s.eye_x, 0.085
        )
        out = side - (s.eye_x + s.eye_width)
        feet = sum(bump(v - s.eye_y - out * slope, 0, 0.009) for slope in (-0.55, 0.05, 0.6))
        feet = feet * step(0.01, 0.03, out) * step(0.11, 0.06, out)
        return np.clip(forehead * 0.20 + folds * 0.30 + bags * 0.22 + feet * 0.20, 0, 0.45)

    def paint(self, at: Placed, colour: Array, diffuse: Array) -> None:
        """Paint eyes, nostrils, mouth and brows over a shaded face, in place."""
        light = np.float32(0.45) + np.float32(0.62) * diffuse
        self._nostrils(at, colour)
        self._mouth(at, colour, light)
        for side in (-1, 1):
            self._one_eye(at, colour, light, side)
            self._brow(at, colour, light, side)

    def _nostrils(self, at: Placed, colour: Array) -> None:
        s = self.shape
        u = at.u - np.float32(self.lean * 0.85)
        for side in (-1, 1):
            hole = disc(
                u,
                at.v,
                (side * s.nose_width * 0.46, s.nose_y + 0.022),
                (s.nose_width * 0.20, 0.0115),
                self.edge * 1.6,
            )
            colour *= 1 - hole * tint(0.42, 0.52, 0.52)
        under = bump(u, 0, s.nose_width * 0.85) * bump(at.v, s.nose_y + 0.042, 0.020)
        wing = bump(np.abs(u) - np.float32(s.nose_width), 0, 0.014) * bump(at.v, s.nose_y + 0.005, 0.026)
        colour *= 1 - (under * np.float32(0.13) + wing * np.float32(0.18))

    def _mouth(self, at: Placed, colour: Array, light: Array) -> None:
        s, p, view = self.shape, self.person, self.view
        width = s.mouth_width * (1 + 0.16 * max(view.smile, 0))
        t = np.clip(at.u / np.float32(width), -1.15, 1.15)
        taper = np.clip(1 - t * t, 0, 1)
        line = at.v - np.float32(s.mouth_y) + (t * t - np.float32(0.35)) * np.float32(0.034 * view.smile)
        gap = view.mouth_open * 0.020
        bow = 1 - np.float32(0.28) * bump(t, 0, 0.16)
        upper, lower = s.lips * 0.80 * np.sqrt(taper) * bow, s.lips * 1.15 * np.sqrt(taper)
        red = tint(0.90, 0.60, 0.58)
        if p.is_feminine and not p.is_child and not p.is_old:
            red = tint(0.92, 0.36, 0.40)
        elif p.is_feminine:
            red = tint(0.95, 0.48, 0.50)
        lips = self.skin * red
        cover = fill(np.minimum(line + upper + gap, lower + gap - line), self.edge) * (taper > 0)
        ramp = np.clip(line / np.float32(s.lips), -1, 1)
        shine = np.float32(0.94) + np.float32(0.20) * ramp
        colour += (lips * (light * shine) - colour) * cover
        if gap > 0:
            inside = fill(np.float32(gap) * taper - np.abs(line), self.edge) * step(0.0, 0.12, taper)
            teeth = mix(rgb("5a1f1f"), rgb("f4efe6"), 1.0) * light
            dark = rgb("501a1c") * light
            shown = step(0.012, 0.002, line)
            colour += (dark + (teeth - dark) * shown - colour) * inside
        else:
            seam = band(line, np.float32(0.0055) + taper * np.float32(0.004), self.edge) * (np.abs(t) < 1.06)
            colour *= 1 - (seam * np.float32(0.62))
        corner = bump(np.abs(t), 1.04, 0.07) * bump(line, 0, 0.014)
        beneath = bump(t, 0, 0.6) * bump(line, s.lips * 1.15 + gap + 0.026, 0.016)
        colour *= 1 - (corner * np.float32(0.35) + beneath * np.float32(0.20))

    def _one_eye(self, at: Placed, colour: Array, light: Array, side: int) -> None:
        s, p = self.shape, self.person
        near = (np.abs(at.u * side - s.eye_x) < 0.2) & (np.abs(at.v - s.eye_y) < 0.16)
        rows, columns = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
        if not len(rows):
            return
        window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        u, v, lit, target = at.u[window], at.v[window], light[window], colour[:, *window]
        px, qy = _eye(u, v, s, side)
        arch = np.clip(1 - px * px, 0, 1)
        curve = arch ** np.float32(0.75)
        edge = self.edge / s.eye_height
        crease = bump(qy, -1.55, 0.30) * np.clip(1.25 - px * px, 0, 1)
        target *= 1 - (crease * np.float32(0.26) + bump(qy, 0, 1.5) * bump(px, 0, 1.25) * np.float32(0.10))
        opening = np.minimum(qy + curve, curve * np.float32(0.92) - qy)
        cover = np.clip(opening / np.float32(edge) + np.float32(0.5), 0, 1) * (arch > 0)
        ball = np.float32(0.97) - np.float32(0.20) * step(0.1, -1.0, qy) - np.float32(0.10) * px * px
        eye = (rgb("fbf8f4") * (ball * (np.float32(0.35) + np.float32(0.65) * lit))).astype(np.float32)
        gaze = self.view.gaze * 0.26 * side + 0.20 * np.sin(-self.view.yaw) * side
        dx, dy = (
            (px - np.float32(gaze)) * np.float32(s.eye_width),
            qy * np.float32(s.eye_height) - np.float32(-0.002),
        )
        radius = 0.041 + 0.004 * p.eye_size + (0.006 if p.is_child else 0.0)
        r = np.hypot(dx, dy)
        iris = IRIS[p.eye_colour]
        inner = iris * (np.float32(0.72) + np.float32(0.55) * step(-0.03, 0.04, dy))
        ring = step(radius * 0.78, radius, r)
        eye += (inner * (1 - np.float32(0.62) * ring) - eye) * fill(np.float32(radius) - r, self.edge)
        eye *= 1 - np.float32(0.96) * fill(np.float32(radius * 0.44) - r, self.edge)
        spark = np.hypot(
            dx - np.float32(0.30 * radius * (1 if self.view.light > 0 else -1)),
            dy + np.float32(0.34 * radius),
        )
        eye += (1 - eye) * fill(np.float32(radius * 0.27) - spark, self.edge)
        target += (eye - target) * cover
        lash = 0.020 if p.is_feminine else 0.0105
        lid = (qy + curve) * np.float32(s.eye_height)
        thick = np.float32(lash) * (np.float32(0.45) + np.float32(0.55) * step(-1.0, 0.7, px))
        line = (
            band(lid + thick * np.float32(0.5), thick, self.edge)
            * step(-1.12, -0.95, px)
            * step(1.10, 0.98, px)
        )
        if p.is_feminine:
            flick = band((qy + (px - 1) * 1.5 + 0.05) * np.float32(s.eye_height), 0.010, self.edge)
            line = np.maximum(line, flick * step(0.84, 0.94, px) * step(1.36, 1.2, px))
        lower = band((qy - curve * np.float32(0.92)) * np.float32(s.eye_height), 0.004, self.edge) * (
            np.abs(px) < 1
        )
        dark = self.skin * np.float32(0.13)
        target += (dark - target) * (line * np.float32(0.92))
        target *= 1 - (lower * np.float32(0.34))

    def _brow(self, at: Placed, colour: Array, light: Array, side: int) -> None:
        s = self.shape
        half = 0.112 + 0.01 * self.person.brow_thickness
        t = (at.u * side - np.float32(s.eye_x + 0.012)) / np.float32(half)
        bend = (
            np.float32(s.brow_y)
            + t * np.float32(s.brow_tilt * half * -1.0)
            + (t * t - np.float32(0.4)) * np.float32(0.026)
        )
        thick = np.float32(s.brow) * np.clip(1.02 - t * t * np.float32(0.62) - t * np.float32(0.20), 0, 1.15)
        cover = band(at.v - bend, thick, self.edge * 1.5) * step(-1.08, -0.92, t) * step(1.12, 0.9, t)
        hair = np.float32(0.86) + np.float32(0.28) * noise(at.u * 4, at.v * 1.5, 64)
        tone = self.hair * np.float32(0.82)
        colour += (tone * (light * hair) - colour) * (cover * np.float32(0.92))


def lit_relief(normal: tuple[Array, Array, Array], relief: Array, pixel: float) -> tuple[Array, Array, Array]:
    """Unit normals of a surface that a relief raises or lowers."""
    dy, dx = np.gradient(relief, np.float32(pixel))
    nx, ny, nz = normal[0] - dx, normal[1] - dy, normal[2]
    inverse = 1 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-12)
    return nx * inverse, ny * inverse, nz * inverse


def shade_skin(light: Light, albedo: Array, normal: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    """Shaded skin and its diffuse light."""
    diffuse = light.lit(normal)
    colour = light.shade(albedo, diffuse, shadow=0.9)
    colour += light.gloss(normal, 26.0) * np.float32(0.10)
    rim = np.clip(1 - normal[2], 0, 1)
    return colour + (rim * rim * rim * np.float32(0.10)) * light.key, diffuse
