"""Photos of a sitting: read, looked at, and the person in each of them chosen."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from photomaker.errors import PhotoError
from photomaker.images import Photo, list_photos, open_photo
from photomaker.types import Reference

if TYPE_CHECKING:
    import numpy as np

    from photomaker.faces import Detector
    from photomaker.types import Face


@dataclass(frozen=True)
class Sitting:
    """The photos that will be used, with what was noticed about them.

    Attributes:
        references: At least one.
        notes: What the user should know, one sentence each.
    """

    references: tuple[Reference, ...]
    notes: tuple[str, ...] = ()


def read_photos(places: Sequence[str | os.PathLike[str]]) -> list[Photo]:
    """Open every photo in files and folders.

    Raises:
        PhotoError: There is none, or one cannot be used; the message names the file.
    """
    return [open_photo(path) for path in list_photos(places)]


def choose_faces(photos: Sequence[Photo], detector: Detector | None) -> Sitting:
    """Find the person in each photo.

    Args:
        photos: At least one.
        detector: Finds faces; None uses the photos as they are.

    Returns:
        The photos that show a face, each with its largest one. A photo without a face is left out with a note.

    Raises:
        PhotoError: No photo shows a face.
    """
    notes = [note for photo in photos for note in photo.notes]
    references: list[Reference] = []
    for photo in photos:
        face, remark = _largest(photo, detector)
        notes += remark
        if face is not None or detector is None:
            references.append(
                Reference(photo.image, photo.name, photo.sha256, face, _mask(photo, face, detector))
            )
    if not references:
        names = ", ".join(photo.name for photo in photos)
        raise PhotoError(
            f"no face was found in {names}; give photos in which the face is large and seen from the front, or take "
            "them as they are by --faces none"
        )
    return Sitting(tuple(references), tuple(notes))


def _largest(photo: Photo, detector: Detector | None) -> tuple[Face | None, list[str]]:
    if detector is None:
        return None, []
    faces = detector.detect(photo.image)
    if not faces:
        return None, [f"{photo.name} shows no face that could be found and is left out"]
    several = [f"{photo.name} shows {len(faces)} faces; the largest is used"] if len(faces) > 1 else []
    return max(faces, key=lambda face: face.area), several


def _mask(photo: Photo, face: Face | None, detector: Detector | None) -> np.ndarray | None:
    """The person's pixels, where what finds faces can tell them from the background."""
    from photomaker.faces import Segmenter

    if face is None or not isinstance(detector, Segmenter):
        return None
    return detector.person_mask(photo.image, face)
