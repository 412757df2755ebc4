"""A subject in a scene: the subject cut out, its high-frequency map, and the collage that a detail extractor reads.

Source: AnyDoor, arXiv 2307.09481, section 3.2, equation 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in whole pixels."""

EDGE_SIDE = 256
"""Pixels of a side of the picture that edges are looked for in."""
THRESHOLD = 50
ROOM = 1.2
"""Side of a subject's picture, in sides of the box around it."""
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def box_of(mask: np.ndarray) -> Box | None:
    """The box around what is 128 or more in a mask [h, w]; None if nothing is."""
    inside = mask >= 128  # noqa: PLR2004 - half
    if not inside.any():
        return None
    down, across = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return int(across[0]), int(down[0]), int(across[-1]) + 1, int(down[-1]) + 1


def cut_subject(
    picture: Image.Image, mask: np.ndarray | None, room: float = ROOM
) -> tuple[Image.Image, np.ndarray]:
    """A subject on white in a square, and its mask.

    Args:
        picture: RGB.
        mask: uint8 [h, w], 255 on the subject; None is all of the picture. It must not be empty.
        room: Side of the square in sides of the box around the subject.
    """
    whole = np.full(picture.size[::-1], 255, dtype=np.uint8) if mask is None else mask
    box = box_of(whole)
    assert box is not None, "an empty mask is refused before"
    left, top, right, bottom = box
    side = max(2, round(max(right - left, bottom - top) * room))
    cut = Image.fromarray(np.where(whole >= 128, 255, 0).astype(np.uint8)).crop(box)  # noqa: PLR2004 - half
    place = ((side - (right - left)) // 2, (side - (bottom - top)) // 2)
    square, inside = Image.new("RGB", (side, side), WHITE), Image.new("L", (side, side), 0)
    square.paste(picture.convert("RGB").crop(box), place, cut)
    inside.paste(cut, place)
    return square, np.asarray(inside)


def high_frequency(picture: Image.Image, mask: np.ndarray) -> Image.Image:
    """The colours of a subject where it has edges, and black elsewhere.

    Args:
        picture: RGB.
        mask: uint8 [h, w], 255 on the subject; its own outline counts for nothing.
    """
    size = (EDGE_SIDE, EDGE_SIDE)
    pixels = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BILINEAR), dtype=np.float32)
    inner = Image.fromarray(mask).resize(size, Image.Resampling.BILINEAR)
    inner = inner.point(lambda value: 255 if value >= 128 else 0)  # noqa: PLR2004 - half
    for _ in range(2):
        inner = inner.filter(ImageFilter.MinFilter(5))
    around = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="reflect")
    across = _weighed(around, 0)[:, 2:] - _weighed(around, 0)[:, :-2]
    down = _weighed(around, 1)[2:] - _weighed(around, 1)[:-2]
    edges = (np.minimum(np.abs(across), 255) + np.minimum(np.abs(down), 255)) / 2
    strongest = edges.max(-1) * (np.asarray(inner) > 0)
    strongest[strongest < THRESHOLD] = 0
    return Image.fromarray((strongest[..., None] / 255 * pixels).astype(np.uint8))


def _weighed(around: np.ndarray, axis: int) -> np.ndarray:
    """1, 2, 1 along an axis, of a picture with a border of one pixel."""
    low, middle, high = (
        np.take(around, range(start, around.shape[axis] - 2 + start), axis) for start in (0, 1, 2)
    )
    return low + 2 * middle + high


def grown(box: Box, size: tuple[int, int], reach: float) -> Box:
    """A box made larger about its middle, kept inside a picture of a size."""
    left, top, right, bottom = box
    wider, higher = (right - left) * (reach - 1) / 2, (bottom - top) * (reach - 1) / 2
    return (
        max(0, round(left - wider)),
        max(0, round(top - higher)),
        min(size[0], round(right + wider)),
        min(size[1], round(bottom + higher)),
    )


def collage(scene: Image.Image, details: Image.Image | None, erased: Box, region: np.ndarray) -> Tensor:
    """What the detail extractor reads [4, h, w]: colours in -1..1, and 1 if the subject should be.

    Args:
        scene: RGB.
        details: The high-frequency map, brought to the box; None leaves that black.
        erased: The box that it is put into.
        region: uint8 [h, w], 255 where the subject should be.
    """
    left, top, right, bottom = erased
    size = (right - left, bottom - top)
    put = Image.new("RGB", size) if details is None else details.resize(size, Image.Resampling.BILINEAR)
    made = scene.convert("RGB").copy()
    made.paste(put, (left, top))
    colours = torch.from_numpy(np.asarray(made).copy()).permute(2, 0, 1).float() / 127.5 - 1
    inside = torch.from_numpy((region >= 128).astype(np.float32))  # noqa: PLR2004 - half
    return torch.cat([colours, inside[None]])


@dataclass(frozen=True)
class Hole:
    """Where in a scene a subject is drawn.

    Attributes:
        scene: RGB, whole.
        region: uint8 [h, w] of the scene, 255 where the subject should be.
        square: Of the scene, which is drawn at the base's own size; it may leave the scene. None draws all of it.
    """

    scene: Image.Image
    region: np.ndarray
    square: Box | None = None

    @classmethod
    def of(cls, scene: Image.Image, region: np.ndarray, zoom: float) -> Hole:
        """A hole and its surroundings, of the scene's shape; zoom 1 is the region's box, 0 the whole scene."""
        box = box_of(region)
        if zoom <= 0 or box is None:
            return cls(scene, region)
        share = zoom * max((box[2] - box[0]) / scene.width, (box[3] - box[1]) / scene.height)
        wide, high = (max(2, round(share * side)) for side in scene.size)
        left, top = (box[0] + box[2] - wide) // 2, (box[1] + box[3] - high) // 2
        return cls(scene, region, (left, top, left + wide, top + high))

    def hint(self, details: Image.Image | None, size: tuple[int, int]) -> Tensor:
        """The collage [4, height, width] at the size that is drawn, width and height; -1 marks what is not a scene."""
        seen, inside, outside = self.scene, Image.fromarray(self.region), Image.new("L", self.scene.size, 0)
        if self.square is not None:
            around = Image.new("L", self.scene.size, 255).crop(self.square)
            outside = around.point(lambda value: 255 - value)
            seen, inside = seen.crop(self.square), inside.crop(self.square)
        seen = seen.resize(size, Image.Resampling.BILINEAR)
        region = np.asarray(inside.resize(size, Image.Resampling.BILINEAR))
        box = box_of(region) or (0, 0, *size)
        made = collage(seen, details, box, region)
        beyond = torch.from_numpy(np.asarray(outside.resize(size, Image.Resampling.NEAREST)).copy())
        made[3][beyond > 0] = -1
        return made

    def put_back(self, drawn: Image.Image) -> Image.Image:
        """The scene with what was drawn in place of its square; outside the region nothing needs to be right."""
        if self.square is None:
            return drawn.resize(self.scene.size, Image.Resampling.LANCZOS)
        left, top, right, bottom = self.square
        made = self.scene.copy()
        made.paste(drawn.resize((right - left, bottom - top), Image.Resampling.LANCZOS), (left, top))
        return made


def box_region(box: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """A region that is a box: uint8 [h, w]; size is width and height."""
    left, top, right, bottom = box
    made = np.zeros(size[::-1], dtype=np.uint8)
    made[top:bottom, left:right] = 255
    return made
