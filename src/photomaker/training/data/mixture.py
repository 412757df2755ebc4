"""Pictures of several datasets and sizes as one list of rows, for a base that is trained on all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from photomaker.training.data.dataset import box_map


class Captioned(Protocol):
    """Pictures of one size, with captions.

    Attributes:
        boxes: float32 [rows, 4] or [rows, people, 4], face boxes in pixels; -1 if there is no such person.
    """

    boxes: np.ndarray

    def caption(self, row: int, rng: np.random.Generator, describe: float) -> str:
        """A caption that mentions each appearance trait with probability `describe`."""


@dataclass(frozen=True)
class Sized:
    """A dataset with its latents.

    Attributes:
        data: Pictures of one size.
        latents: [rows, channels, h, w] of the same rows.
    """

    data: Captioned
    latents: np.ndarray


class Laid:
    """Rows of several datasets laid end to end.

    Args:
        sizes: Rows, height and width of each; a step is of one size.
        held_out: Rows kept for validation, taken from the end of the first.

    Attributes:
        rows: int64, all rows but the held-out ones.
        held_out: int64.
        groups: Number of the size of each of `rows`.
    """

    def __init__(self, sizes: Sequence[tuple[int, int, int]], held_out: int) -> None:
        """Number the rows."""
        self.starts = np.cumsum([0, *(count for count, *_ in sizes)])
        first = int(self.starts[1])
        held_out = min(held_out, first // 4)
        self.held_out = np.arange(first - held_out, first)
        self.rows = np.concatenate([np.arange(first - held_out), np.arange(first, self.starts[-1])])
        shapes = [tuple(shape) for _, *shape in sizes]
        self.groups = np.array([shapes.index(one) for one in shapes])[self.part(self.rows)]

    def part(self, rows: np.ndarray) -> np.ndarray:
        """Number of the dataset of each row."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def local(self, rows: np.ndarray) -> list[tuple[int, int]]:
        """Number of the dataset and row in it of each row."""
        return [
            (int(part), int(row - self.starts[part])) for row, part in zip(rows, self.part(rows), strict=True)
        ]


class Mixture(Laid):
    """Several datasets with their latents laid end to end.

    Args:
        parts: The datasets, one size each.
        held_out: Rows kept for validation, taken from the end of the first.
    """

    def __init__(self, parts: Sequence[Sized], held_out: int = 256) -> None:
        """Number the rows."""
        self.parts = list(parts)
        super().__init__([(len(p.latents), *p.latents.shape[2:]) for p in self.parts], held_out)

    def _local(self, rows: np.ndarray) -> list[tuple[Sized, int]]:
        return [(self.parts[part], row) for part, row in self.local(rows)]

    def latents(self, rows: np.ndarray) -> Tensor:
        """Latents of rows of one size, float32 [batch, channels, h, w]."""
        found = [part.latents[row] for part, row in self._local(rows)]
        return torch.from_numpy(np.stack(found).astype(np.float32))

    def captions(self, rows: np.ndarray, describe: np.ndarray, rng: np.random.Generator) -> list[str]:
        """Captions that mention each trait with the probability `describe` [batch]."""
        return [
            part.data.caption(row, rng, float(share))
            for (part, row), share in zip(self._local(rows), describe, strict=True)
        ]

    def faces(self, rows: np.ndarray) -> Tensor:
        """Share of each latent cell that faces cover [batch, 1, h, w] in 0..1, for rows of one size."""
        cells = self.parts[int(self.part(rows[:1])[0])].latents.shape[2:]
        boxes = [
            np.asarray(part.data.boxes[row], dtype=np.float32).reshape(-1, 4) for part, row in self._local(rows)
        ]
        padded = np.full((len(boxes), max(map(len, boxes)), 4), -1.0, np.float32)
        for at, own in enumerate(boxes):
            padded[at, : len(own)] = own
        return box_map(padded.reshape(-1, 4), cells).reshape(*padded.shape[:2], 1, *cells).amax(1)
