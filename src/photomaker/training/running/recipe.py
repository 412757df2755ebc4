"""What a training is told by what it trains: modules, rows, loss, and what is shown and exported."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn


@dataclass(frozen=True)
class Preview:
    """Pictures made in the middle of a training.

    Attributes:
        image: All of them on one sheet.
        figures: What was measured on them, for the log.
    """

    image: Image.Image
    figures: Mapping[str, float]


class Recipe(ABC):
    """Defines what is trained, on which rows, with which loss.

    Attributes:
        name: Short name, used in messages and in the progress bar.
        device: Where the loop put the modules; set by the loop before the first loss.
    """

    name: str = "recipe"
    device: torch.device = torch.device("cpu")

    @abstractmethod
    def modules(self) -> dict[str, nn.Module]:
        """Return the trained modules; their trainable parameters and buffers are saved and averaged."""

    def called(self) -> list[nn.Module]:
        """Return the modules, or the parts of them, whose weights are used by their call alone; these can be cut up."""
        return list(self.modules().values())

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return AdamW groups: `params`, `lr` and, where wanted, `weight_decay`."""

    @property
    @abstractmethod
    def rows(self) -> np.ndarray:
        """Dataset rows [n] int64 that an epoch goes over."""

    @property
    def groups(self) -> np.ndarray:
        """Group [n] int64 of each of `rows`; a step's rows are all of one group, such as one size of picture."""
        return np.zeros(len(self.rows), dtype=np.int64)

    def signature(self) -> dict[str, str]:
        """What a checkpoint must agree with to be gone on from: name to value, both in words."""
        return {}

    @abstractmethod
    def loss(
        self, rows: np.ndarray, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Compute the loss of one batch.

        Args:
            rows: Dataset rows [batch].
            rng: Randomness of this step and process, for numpy.
            generator: The same for torch, on the CPU.

        Returns:
            The scalar loss and figures for the log.
        """

    def prepare(self, device: torch.device) -> None:
        """Move to `device` what `modules` does not list, such as a frozen base. Called once."""
        self.device = device

    def validate(self, rng: np.random.Generator, generator: torch.Generator) -> dict[str, float]:
        """Measure on held-out rows, with the averaged weights in place; the same randomness every time."""
        del rng, generator
        return {}

    def preview(self) -> Preview | None:
        """Make previews with the averaged weights; None if the recipe has none."""
        return None

    def export(self, folder: Path) -> None:
        """Write what the training was for into `folder`, with the averaged weights in place."""
        del folder
