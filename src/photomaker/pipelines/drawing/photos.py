"""The photos of a person as image encoders see them, and what is noted of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from photomaker.encoders import cut_out, face_square
from photomaker.errors import PhotoError, SettingsError
from photomaker.types import Reference

Background = Literal["keep", "grey"]
BACKGROUNDS: tuple[Background, ...] = ("keep", "grey")


def checked_background(given: str | None, default: Background) -> Background:
    """What is done to the ground of photos.

    Raises:
        SettingsError: It is of an unknown kind.
    """
    ground = given or default
    if ground not in BACKGROUNDS:
        raise SettingsError(f"background is {ground!r}; give one of {', '.join(BACKGROUNDS)}")
    return ground  # type: ignore[return-value]


def prepared_picture(reference: Reference, background: Background, side: float) -> Image.Image:
    """A photo as an image encoder was trained to see it: with or without background, whole or around the face.

    Args:
        reference: The photo.
        background: "grey" cuts the person out where the reference has a mask.
        side: Side of the square around the face, in longer sides of its box; 0 takes the whole photo.

    Raises:
        PhotoError: The mask is empty, or a face is needed and there is none.
    """
    picture, called = reference.image, reference.name or "(unnamed)"
    if background == "grey" and reference.mask is not None:
        if not reference.mask.any():
            raise PhotoError(f"the person mask of photo {called} is empty; leave the photo out")
        picture = cut_out(picture, reference.mask)
    if side <= 0:
        return picture
    if reference.face is None:
        raise PhotoError(
            f"this adapter needs a face in every photo, but photo {called} has none; leave it out"
        )
    return face_square(picture, reference.face.box, side)


def photo_weights(weights: Sequence[float] | None, photos: int) -> Tensor:
    """Weights of photos [photos], 1 if none are given.

    Raises:
        SettingsError: There are not as many as photos, or one is below 0.
    """
    given = torch.ones(photos) if weights is None else torch.tensor(list(weights), dtype=torch.float32)
    if given.shape != (photos,) or not bool((torch.isfinite(given) & (given >= 0)).all()):
        raise SettingsError(
            f"the photo weights are {given.tolist()}; give one number from 0 up for each photo"
        )
    return given


def photo_notes(references: Sequence[Reference], background: str) -> dict[str, Any]:
    """What an identity notes of its photos."""
    photos = [{"name": one.name, "sha256": one.sha256} for one in references]
    return {"photos": photos, "background": background}
