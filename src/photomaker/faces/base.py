"""Interfaces of the face backends, and the geometry that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

    from photomaker.classes import ClassWord
    from photomaker.types import Face

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels, origin top left, x1 and y1 exclusive."""


class Detector(ABC):
    """Finds faces.

    Attributes:
        name: What it is called in messages.
        licence: Of its weights.
        unsure: Score below which the face may be one that lies on its side, and a turned picture may show it better.
    """

    name: str = ""
    licence: str = ""
    unsure: float = 0.0

    @abstractmethod
    def detect(self, image: Image) -> list[Face]:
        """Find the faces of a picture.

        Args:
            image: An upright picture of any size and mode.

        Returns:
            The faces, best score first, in pixels of `image`; an empty list if there is none.
        """


@dataclass(frozen=True)
class Seen:
    """A face with its embedding.

    Attributes:
        embedding: float32 [width], as the recogniser gives it.
        face: Its box and landmarks.
    """

    embedding: np.ndarray
    face: Face


@dataclass(frozen=True)
class Calibration:
    """Calibration of a recogniser's cosines.

    Attributes:
        threshold: Cosine from which two faces count as the same person.
        stranger: Mean cosine of faces of different people.
        errors: Error rate at the threshold, and the source of the measurement.
        measured: Whether that was measured on this recogniser; else the threshold is a cautious one of its kind.
    """

    threshold: float
    stranger: float
    errors: str
    measured: bool = True


class Recogniser(ABC):
    """Embeds faces; the cosine of two embeddings is the likeness.

    Attributes:
        name: Its name in messages and in identities.
        licence: Of its weights.
        calibration: What its cosines mean; None if nobody has measured it.
    """

    name: str = ""
    licence: str = ""
    calibration: Calibration | None = None

    @abstractmethod
    def embed_batch(self, images: Sequence[Image], faces: Sequence[Face]) -> np.ndarray:
        """Embed one face of each picture.

        Args:
            images: n upright pictures of any sizes.
            faces: n faces, face k in pixels of picture k.

        Returns:
            [n, width] float32, every row of length 1.
        """

    def embed(self, image: Image, face: Face) -> np.ndarray:
        """Embed one face: [width] float32 of length 1; see `embed_batch`."""
        return self.embed_batch([image], [face])[0]


class Segmenter(ABC):
    """Segments a person."""

    @abstractmethod
    def person_mask(self, image: Image, face: Face) -> np.ndarray:
        """Find the pixels of the person that a face belongs to.

        Args:
            image: An upright picture of any size and mode.
            face: A face of it, in pixels of `image`.

        Returns:
            [height, width] uint8, 255 on the person and 0 elsewhere; nowhere 255 where no person is found.
        """


class Captioner(ABC):
    """Writes captions."""

    @abstractmethod
    def caption_batch(self, images: Sequence[Image], seeds: Sequence[int] | None = None) -> list[str]:
        """Write a caption for each picture.

        Args:
            images: n pictures.
            seeds: One for each picture, 0 or more: the caption is drawn at random, always the same one for a seed.
                None takes the most likely caption.

        Returns:
            n captions without white space at their ends; they may be empty.
        """


class PhraseParser(ABC):
    """Finds the phrases of a caption that describe each person."""

    @abstractmethod
    def phrases(self, text: str, words: Sequence[ClassWord]) -> list[str]:
        """Find the phrase around each class word.

        Args:
            text: A caption.
            words: Class words of it, in order.

        Returns:
            A part of the text for each word, which holds that word and none of the others.
        """


class TextImageScorer(ABC):
    """Scores how well texts fit a picture."""

    @abstractmethod
    def score(self, image: Image, texts: Sequence[str]) -> list[float]:
        """Score each text, 0..1, more is better."""


class TextSimilarity(ABC):
    """Scores the similarity of class words."""

    @abstractmethod
    def similarity(self, words: Sequence[str], word: str) -> list[float]:
        """Compare each of `words` with `word`, 0..1, 1 if they are equal."""


def largest(faces: Sequence[Face]) -> Face | None:
    """Give the face with the largest box, the first of several equals; None if there is no face."""
    return max(faces, key=lambda face: face.area, default=None)


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of every box with every box.

    Args:
        first: [n, 4] boxes x0, y0, x1, y1.
        second: [m, 4] boxes.

    Returns:
        [n, m] float64 in 0..1; 0 if a box has no area.
    """
    first, second = (
        np.asarray(first, np.float64).reshape(-1, 4),
        np.asarray(second, np.float64).reshape(-1, 4),
    )
    corner = np.maximum(first[:, None, :2], second[None, :, :2])
    far = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(far - corner, 0, None).prod(-1)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(-1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def suppress(boxes: np.ndarray, scores: np.ndarray, limit: float) -> np.ndarray:
    """Non-maximum suppression: of boxes that overlap by more than `limit`, the best one stays.

    Args:
        boxes: [n, 4] boxes x0, y0, x1, y1.
        scores: [n], higher is better.
        limit: Intersection over union in 0..1.

    Returns:
        Indices of the boxes that stay, best score first.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    shared = overlaps(boxes, boxes)
    kept: list[int] = []
    for index in order.tolist():
        if all(shared[index, other] <= limit for other in kept):
            kept.append(index)
    return np.array(kept, dtype=np.int64)


def square_around(box: Box, factor: float) -> Box:
    """The square with the box's centre whose side is `factor` times the box's longer side."""
    x0, y0, x1, y1 = (float(value) for value in box)
    half = factor * max(x1 - x0, y1 - y0) / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return x - half, y - half, x + half, y + half


def component_of(mask: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """The connected parts (four neighbours) of a mask that the seed touches.

    Args:
        mask: [height, width] bool.
        seed: [height, width] bool.

    Returns:
        [height, width] bool: all pixels of `mask` that a path inside `mask` joins to a pixel of `seed`.
    """
    part = mask & seed
    while True:
        grown = part.copy()
        grown[1:] |= part[:-1]
        grown[:-1] |= part[1:]
        grown[:, 1:] |= part[:, :-1]
        grown[:, :-1] |= part[:, 1:]
        grown &= mask
        if np.array_equal(grown, part):
            return part
        part = grown


def nearest_face(faces: Sequence[Face], shape: tuple[int, int]) -> np.ndarray:
    """Which face each pixel is nearest to, sideways, in widths of that face: a body hangs below its own face.

    Args:
        faces: One or more faces in pixels of the map.
        shape: Height and width of the map.

    Returns:
        [height, width] int64: index of a face.
    """
    columns = np.arange(shape[1]) + 0.5
    distances = [
        np.abs(columns - (face.box[0] + face.box[2]) / 2) / max(face.box[2] - face.box[0], 1e-6)
        for face in faces
    ]
    return np.broadcast_to(np.argmin(distances, axis=0), shape)
