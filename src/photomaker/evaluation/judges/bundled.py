"""Who measures pictures: detector, evaluation-only recogniser and attribute classifier, as one judge."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from photomaker.faces import Detector, Recogniser
    from photomaker.faces.attributes import AttributeClassifier
    from photomaker.types import Face


THIRD = "evaluation/recogniser_third.safetensors"
"""The recogniser that no other network was trained with, chosen by or ranked by."""
MARKS = "evaluation/marks.safetensors"
"""The classifier of moles, freckles and beards; it sees faces."""


@dataclass(frozen=True)
class Measured:
    """What a judge says of n pictures.

    Attributes:
        embeddings: [n, width] float32 of length 1; zeros where no face was found.
        labels: Attribute name to [n] words the classifier saw; kinds of marks are among them where the judge has a
            classifier for those, with an empty word where no face was found.
        seconds: Wall-clock seconds that making the pictures took; 0 for real ones.
        more: Further numbers by name, each [n, ...], zeros where no face was found: `sharpness` [n], see
            `faces.crops.fine_power`; `face_features` [n, width] of the face crops, for distances between sets; `third`
            [n, width] embeddings of the recogniser that is for the last table alone, where there is one.
    """

    embeddings: np.ndarray
    labels: Mapping[str, np.ndarray]
    seconds: float = 0.0
    more: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def found(self) -> np.ndarray:
        """[n] bool: whether a face was found."""
        return np.any(self.embeddings != 0, axis=1)


class Judge(Protocol):
    """Measures pictures."""

    def measure(self, pictures: Sequence[Image.Image]) -> Measured:
        """Embed the largest face and name the attributes of each picture."""

    def landmarks(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """Landmarks of the largest face of each picture, [n, 5, 2] pixels; NaN where no face was found."""

    def fingerprint(self) -> str:
        """Changes whenever the judge would say something else."""


class BundledJudge:
    """The judge that ships with the package; its recogniser never generates or ranks pictures."""

    def __init__(
        self,
        detector: Detector,
        recogniser: Recogniser,
        classifier: AttributeClassifier,
        fingerprint: str,
        third: Recogniser | None = None,
        marks: AttributeClassifier | None = None,
    ) -> None:
        """Join them; `open` does it for the bundled ones."""
        self._marks = marks
        self._third = third
        self._detector = detector
        self._recogniser = recogniser
        self._width = width_of(recogniser)
        self._classifier = classifier
        self._fingerprint = fingerprint

    @classmethod
    def open(cls) -> BundledJudge:
        """Open the bundled judge.

        Raises:
            WeightsError: A bundled file is missing or altered.
        """
        from photomaker.faces import BundledFaces, BundledRecogniser
        from photomaker.faces.attributes import AttributeClassifier
        from photomaker.weights import SMALL, bundled

        files = (
            "faces/analyser.safetensors",
            "evaluation/recogniser.safetensors",
            "evaluation/attributes.safetensors",
        )
        analyser, recogniser, attributes = (bundled(file) for file in files)
        third, marks = (bundled(name) if (SMALL / name).is_file() else None for name in (THIRD, MARKS))
        digest = hashlib.sha256(b"3")  # of what is measured
        for path in (analyser, recogniser, attributes, *(one for one in (third, marks) if one)):
            digest.update(path.read_bytes())
        return cls(
            BundledFaces.open(analyser),
            BundledRecogniser.open(recogniser),
            AttributeClassifier.open(attributes),
            digest.hexdigest()[:16],
            None if third is None else BundledRecogniser.open(third),
            None if marks is None else AttributeClassifier.open(marks),
        )

    def measure(self, pictures: Sequence[Image.Image]) -> Measured:
        """See `Judge.measure`."""
        from photomaker.faces import largest

        faces = [largest(self._detector.detect(picture)) for picture in pictures]
        embeddings = embed(self._recogniser, pictures, faces, self._width)
        more = {"sharpness": sharpness(pictures, faces), "face_features": self._features(pictures, faces)}
        if self._third is not None:
            more["third"] = embed(self._third, pictures, faces, width_of(self._third))
        labels = classify(self._classifier, pictures)
        if self._marks is not None:
            found, crops = _crops(pictures, faces, self._marks.size)
            for name, words in classify(self._marks, crops).items():
                labels[name] = np.full(len(pictures), "", dtype=np.asarray(self._marks.words[name]).dtype)
                labels[name][found] = words
        return Measured(embeddings, labels, more=more)

    def landmarks(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """See `Judge.landmarks`."""
        from photomaker.faces import largest

        faces = [largest(self._detector.detect(picture)) for picture in pictures]
        nowhere = np.full((5, 2), np.nan, np.float32)
        return np.stack([nowhere if face is None else face.landmarks for face in faces]).astype(np.float32)

    def _features(self, pictures: Sequence[Image.Image], faces: Sequence[Face | None]) -> np.ndarray:
        """What the classifier's trunk sees in the face crops, [n, width]."""
        found, crops = _crops(pictures, faces, self._classifier.size)
        seen = self._classifier.features(crops)
        rows = np.zeros((len(pictures), seen.shape[1]), np.float32)
        rows[found] = seen
        return rows

    def fingerprint(self) -> str:
        """See `Judge.fingerprint`: the hash of the weights."""
        return self._fingerprint


def _crops(
    pictures: Sequence[Image.Image], faces: Sequence[Face | None], size: int
) -> tuple[list[int], list[Image.Image]]:
    """Numbers of the pictures in which a face was found, and the faces, cut out at `size` pixels."""
    from photomaker.faces.crops import face_crop

    there = [(index, face) for index, face in enumerate(faces) if face is not None]
    return [index for index, _ in there], [face_crop(pictures[index], face, size) for index, face in there]


def sharpness(pictures: Sequence[Image.Image], faces: Sequence[Face | None]) -> np.ndarray:
    """Fine detail of the face of each picture [n] float32; 0 if there is no face."""
    from photomaker.faces.crops import fine_power

    return np.array(
        [
            0.0 if face is None else fine_power(np.asarray(picture.convert("RGB")), face.box)
            for picture, face in zip(pictures, faces, strict=True)
        ],
        np.float32,
    )


def embed(
    recogniser: Recogniser, pictures: Sequence[Image.Image], faces: Sequence[Face | None], width: int
) -> np.ndarray:
    """Embed the face of each picture, [n, width] float32 of length 1; zeros where there is no face."""
    found = [index for index, face in enumerate(faces) if face is not None]
    rows = np.zeros((len(pictures), width), np.float32)
    if found:
        chosen = [face for face in faces if face is not None]
        rows[found] = recogniser.embed_batch([pictures[index] for index in found], chosen)
    return rows


def classify(classifier: AttributeClassifier, pictures: Sequence[Image.Image]) -> dict[str, np.ndarray]:
    """The word that a classifier sees for each attribute, [n] words each."""
    labels = classifier.predict(pictures)
    return {name: np.asarray(classifier.words[name])[found] for name, found in labels.items()}


def width_of(recogniser: Recogniser) -> int:
    """Width of a recogniser's embeddings, by asking it."""
    from photomaker.types import Face

    blank = Image.new("RGB", (64, 64))
    landmarks = np.array([[24, 28], [40, 28], [32, 34], [26, 41], [38, 41]], np.float32)
    return len(recogniser.embed(blank, Face((16.0, 16.0, 48.0, 48.0), 1.0, landmarks)))
