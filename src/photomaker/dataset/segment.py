"""Step: a square around the face, and the mask of the person in it.

Source: PhotoMaker, arXiv 2312.04461, appendix: the largest square in which the face takes at least a tenth, and of
the masks the one that overlaps the face's box most.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from PIL import Image

from photomaker.dataset.base import Dropped, ImageStep, Photo
from photomaker.errors import SettingsError
from photomaker.faces.base import Segmenter
from photomaker.faces.plugins import PlugIn
from photomaker.types import Face

NO_MASK, MISSED = "no person mask", "mask misses the face"
QUALITY = 95


@dataclass(frozen=True)
class Segment(ImageStep):
    """Cuts photos to the person and finds the person's mask.

    Attributes:
        segmenter: Finds the mask.
        face_share: Share of the crop, 0..1, that the face's box takes at least.
        covered: Share of the face's box, 0..1, of which the mask must cover more.
        largest_side: Pixels to which larger crops are brought; None keeps them as they are.
        format: Of the crops: "jpg" of quality 95, or "png".

    Raises:
        SettingsError: A value is out of range.
    """

    name: ClassVar[str] = "segment"
    pictures: ClassVar[str] = "gather"
    writes: ClassVar[bool] = True
    columns: ClassVar[pa.Schema] = pa.schema(
        [
            ("crop", pa.list_(pa.float32())),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("box", pa.list_(pa.float32())),
            ("landmarks", pa.list_(pa.float32())),
            ("face_share", pa.float32()),
            ("person_share", pa.float32()),
        ]
    )

    segmenter: PlugIn = field(default_factory=lambda: PlugIn("mask2former"))
    face_share: float = 0.1
    covered: float = 0.0
    largest_side: int | None = 1024
    format: Literal["jpg", "png"] = "jpg"

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 < self.face_share <= 1:
            raise SettingsError(f"face_share is {self.face_share}; give a share above 0 and up to 1")
        if not 0 <= self.covered < 1:
            raise SettingsError(f"covered is {self.covered}; give a share from 0 to below 1")
        if self.largest_side is not None and self.largest_side < 1:
            raise SettingsError(f"largest_side is {self.largest_side}; give a number of pixels, or null")

    @property
    def licences(self) -> dict[str, str]:
        """Licences of the models."""
        return {"segmenter": self.segmenter.licence}

    def open(self) -> Callable[[Iterable[Photo]], Iterator[Photo | Dropped]]:
        """See `ImageStep.open`."""
        segmenter = self.segmenter.open("segmenter")

        def step(photos: Iterable[Photo]) -> Iterator[Photo | Dropped]:
            for photo in photos:
                yield self._one(photo, segmenter)

        return step

    def _one(self, photo: Photo, segmenter: Segmenter) -> Photo | Dropped:
        image, row = photo.image(), photo.row
        square = largest_square(row["box"], image.size, self.face_share)
        crop, scale = self._crop(image, square)
        shift = np.array(square[:2], np.float64)
        corners = (np.array(row["box"], np.float64).reshape(2, 2) - shift) * scale
        landmarks = ((np.array(row["landmarks"], np.float64).reshape(-1, 2) - shift) * scale).astype(
            np.float32
        )
        # where the face is larger than the picture is high or wide, the crop does not hold all of it
        x0, y0, x1, y1 = np.clip(corners, 0, crop.width).reshape(-1).tolist()
        box = (x0, y0, x1, y1)
        mask = segmenter.person_mask(crop, Face(box, 1.0, landmarks))
        if not mask.any():
            return Dropped(row, NO_MASK, image=encoded(crop, "jpg"))
        overlap = float((mask[inside(box)] > 0).mean())
        if not overlap > self.covered:
            return Dropped(row, MISSED, f"it covers {overlap:.0%} of the box", encoded(crop, "jpg"))
        area = (x1 - x0) * (y1 - y0)
        columns = {
            "crop": [float(value) for value in square],
            "width": crop.width,
            "height": crop.height,
            "box": list(box),
            "landmarks": landmarks.reshape(-1).tolist(),
            "face_share": area / (crop.width * crop.height),
            "person_share": float((mask > 0).mean()),
        }
        files = {"image": encoded(crop, self.format), "mask": encoded(Image.fromarray(mask), "png")}
        return Photo({**row, **columns}, files)

    def _crop(self, image: Image.Image, square: tuple[int, int, int, int]) -> tuple[Image.Image, float]:
        """The crop, and pixels of it to one of the photo."""
        side = square[2] - square[0]
        if self.largest_side is None or side <= self.largest_side:
            return image.crop(square), 1.0
        size = (self.largest_side, self.largest_side)
        return image.resize(size, Image.Resampling.LANCZOS, box=square), self.largest_side / side


def largest_square(box: Sequence[float], size: tuple[int, int], share: float) -> tuple[int, int, int, int]:
    """The largest square of a picture around a face in which the face's box takes at least a share.

    Args:
        box: x0, y0, x1, y1 of the face in pixels.
        size: Width and height of the picture.
        share: Share of the square's area, 0..1.

    Returns:
        x0, y0, x1, y1 in whole pixels, inside the picture, the face as near to the middle as that allows. A face
        that is larger than the picture's shorter side is cut.
    """
    x0, y0, x1, y1 = box
    area = (x1 - x0) * (y1 - y0)
    side = max(1, min(math.floor(math.sqrt(area / share)), *size))
    left, top = (
        int(min(max(round((low + high - side) / 2), 0), whole - side))
        for low, high, whole in ((x0, x1, size[0]), (y0, y1, size[1]))
    )
    return left, top, left + side, top + side


def inside(box: Sequence[float]) -> tuple[slice, slice]:
    """Rows and columns of a box, at least one of each."""
    x0, y0, x1, y1 = (int(value) for value in box)
    return slice(y0, max(y1, y0 + 1)), slice(x0, max(x1, x0 + 1))


def encoded(image: Image.Image, extension: str) -> bytes:
    """A picture as JPEG ("jpg") or PNG ("png")."""
    buffer = io.BytesIO()
    if extension == "jpg":
        image.save(buffer, format="JPEG", quality=QUALITY)
    else:
        image.save(buffer, format="PNG")
    return buffer.getvalue()
