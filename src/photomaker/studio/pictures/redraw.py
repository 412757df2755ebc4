"""Redraws small faces at a larger size: a face of a few latent cells cannot show a likeness.

Like ADetailer, but with the identity: the face is cut out with a margin, scaled to the base's own size, redrawn by
image to image, colour-matched and blended back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

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
REGION_CELLS = 64
"""Cells of a side on which it is looked up whose place a face is in."""
_OWN = 0.25
"""Share of a place from which a face may be that of the person whose place it is."""
_GAIN = 0.25
"""Largest increase of contrast by colour matching."""


@dataclass(frozen=True)
class SmallFace:
    """A face to redraw.

    Attributes:
        picture: Number of its picture.
        face: The face, in the picture's pixels.
        corner: Left and top of what is cut out, which may lie beyond the picture.
        side: Side of the crop, in pixels.
        person: Number of the person whose it is.
    """

    picture: int
    face: Face
    corner: tuple[int, int]
    side: int
    person: int = 0

    @property
    def size(self) -> float:
        """The longer side of the face's box in pixels."""
        return longer(self.face)

    def cut(self, picture: Image.Image) -> Image.Image:
        """The face with its surroundings; the picture's edge goes on where they lie beyond it."""
        (left, top), side = self.corner, self.side
        columns = np.clip(np.arange(left, left + side), 0, picture.width - 1)
        rows = np.clip(np.arange(top, top + side), 0, picture.height - 1)
        return Image.fromarray(np.asarray(picture.convert("RGB"))[rows][:, columns])

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
    number: int, picture: Image.Image, face: Face | None, below: float, most: int, person: int = 0
) -> SmallFace | None:
    """The crop of a picture to redraw; None if the face is large enough, or there is none.

    Args:
        number: Number of the picture.
        picture: The picture.
        face: The person's face in it.
        below: Pixels of the longer side from which a face is large enough.
        most: Side of the base's own square pictures: larger crops gain nothing.
        person: Number of the person.
    """
    if face is None or not 0 < longer(face) < below:
        return None
    left, top, right, bottom = face.box
    side = round(AROUND * longer(face))
    if side >= most:
        return None
    # the face is in the middle, where a base draws faces, even if it is at the picture's edge
    corner = round((left + right - side) / 2), round((top + bottom - side) / 2)
    return SmallFace(number, face, corner, side, person)


def request_for(
    small: SmallFace, picture: Image.Image, request: Request, side: int, people: int = 1
) -> Request:
    """The request that redraws a small face: same prompt, seed and LoRA, starting from the crop.

    Args:
        small: The face.
        picture: The picture that it is in.
        request: How the picture was drawn; of several people's prompt the person's own part is taken.
        side: Side of the base's own square pictures.
        people: How many people the picture was drawn of.
    """
    from photomaker.prompts.alone import prompts_of_each

    start = Start(small.cut(picture).resize((side, side), Image.Resampling.LANCZOS), STRENGTH)
    extras = Extras(start, request.extras.loras, style_picture=request.extras.style_picture)
    sampling = replace(request.sampling, width=side, height=side)
    prompt = prompts_of_each(request.prompt, people)[small.person]
    return replace(request, prompt=prompt, sampling=sampling, extras=extras)


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


def places_of(request: Request, people: int) -> tuple[Any, ...] | None:
    """Where each of several people was told to be, by the layout or by the prompt; None where nothing says so."""
    from photomaker.prompts.places import places_said

    return request.extras.layout or places_said(request.prompt, people)


def whose(
    faces: Sequence[Face],
    size: tuple[int, int],
    places: Sequence[Any] | None,
    likeness: np.ndarray | None,
) -> list[Face | None]:
    """Each of several people's face in a picture; None for somebody whose face cannot be told.

    A face is somebody's by whose place its middle is in, and by whom it is like. Faces are given to people so that the
    sum of both is largest; where places are known, nobody gets a face in somebody else's.

    Args:
        faces: The faces.
        size: Width and height of the picture.
        places: Of the people, see `photomaker.pipelines.attention.regions`; None where nothing says where they are.
        likeness: Of people to faces [people, faces]; None where nothing compares faces.
    """
    shares = None if places is None else _shares(faces, size, places)
    known = [one for one in (shares, likeness) if one is not None]
    if not known or not faces:
        return [None] * (0 if not known else len(known[0]))
    chosen = matching(np.sum(known, axis=0))
    return [
        None if face is None or (shares is not None and shares[person, face] < _OWN) else faces[face]
        for person, face in enumerate(chosen)
    ]


def _shares(faces: Sequence[Face], size: tuple[int, int], places: Sequence[Any]) -> np.ndarray:
    """How much of the place where a face is belongs to each person: [people, faces] in 0..1."""
    from photomaker.pipelines.attention.regions import regions_of

    regions = regions_of(places, REGION_CELLS, REGION_CELLS).numpy()
    middles = np.array([[face.box[0] + face.box[2], face.box[1] + face.box[3]] for face in faces]) / 2
    cells = (middles.reshape(-1, 2) / size * REGION_CELLS).astype(int).clip(0, REGION_CELLS - 1)
    found: np.ndarray = regions[:, cells[:, 1], cells[:, 0]]
    return found


def matching(scores: np.ndarray) -> list[int | None]:
    """The face of each person, given so that the sum of scores is largest; None for whom none is left.

    Args:
        scores: [people, faces].
    """
    people, faces = scores.shape
    nobody = [None] * max(0, people - faces)
    ways = set(permutations([*range(faces), *nobody], people))  # brute force: there are at most four people
    return list(
        max(ways, key=lambda way: sum(scores[at, face] for at, face in enumerate(way) if face is not None))
    )


def redrawn_note(sizes: Sequence[float]) -> str:
    """What a picture's file says of the faces in it that were drawn again, by their sizes in pixels."""
    if len(sizes) == 1:
        return f"a face of {sizes[0]:.0f} pixels"
    return f"faces of {', '.join(f'{size:.0f}' for size in sizes[:-1])} and {sizes[-1]:.0f} pixels"
