"""Who measures pictures: detector, evaluation-only recogniser and attribute classifier, as one judge."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from photomaker.faces import Detector, Recogniser
    from photomaker.faces.attributes import AttributeClassifier
    from photomaker.types import Face


@dataclass(frozen=True)
class Measured:
    """What a judge says of n pictures.

    Attributes:
        embeddings: [n, width] float32 of length 1; zeros where no face was found.
        labels: Attribute name to [n] words the classifier saw.
        seconds: Wall-clock seconds that making the pictures took; 0 for real ones.
    """

    embeddings: np.ndarray
    labels: Mapping[str, np.ndarray]
    seconds: float = 0.0

    @property
    def found(self) -> np.ndarray:
        """[n] bool: whether a face was found."""
        return np.any(self.embeddings != 0, axis=1)


class Judge(Protocol):
    """Measures pictures."""

    def measure(self, pictures: Sequence[Image.Image]) -> Measured:
        """Embed the largest face and name the attributes of each picture."""

    def fingerprint(self) -> str:
        """Changes whenever the judge would say something else."""


class BundledJudge:
    """The judge that ships with the package; its recogniser never generates or ranks pictures."""

    def __init__(
        self, detector: Detector, recogniser: Recogniser, classifier: AttributeClassifier, fingerprint: str
    ) -> None:
        """Join the three; `open` does it for the bundled ones."""
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
        from photomaker.weights import bundled

        files = (
            "faces/analyser.safetensors",
            "evaluation/recogniser.safetensors",
            "evaluation/attributes.safetensors",
        )
        analyser, recogniser, attributes = (bundled(file) for file in files)
        digest = hashlib.sha256()
        for path in (analyser, recogniser, attributes):
            digest.update(path.read_bytes())
        return cls(
            BundledFaces.open(analyser),
            BundledRecogniser.open(recogniser),
            AttributeClassifier.open(attributes),
            digest.hexdigest()[:16],
        )

    def measure(self, pictures: Sequence[Image.Image]) -> Measured:
        """See `Judge.measure`."""
        from photomaker.faces import largest

        faces = [largest(self._detector.detect(picture)) for picture in pictures]
        embeddings = embed(self._recogniser, pictures, faces, self._width)
        return Measured(embeddings, classify(self._classifier, pictures))

    def fingerprint(self) -> str:
        """See `Judge.fingerprint`: the hash of the weights."""
        return self._fingerprint


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
