"""Draws a person in a view, layer upon layer from the back to the front."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from photomaker.errors import SettingsError
from photomaker.synthetic.anatomy import (
    FacePainter,
    Placed,
    Proportions,
    Surface,
    lit_relief,
    proportions,
    shade_skin,
    skin_colour,
)
from photomaker.synthetic.canvas import Array, Canvas, Light, bump, disc, fill, step, tint
from photomaker.synthetic.distributions import VIEW
from photomaker.synthetic.factors import Person, View
from photomaker.synthetic.hair import Hair, beard_behind, beard_cover
from photomaker.synthetic.scenes import ambient, paint_scene
from photomaker.synthetic.styles import stylise
from photomaker.synthetic.wardrobe import Body, Hat, draw_eyewear

Layer = Callable[[Array, Array, Light], tuple[Array, Array] | None]
"""Cover and colour of a layer at head coordinates (x, v), or None if it has nothing to draw."""

SUPERSAMPLING = 2
HEAD_Y = 0.075
FRAMING = 1.10
NECK_Y = 0.62


@dataclass(frozen=True)
class Picture:
    """A drawn picture and its ground truth.

    Attributes:
        image: uint8 [size, size, 3], RGB.
        mask: uint8 [size, size], 255 where the person is.
        box: x0, y0, x1, y1 of the face from the hairline to the chin, in pixels.
        landmarks: float32 [5, 2] pixels: left eye, right eye, nose tip, left and right mouth corner,
            as seen in the picture.
    """

    image: Array
    mask: Array
    box: tuple[float, float, float, float]
    landmarks: Array


class Frame:
    """Head coordinates and back: the head rolls about the neck, shifts and scales.

    Args:
        view: Where the head is.
        size: The person's size: children are a little smaller.
    """

    def __init__(self, view: View, size: float) -> None:
        """Work out the turn."""
        self.sine, self.cosine = float(np.sin(view.roll)), float(np.cos(view.roll))
        self.scale = view.scale * size * FRAMING
        self.x, self.y = view.shift_x, HEAD_Y + view.shift_y

    def to_head(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Head coordinates of places in the picture."""
        dx, dy = (
            (x - np.float32(self.x)) / np.float32(self.scale),
            (y - np.float32(self.y)) / np.float32(self.scale),
        )
        dy = dy - np.float32(NECK_Y)
        return dx * self.cosine + dy * self.sine, dy * self.cosine - dx * self.sine + np.float32(NECK_Y)

    def to_picture(self, x: float, v: float) -> tuple[float, float]:
        """Place in the picture, -1..1, of head coordinates."""
        v -= NECK_Y
        dx, dy = x * self.cosine - v * self.sine, v * self.cosine + x * self.sine + NECK_Y
        return self.x + dx * self.scale, self.y + dy * self.scale


class Portrait:
    """One person in a picture in the making.

    Args:
        person: Who.
        view: In which circumstances.
        size: Pixels to a side of the finished picture.
        canvas: Where the person is drawn; None is a canvas of its own.
    """

    def __init__(self, person: Person, view: View, size: int, canvas: Canvas | None = None) -> None:
        """Set up geometry, light and canvas."""
        self.person, self.view, self.size = person, view, size
        self.canvas = canvas or Canvas(size * SUPERSAMPLING)
        self.shape: Proportions = proportions(person)
        self.frame = Frame(view, 0.92 if person.is_child else 1.0)
        self.light = Light(view.light, view.light_height, view.warmth, ambient(view.scene))
        self.pixel = self.canvas.pixel / self.frame.scale
        self.head = Surface(self.shape, view.yaw)
        self.hair = Hair(person, self.shape, view.yaw, view.hat != "none", self.pixel)
        self.skin = skin_colour(person)
        # where the usual framing lets a layer be, so that no more than that is read
        self.usual = VIEW["scale"].contains(view.scale) and VIEW["shift_x"].contains(view.shift_x)

    def draw(self) -> Picture:
        """Draw everything and finish the picture."""
        paint_backdrop(self.canvas, self.view, self.size)
        self.paint()
        image, person = finished(self.canvas, self.view.style)
        return Picture(image, np.where(person > 0.5, 255, 0).astype(np.uint8), self.box(), self.landmarks())

    def paint(self) -> None:
        """Lay the person over what is on the canvas."""
        self._layer(self.hair.behind, (-0.9, -1, 0.9, 1))
        self._body()
        self._ears()
        self._face()
        self._layer(self.hair.on_head, (-0.85, -1, 0.85, 0.45))
        self._layer(self.hair.beside, (-0.85, -0.5, 0.85, 1))
        if self.view.hat != "none":
            hat = Hat(self.view, self.shape, self.pixel)
            self._layer(hat.draw, (-1, -1, 1, 0.15))

    def _head_window(
        self, bounds: tuple[float, float, float, float]
    ) -> tuple[tuple[slice, slice], Array, Array]:
        window = self.canvas.window(*bounds)
        x, v = self.frame.to_head(self.canvas.x[window], self.canvas.y[window])
        return window, x, v

    def _layer(self, draw: Layer, bounds: tuple[float, float, float, float]) -> None:
        window, x, v = self._head_window(bounds if self.usual else self._around(1.05))
        layer = draw(x, v, self.light)
        if layer is not None:
            self.canvas.over(window, layer[0], layer[1])

    def _around(self, reach: float) -> tuple[float, float, float, float]:
        """Bounds in the picture that reach so many head coordinates round the head."""
        x, y, r = self.frame.x, self.frame.y, reach * self.frame.scale
        return x - r, y - r, x + r, y + r

    def _body(self) -> None:
        canvas, scale = self.canvas, self.frame.scale
        window = canvas.window(-1, 0.1 if self.usual else self.frame.y + 0.1 * scale, 1, 1)
        x = (canvas.x[window] - np.float32(self.frame.x * 0.8)) / np.float32(scale)
        y = (canvas.y[window] - np.float32(self.frame.y)) / np.float32(scale)
        lower = self.shape.chin - 0.52
        y = y + np.float32(0.055 - lower * 0.6)
        body = Body(self.person, self.view, self.pixel, whole=not self.usual)
        nx = x / np.float32(body.neck * 1.25)
        normal = (nx, np.float32(0.25) + x * 0, np.sqrt(np.clip(1 - nx * nx, 0.08, 1)))
        colour, _ = shade_skin(self.light, np.broadcast_to(self.skin, (3, *x.shape)), normal)
        turn = x - np.float32(0.06 * np.sin(self.view.yaw))
        shadow = step(0.80, 0.42, y - turn * turn * 0.8) * np.float32(0.50)
        canvas.over(window, body.bare(x, y), colour * (1 - shadow))
        canvas.over(window, *body.clothes(x, y, self.light))

    def _ears(self) -> None:
        size = 1 + 0.28 * self.person.ear_size
        for side in (-1, 1):
            turned = side * np.sin(self.view.yaw)
            middle_x = self.head.to_screen(side * self.shape.width * 0.985, 0.09) + side * 0.018
            if turned > 0.30:  # this ear is behind the head
                middle_x -= side * 0.05
            middle = (middle_x, self.shape.eye_y + 0.085)
            half = (0.062 * size * (1 - 0.5 * max(0.0, float(turned))), 0.112 * size)
            x0, y0 = self.frame.to_picture(*middle)
            window, x, v = self._head_window((x0 - 0.2, y0 - 0.22, x0 + 0.2, y0 + 0.22))
            ear = disc(x, v, middle, half, self.pixel * 1.3)
            inner = disc(
                x,
                v,
                (middle[0] - side * 0.008, middle[1] - 0.006),
                (half[0] * 0.55, half[1] * 0.58),
                self.pixel * 5,
            )
            normal = (
                (x - middle[0]) * np.float32(8),
                (v - middle[1]) * np.float32(3),
                np.float32(0.75) + x * 0,
            )
            colour, _ = shade_skin(self.light, np.broadcast_to(self.skin, (3, *x.shape)), normal)
            colour = colour * (1 - inner * np.float32(0.30)) * tint(1.0, 0.93, 0.92)
            self.canvas.over(window, ear, colour)

    def _face(self) -> None:
        window, x, v = self._head_window((-0.72, -0.82, 0.72, 0.82) if self.usual else self._around(0.75))
        at = self.head.at(x, v)
        painter = FacePainter(self.person, self.view, self.shape, self.hair.colour, self.pixel)
        normal = lit_relief(at.normal, painter.relief(at), self.pixel)
        colour, diffuse = shade_skin(self.light, painter.albedo(at), normal)
        self._beard(window, x, v, at, colour, normal)
        painter.paint(at, colour, diffuse)
        if self.view.hat != "none":
            colour *= 1 - bump(at.v, -0.26, 0.10) * np.float32(0.30)
        if self.view.eyewear != "none":
            draw_eyewear(self.view, self.shape, at, colour, self.pixel * 1.3)
        self.canvas.over(window, fill(at.inside, self.pixel * 1.3), colour)

    def _beard(
        self,
        window: tuple[slice, slice],
        x: Array,
        v: Array,
        at: Placed,
        colour: Array,
        normal: tuple[Array, Array, Array],
    ) -> None:
        edge = self.pixel * 1.3
        tone = self.hair.colour * np.float32(0.92)
        outer = beard_behind(self.person, self.shape, self.view.yaw)
        if outer is not None:
            around = outer.at(x, v)
            cover = fill(np.minimum(around.inside, v - np.float32(self.shape.eye_y + 0.12)), edge)
            fur = tone * self.hair.strands(around.v, around.u) * np.float32(0.9)
            self.canvas.over(window, cover, self.light.shade(fur, self.light.lit(around.normal)))
        grown = beard_cover(self.person, self.shape, at, edge)
        if grown is not None:
            fur = tone * self.hair.strands(at.v, at.u)
            colour += (self.light.shade(fur, self.light.lit(normal)) - colour) * grown

    def _pixels(self, u: float, v: float) -> tuple[float, float]:
        x, y = self.frame.to_picture(self.head.to_screen(u, v), v)
        return (x + 1) * self.size / 2, (y + 1) * self.size / 2

    def landmarks(self) -> Array:
        """See `Picture`."""
        s, lean = self.shape, 0.13 * float(np.sin(self.view.yaw))
        places = (
            (-s.eye_x, s.eye_y),
            (s.eye_x, s.eye_y),
            (lean, s.nose_y),
            (-s.mouth_width, s.mouth_y),
            (s.mouth_width, s.mouth_y),
        )
        return np.array([self._pixels(u, v) for u, v in places], dtype=np.float32)

    def box(self) -> tuple[float, float, float, float]:
        """See `Picture`."""
        s = self.shape
        edge = [self._pixels(side * s.width * 0.999, v) for side in (-1, 1) for v in (-0.2, 0.0, 0.2)]
        ends = [self._pixels(0.0, s.hairline), self._pixels(0.0, s.chin - 0.003)]
        xs, ys = [x for x, _ in edge], [y for _, y in (*edge, *ends)]
        limits = (min(xs), min(ys), max(xs), max(ys))
        return tuple(float(np.clip(limit, 0, self.size)) for limit in limits)  # type: ignore[return-value]


def paint_backdrop(canvas: Canvas, view: View, size: int) -> None:
    """Fill a canvas with a view's scene."""
    backdrop = paint_scene(view.scene, size, view.seed)
    canvas.colour[:] = backdrop.repeat(SUPERSAMPLING, 1).repeat(SUPERSAMPLING, 2)


def finished(canvas: Canvas, style: str) -> tuple[Array, Array]:
    """The picture uint8 [size, size, 3] in its style, and how much of each pixel is person [size, size] 0..1."""
    size = canvas.size // SUPERSAMPLING
    cells = (size, SUPERSAMPLING, size, SUPERSAMPLING)
    colour = canvas.colour.reshape(3, *cells).mean((2, 4))
    person = canvas.person.reshape(cells).mean((1, 3))
    colour = stylise(style, np.clip(colour, 0, 1), person)
    return np.ascontiguousarray((colour * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)), person


def render(person: Person, view: View, size: int = 128) -> Picture:
    """Draw a person in a view.

    Args:
        person: Who.
        view: In which circumstances.
        size: Pixels to a side, 32..1024.

    Returns:
        The picture with mask, face box and landmarks. The same arguments give the same bytes.

    Raises:
        SettingsError: The size is out of range.
    """
    if not 32 <= size <= 1024:
        raise SettingsError(f"size is {size}; give 32 to 1024 pixels")
    return Portrait(person, view, size).draw()
