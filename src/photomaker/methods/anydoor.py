"""AnyDoor: a subject from a photo is drawn into the hole of a scene, by tokens in the text's place and by its edges.

The tokens say who or what it is. A high-frequency map of the photo, laid into the scene where the hole is, goes through
a detail extractor, a ControlNet that reads the same tokens. Outside the hole the scene's own pixels stay.

Source: arXiv 2307.09481.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from torch import Tensor

from photomaker.checks import number
from photomaker.encoders.anydoor import TOWER, AnyDoorFile, check_fit, detail_net, read_anydoor, unet_weights
from photomaker.encoders.subject_tower import SubjectTower
from photomaker.errors import PhotoError, SettingsError, WeightsError
from photomaker.hub import adapter_file
from photomaker.methods.base import Need
from photomaker.methods.pretrained import (
    BATCH_SIZE,
    PretrainedMethod,
    bundled_weights,
    check_made_by,
    check_made_with,
)
from photomaker.pipelines.attention.regions import regions_of
from photomaker.pipelines.drawing.batches import Defaults, draw, encoded_texts, text_rows, with_guidance
from photomaker.pipelines.drawing.changes import weights_in
from photomaker.pipelines.drawing.extras import fitted
from photomaker.pipelines.drawing.opening import open_pipeline, unet_config
from photomaker.pipelines.steps.inpainting import pasted
from photomaker.pipelines.structures.collage import Hole, box_of, box_region, cut_subject, high_frequency
from photomaker.pipelines.structures.identity_nets import Structured
from photomaker.prompts import EncodedPrompts
from photomaker.types import Extras, Identity, Reference, Request
from photomaker.weights import sha256

ZOOM = 2.0
"""Of published files: side of the square that is drawn, in longer sides of the hole's box."""
MOST_SCALE = 2.0
SMALLEST = 4
"""Pixels of a side of the smallest hole."""


class AnyDoor(PretrainedMethod):
    """AnyDoor on a stock SDXL pipeline.

    It reads one photo, that of largest weight; where a photo has a mask, the subject is what the mask shows, else all
    of it. A mixed identity has no photo: it is drawn by its tokens alone.

    Args:
        pipeline: A pipeline without adapter.
        file: The checkpoint.
        tower: What reads the subject.
        scale: Weight of the detail extractor, 0 to 2.
        defaults: Settings for requests that leave them open; None takes those noted in the file.
        batch_size: Most pictures drawn at once.

    Raises:
        SettingsError: A setting is outside its range.
        WeightsError: The checkpoint does not fit the base or the tower.
    """

    name: ClassVar[str] = "anydoor"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SCENE, Need.REGION})
    delays: ClassVar[bool] = False
    takes: ClassVar[frozenset[str]] = frozenset({"start picture", "mask", "layout"})
    bundled_file: ClassVar[str] = "methods/anydoor.safetensors"

    def __init__(
        self,
        pipeline: StableDiffusionXLPipeline,
        file: AnyDoorFile,
        tower: SubjectTower,
        scale: float = 1.0,
        *,
        defaults: Defaults | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """Build the detail extractor; the UNet's weights wait beside it."""
        super().__init__(pipeline, defaults or Defaults.noted(file.config, merge=0.0), batch_size)
        number("scale", scale, 0, MOST_SCALE)
        check_fit(file, pipeline.unet.config)
        _check_tower(file, tower)
        self.file, self.tower, self.scale = file, tower, scale
        self.net, self.unet = detail_net(file, pipeline.unet), unet_weights(file, pipeline.unet)
        self.projector = file.projector()
        self.zoom = float(file.config.get("zoom", ZOOM))
        self.sha256 = str(file.config.get("sha256", ""))

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
        scale: float = 1.0,
        variant: str | None = None,
    ) -> AnyDoor:
        """Load base model, checkpoint and tower.

        Args:
            base: Diffusers folder or hub id of an SDXL model; None is the bundled small one.
            adapter: Checkpoint in the published layout, or a hub id with the file's name; None is the bundled one.
            device: Where to compute; None is CUDA if available, else the CPU.
            dtype: Precision of all models.
            memory: Where the parts of the pipeline stay, see `photomaker.pipelines.drawing.memory`.
            image_encoder: DINOv2 as a folder or hub id, or `bundled`; None takes what the file notes, else the
                published one.
            scale: Weight of the detail extractor.
            variant: Which form of the base's weights to load, such as `fp16`; None is the plain one, or the only one.

        Raises:
            SettingsError: A setting is out of range, or `memory` is not a plan that the method can follow.
            WeightsError: A file is missing, altered, damaged, or does not fit the others.
        """
        number("scale", scale, 0, MOST_SCALE)
        path = bundled_weights(cls.bundled_file, cls.name) if adapter is None else adapter_file(adapter)
        file = read_anydoor(path)
        file = replace(file, config={"sha256": sha256(path), **file.config})
        check_fit(file, unet_config(base, variant))
        tower = SubjectTower.open(image_encoder or file.config.get("tower") or TOWER, dtype)
        _check_tower(file, tower)
        method = cls(open_pipeline(StableDiffusionXLPipeline, base, dtype, variant), file, tower, scale)
        return method.placed(device, memory, method.net, method.tower)

    @property
    def own_notes(self) -> Mapping[str, Any]:
        """See `PretrainedMethod`; a subject is never cut around its face."""
        return {name: one for name, one in self.file.config.items() if name != "crop"}

    # ---- the subject

    def check(self, references: Sequence[Reference]) -> None:
        """See `Method.check`; masks are checked too.

        Raises:
            PhotoError: There is no photo, or a mask is empty or of a different size than its photo.
        """
        super().check(references)
        for place, reference in enumerate(references, start=1):
            called, mask = reference.name or f"number {place}", reference.mask
            if mask is None:
                continue
            if mask.shape != reference.image.size[::-1]:
                raise PhotoError(
                    f"the mask of photo {called} is {mask.shape[1]} x {mask.shape[0]}, but the photo is "
                    f"{reference.image.width} x {reference.image.height}; give a mask of the photo's size"
                )
            if box_of(mask) is None:
                raise PhotoError(
                    f"the mask of photo {called} is empty; paint white what is to be put into the scene"
                )

    def identity(
        self,
        pictures: Sequence[Image.Image],
        references: Sequence[Reference],
        weights: Tensor,
        notes: Mapping[str, Any],
    ) -> Identity:
        """See `PretrainedMethod`.

        `id_features` is the tower's tokens [refs, tokens, D], `details` the high-frequency maps uint8 [refs, h, w, 3].
        """
        del pictures  # subjects are cut out of the photos as they are
        cut = [cut_subject(one.image, one.mask) for one in references]
        details = [np.asarray(high_frequency(picture, mask)) for picture, mask in cut]
        tensors = {
            "id_features": self._tokens([picture for picture, _ in cut]),
            "weights": weights,
            "details": torch.from_numpy(np.stack(details)),
        }
        own = {"encoder": self.name, "encoder_sha256": self.sha256}
        return Identity(self.name, tensors, own | dict(notes))

    def _tokens(self, pictures: Sequence[Image.Image]) -> Tensor:
        """What the tower says of square pictures [pictures, tokens, D]."""
        size = (self.tower.size, self.tower.size)
        seen = np.stack([np.asarray(one.resize(size, Image.Resampling.BICUBIC)) for one in pictures])
        pixels = torch.from_numpy(seen).permute(0, 3, 1, 2).float() / 255
        return self.tower(pixels.to(next(self.tower.parameters()).device)).float().cpu()

    # ---- the scene

    def check_drawing(self, identity: Identity, requests: Sequence[Request]) -> None:
        """See `PretrainedMethod`; scene and region are checked too."""
        text_rows(self.pipeline, requests)
        self._check_identity(identity)
        for request in requests:
            self._hole(request)

    def _check_identity(self, identity: Identity) -> None:
        check_made_by(identity, self.name, "id_features")
        fits = int(identity.tensors["id_features"].shape[-1]) == self.tower.width
        check_made_with(identity, self.sha256, fits, "AnyDoor checkpoint")

    def _hole(self, request: Request) -> Hole:
        """Where a request wants the subject, in its scene at the size of the picture."""
        size = (int(request.sampling.width or 0), int(request.sampling.height or 0))
        start = request.extras.start
        if start is None:
            raise SettingsError(
                "anydoor draws into a scene; give a start picture, with a mask or a box for the hole"
            )
        region = _region(request.extras, size)
        box = box_of(region)
        if box is None or min(box[2] - box[0], box[3] - box[1]) < SMALLEST:
            raise SettingsError(
                f"the hole in the scene is smaller than {SMALLEST} pixels of the picture; give a larger one"
            )
        return Hole.of(fitted(start.image.convert("RGB"), size), region, self.zoom)

    # ---- pictures

    @torch.no_grad()
    def draw_batch(self, identity: Identity, requests: Sequence[Request]) -> list[Image.Image]:
        """See `PretrainedMethod`; requests of a batch share their scene."""
        hole = self._hole(requests[0])
        if bool((identity.tensors["weights"] > 0).any()):
            drawn = self._with_subject(identity, requests, hole)
        else:  # the prompts count where no photo does
            drawn = draw(self.pipeline, requests, *encoded_texts(self.pipeline, requests))
        mask = Image.fromarray(hole.region)
        return pasted([hole.put_back(one) for one in drawn], hole.scene, mask)

    def _with_subject(self, identity: Identity, requests: Sequence[Request], hole: Hole) -> list[Image.Image]:
        pipeline, count, sampling = self.pipeline, len(requests), requests[0].sampling
        size = (int(sampling.width or 0), int(sampling.height or 0))
        device, dtype = pipeline._execution_device, pipeline.unet.dtype
        both = torch.stack([self._tokens([Image.new("RGB", (8, 8))])[0], _subject(identity)])
        tokens = self.projector(both).to(device, dtype).repeat_interleave(count, dim=0)
        pooled = torch.zeros(count, int(pipeline.text_encoder_2.config.projection_dim)).to(device, dtype)
        hint = hole.hint(_details(identity), size).to(device, dtype)
        rows = 2 * count if with_guidance(sampling) else count
        structured = Structured(
            self.net.to(device), tokens[-rows:], hint.expand(rows, -1, -1, -1), self.scale
        )
        nothing, subject = (_encoded(one, pooled) for one in tokens.chunk(2))
        with weights_in(pipeline.unet, self.unet), structured.attached(pipeline.unet):
            return draw(pipeline, requests, subject, nothing)


def _region(extras: Extras, size: tuple[int, int]) -> np.ndarray:
    """Where the subject should be: uint8 [h, w] of the picture."""
    start, places = extras.start, extras.layout
    assert start is not None
    if start.mask is not None:
        if places:
            raise SettingsError("the hole has both a mask and a layout; give only one of them")
        if start.mask.size != start.image.size:
            raise SettingsError(
                f"the mask is {start.mask.width} x {start.mask.height}, but the scene is {start.image.width} x "
                f"{start.image.height}; give a mask of the scene's size"
            )
        return np.asarray(fitted(start.mask, size).convert("L"))
    if not places:
        raise SettingsError(
            "the scene has no hole; give a mask that is white where the subject should be, or a box as the layout"
        )
    if len(places) != 1:
        raise SettingsError(f"the layout has {len(places)} places, but anydoor draws one subject; give one")
    found = regions_of(places, size[1], size[0])[0].numpy() >= 0.5  # noqa: PLR2004 - half
    box = box_of(np.where(found, 255, 0).astype(np.uint8))
    return np.zeros(size[::-1], dtype=np.uint8) if box is None else box_region(box, size)


def _subject(identity: Identity) -> Tensor:
    """The tokens of the photo of largest weight [tokens, D]."""
    return identity.tensors["id_features"][int(identity.tensors["weights"].argmax())].float()


def _details(identity: Identity) -> Image.Image | None:
    """Its high-frequency map; None if the identity has none."""
    maps = identity.tensors.get("details")
    return None if maps is None else Image.fromarray(maps[int(identity.tensors["weights"].argmax())].numpy())


def _encoded(tokens: Tensor, pooled: Tensor) -> EncodedPrompts:
    """Tokens in place of a text."""
    nowhere = torch.zeros(tokens.shape[:2], dtype=torch.bool)
    return EncodedPrompts(tokens, pooled, nowhere, nowhere)


def _check_tower(file: AnyDoorFile, tower: SubjectTower) -> None:
    if tower.width != file.tower_width:
        raise WeightsError(
            f"{file.source} reads tokens of width {file.tower_width}, but the image encoder's have {tower.width}; give "
            "the image encoder that it was made for"
        )
