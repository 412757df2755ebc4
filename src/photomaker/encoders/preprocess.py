"""Photos to normalised pixels: CLIP's resize, centre crop and normalisation, by PIL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from photomaker.errors import PhotoError

if TYPE_CHECKING:
    from transformers import CLIPImageProcessorPil

RGB_CHANNELS = 3
GREY = (128, 128, 128)
PhotoLike = Image.Image | np.ndarray | Tensor


def image_processor(size: int) -> CLIPImageProcessorPil:
    """CLIP preprocessing to size x size pixels: shortest side bicubic, centre crop, CLIP mean and deviation."""
    from transformers import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def as_picture(photo: PhotoLike) -> Image.Image:
    """Turn one photo into an RGB picture.

    Args:
        photo: A PIL picture; an array [height, width, 3] in 0..255 (uint8) or 0..1 (float); or a tensor
            [3, height, width] in 0..1 (float) or 0..255 (uint8).

    Raises:
        PhotoError: It is none of these.
    """
    if isinstance(photo, Image.Image):
        return photo.convert("RGB")
    if isinstance(photo, Tensor):
        photo = np.moveaxis(
            photo.detach().float().cpu().numpy() if photo.is_floating_point() else photo.cpu().numpy(), 0, -1
        )
    if not isinstance(photo, np.ndarray) or photo.ndim != RGB_CHANNELS or photo.shape[-1] != RGB_CHANNELS:
        got = getattr(photo, "shape", type(photo).__name__)
        raise PhotoError(
            f"a photo must be a PIL picture, an array [h, w, 3] or a tensor [3, h, w], got {got}"
        )
    if photo.dtype != np.uint8:
        photo = (photo.clip(0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(photo)


def preprocess(photos: Sequence[PhotoLike], size: int) -> Tensor:
    """Photos as the ID encoder wants them.

    Args:
        photos: At least one photo of one person; see `as_picture` for the kinds.
        size: Side of the image encoder's input in pixels.

    Returns:
        float32 [refs, 3, size, size].

    Raises:
        PhotoError: There is no photo, or one is of no known kind.
    """
    if len(photos) == 0:
        raise PhotoError("no reference photo was given; give at least one photo of the person")
    processed = image_processor(size)(images=[as_picture(photo) for photo in photos], return_tensors="pt")
    return torch.as_tensor(processed["pixel_values"])


def cut_out(photo: Image.Image, mask: np.ndarray, colour: tuple[int, int, int] = GREY) -> Image.Image:
    """The person alone, on a plain ground.

    Args:
        photo: RGB picture.
        mask: uint8 [height, width], 255 on the person; softer values blend.
        colour: The ground, 0..255.

    Raises:
        PhotoError: The mask has another size than the photo.
    """
    if mask.shape[:2] != (photo.height, photo.width):
        raise PhotoError(
            f"the mask is {mask.shape[:2]}, the photo {(photo.height, photo.width)}; make them the same size"
        )
    ground = Image.new("RGB", photo.size, colour)
    return Image.composite(photo.convert("RGB"), ground, Image.fromarray(mask.astype(np.uint8)).convert("L"))


def face_square(photo: Image.Image, box: tuple[float, float, float, float], side: float) -> Image.Image:
    """The square around a face, for adapters that were trained on such crops; black outside the photo.

    Args:
        photo: RGB picture.
        box: Face box x0, y0, x1, y1 in pixels.
        side: Side of the square in longer sides of the box.

    Raises:
        PhotoError: The box is empty.
    """
    x0, y0, x1, y1 = box
    half = max(x1 - x0, y1 - y0) * side / 2
    if half <= 0:
        raise PhotoError(f"the face box {box} is empty; leave the photo out")
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return photo.crop((round(x - half), round(y - half), round(x + half), round(y + half)))
