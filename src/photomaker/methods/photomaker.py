"""PhotoMaker: the person as stacked ID embedding in place of the class word.

Source: arXiv 2312.04461.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from photomaker.encoders import photos_of_each, together
from photomaker.hub import adapter_file
from photomaker.methods.pretrained import BATCH_SIZE, PretrainedMethod
from photomaker.pipelines import PhotoMakerStableDiffusionXLPipeline
from photomaker.pipelines.drawing.batches import Defaults, generators_of, last_text_only_step, negatives_of
from photomaker.pipelines.drawing.extras import Kit
from photomaker.pipelines.drawing.opening import open_pipeline, place_pipeline
from photomaker.types import EXTRAS, Identity, Reference, Request, Sampling
from photomaker.weights import bundled


class PhotoMaker(PretrainedMethod):
    """PhotoMaker on a diffusers SDXL pipeline.

    Args:
        pipeline: A pipeline with a loaded adapter.
        defaults: Settings for requests that leave them open; None takes those noted in the adapter file.
        batch_size: Most pictures drawn at once.
    """

    name: ClassVar[str] = "photomaker"
    bundled_file: ClassVar[str] = "adapter/photomaker.safetensors"
    takes: ClassVar[frozenset[str]] = EXTRAS - {"pose"}

    def __init__(
        self,
        pipeline: PhotoMakerStableDiffusionXLPipeline,
        defaults: Defaults | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """Wrap the pipeline."""
        super().__init__(pipeline, defaults or Defaults.noted(pipeline.adapter_notes), batch_size)
        self.kit = Kit(pipeline)

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
            device: Where to compute; None is CUDA if available, else the CPU.
            dtype: Precision of all models.
            memory: Where the parts stay, see `photomaker.pipelines.drawing.memory`.
            image_encoder: False does not load the image encoder, which photos need and saved identities do not.
            face_models: The face models for V2 adapters: a folder of ONNX models, or the name of an InsightFace pack;
                None is InsightFace's own.
            fuse_lora: Whether to put the LoRA into the base's weights: full-size SDXL then draws 6 % faster, and the
                base is no longer what it was.
            variant: Variant of the base's weight files, such as `fp16`; None is the plain one, or the only one.

        Raises:
            SettingsError: `memory` is not a known plan.
            WeightsError: A file is missing, altered, damaged, or does not fit the other.
        """
        adapter_path = bundled(cls.bundled_file) if adapter is None else adapter_file(adapter)
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

    @property
    def own_notes(self) -> Mapping[str, Any]:
        """See `PretrainedMethod`; those of the adapter that is loaded now."""
        return self.pipeline.adapter_notes

    def identity(
        self,
        pictures: Sequence[Image.Image],
        references: Sequence[Reference],
        weights: Tensor,
        notes: Mapping[str, Any],
    ) -> Identity:
        """See `PretrainedMethod`: `id_features` is [refs, D]."""
        del references
        return self.pipeline.encode_identity(pictures, weights.tolist(), notes)

    def together(self, identities: Sequence[Identity]) -> Identity:
        """Several people as one identity, for prompts such as "a man img on the left and a woman img on the right".

        Args:
            identities: 2 to 4, in the order of their triggers.

        Raises:
            IdentityError: See `photomaker.encoders.together`.
        """
        return together(identities)

    def check_drawing(self, identity: Identity, requests: Sequence[Request]) -> None:
        """See `PretrainedMethod`; the pipeline checks the identity."""
        people = len(photos_of_each(identity)) if "subjects" in identity.tensors else 1
        copies = None if people == 1 else [(1,) * people] * len(requests)
        self.pipeline.expand_prompts([request.prompt for request in requests], copies, long_prompt=True)

    def draw_batch(self, identity: Identity, requests: Sequence[Request]) -> list[Image.Image]:
        """See `PretrainedMethod`."""
        sampling = requests[0].sampling
        negative = negatives_of(requests)
        prompts = [request.prompt for request in requests]
        with self.kit.ready(requests) as ready:
            size = {} if ready.start else {"width": sampling.width, "height": sampling.height}
            result = ready.pipeline(
                prompts,
                identity=_absent(identity) if sampling.merge == 1 else identity,
                negative_prompt=negative,
                long_prompt=self.pipeline.is_long(prompts, identity, negative),
                num_inference_steps=sampling.steps,
                guidance_scale=sampling.guidance,
                start_merge_step=_merge_step(sampling, ready.start is not None),
                generator=generators_of(requests),
                layout=requests[0].extras.layout or None,
                **size,
                **ready.arguments,
            )
            return ready.finished(result.images)


def _merge_step(sampling: Sampling, starts: bool) -> float:
    """The last text-only step; with a start picture a share of the steps, because fewer are run."""
    assert sampling.merge is not None
    if starts and 0 < sampling.merge < 1:
        return sampling.merge
    return last_text_only_step(sampling)


def _absent(identity: Identity) -> Identity:
    """The identity with weight 0 on every photo, which leaves the text-only prompt as it is."""
    weights = identity.tensors["weights"]
    return replace(identity, tensors={**identity.tensors, "weights": weights * 0})
