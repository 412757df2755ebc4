"""What the recipes need of a dataset of people, and how its pictures become tensors, weights and masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from photomaker.prompts.trigger import ParsedPrompt

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
SIZE = 128


class Arrays(Protocol):
    """Arrays that are asked for one at a time, such as the pictures of a dataset that are decoded on the way."""

    def __getitem__(self, row: int) -> np.ndarray:
        """The array of one row."""


class Album(Protocol):
    """Pictures of people of any sizes, one row a picture, many rows a person: what an adapter is trained on.

    Attributes:
        images: Row to uint8 [height, width, 3] RGB.
        masks: Row to uint8 [height, width], 255 where the person is.
        person: int64 [rows], person of each picture, 0..people-1.
        boxes: float32 [rows, 4], face box x0, y0, x1, y1 in pixels.
        is_photo: bool [rows], whether the picture has the photo style.
    """

    @property
    def images(self) -> Arrays:
        """See above."""

    @property
    def masks(self) -> Arrays:
        """See above."""

    person: np.ndarray
    boxes: np.ndarray
    is_photo: np.ndarray

    def rows_of(self, person_row: int) -> np.ndarray:
        """Rows of one person."""

    def caption(
        self, row: int, rng: np.random.Generator, describe: float, trigger: str | None = None
    ) -> str | ParsedPrompt:
        """A caption; one that is rewritten each time mentions each appearance trait with probability `describe`."""


class People(Protocol):
    """Pictures of people, one row a picture, many rows a person; `synthetic.dataset.WorldDataset` is one.

    Attributes:
        images: uint8 [rows, 128, 128, 3] RGB.
        masks: uint8 [rows, 128, 128], 255 where the person is.
        person: int64 [rows], person of each picture, 0..people-1.
        boxes: float32 [rows, 4], face box x0, y0, x1, y1 in pixels.
        landmarks: float32 [rows, 5, 2], pixels: eyes, nose tip, mouth corners.
        attributes: Name to int64 [rows].
        attribute_names: Name to the words of each value.
        factors: float32 [people, factors], standardised identity factors.
        is_photo: bool [rows], whether the picture has the photo style.
    """

    images: np.ndarray
    masks: np.ndarray
    person: np.ndarray
    boxes: np.ndarray
    landmarks: np.ndarray
    is_photo: np.ndarray

    @property
    def attributes(self) -> Mapping[str, np.ndarray]:
        """See above."""

    @property
    def attribute_names(self) -> Mapping[str, tuple[str, ...]]:
        """See above."""

    @property
    def factors(self) -> np.ndarray:
        """See above."""

    def rows_of(self, person_row: int) -> np.ndarray:
        """Rows of one person."""

    def caption(self, row: int, rng: np.random.Generator, describe: float, trigger: str | None = None) -> str:
        """Write a caption that mentions each appearance trait with probability `describe`."""


class Pictured(Protocol):
    """Pictures of one size: uint8 [rows, height, width, 3] RGB."""

    images: np.ndarray


class Landmarked(Pictured, Protocol):
    """Pictures of one size with the faces in them.

    Attributes:
        boxes: float32 [rows, 4] or [rows, people, 4], face boxes in pixels; -1 if there is no such person.
        landmarks: float32 [rows, 5, 2] or [rows, people, 5, 2].
    """

    boxes: np.ndarray
    landmarks: np.ndarray


def pictures(data: Pictured, rows: np.ndarray) -> Tensor:
    """Pictures of `rows` as [batch, 3, height, width] float32 in -1..1."""
    pixels = torch.from_numpy(np.ascontiguousarray(data.images[rows].transpose(0, 3, 1, 2)))
    return pixels.float() / 127.5 - 1


def levels(pixels: Tensor) -> np.ndarray:
    """Pictures [batch, 3, height, width] in -1..1 as uint8 [batch, height, width, 3]."""
    found = ((pixels.detach().float().clamp(-1, 1) + 1) * 127.5).round().byte().cpu()
    return found.permute(0, 2, 3, 1).numpy()


def clip_normalised(pixels: Tensor) -> Tensor:
    """Pictures [batch, 3, h, w] from 0..255 to the normalisation of CLIP's image processor."""
    mean, std = (pixels.new_tensor(v).view(1, 3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    return (pixels / 255 - mean) / std


def box_map(boxes: np.ndarray, cells: Sequence[int], cell: int = 8) -> Tensor:
    """Share of each cell that a box covers.

    Args:
        boxes: [batch, 4] in pixels.
        cells: Cells from top to bottom and from left to right.
        cell: Side of a cell in pixels.

    Returns:
        [batch, 1, *cells] in 0..1.
    """
    box = torch.from_numpy(np.asarray(boxes, dtype=np.float32))

    def covered(low: Tensor, high: Tensor, count: int) -> Tensor:
        edges = torch.arange(count + 1, dtype=torch.float32) * cell
        inside = torch.minimum(edges[1:], high[:, None]) - torch.maximum(edges[:-1], low[:, None])
        return inside.clamp(min=0) / cell

    rows, columns = covered(box[:, 1], box[:, 3], cells[0]), covered(box[:, 0], box[:, 2], cells[1])
    return (rows[:, :, None] * columns[:, None, :])[:, None]


def mask_map(masks: np.ndarray, cell: int = 8) -> Tensor:
    """Share of each cell, `cell` pixels wide, that the person covers: masks [batch, h, w] 0..255 to 0..1."""
    mask = torch.from_numpy(np.ascontiguousarray(masks)).float()[:, None] / 255
    return torch.nn.functional.avg_pool2d(mask, cell)


def feature_map(landmarks: np.ndarray, cells: Sequence[int], radius: float, cell: int = 1) -> Tensor:
    """Cells near an eye or the mouth.

    Args:
        landmarks: [batch, 5, 2] pixels.
        cells: Cells from top to bottom and from left to right.
        radius: Distance in pixels that counts as near.
        cell: Side of a cell in pixels.

    Returns:
        [batch, 1, *cells], 1 near an eye, a mouth corner or the middle of the mouth, elsewhere 0.
    """
    points = torch.from_numpy(np.asarray(landmarks, dtype=np.float32))
    points = torch.cat([points[:, [0, 1, 3, 4]], points[:, 3:5].mean(1, keepdim=True)], dim=1)
    down, across = ((torch.arange(count, dtype=torch.float32) + 0.5) * cell for count in cells)
    dx = across[None, None, None, :] - points[:, :, 0, None, None]
    dy = down[None, None, :, None] - points[:, :, 1, None, None]
    return ((dx.square() + dy.square()) < radius**2).any(dim=1, keepdim=True).float()
