"""The square crop for recognisers: smooth for users' photos, and batched on tensors for training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from photomaker.errors import PhotoError
from photomaker.faces.base import Box, square_around

if TYPE_CHECKING:
    from photomaker.types import Face

SIDE = 1.5
"""Side of the crop over the longer side of the face box."""


def face_crop(image: Image.Image, face: Face, size: int) -> Image.Image:
    """Cut the square around a face and bring it to `size` pixels; outside the picture its edge pixels are repeated.

    Args:
        image: The picture the face was found in.
        face: The face, in pixels of `image`.
        size: Side of the crop in pixels.

    Returns:
        A size x size RGB picture.

    Raises:
        PhotoError: The face's box is empty or does not touch the picture.
    """
    box = face.box
    inside = box[0] < image.width and box[1] < image.height and box[2] > 0 and box[3] > 0
    if not (inside and face.area > 0):
        place = tuple(round(float(value), 1) for value in box)
        raise PhotoError(
            f"the face box {place} is outside the {image.width} x {image.height} photo; "
            "use a face that was found in this photo"
        )
    return _cut(image.convert("RGB"), square_around(box, SIDE), size)


def _cut(image: Image.Image, square: Box, size: int) -> Image.Image:
    """Resize a square of a picture; PIL smooths where it shrinks."""
    # Cutting first keeps the padding small however large the photo is; a margin of the filter's reach stays around.
    margin = 2 + 2 * (square[2] - square[0]) / size
    left, top = int(np.floor(square[0] - margin)), int(np.floor(square[1] - margin))
    right, bottom = int(np.ceil(square[2] + margin)), int(np.ceil(square[3] + margin))
    columns = np.clip(np.arange(left, right), 0, image.width - 1)
    rows = np.clip(np.arange(top, bottom), 0, image.height - 1)
    x0, y0, x1, y1 = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    pixels = np.asarray(image.crop((x0, y0, x1, y1)))[rows - y0][:, columns - x0]
    box = (square[0] - left, square[1] - top, square[2] - left, square[3] - top)
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR, box=box)


def tensor_crops(images: Tensor, squares: Tensor, size: int) -> Tensor:
    """The same crop for a batch of equally large pictures, differentiable, without smoothing where it shrinks.

    Args:
        images: [batch, channels, height, width] float.
        squares: [batch, 4] squares x0, y0, x1, y1 in pixels.
        size: Side of the crops in pixels.

    Returns:
        [batch, channels, size, size]; outside the pictures their edge pixels are repeated.
    """
    batch, channels, height, width = images.shape
    extent = images.new_tensor([width, height])
    scale = (squares[:, 2:] - squares[:, :2]) / extent
    shift = (squares[:, 2:] + squares[:, :2]) / extent - 1
    theta = images.new_zeros(batch, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = scale[:, 0], scale[:, 1]
    theta[:, :, 2] = shift
    grid = functional.affine_grid(theta, [batch, channels, size, size], align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def to_tensor(images: list[Image.Image]) -> Tensor:
    """Equally large pictures as [batch, 3, height, width] float in 0..1."""
    pixels = np.stack([np.asarray(image.convert("RGB")) for image in images])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def fine_power(picture: np.ndarray, box: Sequence[float]) -> float:
    """Fine detail of a face: the power of its brightness above a quarter of the sampling rate.

    Recognisers hardly see whether eyes are sharp or smeared; this does, as a ratio to real pictures. Far below 1 is
    soft, far above 1 is noise.

    Args:
        picture: uint8 [h, w, 3] RGB.
        box: The face, x0, y0, x1, y1 in pixels.

    Returns:
        Variance in squared levels of 255, per pixel, after a Hann window; 0 if the box has fewer than 8 x 8 pixels.
    """
    left, top, right, bottom = (round(float(edge)) for edge in box)
    inside = picture[max(0, top) : max(0, bottom), max(0, left) : max(0, right)].astype(float)
    if min(inside.shape[:2]) < 8:  # noqa: PLR2004
        return 0.0
    grey = inside @ np.array([0.299, 0.587, 0.114])
    window = np.outer(np.hanning(grey.shape[0]), np.hanning(grey.shape[1]))
    spectrum = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
    across = np.hypot(*np.meshgrid(*(np.fft.fftfreq(side) for side in grey.shape), indexing="ij"))
    return float(spectrum[across > 0.25].sum() / grey.size / np.square(window).sum())  # noqa: PLR2004
