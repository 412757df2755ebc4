"""PhotoMaker: the person as stacked ID embedding in the place of the class word.

Source: arXiv 2312.04461.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from PIL import Image

from photomaker.errors import SettingsError
from photomaker.hub import adapter_file
from photomaker.methods.base import Method
from photomaker.pipelines import PhotoMakerStableDiffusionXLPipeline
from photomaker.pipelines.drawing import (
    Background,
    Defaults,
    checked_background,
    generators_of,
    in_batches,
    last_text_only_step,
    negatives_of,
    open_pipeline,
    photo_notes,
    place_pipeline,
    prepared_picture,
    settled,
)
from photomaker.pipelines.memory import MemoryPlan
from photomaker.types import Identity, Reference, Request
from photomaker.weights import bundled

BATCH_SIZE = 8


class PhotoMaker(Method):
    """PhotoMaker on a diffusers SDXL pipeline.

    Args:
        pipeline: A pipeline with a loaded adapter.
        defaults: Settings for requests that leave them open; None takes those noted in the adapter file.
        batch_size: Most pictures drawn at once.
    """

    name: ClassVar[str] = "photomaker"
    delays: ClassVar[bool] = True

    def __init__(
        self,
        pipeline: PhotoMakerStableDiffusionXLPipeline,
        defaults: Defaults | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """Take the pipeline as it is."""
        if batch_size < 1:
            raise SettingsError(f"batch_size is {batch_size}; give 1 or more")
        self.pipeline = pipeline
        self.defaults = defaults or Defaults.noted(pipeline.adapter_notes)
        self.batch_size = batch_size
        self.plan: MemoryPlan | None = None

    @classmethod
    def open(
        cls,
        base: str | os.PathLike[str] | None = None,
        adapter: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        memory: str = "auto",
        *,
        image_encoder: bool = True,
        face_models: str | os.PathLike[str] | None = None,
        fuse_lora: bool = False,
        variant: str | None = None,
    ) -> PhotoMaker:
        """Load base model and adapter.

        Args:
            base: Diffusers folder or hub id of an SDXL model; None is the bundled small one.
            adapter: Adapter file, or a hub id with the file's name; None is the bundled one.
            device: Where to compute; None is CUDA where there is one, else the CPU.
            dtype: Precision of all models.
            memory: Where the parts stay, see `photomaker.pipelines.memory`.
            image_encoder: False leaves the image encoder out: saved identities do not need it, photos do.
            face_models: What embeds faces for V2 adapters: a folder of ONNX models, or the name of an InsightFace pack;
                None is InsightFace's own.
            fuse_lora: Whether to put the LoRA into the base's weights: full-size SDXL then draws 6 % faster, and the
                base is no longer what it was.
            variant: Which form of the base's weights to load, such as `fp16`; None is the plain one, or the only one.

        Raises:
            SettingsError: `memory` is no known plan.
            WeightsError: A file is missing, altered, damaged, or does not fit the other.
        """
        adapter_path = bundled("adapter/photomaker.safetensors") if adapter is None else adapter_file(adapter)
        pipeline = open_pipeline(PhotoMakerStableDiffusionXLPipeline, base, dtype, variant)
        pipeline.load_photomaker_adapter(adapter_path, image_encoder=image_encoder)
        if fuse_lora:
            pipeline.fuse_lora(components=["unet"])
        if face_models is not None:
            pipeline.face_models = face_models
        plan = place_pipeline(pipeline, device, memory)
        method = cls(pipeline)
        method.plan = plan
        return method

    def fit(
        self,
        references: Sequence[Reference],
        weights: Sequence[float] | None = None,
        background: Background | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> Identity:
        """Make an identity from photos of one person.

        Args:
            references: At least one photo.
            weights: Weight of each photo, >= 0; 0 leaves it out. None is 1 everywhere.
            background: See `Defaults`; None takes the adapter's own.
            notes: Added to the identity's notes, for example `class_word`.

        Returns:
            Identity with `id_features` [refs, D] and `weights` [refs].

        Raises:
            PhotoError: There is no photo.
            SettingsError: The weights do not fit the photos, or the background is of an unknown kind.
        """
        self.check(references)
        ground = checked_background(background, self.defaults.background)
        side = float(self.pipeline.adapter_notes.get("crop", 0))
        pictures = [prepared_picture(reference, ground, side) for reference in references]
        told = photo_notes(references, ground) | dict(notes or {})
        return self.pipeline.encode_identity(pictures, weights, told)

    def generate(self, identity: Identity, requests: Sequence[Request]) -> list[Image.Image]:
        """Draw the person; requests alike in steps, guidance, merging and size are drawn together.

        Every row has its own generator, seeded by its request, so that a picture does not depend on its companions.

        Args:
            identity: Made by `fit`, loaded, or mixed.
            requests: One for each picture.

        Returns:
            RGB pictures in the order of the requests.

        Raises:
            IdentityError: The identity is of another method or ID encoder.
            PromptError: A prompt has no class word, several triggers, or the class word too far back.
        """
        asked = [
            replace(request, sampling=settled(request.sampling, self.defaults, self.pipeline))
            for request in requests
        ]
        # bad prompts are told before any model runs
        self.pipeline.expand_prompts([request.prompt for request in asked], long_prompt=True)
        return in_batches(asked, self.batch_size, lambda some: self._draw(identity, some))

    def _draw(self, identity: Identity, requests: Sequence[Request]) -> list[Image.Image]:
        sampling = requests[0].sampling
        negative = negatives_of(requests)
        prompts = [request.prompt for request in requests]
        result = self.pipeline(
            prompts,
            identity=_absent(identity) if sampling.merge == 1 else identity,
            negative_prompt=negative,
            long_prompt=self.pipeline.is_long(prompts, identity, negative),
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance,
            start_merge_step=last_text_only_step(sampling),
            width=sampling.width,
            height=sampling.height,
            generator=generators_of(requests),
        )
        return list(result.images)


def _absent(identity: Identity) -> Identity:
    """The identity with weight 0 on every photo, which leaves the text-only prompt as it is."""
    weights = identity.tensors["weights"]
    return replace(identity, tensors={**identity.tensors, "weights": weights * 0})
