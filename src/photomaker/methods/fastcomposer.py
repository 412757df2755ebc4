"""FastComposer: a person's photo fused with the class word's token, with delayed merging; several people in a prompt.

Source: arXiv 2305.10431.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from diffusers import StableDiffusionXLPipeline
from PIL.Image import Image
from torch import Tensor

from photomaker.encoders import preprocess, together
from photomaker.encoders.fastcomposer import FastComposerFile, check_fit, read_fastcomposer
from photomaker.hub import adapter_file
from photomaker.methods.pretrained import BATCH_SIZE, PretrainedMethod, check_made_by, check_made_with
from photomaker.pipelines.drawing.batches import (
    Defaults,
    alike,
    draw,
    encoded_pair,
    encoded_rows,
    negatives_of,
)
from photomaker.pipelines.drawing.changes import weights_in
from photomaker.pipelines.drawing.extras import STOCK, Kit
from photomaker.pipelines.drawing.opening import open_pipeline
from photomaker.pipelines.steps.merging import Conditioning
from photomaker.prompts import EncodedPrompts, Rows, expand_subjects, lengthened
from photomaker.types import Identity, Reference, Request
from photomaker.weights import bundled, sha256


class FastComposer(PretrainedMethod):
    """FastComposer on a stock SDXL pipeline.

    Every person takes one token: the features of several photos are averaged by the photos' weights. Several people in
    one prompt are one identity, made by `together`; the k-th trigger takes the k-th of them.

    Args:
        pipeline: A pipeline without adapter.
        file: The checkpoint.
        defaults: Settings for requests that leave them open; None takes those noted in the file.
        batch_size: Most pictures drawn at once.

    Raises:
        SettingsError: `batch_size` is below 1.
        WeightsError: The checkpoint does not fit the base.
    """

    name: ClassVar[str] = "fastcomposer"
    takes: ClassVar[frozenset[str]] = frozenset({"ControlNet"})
    bundled_file: ClassVar[str] = "methods/fastcomposer.safetensors"

    def __init__(
        self,
        pipeline: StableDiffusionXLPipeline,
        file: FastComposerFile,
        defaults: Defaults | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """Build the encoder; the UNet's weights wait beside it."""
        super().__init__(pipeline, defaults or Defaults.noted(file.config), batch_size)
        check_fit(file, pipeline.unet)
        self.file, self.kit = file, Kit(pipeline, STOCK)
        self.encoder = file.build_encoder().to(pipeline.unet.dtype)
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
        variant: str | None = None,
    ) -> FastComposer:
        """Load base model and checkpoint.

        Args:
            base: Diffusers folder or hub id of an SDXL model; None is the bundled small one.
            adapter: Checkpoint in the published layout, or a hub id with the file's name; None is the bundled one.
            device: Where to compute; None is CUDA if available, else the CPU.
            dtype: Precision of all models.
            memory: Where the parts of the pipeline stay, see `photomaker.pipelines.drawing.memory`.
            variant: Which form of the base's weights to load, such as `fp16`; None is the plain one, or the only one.

        Raises:
            SettingsError: `memory` is not a plan that the method can follow.
            WeightsError: A file is missing, altered, damaged, or does not fit the other.
        """
        path = bundled(cls.bundled_file) if adapter is None else adapter_file(adapter)
        file = read_fastcomposer(path)
        file = replace(file, config={**file.config, "sha256": sha256(path)})
        method = cls(open_pipeline(StableDiffusionXLPipeline, base, dtype, variant), file)
        return method.placed(device, memory, method.encoder)

    def identity(
        self,
        pictures: Sequence[Image],
        references: Sequence[Reference],
        weights: Tensor,
        notes: Mapping[str, Any],
    ) -> Identity:
        """See `PretrainedMethod`: `id_features` is [refs, D]."""
        del references
        first = next(self.encoder.parameters())
        pixels = preprocess(pictures, self.encoder.image_size).to(first)
        features = self.encoder.encode_photos(pixels).float().cpu()
        own = {"encoder": self.name, "encoder_sha256": self.sha256}
        return Identity(self.name, {"id_features": features, "weights": weights}, own | dict(notes))

    def together(self, identities: Sequence[Identity]) -> Identity:
        """Several people as one identity, for prompts such as "a man img and a woman img".

        Args:
            identities: 2 to 4, in the order of their triggers.

        Returns:
            Identity with `id_features` and `weights` of all photos and `subjects` int64 [refs], the person of each.

        Raises:
            IdentityError: There are not 2 to 4, or one was not made by this method and checkpoint.
        """
        for identity in identities:
            self._check_identity(identity)
        return together(identities)

    def check_drawing(self, identity: Identity, requests: Sequence[Request]) -> None:
        """See `PretrainedMethod`; every person of the identity wants one trigger in the prompt."""
        self._check_identity(identity)
        self._rows(requests, len(_people(identity)))

    def _check_identity(self, identity: Identity) -> None:
        check_made_by(identity, self.name, "id_features")
        fits = identity.tensors["id_features"].shape[-1] == self.encoder.width
        check_made_with(identity, self.sha256, fits, "FastComposer checkpoint")

    def _rows(self, requests: Sequence[Request], people: int) -> Rows:
        tokenizers = (self.pipeline.tokenizer, self.pipeline.tokenizer_2)
        first, second = (
            [expand_subjects(request.prompt, tokenizer, [1] * people) for request in requests]
            for tokenizer in tokenizers
        )
        return lengthened((first, second), tokenizers)

    @torch.no_grad()
    def draw_batch(self, identity: Identity, requests: Sequence[Request]) -> list[Image]:
        """See `PretrainedMethod`."""
        pipeline, sampling, people = self.pipeline, requests[0].sampling, _people(identity)
        rows, negative = alike(pipeline, self._rows(requests, len(people)), negatives_of(requests))
        plain, negatives = encoded_pair(pipeline, rows, negative)
        if sampling.merge == 1 or all(person is None for person in people):
            with self.kit.ready(requests) as ready:
                return draw(ready.pipeline, requests, plain, negatives, more=ready.arguments)
        nobody = torch.zeros(self.encoder.width)
        features = torch.stack([nobody if person is None else person for person in people])
        weights = torch.tensor([0.0 if person is None else 1.0 for person in people])

        def fused(encoded: EncodedPrompts) -> Tensor:
            own = next(self.encoder.parameters())
            many = len(encoded.embeds)
            return self.encoder.postfuse_module(
                encoded.embeds.to(own),
                features.to(own).expand(many, -1, -1),
                encoded.class_tokens.to(own.device),
                weights.to(own).expand(many, -1),
            ).to(encoded.embeds)

        merged = encoded_rows(pipeline, rows, fused)
        active = torch.ones(len(requests), dtype=torch.bool)
        conditioning = Conditioning(merged.embeds, merged.pooled, active)
        with weights_in(pipeline.unet, self.file.unet), self.kit.ready(requests) as ready:
            return draw(ready.pipeline, requests, plain, negatives, conditioning, more=ready.arguments)


def _people(identity: Identity) -> list[Tensor | None]:
    """A vector [D] for each person, None for one whose photos all have weight 0."""
    features, weights = identity.tensors["id_features"], identity.tensors["weights"]
    subjects = identity.tensors.get("subjects", torch.zeros(len(weights), dtype=torch.int64))
    found: list[Tensor | None] = []
    for number in range(int(subjects.max()) + 1):
        own = weights * (subjects == number)
        found.append((features * (own / own.sum())[:, None]).sum(0) if bool(own.any()) else None)
    return found
