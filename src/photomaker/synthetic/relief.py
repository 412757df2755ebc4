"""Depth-like shading of a synthetic person: the same shapes as in the picture, brighter where they are nearer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from photomaker.synthetic.anatomy import FacePainter
from photomaker.synthetic.canvas import Array, Canvas
from photomaker.synthetic.factors import Person, View
from photomaker.synthetic.renderer import SUPERSAMPLING, Layer, Portrait

Window = tuple[slice, slice]
BEHIND, BODY, EARS, HEAD = 0.34, 0.28, 0.46, 0.46
"""Depth of the hair behind the head, of a body's edge, of the ears, and of the head's edge; the ground is 0."""
_SHOULDERS, _ROUND_BODY, _ROUND_HEAD, _FEATURES = 0.95, 0.22, 0.38, 1.2


class ReliefCanvas(Canvas):
    """A canvas on which layers leave how near they are, and no colour.

    Attributes:
        depth: float32 [size, size], 0 far to 1 near.
        height: What tells how near the layer is that is laid next, in a window.
    """

    def __init__(self, size: int) -> None:
        """Start with nothing but the ground."""
        super().__init__(size)
        self.depth = np.zeros((size, size), dtype=np.float32)
        self.height: Callable[[Window], Array | float] = lambda _window: 0.0

    def over(self, window: Window, cover: Array, colour: Array, person: bool = True) -> None:
        """Lay a layer over a window; see `Canvas.over`."""
        del colour, person
        below = self.depth[window]
        below += (self.height(window) - below) * cover


class Relief(Portrait):
    """One person as depth; see `Portrait`, whose layers these are.

    Args:
        person: Who.
        view: In which circumstances.
        size: Pixels to a side.
    """

    def __init__(self, person: Person, view: View, size: int) -> None:
        """Set up geometry and canvas."""
        self.ground = ReliefCanvas(size * SUPERSAMPLING)
        super().__init__(person, view, size, self.ground)

    def depth(self) -> Array:
        """The finished depth, uint8 [size, size], 255 nearest."""
        self.paint()
        cells = (self.size, SUPERSAMPLING, self.size, SUPERSAMPLING)
        depth = np.clip(self.ground.depth.reshape(cells).mean((1, 3)), 0, 1)
        return (depth * 255 + 0.5).astype(np.uint8)

    def _layer(self, draw: Layer, bounds: tuple[float, float, float, float]) -> None:
        self.ground.height = (lambda _window: BEHIND) if draw == self.hair.behind else self._head
        super()._layer(draw, bounds)

    def _body(self) -> None:
        self.ground.height = self._shoulders
        super()._body()

    def _ears(self) -> None:
        self.ground.height = lambda _window: EARS
        super()._ears()

    def _face(self) -> None:
        self.ground.height = self._features
        super()._face()

    def _shoulders(self, window: Window) -> Array:
        x = (self.canvas.x[window] - np.float32(self.frame.x * 0.8)) / np.float32(self.frame.scale)
        return BODY + np.float32(_ROUND_BODY) * np.sqrt(np.clip(1 - (x / np.float32(_SHOULDERS)) ** 2, 0, 1))

    def _head(self, window: Window) -> Array:
        at = self.head.at(*self.frame.to_head(self.canvas.x[window], self.canvas.y[window]))
        return HEAD + np.float32(_ROUND_HEAD) * np.clip(at.normal[2], 0, 1)

    def _features(self, window: Window) -> Array:
        at = self.head.at(*self.frame.to_head(self.canvas.x[window], self.canvas.y[window]))
        painter = FacePainter(self.person, self.view, self.shape, self.hair.colour, self.pixel)
        return self._head(window) + np.float32(_FEATURES) * painter.relief(at)


def depth_of(person: Person, view: View, size: int = 128) -> Array:
    """How near a person is in the picture that `render` draws of the same arguments.

    Args:
        person: Who.
        view: In which circumstances.
        size: Pixels to a side.

    Returns:
        uint8 [size, size], 255 nearest and 0 if the ground is.
    """
    return Relief(person, view, size).depth()
