"""The ID encoder: photos of a person to features in the text-condition space, and their fusion with the class word."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PreTrainedModel,  # noqa: F401 - diffusers looks for it beside the class, to learn how a saved component is loaded
)

from photomaker.encoders.fusion import FuseModule
from photomaker.errors import IdentityError

# openai/clip-vit-large-patch14 and the two text widths of SDXL
FULL_SIZE: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 224,
    "projection_dim": 768,
    "projection_dim_2": 1280,
}


def vision_config(**sizes: int | str) -> CLIPVisionConfig:
    """Configuration of an ID encoder: the released one, with any of its sizes replaced.

    Args:
        sizes: Names of `FULL_SIZE` or further fields of `CLIPVisionConfig`, such as `hidden_act`.

    Returns:
        A CLIP vision configuration that also holds `projection_dim_2`, the width of the second text encoder.
    """
    merged = FULL_SIZE | sizes
    second = int(merged.pop("projection_dim_2"))
    config = CLIPVisionConfig(**merged)
    config.projection_dim_2 = second
    return config


class PhotoMakerIDEncoder(CLIPVisionModelWithProjection):
    """CLIP image encoder, two projections side by side, and the fusion; any width, any batch.

    The two projections have the widths of the two text encoders, so that an ID feature lives in the space of the prompt
    embeddings. Parameter names are those of the released `photomaker-v1.bin`.

    Args:
        config: From `vision_config`; None gives the released size (326 million parameters).

    Source: arXiv 2312.04461, section 3.2 ("Encoders").
    """

    version = "v1"
    num_tokens = 1  # prompt tokens a photo takes
    needs_faces = False  # whether a face embedding goes with each photo

    def __init__(self, config: CLIPVisionConfig | None = None) -> None:
        """Build the layers."""
        config = config or vision_config()
        super().__init__(config)
        self.visual_projection_2 = nn.Linear(config.hidden_size, config.projection_dim_2, bias=False)
        self.fuse_module = FuseModule(self.width)

    @property
    def width(self) -> int:
        """Width D of ID features and prompt embeddings."""
        return int(self.config.projection_dim + self.config.projection_dim_2)

    @property
    def sees(self) -> bool:
        """Whether the image encoder is there, so that photos can be encoded."""
        return self.vision_model is not None

    def leave_image_encoder_out(self) -> None:
        """Keep the fusion alone, which is all that saved identities need."""
        for name, _ in list(self.named_children()):
            if name != "fuse_module":
                setattr(self, name, None)

    def encode_photos(self, pixel_values: Tensor) -> Tensor:
        """ID features of photos, before fusion.

        Args:
            pixel_values: Normalised photos [batch, refs, 3, size, size], from `preprocess`.

        Returns:
            [batch, refs, D].
        """
        batch, refs = pixel_values.shape[:2]
        pooled = self.vision_model(pixel_values.flatten(0, 1)).pooler_output
        both = torch.cat([self.visual_projection(pooled), self.visual_projection_2(pooled)], dim=-1)
        return both.view(batch, refs, self.width)

    def fuse(
        self,
        prompt_embeds: Tensor,
        id_features: Tensor,
        class_tokens_mask: Tensor,
        counts: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Stack the ID features in the place of the class tokens; see `FuseModule.forward`.

        Args:
            prompt_embeds: [batch, length, D].
            id_features: [batch, refs, D], rows with fewer photos padded with anything finite.
            class_tokens_mask: Bool [batch, length]; row r uses its first `mask[r].sum()` features.
            counts: Optional [batch], how many features of each row are no padding; only checked.
            weights: Optional [batch, refs], >= 0.

        Returns:
            New prompt embeddings [batch, length, D]; the arguments stay as they are.

        Raises:
            IdentityError: A row has more class tokens than features.
        """
        if counts is not None and bool((class_tokens_mask.sum(dim=1).to(counts) > counts).any()):
            taken = class_tokens_mask.sum(dim=1).tolist()
            raise IdentityError(
                f"class tokens {taken} outnumber ID features {counts.tolist()}; use one per feature"
            )
        return self.fuse_module(prompt_embeds, id_features, class_tokens_mask, weights)

    def forward(self, id_pixel_values: Tensor, prompt_embeds: Tensor, class_tokens_mask: Tensor) -> Tensor:
        """Encode and fuse in one call (the official signature).

        Args:
            id_pixel_values: [batch, refs, 3, size, size].
            prompt_embeds: [batch, length, D].
            class_tokens_mask: Bool [batch, length]; with fewer class tokens than photos the first photos count.

        Returns:
            New prompt embeddings [batch, length, D].
        """
        return self.fuse(prompt_embeds, self.encode_photos(id_pixel_values), class_tokens_mask)
