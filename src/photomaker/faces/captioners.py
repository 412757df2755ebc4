"""Captions by BLIP-2 (arXiv 2301.12597), as in the paper, and by Florence-2 (arXiv 2311.06242)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from photomaker.faces.base import Captioner
from photomaker.faces.loading import load, load_model

NUCLEUS = 0.9
"""Share of the probability that random captions are drawn from."""
_LONGEST = 60


class GeneratedCaptions(Captioner):
    """What the two captioners have in common: tokens are generated from pictures and read back."""

    def __init__(self, model: Any, processor: Any) -> None:  # noqa: ANN401 - classes of transformers
        """Wrap a model and its processor."""
        self._model, self._processor = model, processor

    def caption_batch(self, images: Sequence[Image], seeds: Sequence[int] | None = None) -> list[str]:
        """See `Captioner.caption_batch`; random captions are drawn one picture at a time, each from its own seed."""
        pictures = [image.convert("RGB") for image in images]
        if seeds is None:
            return self._generate(pictures, sample=False) if pictures else []
        captions = []
        for picture, seed in zip(pictures, seeds, strict=True):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                captions += self._generate([picture], sample=True)
        return captions

    @torch.inference_mode()
    def _generate(self, images: list[Image], sample: bool) -> list[str]:
        inputs = self._inputs(images).to(self._model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)
        drawn = {"do_sample": True, "top_p": NUCLEUS, "num_beams": 1} if sample else {"do_sample": False}
        tokens = self._model.generate(**inputs, max_new_tokens=_LONGEST, **drawn)
        texts = self._processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]

    @abstractmethod
    def _inputs(self, images: list[Image]) -> Any:  # noqa: ANN401 - a class of transformers
        """What the model is given for a batch of pictures."""


class Blip2Captioner(GeneratedCaptions):
    """The captioner of the paper."""

    @classmethod
    def open(cls, place: str) -> Blip2Captioner:
        """Load a folder or a hub id.

        Raises:
            WeightsError: It cannot be loaded.
        """
        from transformers import Blip2ForConditionalGeneration, Blip2Processor

        def make(folder: Path) -> tuple[Any, Any]:
            processor = Blip2Processor.from_pretrained(folder, local_files_only=True)
            return load_model(Blip2ForConditionalGeneration, folder), processor

        return cls(*load(place, make))

    def _inputs(self, images: list[Image]) -> Any:  # noqa: ANN401
        return self._processor(images=images, return_tensors="pt")


class Florence2Captioner(GeneratedCaptions):
    """A small captioner that says more than BLIP-2 at less cost."""

    @classmethod
    def open(cls, place: str) -> Florence2Captioner:
        """Load a folder or a hub id, in the layout of transformers itself (florence-community's, not the older one).

        Raises:
            WeightsError: It cannot be loaded.
        """
        from transformers import Florence2ForConditionalGeneration, Florence2Processor

        def make(folder: Path) -> tuple[Any, Any]:
            processor = Florence2Processor.from_pretrained(folder, local_files_only=True)
            return load_model(Florence2ForConditionalGeneration, folder), processor

        return cls(*load(place, make))

    def _inputs(self, images: list[Image]) -> Any:  # noqa: ANN401
        return self._processor(text=["<CAPTION>"] * len(images), images=images, return_tensors="pt")
