"""Reference photos in training: selection, background, and light augmentation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from photomaker.training.data.dataset import SIZE, Album, clip_normalised

_PERSON = 128  # mask value from which a pixel is the person's
_GREY = 128
_ROOM = 1.25  # around a face crop, for the random shifts of its place and size


@dataclass(frozen=True)
class PhotoSettings:
    """Augmentation of reference photos; the defaults are the paper's, section 4.1.

    Attributes:
        noise: Share of photos whose background becomes random noise (paper, section 4.1).
        grey: Share whose background becomes grey, as a cut-out at inference; the others keep theirs.
        brightness: Largest relative change of the brightness.
        shift: Largest shift in pixels of the image encoder's input.
        crop: Side of the square around the face that is cut out, in longer sides of the face box; 0 keeps the whole
            picture. What is trained with a crop needs the same crop at inference.
        photo_style: Share of drawn references that are photo-style where the person has such.
    """

    noise: float = 1.0
    grey: float = 0.0
    brightness: float = 0.0
    shift: int = 0
    crop: float = 0.0
    photo_style: float = 0.9


SMALL = PhotoSettings(noise=0.5, grey=0.25, brightness=0.15, shift=4)
"""What is done to photos for the bundled small model, which sees few people."""


def shifted(image: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Move a picture [h, w, ...] by whole pixels, repeating its border."""
    height, width = image.shape[:2]
    rows = np.clip(np.arange(height) - dy, 0, height - 1)
    columns = np.clip(np.arange(width) - dx, 0, width - 1)
    return image[rows][:, columns]


def prepared_photo(
    image: np.ndarray, mask: np.ndarray, settings: PhotoSettings, rng: np.random.Generator
) -> np.ndarray:
    """One reference photo with another background, brightness and place.

    Args:
        image: uint8 [h, w, 3].
        mask: uint8 [h, w], 255 on the person.
        settings: Shares and sizes of the changes.
        rng: Randomness.

    Returns:
        float32 [h, w, 3] in 0..255.
    """
    photo = image.astype(np.float32)
    photo *= 1 + rng.uniform(-settings.brightness, settings.brightness)
    kind, background = rng.random(), mask < _PERSON
    if kind < settings.noise:
        photo[background] = rng.integers(0, 256, (int(background.sum()), 3))
    elif kind < settings.noise + settings.grey:
        photo[background] = _GREY
    if settings.shift and not settings.crop:  # a crop has its own, and the box must stay where it is
        dy, dx = rng.integers(-settings.shift, settings.shift + 1, 2)
        photo = shifted(photo, int(dy), int(dx))
    return photo.clip(0, 255)


def face_crop(
    photo: np.ndarray, box: np.ndarray, side: float, rng: np.random.Generator, size: int = SIZE
) -> np.ndarray:
    """Square around a face, resized, a little off in size and place as a detector would be.

    Args:
        photo: float32 [h, w, 3] in 0..255.
        box: Face box x0, y0, x1, y1 in pixels.
        side: Side of the square in longer sides of the box.
        rng: Randomness of size (5 %) and place (4 % of the side).
        size: Side of the result in pixels.

    Returns:
        float32 [size, size, 3] in 0..255; black where the square leaves the picture.
    """
    x0, y0, x1, y1 = (float(edge) for edge in box)
    longer = max(x1 - x0, y1 - y0)
    half = longer * side * rng.uniform(0.95, 1.05) / 2
    x, y = (
        (x0 + x1) / 2 + rng.uniform(-0.04, 0.04) * longer,
        (y0 + y1) / 2 + rng.uniform(-0.04, 0.04) * longer,
    )
    picture = Image.fromarray(photo.astype(np.uint8))
    square = (x - half, y - half, x + half, y + half)
    return np.asarray(
        picture.transform((size, size), Image.Transform.EXTENT, square, Image.Resampling.BILINEAR),
        dtype=np.float32,
    )


def fitted(
    image: np.ndarray, mask: np.ndarray, box: np.ndarray, size: int, crop: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photo as small as the image encoder needs it, before anything is done to it.

    Args:
        image: uint8 [h, w, 3].
        mask: uint8 [h, w].
        box: Face box x0, y0, x1, y1 in pixels.
        size: Side of the image encoder's input in pixels.
        crop: See `PhotoSettings.crop`; where it is above 0 the surroundings of the face are kept, larger than needed.

    Returns:
        Picture, mask and box: a square, in the middle of the photo as CLIP's own preprocessing takes it, or around the
        face. A photo that has the size stays as it is.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image, mask, box
    x0, y0, x1, y1 = (float(edge) for edge in box)
    if crop:
        size, half = round(size * _ROOM), max(x1 - x0, y1 - y0) * crop * _ROOM / 2
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
    else:
        half = min(height, width) / 2
        x, y = width / 2, height / 2
    square = (round(x - half), round(y - half), round(x + half), round(y + half))
    picture, person = (
        Image.fromarray(np.ascontiguousarray(array)).crop(square).resize((size, size), how)
        for array, how in ((image, Image.Resampling.BICUBIC), (mask, Image.Resampling.BILINEAR))
    )
    scale = size / (square[2] - square[0])
    corner = np.array([square[0], square[1], square[0], square[1]], dtype=np.float32)
    return np.asarray(picture), np.asarray(person), (box - corner) * scale


def photo_tensor(
    data: Album, rows: np.ndarray, settings: PhotoSettings, rng: np.random.Generator, size: int = SIZE
) -> Tensor:
    """Reference photos as the ID encoder takes them: [photos, 3, size, size], CLIP-normalised float32."""
    photos = []
    for row in rows:
        image, mask = np.asarray(data.images[row]), np.asarray(data.masks[row])
        image, mask, box = fitted(image, mask, data.boxes[row], size, settings.crop)
        photo = prepared_photo(image, mask, settings, rng)
        photos.append(face_crop(photo, box, settings.crop, rng, size) if settings.crop else photo)
    return clip_normalised(torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).contiguous())


def draw_references(
    data: Album,
    target: int,
    largest: int,
    settings: PhotoSettings,
    rng: np.random.Generator,
    target_among: bool = False,
) -> np.ndarray:
    """Rows of 1 to `largest` pictures of the person in row `target`.

    Args:
        data: The pictures.
        target: Row of the picture that is to be drawn.
        largest: Most photos.
        settings: How much photo style is preferred.
        rng: Randomness.
        target_among: Whether the target itself may be among them.

    Raises:
        ValueError: The person has no other picture.
    """
    own = data.rows_of(int(data.person[target]))
    others = own if target_among else own[own != target]
    if not len(others):
        raise ValueError(f"row {target} is the only picture of its person")
    return _some(data, others, largest, settings, rng)


def draw_photos(
    data: Album, person: int, largest: int, settings: PhotoSettings, rng: np.random.Generator
) -> np.ndarray:
    """Rows of 1 to `largest` pictures of a person, who is shown elsewhere; see `draw_references`."""
    return _some(data, data.rows_of(person), largest, settings, rng)


def _some(
    data: Album, own: np.ndarray, largest: int, settings: PhotoSettings, rng: np.random.Generator
) -> np.ndarray:
    photos = own[data.is_photo[own]]
    if len(photos) and rng.random() < settings.photo_style:
        own = photos
    count = min(int(rng.integers(1, largest + 1)), len(own))
    return rng.choice(own, count, replace=False)
