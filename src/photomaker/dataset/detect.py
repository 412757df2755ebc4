"""Step: the faces of every photo, and what tells people apart.

Source: PhotoMaker, arXiv 2312.04461, appendix: faces of at least 256 x 256 pixels, photos without one are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from photomaker.dataset.base import Dropped, ImageStep, Photo
from photomaker.dataset.batches import batches, check_batch
from photomaker.errors import SettingsError
from photomaker.faces.plugins import PlugIn
from photomaker.types import Face

NO_FACE, SMALL_FACE = "no face", "small face"
FACE = pa.struct(
    [
        ("box", pa.list_(pa.float32())),
        ("score", pa.float32()),
        ("landmarks", pa.list_(pa.float32())),
        ("embedding", pa.list_(pa.float32())),
    ]
)
"""A face in a row: box x0, y0, x1, y1 and five landmarks x, y in pixels of the photo, the detector's confidence in
0..1, and an embedding of length 1."""


@dataclass(frozen=True)
class Detect(ImageStep):
    """Finds and embeds the faces of photos.

    Attributes:
        detector: Finds them.
        recogniser: Embeds them; "insightface" with buffalo_l where the shards should train V2 adapters.
        smallest: Pixels that the shorter side of a face's box must have.
        batch: Photos whose faces are embedded together. With 1, an embedding does not depend on other photos,
            bit for bit; more is faster on a GPU.

    Raises:
        SettingsError: A value is out of range.
    """

    name: ClassVar[str] = "detect"
    pictures: ClassVar[str] = "gather"
    columns: ClassVar[pa.Schema] = pa.schema([("faces", pa.list_(FACE))])

    detector: PlugIn = field(default_factory=lambda: PlugIn("insightface"))
    recogniser: PlugIn = field(default_factory=lambda: PlugIn("insightface"))
    smallest: float = 256
    batch: int = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_batch(self.batch)
        if not self.smallest >= 0:
            raise SettingsError(f"smallest is {self.smallest}; give a number of pixels from 0 up")

    @property
    def licences(self) -> dict[str, str]:
        """Licences of the models."""
        return {"detector": self.detector.licence, "recogniser": self.recogniser.licence}

    def open(self) -> Callable[[Iterable[Photo]], Iterator[Photo | Dropped]]:
        """See `ImageStep.open`."""
        detector, recogniser = self.detector.open("detector"), self.recogniser.open("recogniser")

        def step(photos: Iterable[Photo]) -> Iterator[Photo | Dropped]:
            for batch in batches(photos, self.batch):
                images = [photo.image() for photo in batch]
                found = [detector.detect(image) for image in images]
                large = [[face for face in faces if short_side(face) >= self.smallest] for faces in found]
                pairs = [(image, face) for image, faces in zip(images, large, strict=True) for face in faces]
                embeddings = iter(recogniser.embed_batch([p[0] for p in pairs], [p[1] for p in pairs]))
                for photo, faces, kept in zip(batch, found, large, strict=True):
                    if kept:
                        told = [_told(face, next(embeddings)) for face in kept]
                        yield Photo({**photo.row, "faces": told}, photo.files)
                    else:
                        yield _dropped(photo, faces)

        return step


def short_side(face: Face) -> float:
    """The shorter side of a face's box in pixels."""
    return min(face.box[2] - face.box[0], face.box[3] - face.box[1])


def _told(face: Face, embedding: np.ndarray) -> dict[str, Any]:
    return {
        "box": [float(value) for value in face.box],
        "score": float(face.score),
        "landmarks": np.asarray(face.landmarks, np.float32).reshape(-1).tolist(),
        "embedding": np.asarray(embedding, np.float32).tolist(),
    }


def _dropped(photo: Photo, faces: Sequence[Face]) -> Dropped:
    if not faces:
        return Dropped(photo.row, NO_FACE)
    largest = max(faces, key=short_side)
    width, height = largest.box[2] - largest.box[0], largest.box[3] - largest.box[1]
    return Dropped(photo.row, SMALL_FACE, f"{width:.0f} x {height:.0f} pixels")
