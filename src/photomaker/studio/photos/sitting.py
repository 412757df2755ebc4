"""Photos of a person: read, checked, and the person's face chosen in each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from photomaker.errors import PhotoError
from photomaker.images import Photo, list_photos, open_photo
from photomaker.types import Reference

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from photomaker.faces import Detector, Recogniser
    from photomaker.types import Face


MOST = 16
"""Most photos of a person that are used; of more, the best."""
SIDE = 1536
"""Largest side in pixels of each photo if there are very many."""


@dataclass(frozen=True)
class Sitting:
    """The photos to use, with notes about them.

    Attributes:
        references: At least one.
        notes: Notes for the user, one sentence each.
    """

    references: tuple[Reference, ...]
    notes: tuple[str, ...] = ()


def read_photos(places: Sequence[str | os.PathLike[str]]) -> list[Photo]:
    """Open every photo in files and folders; if there are more than `MOST`, each is scaled down to fit in memory.

    Raises:
        PhotoError: There is none, or one cannot be used; the message names the file.
    """
    paths = list_photos(places)
    return [open_photo(path) if len(paths) <= MOST else _smaller(open_photo(path)) for path in paths]


def _smaller(photo: Photo) -> Photo:
    image = photo.image.copy()
    image.thumbnail((SIDE, SIDE))
    return replace(photo, image=image)


def faces_in(photo: Photo, detector: Detector) -> tuple[Photo, list[Face]]:
    """The faces of a photo; one in which none is found, or none for sure, is turned until some are.

    Returns:
        The photo, possibly rotated (recorded in its notes), and the faces.
    """
    faces = detector.detect(photo.image)
    if faces and _surest(faces) >= detector.unsure:
        return photo, faces
    best: tuple[Photo, list[Face]] = photo, faces
    for degrees, lay in ((180, "upside down"), (90, "on its side"), (270, "on its side")):
        turned = photo.image.rotate(degrees, expand=True)
        faces = detector.detect(turned)
        least = _surest(best[1]) if best[1] else -1.0
        if faces and _surest(faces) > least and (not best[1] or _surest(faces) >= detector.unsure):
            note = f"{photo.name} was {lay} and has been rotated"
            best = replace(photo, image=turned, notes=(*photo.notes, note)), faces
    return best


def _surest(faces: Sequence[Face]) -> float:
    return max(face.score for face in faces)


def choose_faces(
    photos: Sequence[Photo], detector: Detector | None, recogniser: Recogniser | None = None
) -> Sitting:
    """Find the person in each photo.

    Args:
        photos: At least one.
        detector: Finds faces; None uses the photos as they are.
        recogniser: Compares faces; None takes the largest face of each photo.

    Returns:
        The photos with a face: the only one, or the one most similar to the faces of the other photos. A photo without
        a face is left out with a note; one that is on its side or upside down is rotated, with a note.

    Raises:
        PhotoError: No photo shows a face.
    """
    looked = [(photo, []) if detector is None else faces_in(photo, detector) for photo in photos]
    photos, found = [photo for photo, _ in looked], [faces for _, faces in looked]
    notes = [note for photo in photos for note in photo.notes]
    chosen = _persons([photo.image for photo in photos], found, recogniser)
    references: list[Reference] = []
    for photo, faces, place in zip(photos, found, chosen, strict=True):
        if detector is not None and not faces:
            notes.append(f"no face was found in {photo.name}, which is left out")
            continue
        face = faces[place] if faces else None
        if len(faces) > 1:
            by = (
                "the one in the other photos" if recogniser is not None and _several(found) else "the largest"
            )
            notes.append(f"{photo.name} shows {len(faces)} faces; {by} is used")
        references.append(
            Reference(photo.image, photo.name, photo.sha256, face, _mask(photo, face, detector))
        )
    if not references:
        names = ", ".join(photo.name for photo in photos)
        raise PhotoError(
            f"no face was found in {names}; give photos with a large face seen from the front, or use "
            "--faces none to take the photos as they are"
        )
    return Sitting(tuple(references), tuple(notes))


def _several(found: Sequence[Sequence[Face]]) -> bool:
    """Whether faces can be compared with those of other photos."""
    return sum(bool(faces) for faces in found) > 1


def _persons(
    images: Sequence[Image], found: Sequence[Sequence[Face]], recogniser: Recogniser | None
) -> list[int]:
    """Index of the person's face in each photo; 0 if there is none."""
    if recogniser is not None and _several(found) and any(len(faces) > 1 for faces in found):
        return persons(
            [
                recogniser.embed_batch([image] * len(faces), list(faces)) if faces else None
                for image, faces in zip(images, found, strict=True)
            ],
            [[face.area for face in faces] for faces in found],
        )
    return [max(range(len(faces)), key=lambda at: faces[at].area, default=0) for faces in found]


def persons(faces: Sequence[np.ndarray | None], areas: Sequence[Sequence[float]]) -> list[int]:
    """Index of the person's face in each photo: of several, the one most similar to the faces of the other photos.

    Args:
        faces: Embeddings [faces, width] of each photo's faces; None if there is none.
        areas: Areas of the same faces, which decide if there are no other photos.

    Returns:
        An index for each photo; 0 if there is no face.
    """
    places = []
    for at, own in enumerate(faces):
        others = [other for place, other in enumerate(faces) if place != at and other is not None]
        if own is None or len(own) == 1:
            places.append(0)
        elif others:
            places.append(int(sum((own @ other.T).max(1) for other in others).argmax()))  # type: ignore[union-attr]
        else:
            places.append(max(range(len(own)), key=lambda face: areas[at][face]))
    return places


def _mask(photo: Photo, face: Face | None, detector: Detector | None) -> np.ndarray | None:
    """The person's mask, if the face backend can segment people."""
    from photomaker.faces import Segmenter

    if face is None or not isinstance(detector, Segmenter):
        return None
    return detector.person_mask(photo.image, face)
