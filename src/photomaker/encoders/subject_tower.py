"""Image encoders that turn any subject into tokens: DINOv2, or for the bundled base the bundled image tower."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from photomaker import hub
from photomaker.encoders.id_encoder import PhotoMakerIDEncoder
from photomaker.encoders.tower import ImageTower
from photomaker.errors import WeightsError

BUNDLED = "bundled"
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class SubjectTower(nn.Module):
    """A frozen image encoder whose tokens of the last layer, normalised, say what a picture shows.

    Args:
        model: DINOv2, or CLIP's vision transformer.
        clip: Whether it is the latter.
        size: Side of its pictures in pixels.
    """

    def __init__(self, model: Any, clip: bool, size: int) -> None:  # noqa: ANN401 - a transformers model
        """Freeze it."""
        super().__init__()
        self.model, self.clip, self.size = model, clip, size
        self.requires_grad_(False).eval()

    @classmethod
    def of_encoder(cls, encoder: PhotoMakerIDEncoder) -> SubjectTower:
        """The image tower of an ID encoder; the weights are shared."""
        return cls(encoder.vision_model, True, int(encoder.config.image_size))

    @classmethod
    def open(
        cls, place: str | os.PathLike[str] | None = None, dtype: torch.dtype = torch.float32
    ) -> SubjectTower:
        """Load a tower.

        Args:
            place: DINOv2 (folder or hub id); None or `bundled` is the bundled adapter's image tower.
            dtype: Its precision.

        Raises:
            WeightsError: It is not a DINOv2.
        """
        if place is None or place == BUNDLED:
            tower = ImageTower.open(None, dtype)
            return cls(tower.vision_model, True, int(tower.config.image_size))
        from transformers import AutoConfig, Dinov2Model

        folder = hub.model_folder(place)
        try:
            kind = AutoConfig.from_pretrained(folder).model_type
            if kind != "dinov2":
                raise ValueError(f"it is a {kind}")
            model = Dinov2Model.from_pretrained(folder, dtype=dtype)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            reason = (str(error).splitlines() or [""])[0][:150]
            raise WeightsError(
                f"{place} is not a DINOv2 model in safetensors ({reason}); give one such as facebook/dinov2-giant"
            ) from error
        # AnyDoor shows it 224 pixels, 16 x 16 patches, whatever it was trained at
        return cls(model, False, 16 * int(model.config.patch_size))

    @property
    def width(self) -> int:
        """Width of a token."""
        return int(self.model.config.hidden_size)

    def forward(self, pixels: Tensor) -> Tensor:
        """Tokens [pictures, 1 + patches, width] of pictures [pictures, 3, size, size] in 0..1."""
        first = next(self.model.parameters())
        mean, std = (pixels.new_tensor(one).view(1, 3, 1, 1) for one in (_CLIP if self.clip else _IMAGENET))
        states = self.model(((pixels - mean) / std).to(first)).last_hidden_state
        return self.model.post_layernorm(states) if self.clip else states
