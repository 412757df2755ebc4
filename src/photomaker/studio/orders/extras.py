"""Reads extras from text: `FILE:WEIGHT`, `MODEL=PICTURE:SCALE`; pictures are opened, models are not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from photomaker.errors import SettingsError
from photomaker.images import open_photo
from photomaker.prompts.places import PLACES
from photomaker.types import POSES, STRUCTURE_KINDS, Extras, Lora, Pose, Start, Structure, StylePicture

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)")


def extras_of(
    loras: str | Sequence[str] = (),
    start: str | None = None,
    strength: float = 0.6,
    mask: str | None = None,
    controls: str | Sequence[str] = (),
    t2i: str | None = None,
    style_picture: str | None = None,
    style_adapter: str | None = None,
    *,
    layout: str | Sequence[str] = (),
    pose: str | None = None,
) -> Extras:
    """The extras of a request, from text.

    Args:
        loras: `FILE` or `FILE:WEIGHT` each.
        start: A start picture's file.
        strength: How much of it to redraw.
        mask: A mask's file.
        controls: `MODEL=PICTURE` or `MODEL=PICTURE:SCALE` each; `MODEL=KIND@PICTURE` reads landmarks, edges or the
            person's mask off the picture.
        t2i: The same for a T2I-Adapter.
        style_picture: `PICTURE` or `PICTURE:SCALE`.
        style_adapter: The IP-Adapter that reads it; None is the bundled one.
        layout: Region of each of several people: `left`, `middle`, `right`, `0,0,0.5,1` (left, top, right, bottom as
            shares of the picture) or a mask file.
        pose: `PICTURE` or `PICTURE:SCALE` whose face sets the pose; or `photo`, `draft` or `none`, see `Pose`.

    Raises:
        SettingsError: A text does not have this form, a number is out of range, or a mask has no start picture.
        PhotoError: A picture cannot be read.
    """
    if start is None and mask is not None:
        raise SettingsError(
            f"there is a mask ({mask}) but no start picture; give the picture that the mask belongs to"
        )
    if style_picture is None and style_adapter is not None:
        raise SettingsError(f"there is a style adapter ({style_adapter}) but no style picture; give one")
    return Extras(
        None if start is None else Start(picture(start), strength, None if mask is None else picture(mask)),
        tuple(Lora(*weighed(one)) for one in _several(loras)),
        tuple(structure(one) for one in _several(controls)),
        None if t2i is None else structure(t2i),
        None if style_picture is None else _style(style_picture, style_adapter),
        tuple(place(one) for one in _several(layout)),
        None if pose is None else _pose(pose),
    )


def place(text: str) -> str | tuple[float, ...] | Image.Image:
    """The region of one of several people, from text; a box is checked when it is used.

    Raises:
        SettingsError: It is neither a word nor a box, and there is no such file.
        PhotoError: The mask cannot be read.
    """
    if text.strip().lower() in PLACES:
        return text.strip().lower()
    parts = [part.strip() for part in text.split(",")]
    if all(_NUMBER.fullmatch(part) for part in parts):
        return tuple(map(float, parts))
    if not Path(text).is_file():
        raise SettingsError(
            f"the region {text!r} is neither {', '.join(PLACES)} nor a box such as 0,0,0.5,1, nor an existing mask file"
        )
    return picture(text)


def structure(text: str) -> Structure:
    """`MODEL=PICTURE` or `MODEL=PICTURE:SCALE`, with `KIND@` before a picture to extract a structure from.

    Raises:
        SettingsError: It does not have this form.
        PhotoError: The picture cannot be read.
    """
    model, equals, rest = text.rpartition("=")
    if not (equals and model and rest):
        raise SettingsError(f"{text!r} is not MODEL=PICTURE; write for example canny-sdxl=edges.png:0.7")
    file, scale = weighed(rest)
    kind, at, name = file.partition("@")
    if at and kind in STRUCTURE_KINDS:
        return Structure(model, picture(name), scale, kind=kind)
    return Structure(model, picture(file), scale)


def weighed(text: str) -> tuple[str, float]:
    """`NAME` or `NAME:NUMBER`; the number defaults to 1."""
    name, colon, weight = text.rpartition(":")
    if colon and name and _NUMBER.fullmatch(weight):
        return name, float(weight)
    return text, 1.0


def picture(file: str) -> Image.Image:
    """A picture other than the photos, as upright RGB.

    Raises:
        PhotoError: It cannot be read.
    """
    return open_photo(file).image


def _style(text: str, adapter: str | None) -> StylePicture:
    file, scale = weighed(text)
    if file == text:
        return StylePicture(picture(file), adapter)
    return StylePicture(picture(file), adapter, scale)


def _pose(text: str) -> Pose:
    source, scale = weighed(text)
    return Pose(source if source in POSES else picture(source), None if source == text else scale)


def _several(values: str | Sequence[str]) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else tuple(values)
