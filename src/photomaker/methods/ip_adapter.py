"""IP-Adapter: a second attention over image tokens beside the one over the text; base, plus and FaceID forms.

diffusers' own loader and attention processors do the work; they are in the UNet only while a picture is drawn.

Source: arXiv 2308.06721.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from peft.tuners.tuners_utils import BaseTunerLayer
from PIL.Image import Image
from torch import Tensor

from photomaker.encoders import preprocess
from photomaker.encoders.ip_adapter import IPAdapterFile, check_fit, read_ip_adapter
from photomaker.encoders.mixing import active_features
from photomaker.encoders.tower import ImageTower
from photomaker.errors import IdentityError, PhotoError, SettingsError, WeightsError
from photomaker.hub import adapter_file
from photomaker.methods.pretrained import BATCH_SIZE, PretrainedMethod, check_made_with, is_absent
from photomaker.pipelines.attention.ip_adapters import loaded_ip_adapter
from photomaker.pipelines.drawing.batches import Defaults, draw, encoded_texts, text_rows, with_guidance
from photomaker.pipelines.drawing.changes import image_projection_in, processors_in
from photomaker.pipelines.drawing.extras import STOCK, Kit
from photomaker.pipelines.drawing.opening import open_pipeline
from photomaker.registry import find
from photomaker.types import Identity, Reference, Request
from photomaker.weights import bundled, sha256

LORA = "faceid_0"  # diffusers' name for the LoRA of a FaceID file
Combine = Literal["mean", "tokens"]


class IPAdapter(PretrainedMethod):
    """IP-Adapter on a stock SDXL pipeline.

    Of several photos, `mean` averages the image (or face) embeddings by the photos' weights and gives the tokens of one
    photo; `tokens` puts the tokens of all photos with a weight above 0 side by side. Patch tokens of different photos
    have no common places, so that the plus and full forms know `tokens` only.

    Args:
        pipeline: A pipeline without adapter.
        file: The adapter.
        tower: Its image encoder; None if the form needs none.
        faces: What embeds faces, for the FaceID forms: `embed(pictures)` gives an array or None a picture.
        scale: Weight of the image attention, 0 or more; 0 draws the text alone.
        combine: What becomes of several photos; None is `mean` where that is possible.
        defaults: Settings for requests that leave them open; None takes those noted in the file.
        batch_size: Most pictures drawn at once.

    Raises:
        SettingsError: A setting is outside its range.
        WeightsError: The adapter does not fit the base or the image encoder.
    """

    name: ClassVar[str] = "ip_adapter"
    takes: ClassVar[frozenset[str]] = frozenset({"ControlNet"})
    bundled_file: ClassVar[str] = "methods/ip_adapter.safetensors"

    def __init__(
        self,
        pipeline: StableDiffusionXLPipeline,
        file: IPAdapterFile,
        tower: ImageTower | None = None,
        faces: Any = None,  # noqa: ANN401 - any face embedder
        scale: float = 1.0,
        combine: Combine | None = None,
        defaults: Defaults | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """Read the adapter into processors that wait beside the UNet."""
        noted = defaults or Defaults.noted(file.config, merge=0.0)
        super().__init__(pipeline, noted, batch_size)
        if not (np.isfinite(scale) and scale >= 0):
            raise SettingsError(f"scale is {scale}; give a number from 0 up, 0 switches the photos off")
        patches = file.form in ("plus", "full")
        if combine not in (None, "mean", "tokens") or (patches and combine == "mean"):
            raise SettingsError(
                f"combine is {combine!r}; give tokens{'' if patches else ' or mean'} for the {file.form} form"
            )
        check_fit(file, pipeline.unet)
        if file.sees:
            width = _seen_width(file, tower)
            if width != file.image_width:
                raise WeightsError(
                    f"{file.source} is for images of width {file.image_width}, but the image encoder gives {width}; "
                    "give the image encoder that the adapter was made for"
                )
        self.file, self.tower, self.faces, self.scale = file, tower, faces, scale
        self.combine: Combine = combine or ("tokens" if patches else "mean")
        self.sha256 = str(file.config.get("sha256", ""))
        self.kit = Kit(pipeline, STOCK)
        self.processors, self.projection = loaded_ip_adapter(pipeline, file)
        _switch_lora(pipeline.unet, on=False)

    @classmethod
    def open(
        cls,
        base: str | os.PathLike[str] | None = None,
        adapter: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        memory: str = "auto",
        *,
        image_encoder: str | os.PathLike[str] | None = None,
        face_models: str | os.PathLike[str] | None = None,
        scale: float = 1.0,
        combine: Combine | None = None,
        variant: str | None = None,
    ) -> IPAdapter:
        """Load base model, adapter, and what reads photos for it.

        Args:
            base: Diffusers folder or hub id of an SDXL model; None is the bundled small one.
            adapter: IP-Adapter file in the published layout, or a hub id with the file's name; None is the bundled one.
            device: Where to compute; None is CUDA if available, else the CPU.
            dtype: Precision of all models.
            memory: Where the parts of the pipeline stay, see `photomaker.pipelines.drawing.memory`.
            image_encoder: The CLIP image encoder of published files (folder or hub id), or a PhotoMaker adapter whose
                tower is taken; None is the bundled adapter's.
            face_models: For FaceID forms, a folder of InsightFace's ONNX models or the name of a pack; `bundled` is the
                recogniser of the synthetic people. None takes what the file notes, else InsightFace's `buffalo_l`.
            scale: Weight of the image attention.
            combine: See the class.
            variant: Which form of the base's weights to load, such as `fp16`; None is the plain one, or the only one.

        Raises:
            SettingsError: A setting is out of range, or InsightFace is not installed.
            WeightsError: A file is missing, altered, damaged, or does not fit the others.
        """
        path = bundled(cls.bundled_file) if adapter is None else adapter_file(adapter)
        file = read_ip_adapter(path)
        # only the name tells version 2 of faceid-plus, where the face's tokens are added to what the resampler reads
        told = {"sha256": sha256(path), "shortcut": "plusv2" in path.name}
        file = replace(file, config={**told, **file.config})
        pipeline = open_pipeline(StableDiffusionXLPipeline, base, dtype, variant)
        tower = ImageTower.open(image_encoder, dtype) if file.sees else None
        faces = _embedder(face_models or file.config.get("recogniser")) if file.needs_faces else None
        method = cls(pipeline, file, tower, faces, scale, combine)
        return method.placed(device, memory, *([] if tower is None else [tower]))

    def check(self, references: Sequence[Reference]) -> None:
        """See `Method.check`; the bundled recogniser needs the face that was found in each photo."""
        super().check(references)
        for number, reference in enumerate(references, start=1):
            if self.faces == "bundled" and reference.face is None:
                called = reference.name or f"number {number}"
                raise PhotoError(
                    f"this adapter needs a face in every photo, but photo {called} has none; leave it out"
                )

    def identity(
        self,
        pictures: Sequence[Image],
        references: Sequence[Reference],
        weights: Tensor,
        notes: Mapping[str, Any],
    ) -> Identity:
        """See `PretrainedMethod`.

        `id_features` is image embeddings [refs, E], patch tokens [refs, tokens, H], or face embeddings [refs, E] with
        `patches` [refs, tokens, H] beside them in the faceid-plus form.
        """
        tensors = {"weights": weights}
        if self.file.needs_faces:
            tensors["id_features"] = self._face_embeddings(references)
        if self.tower is not None:
            pixels = preprocess(pictures, int(self.tower.config.image_size)).to(self.tower.device)
            seen = self.tower.embed(pixels) if self.file.form == "base" else self.tower.tokens(pixels)
            tensors["patches" if self.file.needs_faces else "id_features"] = seen.float().cpu()
        own = {"encoder": self._called, "encoder_sha256": self.sha256}
        return Identity(self._called, tensors, own | dict(notes))

    @property
    def _called(self) -> str:
        return f"{self.name}-{self.file.form}"

    def _face_embeddings(self, references: Sequence[Reference]) -> Tensor:
        if self.faces == "bundled":
            found: list[Any] = list(
                find("recogniser", "bundled")
                .open()
                .embed_batch([one.image for one in references], [one.face for one in references])
            )
        else:
            found = self.faces.embed([one.image for one in references])
        missing = [str(number) for number, one in enumerate(found, start=1) if one is None]
        if missing:
            raise PhotoError(f"no face was found in photo {', '.join(missing)}; leave it out")
        embeds = torch.from_numpy(np.stack(found)).float()
        if embeds.shape[1] != self.file.face_width:
            raise WeightsError(
                f"{self.file.source} is for face embeddings of width {self.file.face_width}, but the recogniser gives "
                f"{embeds.shape[1]}; give the recogniser that the adapter was made for"
            )
        # InsightFace gives them as they are; the adapters were trained on embeddings of length 1
        return torch.nn.functional.normalize(embeds, dim=-1)

    def check_drawing(self, identity: Identity, requests: Sequence[Request]) -> None:
        """See `PretrainedMethod`."""
        text_rows(self.pipeline, requests)
        self._check_identity(identity)

    def _check_identity(self, identity: Identity) -> None:
        wanted = {"id_features", "weights", *(["patches"] if self.file.form == "faceid-plus" else [])}
        if identity.method != self._called or not wanted <= identity.tensors.keys():
            raise IdentityError(
                f"the identity was made by {identity.method}, the loaded adapter is {self._called}; make it again "
                "with this adapter"
            )
        check_made_with(identity, self.sha256, True, "IP-Adapter file")

    @torch.no_grad()
    def draw_batch(self, identity: Identity, requests: Sequence[Request]) -> list[Image]:
        """See `PretrainedMethod`."""
        pipeline, sampling = self.pipeline, requests[0].sampling
        plain, negatives = encoded_texts(pipeline, requests)
        if not self.scale or is_absent(identity, sampling):
            with self.kit.ready(requests) as ready:
                return draw(ready.pipeline, requests, plain, negatives, more=ready.arguments)
        count = len(requests)
        features, patches = self._combined(identity)
        nothing = torch.zeros_like(features)
        guided = with_guidance(sampling)
        if self.file.form in ("plus", "full"):
            nothing = self._nothing().expand_as(features)
        # the pipeline repeats these for its rows, but not what the resampler reads
        embeds = _guided(features, nothing, 1, guided).to(pipeline.unet.dtype)
        with ExitStack() as stack:
            if patches is not None:
                layer = self.projection.image_projection_layers[0]
                empty = self._nothing().expand_as(patches)
                seen = _guided(patches, empty, count, guided).to(
                    pipeline._execution_device, pipeline.unet.dtype
                )
                layer.shortcut = bool(self.file.config.get("shortcut", False))
                stack.callback(layer.register_forward_pre_hook(_seen_by(seen)).remove)
            stack.enter_context(processors_in(pipeline.unet, self.processors))
            stack.enter_context(image_projection_in(pipeline.unet, self.projection))
            stack.callback(self._switch, False)
            ready = stack.enter_context(self.kit.ready(requests))
            more = {"ip_adapter_image_embeds": [embeds], **ready.arguments}
            return draw(ready.pipeline, requests, plain, negatives, None, self._switch, more)

    def _switch(self, on: bool) -> None:
        for processor in self.processors.values():
            processor.scale = [self.scale if on else 0.0]
        _switch_lora(self.pipeline.unet, on)

    def _combined(self, identity: Identity) -> tuple[Tensor, Tensor | None]:
        """Features [1, photos, ...] and patch tokens [1, photos, tokens, H] as the call takes them."""
        features, weights = active_features(identity)
        patches = identity.tensors.get("patches")
        if patches is not None:
            patches = patches[identity.tensors["weights"] > 0]
        if self.combine == "mean":
            share = weights / weights.sum()
            features = (features * share[:, None]).sum(0, keepdim=True)
            if self.file.needs_faces:
                features = torch.nn.functional.normalize(features, dim=-1)
            if patches is not None:
                # patches of different photos have no common places: those of the photo of largest weight
                patches = patches[int(weights.argmax())][None]
        return features[None], None if patches is None else patches[None]

    def _nothing(self) -> Tensor:
        """Patch tokens of a picture of zeros [1, 1, tokens, H], the empty condition of the forms that see patches."""
        assert self.tower is not None
        size = int(self.tower.config.image_size)
        return self.tower.tokens(torch.zeros(1, 3, size, size))[None].float().cpu()


def _guided(features: Tensor, nothing: Tensor, rows: int, guided: bool) -> Tensor:
    """For each row of the batch, the negative ones first."""
    features = features.repeat(rows, *[1] * (features.dim() - 1))
    nothing = nothing.repeat(rows, *[1] * (nothing.dim() - 1))
    return torch.cat([nothing, features]) if guided else features


def _seen_by(patches: Tensor) -> Callable[[Any, tuple[Tensor, ...]], None]:
    """Hands the resampler the patch tokens [rows, photos, tokens, H] of the rows that are drawn.

    A step without guidance has the last half of the rows alone, see `GuidanceInterval`.
    """

    def hand(layer: Any, args: tuple[Tensor, ...]) -> None:  # noqa: ANN401 - one of diffusers' projections
        layer.clip_embeds = patches[-(args[0].shape[0] // patches.shape[1]) :]

    return hand


def _seen_width(file: IPAdapterFile, tower: ImageTower | None) -> int:
    if tower is None:
        raise WeightsError(f"{file.source} reads photos by an image encoder; give image_encoder")
    return tower.width if file.form == "base" else int(tower.config.hidden_size)


def _embedder(place: str | os.PathLike[str] | None) -> Any:  # noqa: ANN401 - any face embedder
    if place == "bundled":
        return "bundled"
    return find("face embedder", "insightface").open(place or "buffalo_l")


def _switch_lora(unet: Any, on: bool) -> None:  # noqa: ANN401 - a diffusers UNet
    """Let the LoRA of a FaceID file count or not; without one nothing happens."""
    for layer in unet.modules():
        if isinstance(layer, BaseTunerLayer) and LORA in layer.scaling:
            layer.set_scale(LORA, 1.0 if on else 0.0)
