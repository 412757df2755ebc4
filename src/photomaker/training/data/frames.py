"""Pictures of different sizes: the sizes that are trained on, and how each picture is brought to one of them."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from photomaker.errors import SettingsError
from photomaker.training.data.dataset import SIZE

LONGEST = 2.0
"""Largest ratio of the longer to the shorter side."""


def bucket_sides(resolution: int, step: int) -> list[tuple[int, int]]:
    """Heights and widths of about `resolution` squared pixels, up to `LONGEST` to 1, all multiples of `step`.

    Source: the idea of SDXL's multi-aspect training, arXiv 2307.01952, section 2.3.
    """
    area = resolution**2
    sides = {(resolution, resolution)}
    for short in range(step, resolution + 1, step):
        long = area // short // step * step
        if long <= LONGEST * short:
            sides |= {(short, long), (long, short)}
    return sorted(sides)


class Frames:
    """How every picture of a dataset is resized and cut.

    A picture is enlarged or reduced until it just covers its size, and what is too much is cut off, so that the face
    comes as near to the middle as it can.

    Args:
        sizes: Height and width of each picture in pixels [rows, 2].
        boxes: Face boxes x0, y0, x1, y1 in pixels [rows, 4].
        sides: Heights and widths to choose from, as `bucket_sides` gives them: the nearest ratio is taken, and of
            equal ones the nearest size.

    Attributes:
        original: As `sizes`, int64.
        targets: Height and width after cutting [rows, 2].
        corners: Top and left of the cut in the resized picture [rows, 2].
        buckets: Number of each row's size [rows].
    """

    def __init__(self, sizes: np.ndarray, boxes: np.ndarray, sides: list[tuple[int, int]]) -> None:
        """Choose a size and a place for every picture."""
        self.original = np.asarray(sizes, dtype=np.int64)
        ratios = np.log([height / width for height, width in sides])
        own = np.log(self.original[:, 0] / self.original[:, 1])
        areas = np.log([height * width for height, width in sides])
        enlarged = np.abs(np.log(self.original.prod(1))[:, None] - areas[None])
        self.buckets = (np.abs(own[:, None] - ratios[None]) + 1e-6 * enlarged).argmin(1)
        self.targets = np.array(sides, dtype=np.int64)[self.buckets]
        self.scales = (self.targets / self.original).max(1)
        self.resized = np.maximum(
            np.round(self.original * self.scales[:, None]).astype(np.int64), self.targets
        )
        centres = np.stack([boxes[:, 1] + boxes[:, 3], boxes[:, 0] + boxes[:, 2]], axis=1) / 2
        wanted = np.round(centres * self.scales[:, None] - self.targets / 2)
        self.corners = np.clip(wanted, 0, self.resized - self.targets).astype(np.int64)
        self._boxes = np.asarray(boxes, dtype=np.float32)

    @classmethod
    def of_the_world(cls, boxes: np.ndarray) -> Frames:
        """Frames of synthetic people, which are all of one size and stay as they are."""
        return cls(np.full((len(boxes), 2), SIZE), boxes, [(SIZE, SIZE)])

    def picture(self, row: int, image: np.ndarray) -> np.ndarray:
        """A picture uint8 [h, w, 3], or a mask [h, w], in its frame.

        Raises:
            SettingsError: It has not the size that the dataset's index says.
        """
        if image.shape[:2] != tuple(self.original[row]):
            told = " x ".join(map(str, self.original[row]))
            raise SettingsError(
                f"picture {row} of the dataset is {image.shape[0]} x {image.shape[1]}, but its index says {told}; "
                "build the dataset again"
            )
        if (self.original[row] == self.targets[row]).all():
            return image
        height, width = (int(side) for side in self.resized[row])
        top, left = (int(edge) for edge in self.corners[row])
        how = Image.Resampling.LANCZOS if image.ndim > 2 else Image.Resampling.BILINEAR  # noqa: PLR2004 - colours
        resized = Image.fromarray(np.ascontiguousarray(image)).resize((width, height), how)
        high, wide = (int(side) for side in self.targets[row])
        return np.asarray(resized.crop((left, top, left + wide, top + high)))

    def boxes(self, rows: np.ndarray) -> np.ndarray:
        """Face boxes in framed pictures, float32 [batch, 4]."""
        corners = self.corners[rows][:, [1, 0, 1, 0]].astype(np.float32)
        return self._boxes[rows] * self.scales[rows, None].astype(np.float32) - corners

    def points(self, rows: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Points [batch, n, 2] of the pictures in pixels of the framed pictures, float32."""
        corners = self.corners[rows][:, None, [1, 0]].astype(np.float32)
        return (
            np.asarray(points, dtype=np.float32) * self.scales[rows, None, None].astype(np.float32) - corners
        )

    def time_ids(self, rows: np.ndarray) -> Tensor:
        """SDXL's size conditioning [batch, 6]: original height and width, top and left of the cut, target size."""
        values = np.concatenate([self.original[rows], self.corners[rows], self.targets[rows]], axis=1)
        return torch.from_numpy(values.astype(np.float32))


def step_for(resolution: int, levels: int) -> int:
    """Grain of the sides: a sixteenth of the resolution, but whole at every level of a UNet with `levels` of them.

    Raises:
        SettingsError: The resolution is not a multiple of what the UNet halves.
    """
    least = 8 * 2 ** (levels - 1)
    if resolution < least or resolution % least:
        raise SettingsError(f"resolution is {resolution}; give a multiple of {least} for this base")
    return math.ceil(resolution / 16 / least) * least
