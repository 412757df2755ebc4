"""Person masks by panoptic segmentation: Mask2Former (arXiv 2112.01527) and EoMT (arXiv 2503.19108)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from photomaker.errors import WeightsError
from photomaker.faces.base import Segmenter
from photomaker.faces.loading import load, load_model
from photomaker.types import Face

PERSON = "person"


class PanopticSegmenter(Segmenter):
    """Takes the person segment that overlaps the face's box most."""

    def __init__(self, model: Any, processor: Any) -> None:  # noqa: ANN401 - classes of transformers
        """Wrap a model that has a class "person".

        Raises:
            WeightsError: It has none.
        """
        labels = {int(number): str(name).lower() for number, name in model.config.id2label.items()}
        self._person = next((number for number, name in labels.items() if name == PERSON), None)
        if self._person is None:
            raise WeightsError(
                f"the segmentation model has no class {PERSON!r} among its {len(labels)}; use one trained on COCO"
            )
        self._model, self._processor = model, processor

    @torch.inference_mode()
    def person_mask(self, image: Image, face: Face) -> np.ndarray:
        """See `Segmenter.person_mask`; the mask is of a person elsewhere where none overlaps the face."""
        inputs = self._processor(images=image.convert("RGB"), return_tensors="pt")
        pixels = inputs["pixel_values"].to(self._model.device, self._model.dtype)
        outputs = self._model(pixel_values=pixels)
        for name in ("class_queries_logits", "masks_queries_logits"):
            outputs[name] = outputs[name].float()
        (found,) = self._processor.post_process_panoptic_segmentation(
            outputs, target_sizes=[(image.height, image.width)]
        )
        segments = found["segmentation"].cpu().numpy()
        people = [one["id"] for one in found["segments_info"] if one["label_id"] == self._person]
        if not people:
            return np.zeros((image.height, image.width), np.uint8)
        x0, y0, x1, y1 = (max(0, round(value)) for value in face.box)
        inside = segments[y0:y1, x0:x1]
        best = max(people, key=lambda number: int((inside == number).sum()))
        return np.where(segments == best, np.uint8(255), np.uint8(0))


class Mask2FormerSegmenter(PanopticSegmenter):
    """The segmenter of the paper."""

    @classmethod
    def open(cls, place: str) -> Mask2FormerSegmenter:
        """Load a folder or a hub id.

        Raises:
            WeightsError: It cannot be loaded, or has no class "person".
        """
        from transformers import Mask2FormerForUniversalSegmentation
        from transformers.models.mask2former.image_processing_pil_mask2former import (
            Mask2FormerImageProcessorPil,
        )

        def make(folder: Path) -> tuple[Any, Any]:
            return load_model(
                Mask2FormerForUniversalSegmentation, folder
            ), Mask2FormerImageProcessorPil.from_pretrained(folder)

        return cls(*load(place, make))


class EomtSegmenter(PanopticSegmenter):
    """A plain vision transformer that segments: as good as Mask2Former and faster."""

    @classmethod
    def open(cls, place: str) -> EomtSegmenter:
        """Load a folder or a hub id.

        Raises:
            WeightsError: It cannot be loaded, or has no class "person".
        """
        from transformers import EomtForUniversalSegmentation
        from transformers.models.eomt.image_processing_pil_eomt import EomtImageProcessorPil

        def make(folder: Path) -> tuple[Any, Any]:
            return load_model(EomtForUniversalSegmentation, folder), EomtImageProcessorPil.from_pretrained(
                folder
            )

        return cls(*load(place, make))
