"""PhotoVerse: pseudo-words in the text and image tokens in a second attention, made from the photos by small adapters.

Source: arXiv 2309.05793; written from the paper, for there is neither official code nor weights.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, ClassVar

import torch
from diffusers import StableDiffusionXLPipeline
from PIL.Image import Image
from torch import Tensor

from photomaker.encoders import preprocess
from photomaker.encoders.mixing import active_features
from photomaker.encoders.photoverse import PhotoVerseFile, check_fit, read_photoverse
from photomaker.encoders.tower import ImageTower
from photomaker.errors import SettingsError, WeightsError
from photomaker.hub import adapter_file
from photomaker.methods.pretrained import (
    BATCH_SIZE,
    PretrainedMethod,
    check_made_by,
    check_made_with,
    is_absent,
)
from photomaker.pipelines.attention.dual import DualAttention, words_in
from photomaker.pipelines.drawing.batches import (
    Defaults,
    alike,
    draw,
    encoded_pair,
    encoded_rows,
    negatives_of,
    text_rows,
    with_guidance,
)
from photomaker.pipelines.drawing.changes import processors_in
from photomaker.pipelines.drawing.opening import open_pipeline
from photomaker.pipelines.steps.merging import Conditioning
from photomaker.prompts import lengthened
from photomaker.types import Identity, Reference, Request
from photomaker.weights import bundled, sha256


class PhotoVerse(PretrainedMethod):
    """PhotoVerse on a stock SDXL pipeline.

    The pseudo-words stand behind the class word, in place of the trigger. Of several photos, what the image encoder
    says is averaged by the photos' weights before the adapters.

    Args:
        pipeline: A pipeline without adapter.
        file: The adapter.
        tower: The image encoder.
        scale: Weight of the image branch, 0 or more (the paper's sigma); 0 leaves the pseudo-words alone.
        defaults: Settings for requests that leave them open; None takes those noted in the file.
        batch_size: Most pictures drawn at once.

    Raises:
        SettingsError: A setting is outside its range.
        WeightsError: The adapter does not fit the base or the image encoder.
    """

    name: ClassVar[str] = "photoverse"
    bundled_file: ClassVar[str] = "methods/photoverse.safetensors"

    def __init__(
        self,
        pipeline: StableDiffusionXLPipeline,
        file: PhotoVerseFile,
        tower: ImageTower,
        scale: float = 1.0,
        defaults: Defaults | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """Build adapters and processors, which wait beside the UNet."""
        noted = defaults or Defaults.noted(file.config, merge=0.0)
        super().__init__(pipeline, noted, batch_size)
        if not 0 <= scale < float("inf"):
            raise SettingsError(f"scale is {scale}; give a number from 0 up")
        check_fit(file, pipeline.unet)
        hidden, depth = int(tower.config.hidden_size), int(tower.config.num_hidden_layers)
        if hidden != file.image_width or not tower.has(file.layers):
            raise WeightsError(
                f"{file.source} reads layers {list(file.layers)} of width {file.image_width} and the image encoder has "
                f"{depth} of width {hidden}; give the image encoder that the adapter was made for"
            )
        self.file, self.tower, self.scale = file, tower, scale
        dtype = pipeline.unet.dtype
        self.adapters = file.build_adapters().to(dtype)
        self.processors = {
            f"{name}.processor": _processor(own).to(dtype) for name, own in file.attention.items()
        }
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
    ) -> PhotoVerse:
        """Load base model, adapter and image encoder.

        Args:
            base: Diffusers folder or hub id of an SDXL model; None is the bundled small one.
            adapter: PhotoVerse file; None is the bundled one.
            device: Where to compute; None is CUDA if available, else the CPU.
            dtype: Precision of all models.
            memory: Where the parts of the pipeline stay, see `photomaker.pipelines.drawing.memory`.
            image_encoder: The image encoder that the adapter was trained with: a CLIP model (folder or hub id), or a
                PhotoMaker adapter whose tower is taken; None is the bundled adapter's.
            scale: Weight of the image branch.
            variant: Which form of the base's weights to load, such as `fp16`; None is the plain one, or the only one.

        Raises:
            SettingsError: A setting is out of range.
            WeightsError: A file is missing, altered, damaged, or does not fit the others.
        """
        path = bundled(cls.bundled_file) if adapter is None else adapter_file(adapter)
        file = read_photoverse(path)
        file = replace(file, config={**file.config, "sha256": sha256(path)})
        pipeline = open_pipeline(StableDiffusionXLPipeline, base, dtype, variant)
        method = cls(pipeline, file, ImageTower.open(image_encoder, dtype), scale)
        return method.placed(device, memory, method.tower, method.adapters)

    def identity(
        self,
        pictures: Sequence[Image],
        references: Sequence[Reference],
        weights: Tensor,
        notes: Mapping[str, Any],
    ) -> Identity:
        """See `PretrainedMethod`: `id_features` is [refs, layers, H], what the layers say of each photo."""
        del references
        pixels = preprocess(pictures, int(self.tower.config.image_size)).to(self.tower.device)
        features = self.tower.summaries(pixels, self.file.layers).float().cpu()
        own = {"encoder": self.name, "encoder_sha256": self.sha256}
        return Identity(self.name, {"id_features": features, "weights": weights}, own | dict(notes))

    def check_drawing(self, identity: Identity, requests: Sequence[Request]) -> None:
        """See `PretrainedMethod`."""
        text_rows(self.pipeline, requests)
        self._check_identity(identity)

    def _check_identity(self, identity: Identity) -> None:
        check_made_by(identity, self.name, "id_features")
        shape = tuple(identity.tensors["id_features"].shape[1:])
        fits = shape == (len(self.file.layers), self.file.image_width)
        check_made_with(identity, self.sha256, fits, "PhotoVerse file")

    @torch.no_grad()
    def draw_batch(self, identity: Identity, requests: Sequence[Request]) -> list[Image]:
        """See `PretrainedMethod`."""
        pipeline, sampling, count = self.pipeline, requests[0].sampling, len(requests)
        tokenizers = (pipeline.tokenizer, pipeline.tokenizer_2)
        # the prompts with room for the words may take a chunk more
        named = text_rows(pipeline, requests, 1 + len(self.file.layers))
        length = len(named[0][0].ids)
        rows = lengthened(text_rows(pipeline, requests), tokenizers, length)
        rows, negative = alike(pipeline, rows, negatives_of(requests))
        named = lengthened(named, tokenizers, len(rows[0][0].ids))
        plain, negatives = encoded_pair(pipeline, rows, negative)
        if is_absent(identity, sampling):
            return draw(pipeline, requests, plain, negatives)
        words, tokens = self.adapters(self._summary(identity))
        with words_in((pipeline.text_encoder, pipeline.text_encoder_2), named, words.expand(count, -1, -1)):
            merged = encoded_rows(pipeline, named)
        conditioning = Conditioning(merged.embeds, merged.pooled, torch.ones(count, dtype=torch.bool))
        tokens = tokens.expand(count, -1, -1)
        if with_guidance(sampling):
            tokens = torch.cat([torch.zeros_like(tokens), tokens])

        def switch(on: bool) -> None:
            for processor in self.processors.values():
                processor.on, processor.image = on, self.scale
                processor.tokens = tokens if on and self.scale else None

        with ExitStack() as stack:
            stack.enter_context(processors_in(pipeline.unet, self.processors))
            stack.callback(switch, False)
            return draw(pipeline, requests, plain, negatives, conditioning, switch)

    def _summary(self, identity: Identity) -> Tensor:
        """What the layers say of the person [1, layers, H]."""
        features, weights = active_features(identity)
        share = (weights / weights.sum())[:, None, None]
        return (features * share).sum(0, keepdim=True).to(next(self.adapters.parameters()))


def _processor(own: Mapping[str, Tensor]) -> DualAttention:
    channels, width = own["to_k_s"].shape
    made = DualAttention(int(width), int(channels), int(own["to_k.lora_A"].shape[0]))
    made.load_state_dict(
        {
            "k_down.weight": own["to_k.lora_A"],
            "k_up.weight": own["to_k.lora_B"],
            "v_down.weight": own["to_v.lora_A"],
            "v_up.weight": own["to_v.lora_B"],
            "to_k_s.weight": own["to_k_s"],
            "to_v_s.weight": own["to_v_s"],
        }
    )
    return made.requires_grad_(False).eval()
