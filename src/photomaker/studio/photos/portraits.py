"""Small portraits of saved people."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from photomaker.images import open_photo
from photomaker.types import Reference

SIDE = 256
AROUND = 1.6
"""Side of the crop, as a multiple of the longer side of the face's box."""


def portrait_of(reference: Reference) -> Image.Image:
    """The face with a margin, or the middle of a photo without a detected face."""
    image, face = reference.image, reference.face
    x0, y0, x1, y1 = (0.0, 0.0, float(image.width), float(image.height)) if face is None else face.box
    half = min(AROUND * max(x1 - x0, y1 - y0), image.width, image.height) / 2
    x = min(max((x0 + x1) / 2, half), image.width - half)
    y = min(max((y0 + y1) / 2, half), image.height - half)
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=(x - half, y - half, x + half, y + half))


def blended(first: Path, second: Path, share: float) -> Image.Image:
    """A portrait of a mix."""
    return Image.blend(open_photo(first).image, open_photo(second).image, share)
