"""CLIP (arXiv 2103.00020): how well a text fits a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch.nn import functional

from photomaker.faces.base import TextImageScorer
from photomaker.faces.loading import load, load_model


def open_clip(place: str) -> tuple[Any, Any, Any]:
    """CLIP's model, the processor of its pictures and its tokenizer, from a folder or a hub id.

    Raises:
        WeightsError: It cannot be loaded.
    """
    from transformers import CLIPModel, CLIPTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    def make(folder: Path) -> tuple[Any, Any, Any]:
        return (
            load_model(CLIPModel, folder),
            CLIPImageProcessorPil.from_pretrained(folder),
            CLIPTokenizerFast.from_pretrained(folder, local_files_only=True),
        )

    return load(place, make)


class ClipScorer(TextImageScorer):
    """The cosine between a picture and a text, 0 if it is negative."""

    def __init__(self, model: Any, pictures: Any, tokenizer: Any) -> None:  # noqa: ANN401 - classes of transformers
        """Wrap a model, the processor of its pictures and its tokenizer."""
        self._model, self._pictures, self._tokenizer = model, pictures, tokenizer

    @classmethod
    def open(cls, place: str) -> ClipScorer:
        """Load a folder or a hub id.

        Raises:
            WeightsError: It cannot be loaded.
        """
        return cls(*open_clip(place))

    @torch.inference_mode()
    def score(self, image: Image, texts: Sequence[str]) -> list[float]:
        """See `TextImageScorer.score`."""
        model = self._model
        pixels = self._pictures(images=image.convert("RGB"), return_tensors="pt")["pixel_values"]
        tokens = self._tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        seen = model.get_image_features(pixels.to(model.device, model.dtype)).pooler_output
        said = model.get_text_features(**tokens.to(model.device)).pooler_output
        cosines = functional.cosine_similarity(said.float(), seen.float())
        return [max(0.0, float(value)) for value in cosines]
