"""Structures: a picture as a ControlNet follows it. The one place that draws landmarks, edges, masks and depth.

What is found in a picture (landmarks, the person's mask, depth) is given; finding it is not of this room. A ControlNet
that was trained here notes what it follows, and how that is drawn, beside its weights.

Source: arXiv 2302.05543, section 4 (edges by Canny, and others), and for landmarks arXiv 2401.07519.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from photomaker import hub
from photomaker.errors import PhotoError, SettingsError, WeightsError
from photomaker.files import atomic
from photomaker.images import to_rgb
from photomaker.outside import read_file
from photomaker.pipelines.structures.landmarks import TOLERANCE, Pencil, check_inside, draw_landmarks
from photomaker.types import Structure
from photomaker.weights import bundled, is_bundled

Kind = Literal["landmarks", "edges", "mask", "depth"]
STRUCTURES: tuple[Kind, ...] = ("landmarks", "edges", "mask", "depth")
"""What a ControlNet can be trained to follow here; depth is known of synthetic people only."""
NOTES = "structure.json"
BUNDLED = "bundled"
BUNDLED_NET = "methods/controlnet"


@dataclass(frozen=True)
class Drawing:
    """What a ControlNet follows, and how it is drawn.

    Attributes:
        structure: One of `STRUCTURES`.
        pencil: Sizes of the strokes of landmarks.
        sigma: Blur in pixels before edges are looked for; more leaves fewer of them.

    Raises:
        SettingsError: A value is outside its range.
    """

    structure: Kind = "landmarks"
    pencil: Pencil = field(default_factory=Pencil)
    sigma: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.structure not in STRUCTURES:
            raise SettingsError(f"structure is {self.structure!r}; give one of {', '.join(STRUCTURES)}")
        if not 0 < self.sigma < math.inf:
            raise SettingsError(f"sigma is {self.sigma}; give a number above 0")


@dataclass(frozen=True)
class Content:
    """What is known of a picture; what a structure does not need may be None.

    Attributes:
        picture: RGB.
        landmarks: [5, 2] pixels of a face, see `types.Face`.
        mask: uint8 [height, width], 255 on the person.
        depth: uint8 [height, width], 255 nearest.
    """

    picture: Image.Image
    landmarks: np.ndarray | None = None
    mask: np.ndarray | None = None
    depth: np.ndarray | None = None


def drawn(drawing: Drawing, content: Content) -> Image.Image:
    """The structure of a picture, RGB and of its size.

    Raises:
        PhotoError: Landmarks, mask or depth are wanted and not known, or lie outside.
        SettingsError: Edges are wanted and scikit-image is not installed.
    """
    kind, size = drawing.structure, content.picture.size
    if kind == "edges":
        return edges_of(content.picture, drawing.sigma)
    known = getattr(content, kind)
    if known is None:
        raise PhotoError(f"the {kind} of a picture are unknown; give another picture, or another structure")
    if kind == "landmarks":
        check_inside(known, size, "the structure picture")
        return draw_landmarks(known, size, drawing.pencil)
    return Image.fromarray(np.asarray(known, dtype=np.uint8)).convert("RGB")


def edges_of(picture: Image.Image, sigma: float = 1.0) -> Image.Image:
    """Canny's edges, white on black.

    Args:
        picture: RGB.
        sigma: Blur in pixels before edges are looked for.

    Raises:
        SettingsError: scikit-image is not installed.
    """
    try:
        from skimage.feature import canny
    except ImportError as error:
        raise SettingsError(
            "edges need scikit-image; run `pip install scikit-image`, or give a picture of edges"
        ) from error
    grey = np.asarray(picture.convert("L"), dtype=np.float32) / 255
    return Image.fromarray(canny(grey, sigma).astype(np.uint8) * 255).convert("RGB")


# ---- pictures that are given


def check_shape(picture: Image.Image, wanted: tuple[int, int]) -> None:
    """Refuse a structure picture of a different shape than what is drawn: it would be cut.

    Args:
        picture: What is followed.
        wanted: Width and height of the pictures.

    Raises:
        SettingsError: The shapes differ.
    """
    width, height = picture.size
    if abs(math.log(width / height / (wanted[0] / wanted[1]))) > TOLERANCE:
        raise SettingsError(
            f"the structure picture is {width} x {height}, but the pictures are {wanted[0]} x {wanted[1]}; crop it to "
            "that shape, or give a size of its shape"
        )


def fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The middle of a picture at a size, sRGB."""
    return ImageOps.fit(to_rgb(picture), size, Image.Resampling.LANCZOS)


# ---- ControlNets


def control_folder(place: str) -> Path:
    """The folder of a ControlNet.

    Args:
        place: A diffusers folder, a hub id, or `bundled`.

    Raises:
        WeightsError: There is none.
    """
    if place != BUNDLED:
        return hub.model_folder(place)
    if not is_bundled(BUNDLED_NET):
        raise WeightsError(
            "there is no bundled ControlNet; train one with examples/configs/train_small_controlnet.yaml, or give a "
            "folder"
        )
    return bundled(BUNDLED_NET)


def write_notes(folder: Path, drawing: Drawing) -> None:
    """Note beside a ControlNet what it follows."""
    with atomic(folder / NOTES) as file:
        file.write((json.dumps(asdict(drawing), indent=2, sort_keys=True) + "\n").encode())


def followed(model: str, picture: Image.Image, landmarks: np.ndarray, scale: float) -> Structure:
    """The structure of a picture with a face, as a ControlNet noted it; landmarks where it noted nothing.

    Args:
        model: The ControlNet, as for `control_folder`.
        picture: Of the size of what is drawn.
        landmarks: [5, 2] pixels of the face.
        scale: How closely it is followed.

    Raises:
        WeightsError: There is no such ControlNet, or its notes are damaged.
        PhotoError: It follows what landmarks and pictures do not tell.
    """
    drawing = _noted(control_folder(model)) or Drawing()
    return Structure(model, drawn(drawing, Content(to_rgb(picture), landmarks)), scale)


def drawing_of(folder: Path, kind: str) -> Drawing:
    """How a kind of structure is drawn for a ControlNet: as it noted, or in the published way.

    Args:
        folder: The ControlNet's.
        kind: What the picture is to be turned into.

    Raises:
        WeightsError: It follows something else, or its notes are damaged.
    """
    noted = _noted(folder)
    if noted is None:
        return Drawing(kind)  # type: ignore[arg-type]
    if noted.structure != kind:
        raise WeightsError(
            f"the ControlNet {folder} follows {noted.structure}, not {kind}; write "
            f"{noted.structure}@PICTURE, or give another ControlNet"
        )
    return noted


def _noted(folder: Path) -> Drawing | None:
    """What a ControlNet noted; None if it noted nothing.

    Raises:
        WeightsError: Its notes are damaged.
    """
    path = folder / NOTES
    if not path.is_file():
        return None
    found: Mapping[str, Any] = read_file(path, "download the folder again", WeightsError)
    try:
        return Drawing(found["structure"], Pencil(**found["pencil"]), float(found["sigma"]))
    except (KeyError, TypeError, ValueError, SettingsError) as error:
        raise WeightsError(f"{path} is damaged; download the folder again") from error
