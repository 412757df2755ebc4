"""A frozen image encoder, for methods whose files do not include one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from photomaker import hub
from photomaker.encoders.adapter_file import read_adapter
from photomaker.encoders.id_encoder import PhotoMakerIDEncoder
from photomaker.errors import WeightsError
from photomaker.weights import bundled


class ImageTower(nn.Module):
    """What an image encoder says of photos: one vector, tokens, or the summary token of single layers.

    Args:
        vision_model: CLIP's vision transformer.
        projection: Maps its pooled output into the image embedding; None takes the pooled output itself, as there is no
            such map in the ID encoder of a PhotoMaker adapter.
    """

    def __init__(self, vision_model: Any, projection: nn.Linear | None = None) -> None:  # noqa: ANN401
        """Freeze it."""
        super().__init__()
        self.vision_model, self.projection = vision_model, projection
        self.requires_grad_(False).eval()

    @classmethod
    def of_encoder(cls, encoder: PhotoMakerIDEncoder) -> ImageTower:
        """The image tower of an ID encoder; the weights are shared."""
        return cls(encoder.vision_model)

    @classmethod
    def open(
        cls, place: str | os.PathLike[str] | None = None, dtype: torch.dtype = torch.float32
    ) -> ImageTower:
        """Load an image encoder.

        Args:
            place: A CLIP model (folder or hub id), or a PhotoMaker adapter (file or hub id with the file's name), whose
                tower is taken; None is the bundled adapter's.
            dtype: Its precision.

        Raises:
            WeightsError: It is neither.
        """
        if place is None or Path(place).is_file() or str(place).endswith((".bin", ".safetensors")):
            file = bundled("adapter/photomaker.safetensors") if place is None else hub.adapter_file(place)
            return cls.of_encoder(read_adapter(file).build_encoder()).to(dtype)
        from transformers import CLIPVisionModelWithProjection

        try:
            clip = CLIPVisionModelWithProjection.from_pretrained(hub.model_folder(place), dtype=dtype)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise WeightsError(f"{place} is not a CLIP image encoder in safetensors; give another") from error
        return cls(clip.vision_model, clip.visual_projection)

    @property
    def config(self) -> Any:  # noqa: ANN401 - a transformers configuration
        """The configuration, with `image_size` and `hidden_size`."""
        return self.vision_model.config

    @property
    def width(self) -> int:
        """Width of the image embedding."""
        return int(self.config.hidden_size if self.projection is None else self.projection.out_features)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(self.vision_model.parameters()).device

    def has(self, layers: Sequence[int]) -> bool:
        """Whether it has all of these layers, counted from the end where they are below 0."""
        depth = int(self.config.num_hidden_layers)
        return all(-depth - 1 <= layer <= depth for layer in layers)

    def embed(self, pixels: Tensor) -> Tensor:
        """Image embeddings [photos, width] of normalised photos [photos, 3, size, size]."""
        pooled = self._run(pixels).pooler_output
        return pooled if self.projection is None else self.projection(pooled)

    def tokens(self, pixels: Tensor) -> Tensor:
        """Tokens of the layer before the last [photos, 1 + patches, hidden]."""
        return self._run(pixels, True).hidden_states[-2]

    def summaries(self, pixels: Tensor, layers: tuple[int, ...]) -> Tensor:
        """The summary token of some layers, each normalised as the last one is: [photos, layers, hidden].

        Args:
            pixels: Normalised photos [photos, 3, size, size].
            layers: Numbers of layers, from the end where they are below 0.
        """
        states = self._run(pixels, True).hidden_states
        return torch.stack([self.vision_model.post_layernorm(states[layer][:, 0]) for layer in layers], dim=1)

    def several(self, pixels: Tensor, layers: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Image embeddings [photos, width] and the tokens of some layers [photos, layers, 1 + patches, hidden].

        Args:
            pixels: Normalised photos [photos, 3, size, size].
            layers: Numbers of layers, from the end where they are below 0.
        """
        seen = self._run(pixels, True)
        pooled = seen.pooler_output
        embeds = pooled if self.projection is None else self.projection(pooled)
        return embeds, torch.stack([seen.hidden_states[layer] for layer in layers], dim=1)

    def _run(self, pixels: Tensor, all_layers: bool = False) -> Any:  # noqa: ANN401 - a transformers output
        first = next(self.vision_model.parameters())
        return self.vision_model(pixels.to(first), output_hidden_states=all_layers)
