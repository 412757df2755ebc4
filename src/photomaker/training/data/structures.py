"""What a ControlNet is trained on beside pictures: their structures, and the copy of the UNet that follows them.

Source: arXiv 2302.05543, section 3: the copy's outputs go through 1 x 1 convolutions that start at zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel
from PIL import Image
from torch import Tensor

from photomaker.errors import SettingsError
from photomaker.images import to_tensor
from photomaker.pipelines.structures.structures import Content, Drawing, drawn
from photomaker.training.data.dataset import Album
from photomaker.training.data.frames import Frames

HINT = (16, 32, 96, 256)
"""Widths of the layers that read a structure, as published."""


def net_of(unet: Any, hint: tuple[int, ...]) -> Any:  # noqa: ANN401 - diffusers models
    """A trainable copy of the UNet's first half, in float32, that adds nothing at the start."""
    made = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=hint)
    return made.float().requires_grad_(True)


def check_hint(hint: tuple[int, ...]) -> None:
    """Refuse widths whose layers do not end at the latents' size.

    Raises:
        SettingsError: They do not.
    """
    if len(hint) != 4 or min(hint) < 1:  # noqa: PLR2004 - three halvings make the latents' size
        raise SettingsError(f"hint is {list(hint)}; give four whole numbers from 1 up")


class RowStructures:
    """Structures of a dataset's pictures, at the size at which they are trained on.

    Args:
        data: The dataset.
        frames: How its pictures are brought to a size.
        drawing: What is drawn, and how.

    Raises:
        SettingsError: The data does not know what is to be drawn.
    """

    def __init__(self, data: Album, frames: Frames, drawing: Drawing) -> None:
        """Look at what the data knows."""
        self.data, self.frames, self.drawing = data, frames, drawing
        self.landmarks = np.asarray(_landmarks(data)) if drawing.structure == "landmarks" else None
        if drawing.structure == "depth" and not hasattr(data, "depth"):
            raise SettingsError(
                "depth is known of data of kind world without compositions only; choose another structure, or leave "
                "data.composed out"
            )

    def __call__(self, rows: np.ndarray) -> Tensor:
        """Structures [batch, 3, h, w] in 0..1 of rows of one size."""
        return torch.stack([to_tensor(drawn(self.drawing, self._content(int(row)))) for row in rows])

    def _content(self, row: int) -> Content:
        kind, data = self.drawing.structure, self.data
        high, wide = (int(side) for side in self.frames.targets[row])
        if kind == "landmarks":
            assert self.landmarks is not None
            points = self.frames.points(np.array([row]), self.landmarks[[row]])[0]
            return Content(Image.new("RGB", (wide, high)), landmarks=points)
        if kind == "edges":
            return Content(Image.fromarray(self.frames.picture(row, np.asarray(data.images[row]))))
        known = data.masks[row] if kind == "mask" else data.depth(row)  # type: ignore[attr-defined]
        framed = self.frames.picture(row, np.asarray(known))
        return Content(Image.new("RGB", (wide, high)), **{kind: framed})


def _landmarks(data: Album) -> np.ndarray:
    found = getattr(data, "landmarks", None)
    if found is None:
        raise SettingsError(
            "the data has no landmarks to follow; build the dataset again, or choose another structure"
        )
    return np.asarray(found, dtype=np.float32)
