"""Redraws small faces at a larger size: a face of a few latent cells cannot show a likeness.

Like ADetailer, but with the identity: the face is cut out with a margin, scaled to the base's own size, redrawn by
image to image, colour-matched and blended back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from photomaker.checks import shown
from photomaker.errors import SettingsError
from photomaker.types import Extras, Face, Request, Start

AUTO_SHARE = 0.25
"""By default, a face is small below this share of the base's own side."""
AROUND = 2.4
"""Side of the crop, as a multiple of the longer side of the face's box: about a portrait."""
STRENGTH = 0.5
MOST = 4096
"""Largest limit in pixels."""
_FACE = 1.35
"""The part that is pasted back, as a multiple of the face's box."""
_GAIN = 0.25
"""Largest increase of contrast by colour matching."""


@dataclass(frozen=True)
class SmallFace:
    """A face to redraw.

    Attributes:
        picture: Number of its picture.
        face: The face, in the picture's pixels.
        corner: Left and top of the crop.
        side: Side of the crop, in pixels.
    """

    picture: int
    face: Face
    corner: tuple[int, int]
    side: int

    @property
    def size(self) -> float:
        """The longer side of the face's box in pixels."""
        return longer(self.face)

    def cut(self, picture: Image.Image) -> Image.Image:
        """The face with its surroundings."""
        left, top = self.corner
        return picture.crop((left, top, left + self.side, top + self.side))

    def put_back(self, picture: Image.Image, drawn: Image.Image) -> Image.Image:
        """The picture with the redrawn face; only a soft oval around it changes.

        Args:
            picture: The whole picture.
            drawn: The redrawn crop, at any size.
        """
        old = self.cut(picture)
        new = matched(drawn.resize(old.size, Image.Resampling.LANCZOS), old)
        left, top, right, bottom = self.face.box
        x, y = (left + right) / 2 - self.corner[0], (top + bottom) / 2 - self.corner[1]
        half = [_FACE * length / 2 for length in (right - left, bottom - top)]
        cover = Image.new("L", old.size)
        ImageDraw.Draw(cover).ellipse((x - half[0], y - half[1], x + half[0], y + half[1]), fill=255)
        cover = cover.filter(ImageFilter.GaussianBlur(max(1.0, self.size * 0.08)))
        made = picture.copy()
        made.paste(new, self.corner, cover)
        return made


def longer(face: Face) -> float:
    """The longer side of a face's box in pixels."""
    left, top, right, bottom = face.box
    return float(max(right - left, bottom - top))


def threshold(asked: str | int, side: int) -> float:
    """The limit in pixels below which a face is redrawn.

    Args:
        asked: `auto`, `off`, or a number of pixels.
        side: Side of the base's own square pictures.
    """
    if asked == "auto":
        return AUTO_SHARE * side
    return 0.0 if asked == "off" else float(asked)


def checked(asked: object) -> str | int:
    """The checked setting: `auto`, `off`, or a number of pixels.

    Raises:
        SettingsError: It is something else.
    """
    if isinstance(asked, str) and asked.strip().lower() in ("auto", "off"):
        return asked.strip().lower()
    number = asked.strip().lower().removesuffix("px").strip() if isinstance(asked, str) else asked
    if isinstance(number, str) and number.isdigit():
        number = int(number)
    if isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= MOST:
        return number
    raise SettingsError(f"redraw is {shown(asked)}; give auto, off, or a number of pixels from 1 to {MOST}")


def small_face(
    number: int, picture: Image.Image, face: Face | None, below: float, most: int
) -> SmallFace | None:
    """The crop of a picture to redraw; None if the face is large enough, or there is none.

    Args:
        number: Number of the picture.
        picture: The picture.
        face: The person's face in it.
        below: Pixels of the longer side from which a face is large enough.
        most: Side of the base's own square pictures: larger crops gain nothing.
    """
    if face is None or not 0 < longer(face) < below:
        return None
    left, top, right, bottom = face.box
    side = min(round(AROUND * longer(face)), *picture.size)
    if side >= most:
        return None
    corner = [
        min(max(0, round((low + high - side) / 2)), whole - side)
        for low, high, whole in ((left, right, picture.width), (top, bottom, picture.height))
    ]
    return SmallFace(number, face, (corner[0], corner[1]), side)


def request_for(small: SmallFace, picture: Image.Image, request: Request, side: int) -> Request:
    """The request that redraws a small face: same prompt, seed and LoRA, starting from the crop.

    Args:
        small: The face.
        picture: The whole picture.
        request: The request of the picture.
        side: Side of the base's own square pictures.
    """
    start = Start(small.cut(picture).resize((side, side), Image.Resampling.LANCZOS), STRENGTH)
    extras = Extras(start, request.extras.loras, style_picture=request.extras.style_picture)
    sampling = replace(request.sampling, width=side, height=side)
    return replace(request, sampling=sampling, extras=extras)


def matched(new: Image.Image, old: Image.Image) -> Image.Image:
    """A picture with the colours of another one: mean and, within limits, contrast of each channel.

    Source: Reinhard et al., Color transfer between images, 2001, in RGB.
    """
    values, wanted = (np.asarray(one.convert("RGB"), dtype=np.float32) for one in (new, old))
    means, goal = values.mean((0, 1)), wanted.mean((0, 1))
    gain = (wanted.std((0, 1)) + 1) / (values.std((0, 1)) + 1)
    # the redrawn face is sharper, so its contrast is never lowered
    moved = (values - means) * np.clip(gain, 1, 1 + _GAIN) + goal
    return Image.fromarray(moved.clip(0, 255).round().astype(np.uint8))


def faces_of(found: Sequence[Sequence[Face]], scores: Sequence[Sequence[float] | None]) -> list[Face | None]:
    """The person's face in each picture: the one with the highest likeness, else the largest; None without a face.

    Args:
        found: The faces of each picture.
        scores: Likeness of each, or None if unknown.
    """
    chosen: list[Face | None] = []
    for faces, likeness in zip(found, scores, strict=True):
        if not faces:
            chosen.append(None)
        elif likeness is None:
            chosen.append(max(faces, key=lambda face: face.area))
        else:
            chosen.append(faces[int(np.argmax(likeness))])
    return chosen
