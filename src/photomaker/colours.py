"""Colour profiles: what the numbers of a picture mean by its own ICC profile, brought to sRGB.

Everything else in the package assumes sRGB. Phones write Display P3, cameras Adobe RGB, printers CMYK: read as sRGB,
skin comes out paler or greener than the person's.
"""

from __future__ import annotations

import io
from itertools import product

import numpy as np
from PIL import Image, ImageCms

_MODES = {
    "RGB": "RGB",
    "GRAY": "L",
    "CMYK": "CMYK",
}  # colour space of a profile -> mode of the pictures it is for
_STEPS = (0, 51, 102, 153, 204, 255)
# What Pillow raises on damaged or hostile profiles, or where it was built without LittleCMS.
_UNUSABLE = (
    ImageCms.PyCMSError, OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, ImportError,
    MemoryError,
)  # fmt: skip


def in_srgb(picture: Image.Image, profile: bytes | None) -> tuple[Image.Image, bool]:
    """A picture as 8-bit sRGB, mode RGB.

    Args:
        picture: Of 8 bits a channel; what is transparent in it is shown in full.
        profile: The ICC profile that its numbers are of; None takes them for sRGB.

    Returns:
        The picture, and whether the profile could be used; one that is damaged or for other pictures is ignored.
        The intent is perceptual, which for profiles without tables (Display P3, Adobe RGB) is relative colorimetric.
    """
    flat = _without_alpha(picture)
    if not profile:
        return flat.convert("RGB"), True
    try:
        return _converted(flat, profile), True
    except _UNUSABLE:
        return flat.convert("RGB"), False


def _without_alpha(picture: Image.Image) -> Image.Image:
    if picture.mode in {"1", "L", "LA", "La"}:
        return picture.convert("L")
    return picture.convert("RGBA").convert("RGB") if picture.has_transparency_data else picture


def _converted(picture: Image.Image, profile: bytes) -> Image.Image:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    mode = _MODES.get(space, "")
    # grey may lie in a profile for colours, but colours in none for grey, and inks in none for lights
    if not mode or (mode == "CMYK") != (picture.mode == "CMYK") or (mode == "L" and picture.mode != "L"):
        raise ValueError(f"a profile of colour space {space} for a picture of mode {picture.mode}")
    transform = ImageCms.buildTransform(
        source, ImageCms.createProfile("sRGB"), mode, "RGB", ImageCms.Intent.PERCEPTUAL
    )
    if mode == "RGB" and _changes_nothing(transform):
        return picture.convert("RGB")
    converted: Image.Image = transform.apply(picture.convert(mode))
    return converted


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether a profile is sRGB, whatever it is called: then pixels stay as they are instead of rounded again."""
    colours = np.array(list(product(_STEPS, repeat=3)), dtype=np.uint8)[None]
    there = np.asarray(transform.apply(Image.fromarray(colours))).astype(int)
    return int(np.abs(there - colours).max()) <= 1
