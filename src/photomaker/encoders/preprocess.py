"""Photos to normalised pixels: CLIP's resize, centre crop and normalisation, by PIL."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from photomaker.checks import shown
from photomaker.errors import PhotoError
from photomaker.images import check_size, open_photo, picture_photo

if TYPE_CHECKING:
    from transformers import CLIPImageProcessorPil

RGB_CHANNELS = 3
GREY = (128, 128, 128)
SLACK = 0.1
"""How far values may lie outside their range, as a share of it: resampling overshoots."""
DARKEST = 16
"""The brightest value of a photo in 0..255 is this at least, or else its range is not plain."""
PhotoLike = Image.Image | np.ndarray | Tensor | str | os.PathLike[str]


def image_processor(size: int) -> CLIPImageProcessorPil:
    """CLIP preprocessing to size x size pixels: shortest side bicubic, centre crop, CLIP mean and deviation."""
    from transformers import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def as_picture(photo: PhotoLike, name: str = "a photo") -> Image.Image:
    """Turn one photo into an sRGB picture.

    Args:
        photo: A path; a PIL picture; an array [height, width, 3]; or a tensor [3, height, width]. Numbers are uint8, or
            plainly in 0..1 (floats) or 0..255 (floats and whole numbers).
        name: Its name in messages.

    Returns:
        The picture, mode RGB; a remark on its reading, such as a colour profile that is ignored, is a warning.

    Raises:
        PhotoError: It is none of these; it has fewer than `photomaker.images.MIN_SIDE` pixels on a side; its values are
            not finite, or of a range that is not plain; the file cannot be read.
    """
    if isinstance(photo, str | os.PathLike):
        read = open_photo(photo)
    else:
        read = picture_photo(photo if isinstance(photo, Image.Image) else _of_numbers(photo, name), name)
    for note in read.notes:
        warnings.warn(note, stacklevel=3)
    return read.image


def is_one_photo(value: object) -> bool:
    """Whether something is a photo by itself, and not several."""
    if isinstance(value, np.ndarray | Tensor):
        return value.ndim == RGB_CHANNELS
    return isinstance(value, Image.Image | str | os.PathLike)


def _of_numbers(photo: object, name: str) -> Image.Image:
    if isinstance(photo, Tensor):
        given = photo.detach().cpu()
        photo = np.moveaxis((given.float() if given.is_floating_point() else given).numpy(), 0, -1)
    if not isinstance(photo, np.ndarray) or photo.ndim != RGB_CHANNELS or photo.shape[-1] != RGB_CHANNELS:
        got = getattr(photo, "shape", None) or shown(photo)
        raise PhotoError(
            f"{name} must be a path, a PIL picture, an array [h, w, 3] or a tensor [3, h, w], got {got}"
        )
    check_size((photo.shape[1], photo.shape[0]), name)
    return Image.fromarray(np.ascontiguousarray(_eight_bit(photo, name)))


def _eight_bit(values: np.ndarray, name: str) -> np.ndarray:
    """Numbers as uint8, their range told by themselves."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "fiu":
        _refuse(f"{name} has the type {values.dtype}")
    low, high = float(values.min()), float(values.max())
    if not math.isfinite(low) or not math.isfinite(high):
        raise PhotoError(f"{name} has values that are not finite; leave it out")
    if values.dtype.kind == "f" and low >= -SLACK and high <= 1 + SLACK:
        values = values * 255.0
    elif not (low >= -SLACK * 255 and DARKEST <= high <= (1 + SLACK) * 255):
        _refuse(f"the values of {name} run from {low:g} to {high:g}, an ambiguous range")
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _refuse(what: str) -> NoReturn:
    raise PhotoError(f"{what}; give uint8, floats in 0..1, or numbers in 0..255")


def preprocess(photos: Sequence[PhotoLike], size: int) -> Tensor:
    """Photos as the input of the ID encoder.

    Args:
        photos: At least one photo of one person; see `as_picture` for the kinds.
        size: Side of the image encoder's input in pixels.

    Returns:
        float32 [refs, 3, size, size].

    Raises:
        PhotoError: There is no photo, or one cannot be used.
    """
    if len(photos) == 0:
        raise PhotoError("no reference photo was given; give at least one photo of the person")
    pictures = [as_picture(photo, f"photo {place}") for place, photo in enumerate(photos, start=1)]
    processed = image_processor(size)(images=pictures, return_tensors="pt")
    return torch.as_tensor(processed["pixel_values"])


def cut_out(photo: Image.Image, mask: np.ndarray, colour: tuple[int, int, int] = GREY) -> Image.Image:
    """The person alone, on a plain background.

    Args:
        photo: RGB picture.
        mask: uint8 [height, width], 255 on the person; softer values blend.
        colour: The ground, 0..255.

    Raises:
        PhotoError: The mask has a different size than the photo.
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
