"""Five landmarks of a face as a picture that a ControlNet follows, and landmarks of one picture in another.

Source of the drawing: InstantID, arXiv 2401.07519, and its published weights, which know no other picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from photomaker.errors import PhotoError, SettingsError
from photomaker.types import Pose

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))
"""Of the left eye, the right eye, the nose, the left and the right corner of the mouth, as seen in the picture."""
LIMBS = ((0, 2), (1, 2), (3, 2), (4, 2))
"""Landmarks that are joined; a limb has the colour of the first."""
DIM = 0.6
"""Brightness of the limbs."""
TOLERANCE = 0.02
"""How much the shapes of a pose and of what is drawn may differ."""
_ARC, _FINE, _COARSE = 3, 4, 5.0


@dataclass(frozen=True)
class Pencil:
    """Sizes of the drawing in pixels.

    Attributes:
        radius: Of a landmark's disc.
        stick: Half the width of a limb in its middle.

    Raises:
        SettingsError: One is not above 0.
    """

    radius: float = 10.0
    stick: float = 4.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("radius", "stick"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingsError(f"{name} is {getattr(self, name)}; give a number above 0")


PUBLISHED = Pencil()
"""The drawing that the published IdentityNet was trained on, in pictures of about 1024 x 1024 pixels."""


def draw_landmarks(landmarks: np.ndarray, size: tuple[int, int], pencil: Pencil = PUBLISHED) -> Image.Image:
    """Draw the landmarks of a face: dim limbs from the nose, bright discs over them, on black.

    Args:
        landmarks: [5, 2] pixels, see `types.Face`.
        size: Width and height of the picture.
        pencil: Sizes of the strokes.
    """
    fine = _FINE if pencil.radius < _COARSE else 1  # small strokes need soft edges
    points = np.asarray(landmarks, dtype=np.float64) * fine
    picture = Image.new("RGB", (size[0] * fine, size[1] * fine))
    drawing = ImageDraw.Draw(picture)
    for first, second in LIMBS:
        dim = tuple(int(value * DIM) for value in COLOURS[first])
        drawing.polygon(_limb(points[first], points[second], pencil.stick * fine), fill=dim)
    reach = pencil.radius * fine
    for (x, y), colour in zip(points.tolist(), COLOURS, strict=True):
        drawing.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour)
    return picture if fine == 1 else picture.resize(size, Image.Resampling.BOX)


def _limb(first: np.ndarray, second: np.ndarray, stick: float) -> list[tuple[float, float]]:
    """The outline of an ellipse between two points."""
    middle, along = (first + second) / 2, (second - first) / 2
    length = float(np.hypot(*along)) or 1.0
    across = np.array([-along[1], along[0]]) / length * stick
    angles = np.radians(np.arange(0, 360, _ARC))
    outline = middle + np.cos(angles)[:, None] * along + np.sin(angles)[:, None] * across
    return [(float(x), float(y)) for x, y in outline]


def landmarks_at(landmarks: np.ndarray, size: tuple[int, int], wanted: tuple[int, int]) -> np.ndarray:
    """Landmarks of a photo where they are in a picture of a different size that the photo just covers.

    What is too much of the photo is cut off so that the face comes as near to the middle as it can, as in training.

    Args:
        landmarks: [5, 2] pixels of the photo.
        size: Width and height of the photo.
        wanted: Width and height of the picture.
    """
    points, own, asked = (np.asarray(one, dtype=np.float64) for one in (landmarks, size, wanted))
    scale = float((asked / own).max())
    corner = np.clip(points.mean(0) * scale - asked / 2, 0, np.maximum(own * scale - asked, 0))
    return (points * scale - corner).astype(np.float32)


def check_pose(pose: Pose, wanted: tuple[int, int]) -> None:
    """Refuse a picture of a different shape than what is drawn: the face would be elsewhere in it.

    Args:
        pose: The pose.
        wanted: Width and height of the pictures.

    Raises:
        SettingsError: The shapes differ.
    """
    if isinstance(pose.source, str):
        return
    own = pose.source.size
    if abs(math.log(own[0] / own[1] / (wanted[0] / wanted[1]))) > TOLERANCE:
        raise SettingsError(
            f"the pose is {own[0]} x {own[1]}, but the pictures are {wanted[0]} x {wanted[1]}; crop it to that shape, "
            "or give a size of its shape"
        )


def check_inside(landmarks: np.ndarray, size: tuple[int, int], name: str) -> None:
    """Refuse landmarks of which none lies in the picture.

    Raises:
        PhotoError: All lie outside.
    """
    points = np.asarray(landmarks)
    if points.shape != (5, 2) or not np.isfinite(points).all():
        raise PhotoError(f"the landmarks of {name} have shape {points.shape}; give five finite points x, y")
    if not ((points >= 0) & (points < np.array(size))).all(1).any():
        raise PhotoError(f"the face of {name} is outside its picture of {size[0]} x {size[1]}; give another")
