"""PhotoMaker: the person as stacked ID embedding in the place of the class word.

Source: arXiv 2312.04461.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from diffusers.utils import logging as diffusers_logging
from PIL.Image import Image
from transformers.utils import logging as transformers_logging

from photomaker.encoders import cut_out, face_square
from photomaker.errors import PhotoError, SettingsError, WeightsError
from photomaker.hub import adapter_file, base_folder, variant_of
from photomaker.methods.base import Method
from photomaker.pipelines import PhotoMakerStableDiffusionXLPipeline
from photomaker.pipelines.memory import MemoryPlan, apply_memory, plan_memory
from photomaker.types import Identity, Reference, Request, Sampling
from photomaker.weights import bundled

Background = Literal["keep", "grey"]
BACKGROUNDS: tuple[Background, ...] = ("keep", "grey")
BATCH_SIZE = 8
# used where neither the request nor the adapter file says otherwise (official demo: style strength 20)
GUIDANCE, MERGE = 5.0, 0.2


@dataclass(frozen=True)
class Defaults:
    """What a request that leaves it open gets; an adapter file may bring its own.

    Attributes:
        guidance: Classifier-free guidance scale.
        merge: Share of the steps, 0..1, that use the text-only prompt.
        background: "keep" encodes photos as they are, "grey" the person cut out on mid grey, where a reference has a
            mask.
    """

    guidance: float = GUIDANCE
    merge: float = MERGE
    background: Background = "keep"

    @classmethod
    def noted(cls, config: Mapping[str, Any]) -> Defaults:
        """Read them from the notes of an adapter file (key `defaults`)."""
        given = {
            name: value for name, value in config.get("defaults", {}).items() if name in cls.__annotations__
        }
        return cls(**given)


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
        base_path = bundled("base") if base is None else base_folder(base, variant)
        adapter_path = bundled("adapter/photomaker.safetensors") if adapter is None else adapter_file(adapter)
        try:
            with _quietly():
                pipeline = PhotoMakerStableDiffusionXLPipeline.from_pretrained(
                    base_path,
                    dtype=dtype,
                    add_watermarker=False,
                    variant=variant_of(base_path, variant),
                )
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0][:200]
            raise WeightsError(
                f"the base model {base_path} cannot be loaded ({reason}); give a diffusers SDXL folder"
            ) from error
        pipeline.load_photomaker_adapter(adapter_path, image_encoder=image_encoder)
        if fuse_lora:
            pipeline.fuse_lora(components=["unet"])
        pipeline.set_progress_bar_config(disable=True)
        if face_models is not None:
            pipeline.face_models = face_models
        place = str(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        plan = plan_memory(pipeline, place, memory)
        apply_memory(pipeline, plan)
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
        ground = background or self.defaults.background
        if ground not in BACKGROUNDS:
            raise SettingsError(f"background is {ground!r}; give one of {', '.join(BACKGROUNDS)}")
        pictures = [self._picture(reference, ground) for reference in references]
        told = {
            "photos": [{"name": one.name, "sha256": one.sha256} for one in references],
            "background": ground,
        }
        return self.pipeline.encode_identity(pictures, weights, told | dict(notes or {}))

    def generate(self, identity: Identity, requests: Sequence[Request]) -> list[Image]:
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
        settled = [replace(request, sampling=self._settled(request.sampling)) for request in requests]
        # bad prompts are told before any model runs
        self.pipeline.expand_prompts([request.prompt for request in settled], long_prompt=True)
        pictures: dict[int, Image] = {}
        for places in self._batches(settled):
            drawn = self._draw(identity, [settled[place] for place in places])
            pictures |= dict(zip(places, drawn, strict=True))
        return [pictures[place] for place in range(len(settled))]

    def _settled(self, sampling: Sampling) -> Sampling:
        guidance = self.defaults.guidance if sampling.guidance is None else sampling.guidance
        merge = self.defaults.merge if sampling.merge is None else sampling.merge
        size = self.pipeline.default_sample_size * self.pipeline.vae_scale_factor
        return replace(
            sampling,
            guidance=guidance,
            merge=merge,
            width=sampling.width or size,
            height=sampling.height or size,
        )

    def _batches(self, requests: Sequence[Request]) -> list[list[int]]:
        groups: dict[object, list[int]] = {}
        for place, request in enumerate(requests):
            alike = (replace(request.sampling, seed=0), request.negative_prompt is None)
            groups.setdefault(alike, []).append(place)
        return [
            places[start : start + self.batch_size]
            for places in groups.values()
            for start in range(0, len(places), self.batch_size)
        ]

    def _draw(self, identity: Identity, requests: Sequence[Request]) -> list[Image]:
        sampling = requests[0].sampling
        assert sampling.merge is not None
        negative = (
            None
            if requests[0].negative_prompt is None
            else [request.negative_prompt or "" for request in requests]
        )
        alone = sampling.merge == 1
        prompts = [request.prompt for request in requests]
        result = self.pipeline(
            prompts,
            identity=_absent(identity) if alone else identity,
            negative_prompt=negative,
            long_prompt=self.pipeline.is_long(prompts, identity, negative),
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance,
            # this many steps are text-only, short of all of them; the pipeline wants the index of the last one
            start_merge_step=min(round(sampling.merge * sampling.steps), sampling.steps - 1) - 1,
            width=sampling.width,
            height=sampling.height,
            generator=[torch.Generator().manual_seed(request.sampling.seed) for request in requests],
        )
        return list(result.images)

    def _picture(self, reference: Reference, background: Background) -> Image:
        """A photo as the ID encoder was trained to see it: with or without background, whole or around the face."""
        picture, called = reference.image, reference.name or "(unnamed)"
        if background == "grey" and reference.mask is not None:
            if not reference.mask.any():
                raise PhotoError(f"the person mask of photo {called} is empty; leave the photo out")
            picture = cut_out(picture, reference.mask)
        side = float(self.pipeline.adapter_notes.get("crop", 0))
        if side <= 0:
            return picture
        if reference.face is None:
            raise PhotoError(
                f"this adapter wants a face in every photo and photo {called} has none; leave it out"
            )
        return face_square(picture, reference.face.box, side)


@contextmanager
def _quietly() -> Iterator[None]:
    """No bars, and no remark that the small autoencoder is no AutoencoderKL, while a pipeline is loaded."""
    level = diffusers_logging.get_verbosity()
    shown = [
        library for library in (diffusers_logging, transformers_logging) if library.is_progress_bar_enabled()
    ]
    diffusers_logging.set_verbosity_error()
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(level)
        for library in shown:
            library.enable_progress_bar()


def _absent(identity: Identity) -> Identity:
    """The identity with weight 0 on every photo, which leaves the text-only prompt as it is."""
    weights = identity.tensors["weights"]
    return replace(identity, tensors={**identity.tensors, "weights": weights * 0})
