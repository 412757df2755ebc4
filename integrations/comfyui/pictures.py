"""ComfyUI's IMAGE, float32 [batch, height, width, channels] in 0..1, to PIL pictures and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from PIL import Image

from photomaker import PhotoError

CHANNELS = (3, 4)


def pictures_of(image: object) -> list[Image.Image]:
    """The pictures of an IMAGE; an alpha channel is left out.

    Raises:
        PhotoError: It is not an IMAGE.
    """
    if not isinstance(image, torch.Tensor) or image.dim() != 4 or image.shape[-1] not in CHANNELS:  # noqa: PLR2004
        got = tuple(image.shape) if isinstance(image, torch.Tensor) else type(image).__name__
        raise PhotoError(
            f"the photos are {got}, not an IMAGE of shape [batch, height, width, 3]; connect pictures"
        )
    if not bool(torch.isfinite(image).all()):
        raise PhotoError("the photos hold values that are not finite; leave them out")
    values = (image[..., :3].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return [Image.fromarray(one) for one in values]


def all_pictures_of(images: Iterable[object]) -> list[Image.Image]:
    """The pictures of several IMAGEs, one size or many."""
    return [picture for image in images for picture in pictures_of(image)]


def image_of(pictures: Sequence[Image.Image]) -> torch.Tensor:
    """Pictures of one size as an IMAGE."""
    arrays = [np.asarray(one.convert("RGB"), dtype=np.float32) / 255 for one in pictures]
    return torch.from_numpy(np.stack(arrays))
