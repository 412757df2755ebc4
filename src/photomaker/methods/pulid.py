"""PuLID: a face embedding and layers of an image encoder as tokens in a second attention that disturbs the base little.

Its two losses are of the training, see `photomaker.training.recipes.pulid` and `photomaker.training.recipes.reward`.

Source: arXiv 2404.16022.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from PIL.Image import Image
from torch import Tensor

from photomaker.checks import number
from photomaker.encoders import preprocess
from photomaker.encoders.instantid import scaled
from photomaker.encoders.ip_adapter import cross_attentions
from photomaker.encoders.mixing import active_features
from photomaker.encoders.pulid import (
    HUB,
    LAYERS,
    RECOGNISER,
    TOWER,
    PuLIDFile,
    check_fit,
    read_pulid,
    side_by_side,
)
from photomaker.encoders.tower import ImageTower
from photomaker.errors import SettingsError, WeightsError
from photomaker.hub import adapter_file
from photomaker.methods.pretrained import (
    BATCH_SIZE,
    Faces,
    PretrainedMethod,
    bundled_weights,
    check_made_by,
    check_made_with,
    is_absent,
    opened_faces,
    recogniser_note,
    seen_faces,
)
from photomaker.pipelines.attention.id_attention import MODES, IDAttention
from photomaker.pipelines.drawing.batches import Defaults, draw, encoded_texts, text_rows, with_guidance
from photomaker.pipelines.drawing.changes import processors_in
from photomaker.pipelines.drawing.extras import STOCK, Kit
from photomaker.pipelines.drawing.opening import open_pipeline
from photomaker.types import Identity, Reference, Request
from photomaker.weights import sha256

MOST_SCALE = 5.0


class PuLID(PretrainedMethod):
    """PuLID on a stock SDXL pipeline.

    Of several photos the tokens are averaged by the photos' weights: the queries that made them are the same.

    Args:
        pipeline: A pipeline without adapter.
        file: The checkpoint.
        tower: The image encoder whose layers it reads.
        faces: What finds and embeds faces.
        scale: Weight of the second attention, 0 to 5; 0 draws the text alone.
        mode: How it is added, see `pipelines.attention.id_attention.MODES`; None is what the file notes, `fidelity`
            where it notes nothing.
        defaults: Settings for requests that leave them open; None takes those noted in the file.
        batch_size: Most pictures drawn at once.

    Raises:
        SettingsError: A setting is outside its range.
        WeightsError: The checkpoint does not fit the base, the image encoder or the recogniser.
    """

    name: ClassVar[str] = "pulid"
    takes: ClassVar[frozenset[str]] = frozenset({"ControlNet"})
    bundled_file: ClassVar[str] = "methods/pulid.safetensors"
    published: ClassVar[str] = f"stabilityai/stable-diffusion-xl-base-1.0 and {HUB}"

    def __init__(
        self,
        pipeline: StableDiffusionXLPipeline,
        file: PuLIDFile,
        tower: ImageTower,
        faces: Faces,
        scale: float = 1.0,
        mode: str | None = None,
        *,
        defaults: Defaults | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """Build the ID encoder and the processors, which wait beside the UNet."""
        noted = defaults or Defaults.noted(file.config, merge=0.0)
        super().__init__(pipeline, noted, batch_size)
        self.mode = _checked(scale, mode or str(file.config.get("mode", "fidelity")))
        check_fit(file, pipeline.unet)
        self.layers = tuple(file.config.get("layers", LAYERS))
        _check_tower(file, tower, self.layers)
        self.file, self.tower, self.faces, self.scale = file, tower, faces, scale
        self.encoder = file.build_encoder()
        self.face_width = file.embed_width - tower.width
        self.sha256 = str(file.config.get("sha256", ""))
        self.kit = Kit(pipeline, STOCK)
        self.processors = self._processors()

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
        mode: str | None = None,
        variant: str | None = None,
    ) -> PuLID:
        """Load base model, checkpoint, and what reads photos for it.

        Args:
            base: Diffusers folder or hub id of an SDXL model; None is the bundled small one.
            adapter: `pulid_v1.1.safetensors` or `pulid_v1.bin` in the published layout, one that was trained here, or
                a hub id with the file's name; None is the bundled one.
            device: Where to compute; None is CUDA if available, else the CPU.
            dtype: Precision of all models.
            memory: Where the parts of the pipeline stay, see `photomaker.pipelines.drawing.memory`.
            image_encoder: A CLIP image encoder (folder or hub id), or a PhotoMaker adapter whose tower is taken. None
                is the bundled adapter's, for files that were trained here; published ones read another.
            face_models: A folder of InsightFace's ONNX models or the name of a pack; `bundled` is the recogniser of the
                synthetic people. None takes what the file notes, else InsightFace's `antelopev2`.
            scale: Weight of the second attention.
            mode: See the class.
            variant: Which form of the base's weights to load, such as `fp16`; None is the plain one, or the only one.

        Raises:
            SettingsError: A setting is out of range, or InsightFace is not installed.
            WeightsError: A file is missing, altered, damaged, or does not fit the others.
        """
        _checked(scale, mode or "plain")
        path = Path(
            bundled_weights(cls.bundled_file, cls.name, cls.published)
            if adapter is None
            else adapter_file(adapter)
        )
        file = read_pulid(path)
        file = replace(file, config={"sha256": sha256(path), **file.config})
        if image_encoder is None and "layers" not in file.config:
            raise WeightsError(
                f"{path} reads layers of {TOWER}, which this package does not have; give image_encoder, a CLIP image "
                f"encoder of width {file.vision_width} in its place"
            )
        faces = opened_faces(face_models or file.config.get("recogniser") or RECOGNISER)
        tower = ImageTower.open(image_encoder, dtype)
        pipeline = open_pipeline(StableDiffusionXLPipeline, base, dtype, variant)
        method = cls(pipeline, file, tower, faces, scale, mode)
        return method.placed(device, memory, method.tower, method.encoder)

    def _processors(self) -> dict[str, IDAttention]:
        made = {}
        for at, name in cross_attentions(self.pipeline.unet).items():
            key, value = (self.file.attention[f"{at}.id_to_{part}.weight"] for part in "kv")
            layer = IDAttention(int(key.shape[1]), int(key.shape[0])).requires_grad_(False)
            layer.id_to_k.weight.data, layer.id_to_v.weight.data = key.clone(), value.clone()
            layer.mode = MODES[self.mode]
            made[f"{name}.processor"] = layer.to(self.pipeline.unet.dtype)
        return made

    # ---- the person

    def identity(
        self,
        pictures: Sequence[Image],
        references: Sequence[Reference],
        weights: Tensor,
        notes: Mapping[str, Any],
    ) -> Identity:
        """See `PretrainedMethod`: `id_features` is each photo's tokens [refs, tokens, D]."""
        seen = seen_faces(self.faces, references, self.face_width, self.file.source)
        embeddings = torch.from_numpy(np.stack([one.embedding for one in seen])).float()
        pixels = preprocess(pictures, int(self.tower.config.image_size)).to(self.tower.device)
        pooled, layers = self.tower.several(pixels, self.layers)
        face = scaled(embeddings) if self.file.config.get("scaled") else embeddings
        tokens = self.encoder(side_by_side(face.to(pooled.device), pooled.float()), layers.float())
        own = {"encoder": self.name, "encoder_sha256": self.sha256, **self.faces.notes, **self._told_apart()}
        return Identity(self.name, {"id_features": tokens.cpu(), "weights": weights}, own | dict(notes))

    def _told_apart(self) -> dict[str, str]:
        """Notes where something else reads the photos than in the file's training."""
        notes = recogniser_note(str(self.file.config.get("recogniser", RECOGNISER)), self.faces)
        return notes if "layers" in self.file.config else {**notes, "image_encoder_of_adapter": TOWER}

    def check_drawing(self, identity: Identity, requests: Sequence[Request]) -> None:
        """See `PretrainedMethod`."""
        text_rows(self.pipeline, requests)
        self._check_identity(identity)

    def _check_identity(self, identity: Identity) -> None:
        check_made_by(identity, self.name, "id_features", "weights")
        width = int(identity.tensors["id_features"].shape[-1])
        fits = width == int(self.pipeline.unet.config.cross_attention_dim)
        check_made_with(identity, self.sha256, fits, "PuLID file")

    # ---- pictures

    @torch.no_grad()
    def draw_batch(self, identity: Identity, requests: Sequence[Request]) -> list[Image]:
        """See `PretrainedMethod`."""
        pipeline, sampling = self.pipeline, requests[0].sampling
        plain, negatives = encoded_texts(pipeline, requests)
        with ExitStack() as stack:
            ready = stack.enter_context(self.kit.ready(requests))
            if not self.scale or is_absent(identity, sampling):
                return draw(ready.pipeline, requests, plain, negatives, more=ready.arguments)
            tokens = self._tokens(identity, len(requests), with_guidance(sampling))
            for layer in self.processors.values():
                layer.tokens = tokens
            stack.callback(self._forget)
            stack.enter_context(processors_in(pipeline.unet, self.processors))
            return draw(ready.pipeline, requests, plain, negatives, None, self._switch, more=ready.arguments)

    def _tokens(self, identity: Identity, count: int, guided: bool) -> Tensor:
        """For each row of the batch [rows, tokens, D], those of nobody first."""
        features, weights = active_features(identity)
        person = (features * (weights / weights.sum())[:, None, None]).sum(0, keepdim=True)
        first = next(self.encoder.parameters())
        zeros = torch.zeros(1, self.file.embed_width).to(first)
        # as many places as the person's photos have: none of them says anything
        layers = torch.zeros(1, self.file.scales, self._places(), self.file.vision_width).to(first)
        rows = [self.encoder(zeros, layers).repeat(count, 1, 1)] if guided else []
        rows.append(person.to(first).repeat(count, 1, 1))
        return torch.cat(rows).to(self.pipeline._execution_device, self.pipeline.unet.dtype)

    def _places(self) -> int:
        config = self.tower.config
        return 1 + (int(config.image_size) // int(config.patch_size)) ** 2

    def _switch(self, on: bool) -> None:
        for layer in self.processors.values():
            layer.scale = float(self.scale) if on else 0.0

    def _forget(self) -> None:
        self._switch(False)
        for layer in self.processors.values():
            layer.tokens = None


def _checked(scale: float, mode: str) -> str:
    number("scale", scale, 0, MOST_SCALE)
    if mode not in MODES:
        raise SettingsError(f"mode is {mode!r}; give one of {', '.join(MODES)}")
    return mode


def _check_tower(file: PuLIDFile, tower: ImageTower, layers: Sequence[int]) -> None:
    width, depth = int(tower.config.hidden_size), int(tower.config.num_hidden_layers)
    fits = tower.has(layers) and len(layers) == file.scales
    if width != file.vision_width or not fits or tower.width >= file.embed_width:
        raise WeightsError(
            f"{file.source} reads {file.scales} layers of width {file.vision_width} and the image encoder has {depth} "
            f"of width {width}; give the image encoder that the file was made for"
        )
