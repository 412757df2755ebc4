"""The bundled backends: no download, no additional library, trained on the synthetic people."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from photomaker.errors import WeightsError
from photomaker.faces.base import (
    Calibration,
    Detector,
    Recogniser,
    Seen,
    Segmenter,
    component_of,
    largest,
    nearest_face,
    square_around,
    suppress,
)
from photomaker.faces.crops import SIDE, face_crop, tensor_crops, to_tensor
from photomaker.faces.networks import (
    Analysis,
    ConvRecogniser,
    FaceAnalyser,
    FaceEmbedder,
    MixerRecogniser,
    NextRecogniser,
    centred,
    load_network,
)
from photomaker.types import Face

GREY = (127, 127, 127)
_BATCH = 64


@dataclass(frozen=True)
class Letterbox:
    """How a picture was fitted into a square: scaled, then moved by `left` and `top` pixels of the square."""

    size: int
    scale: float
    left: float
    top: float

    @classmethod
    def fit(cls, width: int, height: int, size: int) -> Letterbox:
        """Fit a picture of `width` x `height` pixels into the middle of a square of `size` pixels."""
        scale = size / max(width, height)
        return cls(size, scale, (size - width * scale) / 2, (size - height * scale) / 2)

    def apply(self, image: Image.Image) -> Image.Image:
        """The square picture, RGB, with grey bars."""
        width, height = max(1, round(image.width * self.scale)), max(1, round(image.height * self.scale))
        square = Image.new("RGB", (self.size, self.size), GREY)
        resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        square.paste(resized, (round(self.left), round(self.top)))
        return square

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Bring points [..., 2] from pixels of the square to pixels of the picture."""
        return (points - np.array([self.left, self.top])) / self.scale

    def to_square(self, points: np.ndarray) -> np.ndarray:
        """Bring points [..., 2] from pixels of the picture to pixels of the square."""
        return points * self.scale + np.array([self.left, self.top])


@dataclass(frozen=True)
class Found:
    """Faces in pixels of the square: boxes [n, 4], landmarks [n, 5, 2], scores [n] in 0..1, best first."""

    boxes: np.ndarray
    landmarks: np.ndarray
    scores: np.ndarray


def decode(analysis: Analysis, threshold: float = 0.4, limit: float = 0.4, most: int = 32) -> list[Found]:
    """Decode the faces from the maps of `FaceAnalyser`.

    Args:
        analysis: Maps of a batch.
        threshold: Least confidence, 0..1.
        limit: Boxes that overlap a better one by more than this intersection over union are dropped.
        most: Most faces of a picture.

    Returns:
        What was found in each picture of the batch.
    """
    heat = analysis.heat.float().sigmoid()
    peaks = heat * (heat == functional.max_pool2d(heat, 3, 1, 1))
    return [
        _decode_one(peak[0], boxes, landmarks, threshold, limit, most)
        for peak, boxes, landmarks in zip(
            peaks, analysis.boxes.float(), analysis.landmarks.float(), strict=True
        )
    ]


def _decode_one(
    peak: Tensor, boxes: Tensor, landmarks: Tensor, threshold: float, limit: float, most: int
) -> Found:
    stride = FaceAnalyser.stride
    scores, cells = peak.flatten().topk(min(most, peak.numel()))
    cells = cells[scores >= threshold]
    rows, columns = cells // peak.shape[1], cells % peak.shape[1]
    middle = torch.stack([columns, rows], -1) + 0.5
    reach = boxes[:, rows, columns].T.clamp(-6, 6).exp()
    corners = torch.cat([middle - reach[:, :2], middle + reach[:, 2:]], -1) * stride
    points = (middle[:, None] + landmarks[:, rows, columns].T.reshape(-1, 5, 2)) * stride
    kept = suppress(corners.numpy(), scores[: len(cells)].numpy(), limit)
    return Found(corners.numpy()[kept], points.numpy()[kept], scores[: len(cells)].numpy()[kept])


class BundledFaces(Detector, Segmenter):
    """Finds faces of 15 to 90 % of the picture's width, their landmarks, and the person around them.

    Trained on synthetic people only: on real photographs use another backend.
    """

    name = "bundled"

    def __init__(self, network: FaceAnalyser, threshold: float = 0.4) -> None:
        """Wrap a network; faces below the confidence `threshold` (0..1) are not reported."""
        self._network = network.eval()
        self._threshold = threshold

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None = None) -> BundledFaces:
        """Read the bundled weights, or a file in their format.

        Raises:
            WeightsError: The file is missing, damaged or of a different architecture.
        """
        network = load_network(_path(path, "faces/analyser.safetensors"), FaceAnalyser)
        assert isinstance(network, FaceAnalyser)
        return cls(network)

    def detect(self, image: Image.Image) -> list[Face]:
        """See `Detector.detect`."""
        fitted, analysis = self._analyse(image)
        return self._faces(fitted, analysis, image.size)

    def person_mask(self, image: Image.Image, face: Face) -> np.ndarray:
        """See `Segmenter.person_mask`.

        The network marks people, not one person: pixels nearer to another face, and parts that do not touch the face,
        are removed.
        """
        fitted, analysis = self._analyse(image)
        others = [other for other in self._faces(fitted, analysis, image.size) if not _same(other, face)]
        logits = _unfitted(analysis.mask, fitted, image.size)
        person = logits > 0
        if others:
            person &= nearest_face([face, *others], person.shape) == 0
        return np.where(component_of(person, _inside(face, person.shape)), np.uint8(255), np.uint8(0))

    @torch.inference_mode()
    def _analyse(self, image: Image.Image) -> tuple[Letterbox, Analysis]:
        fitted = Letterbox.fit(image.width, image.height, self._network.config.size)
        return fitted, self._network(to_tensor([fitted.apply(image)]).to(self._network.device)).cpu()

    def _faces(self, fitted: Letterbox, analysis: Analysis, size: tuple[int, int]) -> list[Face]:
        found = decode(analysis, self._threshold)[0]
        corners = fitted.to_picture(found.boxes.reshape(-1, 2, 2))
        corners = np.clip(corners, 0, np.array(size)).reshape(-1, 4)
        points = fitted.to_picture(found.landmarks).astype(np.float32)
        faces = [
            Face(tuple(box.tolist()), float(score), landmarks)
            for box, score, landmarks in zip(corners, found.scores, points, strict=True)
        ]
        return [face for face in faces if face.area > 0]


class BundledRecogniser(Recogniser):
    """Recogniser of the synthetic people: the cosine of two embeddings is the likeness."""

    name = "bundled"
    calibration = Calibration(
        0.555, 0.0, "0.6 % of pairs of drawn people, both ways (150 people, 4 photos each)"
    )

    def __init__(self, network: FaceEmbedder) -> None:
        """Wrap a network."""
        self._network = network.eval()

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None = None) -> BundledRecogniser:
        """Read the bundled weights, or a file of any of the recogniser architectures.

        Raises:
            WeightsError: The file is missing, damaged or of a different architecture.
        """
        network = load_network(
            _path(path, "faces/recogniser.safetensors"), ConvRecogniser, MixerRecogniser, NextRecogniser
        )
        assert isinstance(network, FaceEmbedder)
        return cls(network)

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return int(self._network.config.width)

    @torch.inference_mode()
    def embed_batch(self, images: Sequence[Image.Image], faces: Sequence[Face]) -> np.ndarray:
        """See `Recogniser.embed_batch`.

        Raises:
            PhotoError: A face is outside its picture.
        """
        size = self._network.config.size
        crops = [face_crop(image, face, size) for image, face in zip(images, faces, strict=True)]
        batches = [to_tensor(crops[start : start + _BATCH]) for start in range(0, len(crops), _BATCH)]
        parts = [self._network(batch.to(self._network.device)).cpu().numpy() for batch in batches]
        return np.concatenate(parts) if parts else np.zeros((0, self.width), np.float32)

    def apart(self, images: Tensor, others: Tensor, boxes: Tensor) -> Tensor:
        """How differently the layers of the network see the faces of pictures and of others, with gradients.

        Args:
            images: [batch, 3, height, width] in 0..1.
            others: The same shape; what they are compared with.
            boxes: Face boxes [batch, 4], x0, y0, x1, y1 in pixels, the same in both.

        Returns:
            Mean square of the difference of features of length 1, the mean over layers and places; 0 for equal
            pictures. Source: LPIPS, arXiv 1801.03924, equation 1, without its learned weights.

        Raises:
            WeightsError: The network has no layers to look at.
        """
        trunk = getattr(self._network, "trunk", None)
        if trunk is None:
            raise WeightsError(
                f"a {self._network.architecture} has no layers to compare; give another recogniser"
            )
        self._network.requires_grad_(False).to(images.device)
        squares = boxes.new_tensor([square_around(tuple(box), SIDE) for box in boxes.tolist()])
        size, maps = self._network.config.size, []
        for pixels in (images, others):
            maps.append(centred(tensor_crops(pixels, squares, size)))
        losses = []
        for layer in trunk:
            maps = [layer(one) for one in maps]
            ours, theirs = (functional.normalize(one.float(), dim=1) for one in maps)
            losses.append((ours - theirs).square().sum(1).mean())
        return torch.stack(losses).mean()

    def embed_tensors(self, images: Tensor, boxes: Tensor) -> Tensor:
        """The same for equally large pictures as tensors, with gradients.

        Args:
            images: [batch, 3, height, width] in 0..1.
            boxes: Face boxes [batch, 4], x0, y0, x1, y1 in pixels.

        Returns:
            [batch, width] embeddings of length 1.
        """
        self._network.requires_grad_(False).to(images.device)
        squares = [square_around(tuple(box), SIDE) for box in boxes.tolist()]
        crops = tensor_crops(images, boxes.new_tensor(squares), self._network.config.size)
        return self._network(crops)


class BundledEmbedder:
    """Finds and embeds the person's face in drawn pictures, as `InsightFaceEmbedder` does in photographs."""

    def __init__(self, detector: BundledFaces, recogniser: BundledRecogniser) -> None:
        """Wrap both."""
        self._detector, self._recogniser = detector, recogniser

    @classmethod
    def open(cls) -> BundledEmbedder:
        """Open the bundled networks.

        Raises:
            WeightsError: Their weights are missing or altered.
        """
        return cls(BundledFaces.open(), BundledRecogniser.open())

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return self._recogniser.width

    @property
    def notes(self) -> dict[str, str]:
        """Name, for the notes of an identity."""
        return {"face_models": "bundled"}

    def see(self, photos: Sequence[Image.Image], faces: Sequence[Face | None]) -> list[Seen | None]:
        """The person's face in each photo.

        Args:
            photos: Upright pictures.
            faces: The person's face where it is known; else the largest is taken.

        Returns:
            None for a photo without a face.
        """
        found = [
            face or largest(self._detector.detect(photo)) for photo, face in zip(photos, faces, strict=True)
        ]
        return [
            None if face is None else Seen(self._recogniser.embed_batch([photo], [face])[0], face)
            for photo, face in zip(photos, found, strict=True)
        ]


def _path(path: str | os.PathLike[str] | None, part: str) -> Path:
    if path is not None:
        return Path(path)
    from photomaker.weights import bundled

    return bundled(part)


def _unfitted(mask: Tensor, fitted: Letterbox, size: tuple[int, int]) -> np.ndarray:
    """Mask logits [1, 1, n, n] of the square as [height, width] logits of the picture."""
    square = mask.float()[0, 0].numpy()
    cells = square.shape[0] / fitted.size
    box = (
        fitted.left * cells,
        fitted.top * cells,
        square.shape[0] - fitted.left * cells,
        square.shape[0] - fitted.top * cells,
    )
    return np.asarray(Image.fromarray(square).resize(size, Image.Resampling.BILINEAR, box=box))


def _same(first: Face, second: Face) -> bool:
    """Whether two faces of one picture are one: the middle of each lies in the other's box."""
    return _holds(first, second) and _holds(second, first)


def _holds(outer: Face, inner: Face) -> bool:
    x, y = (inner.box[0] + inner.box[2]) / 2, (inner.box[1] + inner.box[3]) / 2
    return outer.box[0] <= x <= outer.box[2] and outer.box[1] <= y <= outer.box[3]


def _inside(face: Face, shape: tuple[int, int]) -> np.ndarray:
    """[height, width] bool: the pixels of a face's box."""
    inside = np.zeros(shape, bool)
    x0, y0, x1, y1 = (int(value) for value in face.box)
    inside[max(0, y0) : max(0, y1) + 1, max(0, x0) : max(0, x1) + 1] = True
    return inside
