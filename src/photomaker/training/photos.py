"""Reference photos in training: which are drawn, what becomes of their background, and light changes of the picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from photomaker.training.data import People, clip_normalised

_PERSON = 128  # mask value from which a pixel is the person's
_GREY = 128


@dataclass(frozen=True)
class PhotoSettings:
    """How reference photos are changed.

    Attributes:
        noise: Share of photos whose background becomes random noise (paper, section 4.1).
        grey: Share whose background becomes grey, as a cut-out at inference; the others keep theirs.
        brightness: Largest relative change of the brightness.
        shift: Largest shift in pixels.
        crop: Side of the square around the face that is cut out, in longer sides of the face box; 0 keeps the whole
            picture. What is trained with a crop needs the same crop at inference.
        photo_style: Share of drawn references that are photo-style where the person has such.
    """

    noise: float = 0.5
    grey: float = 0.25
    brightness: float = 0.15
    shift: int = 4
    crop: float = 0.0
    photo_style: float = 0.9


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


def face_crop(photo: np.ndarray, box: np.ndarray, side: float, rng: np.random.Generator) -> np.ndarray:
    """Square around a face, resized to the picture's size, a little off in size and place as a detector would be.

    Args:
        photo: float32 [h, w, 3] in 0..255.
        box: Face box x0, y0, x1, y1 in pixels.
        side: Side of the square in longer sides of the box.
        rng: Randomness of size (5 %) and place (4 % of the side).

    Returns:
        float32 [h, w, 3] in 0..255; black where the square leaves the picture.
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
        picture.transform(picture.size, Image.Transform.EXTENT, square, Image.Resampling.BILINEAR),
        dtype=np.float32,
    )


def photo_tensor(data: People, rows: np.ndarray, settings: PhotoSettings, rng: np.random.Generator) -> Tensor:
    """Reference photos as the ID encoder takes them: [photos, 3, 128, 128], CLIP-normalised float32."""
    photos = []
    for row in rows:
        photo = prepared_photo(np.asarray(data.images[row]), np.asarray(data.masks[row]), settings, rng)
        photos.append(face_crop(photo, data.boxes[row], settings.crop, rng) if settings.crop else photo)
    return clip_normalised(torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).contiguous())


def draw_references(
    data: People, target: int, largest: int, settings: PhotoSettings, rng: np.random.Generator
) -> np.ndarray:
    """Rows of 1 to `largest` other pictures of the person in row `target`.

    Raises:
        ValueError: The person has no other picture.
    """
    own = data.rows_of(int(data.person[target]))
    others = own[own != target]
    if not len(others):
        raise ValueError(f"row {target} is the only picture of its person")
    photos = others[data.is_photo[others]]
    if len(photos) and rng.random() < settings.photo_style:
        others = photos
    count = min(int(rng.integers(1, largest + 1)), len(others))
    return rng.choice(others, count, replace=False)
