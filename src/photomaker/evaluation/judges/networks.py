"""Who measures pictures in a comparison: two recognisers, a classifier, and networks for the field's other figures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import nn

from photomaker.errors import WeightsError
from photomaker.evaluation.judges.bundled import classify, embed, width_of
from photomaker.evaluation.judges.settings import EVALUATION, JudgeSettings
from photomaker.faces.plugins import PlugIn

if TYPE_CHECKING:
    from photomaker.faces import Detector, Recogniser
    from photomaker.faces.attributes import AttributeClassifier
    from photomaker.types import Face

RECOGNISERS = ("first", "second")
"""The one that decides, and the one beside it."""

LPIPS_CROP, SMALL_CROP = 256, 96
"""Side of the face crops between which diversity is measured."""

BATCH = 16
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What vision transformers trained on ImageNet expect."""


@dataclass(frozen=True)
class Seen:
    """What a judge says of n pictures.

    Attributes:
        faces: [n] the largest face; None if none was found.
        arrays: `first` and `second` [n, width] face embeddings of length 1 with zeros where no face was found,
            `features` [n, width] for distances between sets, and where models were given `clip` and `dino` [n, width].
        labels: Attribute to [n] words that the classifier saw; empty without one.
    """

    faces: Sequence[Face | None]
    arrays: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]


class ComparisonJudge(Protocol):
    """Measures pictures of all methods alike."""

    def see(self, pictures: Sequence[Image.Image]) -> Seen:
        """Measure each picture by itself."""

    def texts(self, prompts: Sequence[str]) -> np.ndarray | None:
        """[n, width] CLIP's embeddings of prompts, comparable with `Seen.arrays["clip"]`; None without CLIP."""

    def diversity(self, pictures: Sequence[Image.Image], faces: Sequence[Face | None]) -> list[float]:
        """Mean distance of each picture's face to the others'; nan if there is no other, or no face."""

    def columns(self) -> dict[str, str]:
        """What stands behind `diversity`, `features`, `first`, `second`, `clip` and `dino`, in words."""

    def fingerprint(self) -> str:
        """Changes whenever the judge would say something else."""


class NetworkJudge:
    """The judge that settings describe. Built by `open_judge`."""

    def __init__(
        self,
        detector: Detector,
        recognisers: Mapping[str, Recogniser],
        classifier: AttributeClassifier | None,
        distance: tuple[nn.Module, int],
        features: Features,
        embedders: Mapping[str, Embedder],
        columns: Mapping[str, str],
        fingerprint: str,
    ) -> None:
        """Join the parts.

        Args:
            detector: Finds faces.
            recognisers: By the names in `RECOGNISERS`.
            classifier: Reads attributes; None reads none.
            distance: Network of two batches of crops, and the side of a crop.
            features: Features for distances between sets.
            embedders: `clip` and `dino`, where there are such.
            columns: See `ComparisonJudge.columns`.
            fingerprint: See `ComparisonJudge.fingerprint`.
        """
        self._detector, self._recognisers, self._classifier = detector, recognisers, classifier
        self._distance, self._features, self._embedders = distance, features, embedders
        self._columns, self._fingerprint = columns, fingerprint
        self._widths = {name: width_of(one) for name, one in recognisers.items()}

    def see(self, pictures: Sequence[Image.Image]) -> Seen:
        """See `ComparisonJudge.see`."""
        from photomaker.faces import largest

        faces = [largest(self._detector.detect(picture)) for picture in pictures]
        arrays = {
            name: embed(one, pictures, faces, self._widths[name]) for name, one in self._recognisers.items()
        }
        arrays["features"] = self._features.features(pictures)
        arrays |= {name: embedder.embed(pictures) for name, embedder in self._embedders.items()}
        return Seen(faces, arrays, {} if self._classifier is None else classify(self._classifier, pictures))

    def texts(self, prompts: Sequence[str]) -> np.ndarray | None:
        """See `ComparisonJudge.texts`."""
        clip = self._embedders.get("clip")
        return clip.texts(prompts) if isinstance(clip, ClipEmbedder) else None

    def diversity(self, pictures: Sequence[Image.Image], faces: Sequence[Face | None]) -> list[float]:
        """See `ComparisonJudge.diversity`."""
        from photomaker.evaluation.judges.perceptual import mean_pairwise
        from photomaker.faces.crops import face_crop, to_tensor

        network, side = self._distance
        found = [place for place, face in enumerate(faces) if face is not None]
        values = [float("nan")] * len(pictures)
        if found:
            crops = [
                face_crop(pictures[place], face, side) for place, face in enumerate(faces) if face is not None
            ]
            distances = mean_pairwise(network, to_tensor(crops).to(_device(network)))
            for place, value in zip(found, distances, strict=True):
                values[place] = value
        return values

    def columns(self) -> dict[str, str]:
        """See `ComparisonJudge.columns`."""
        return dict(self._columns)

    def fingerprint(self) -> str:
        """See `ComparisonJudge.fingerprint`."""
        return self._fingerprint


class Features(Protocol):
    """Pictures to features for distances between sets of pictures."""

    def features(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """[n, width] float32."""


class AttributeFeatures:
    """The last map of the bundled attribute classifier, averaged over places: 96 numbers that know drawn people."""

    def __init__(self, network: nn.Module, size: int) -> None:
        """Take the classifier's trunk and the side of its pictures."""
        self._trunk, self._size = network.eval(), size

    @classmethod
    def open(cls) -> AttributeFeatures:
        """Read the bundled classifier.

        Raises:
            WeightsError: Its file is missing or altered.
        """
        from photomaker.faces.attributes import AttributeNetwork
        from photomaker.faces.networks import load_network
        from photomaker.weights import bundled

        network = load_network(bundled("evaluation/attributes.safetensors"), AttributeNetwork)
        assert isinstance(network, AttributeNetwork)
        return cls(network.trunk, network.config.size)

    @torch.inference_mode()
    def features(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """See `Features.features`."""
        from photomaker.faces.crops import to_tensor

        sized = [
            one.convert("RGB").resize((self._size, self._size), Image.Resampling.BILINEAR) for one in pictures
        ]
        return self._trunk(to_tensor(sized) * 2 - 1).mean((2, 3)).numpy()


class Embedder(Protocol):
    """Pictures to vectors of length 1."""

    def embed(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """[n, width] float32, rows of length 1."""


class ClipEmbedder:
    """CLIP's picture and text vectors (arXiv 2103.00020)."""

    def __init__(self, model: Any, processor: Any, tokenizer: Any) -> None:  # noqa: ANN401 - classes of transformers
        """Wrap a model, the processor of its pictures and its tokenizer."""
        self._model, self._processor, self._tokenizer = model, processor, tokenizer

    @classmethod
    def open(cls, place: str) -> ClipEmbedder:
        """Load a folder or a hub id.

        Raises:
            WeightsError: It cannot be loaded.
        """
        from photomaker.faces.clip import open_clip

        return cls(*open_clip(place))

    @torch.inference_mode()
    def embed(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """See `Embedder.embed`."""
        rows = []
        for start in range(0, len(pictures), BATCH):
            part = [picture.convert("RGB") for picture in pictures[start : start + BATCH]]
            pixels = self._processor(images=part, return_tensors="pt")["pixel_values"]
            seen = self._model.get_image_features(pixels.to(self._model.device, self._model.dtype))
            rows.append(seen.pooler_output)
        return _normal(torch.cat(rows))

    @torch.inference_mode()
    def texts(self, prompts: Sequence[str]) -> np.ndarray:
        """Vectors of texts, [n, width] float32, rows of length 1."""
        tokens = self._tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt")
        return _normal(self._model.get_text_features(**tokens.to(self._model.device)).pooler_output)


class DinoEmbedder:
    """The class token of a vision transformer trained without labels (DINO, arXiv 2104.14294; DINOv2)."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - a class of transformers
        """Wrap a model."""
        self._model = model

    @classmethod
    def open(cls, place: str) -> DinoEmbedder:
        """Load a folder or a hub id.

        Raises:
            WeightsError: It cannot be loaded.
        """
        from transformers import AutoModel

        from photomaker.faces.loading import load, load_model

        return cls(load(place, lambda folder: load_model(AutoModel, folder)))

    @torch.inference_mode()
    def embed(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """See `Embedder.embed`."""
        side, rows = int(self._model.config.image_size), []
        for start in range(0, len(pictures), BATCH):
            pixels = torch.stack([imagenet_pixels(one, side) for one in pictures[start : start + BATCH]])
            seen = self._model(pixel_values=pixels.to(self._model.device, self._model.dtype))
            rows.append(seen.last_hidden_state[:, 0])
        return _normal(torch.cat(rows))


def imagenet_pixels(picture: Image.Image, side: int) -> torch.Tensor:
    """The middle of a picture as [3, side, side] with ImageNet's mean and spread; its shorter edge is 256/224 sides."""
    from photomaker.images import to_tensor

    edge = round(side * 256 / 224)
    scale = edge / min(picture.size)
    width, height = (max(edge, round(length * scale)) for length in picture.size)
    sized = picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - side) // 2, (height - side) // 2
    middle = to_tensor(sized.crop((left, top, left + side, top + side)))
    return (middle - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]


def open_judge(settings: JudgeSettings) -> NetworkJudge:
    """Open the judge that settings describe.

    Raises:
        SettingsError: There is no such plug-in, or what it needs is not installed.
        WeightsError: A model is missing, damaged or of a different kind.
    """
    from photomaker.evaluation.judges.inception import FidInception
    from photomaker.evaluation.judges.perceptual import Lpips, SmallDistance
    from photomaker.faces.attributes import AttributeClassifier
    from photomaker.faces.loading import device

    distance: tuple[nn.Module, int] = (SmallDistance.open(), SMALL_CROP)
    if settings.lpips_trunk and settings.lpips_heads:
        distance = (Lpips.open(settings.lpips_trunk, settings.lpips_heads).to(device()), LPIPS_CROP)
    embedders: dict[str, Embedder] = {}
    if settings.clip:
        embedders["clip"] = ClipEmbedder.open(settings.clip)
    if settings.dino:
        embedders["dino"] = DinoEmbedder.open(settings.dino)
    return NetworkJudge(
        settings.detector.open("detector"),
        {"first": open_recogniser(settings.recogniser), "second": open_recogniser(settings.second)},
        AttributeClassifier.open() if settings.attributes else None,
        distance,
        FidInception.open(settings.inception).to(device())
        if settings.inception
        else AttributeFeatures.open(),
        embedders,
        columns(settings),
        fingerprint(settings),
    )


def open_recogniser(plug_in: PlugIn) -> Recogniser:
    """Open a recogniser; "evaluation" is the bundled one that only evaluation sees.

    Raises:
        SettingsError: There is no such plug-in, or what it needs is not installed.
        WeightsError: Its model cannot be loaded.
    """
    if plug_in.name != EVALUATION:
        return plug_in.open("recogniser")
    from photomaker.faces import BundledRecogniser
    from photomaker.weights import bundled

    return BundledRecogniser.open(bundled("evaluation/recogniser.safetensors"))


def columns(settings: JudgeSettings) -> dict[str, str]:
    """What stands behind each column, in words; files by their names alone."""

    def plug_in(one: PlugIn) -> str:
        return one.name + (f" ({Path(one.model).name})" if one.model else "")

    lpips = f"LPIPS ({Path(settings.lpips_trunk).name})" if settings.lpips_trunk else ""
    return {
        "first": plug_in(settings.recogniser),
        "second": plug_in(settings.second),
        "diversity": lpips or "distance in the stages of the bundled small recogniser (no LPIPS)",
        "features": "Inception (2048 features)"
        if settings.inception
        else "bundled attribute classifier (96 features; no Inception)",
        "clip": Path(settings.clip).name if settings.clip else "",
        "dino": Path(settings.dino).name if settings.dino else "",
        "attributes": "bundled attribute classifier" if settings.attributes else "",
    }


def fingerprint(settings: JudgeSettings) -> str:
    """Sixteen hexadecimal digits of the settings and of the files that they name.

    Raises:
        WeightsError: A file that they name is missing, or the bundled model is.
    """
    from photomaker.weights import bundled_hash, model_hash

    said: dict[str, Any] = asdict(settings)
    for name in ("lpips_trunk", "lpips_heads", "inception"):
        if said[name] is not None:
            said[name] = _file_hash(name, said[name], model_hash)
    said["bundled"] = bundled_hash("faces", "evaluation")
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def _file_hash(name: str, place: str, model_hash: Any) -> str:  # noqa: ANN401 - a function
    if not Path(place).is_file():
        raise WeightsError(f"there is no file {place}, given as the judge's {name}; check the path")
    return str(model_hash(place))


def _normal(rows: torch.Tensor) -> np.ndarray:
    return nn.functional.normalize(rows.float(), dim=-1).cpu().numpy()


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
