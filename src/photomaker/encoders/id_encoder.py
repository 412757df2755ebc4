"""The ID encoder: photos of a person to features in the text-condition space, and their fusion with the class word."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PreTrainedModel,  # noqa: F401 - diffusers looks for it beside the class, to learn how a saved component is loaded
)

from photomaker.encoders.fusion import FuseModule, OneEmbedding
from photomaker.errors import IdentityError, SettingsError

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
STACKS = ("stacked", "average", "linear")
"""How several photos are combined: a token each, or one embedding; see `OneEmbedding`."""

OPTIONS: dict[str, Any] = {"stack": "stacked", "class_word": True}
"""Configuration names of the method's choices; see `PhotoMakerIDEncoder.arrange`."""


def vision_config(**sizes: int | str) -> CLIPVisionConfig:
    """Configuration of an ID encoder: the released one, with any of its sizes replaced.

    Args:
        sizes: Names of `FULL_SIZE`, of `OPTIONS`, or further fields of `CLIPVisionConfig`, such as `hidden_act`.

    Returns:
        A CLIP vision configuration that also holds `projection_dim_2`, the width of the second text encoder, and the
        given `OPTIONS`.
    """
    merged = FULL_SIZE | sizes
    own = {name: merged.pop(name) for name in ("projection_dim_2", *OPTIONS) if name in merged}
    config = CLIPVisionConfig(**merged)
    for name, value in own.items():
        setattr(config, name, value)
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
        self.one_embedding: OneEmbedding | None = None
        self.arrange(**{name: getattr(config, name, value) for name, value in OPTIONS.items()})

    def arrange(self, stack: str, class_word: bool) -> None:
        """Choose how photos become the stacked ID embedding; anything but the defaults is for ablations.

        Args:
            stack: One of `STACKS`; "linear" adds a layer, whose weights start from scratch where it was not there.
            class_word: Whether the class word's text features are fused with the photos'; see `FuseModule`.

        Raises:
            SettingsError: `stack` is of an unknown kind.
        """
        if stack not in STACKS:
            near = get_close_matches(str(stack), STACKS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"give {', '.join(STACKS[:-1])} or {STACKS[-1]}"
            raise SettingsError(f"stack is {stack!r}; {hint}")
        if stack == "stacked":
            self.one_embedding = None
        elif self.one_embedding is None or (self.one_embedding.score is None) == (stack == "linear"):
            self.one_embedding = OneEmbedding(self.width, adaptive=stack == "linear")
        self.fuse_module.class_word = class_word
        chosen = {"stack": stack, "class_word": class_word}
        for name, value in OPTIONS.items():
            # what is left at its default is not told, so that configurations and files stay those of the release
            if chosen[name] != value or hasattr(self.config, name):
                setattr(self.config, name, chosen[name])

    @property
    def stacks(self) -> bool:
        """Whether each photo has its own tokens; otherwise all photos share those of one."""
        return self.one_embedding is None

    @property
    def width(self) -> int:
        """Width D of ID features and prompt embeddings."""
        return int(self.config.projection_dim + self.config.projection_dim_2)

    @property
    def sees(self) -> bool:
        """Whether the image encoder is there, so that photos can be encoded."""
        return self.vision_model is not None

    def leave_image_encoder_out(self) -> None:
        """Keep only the fusion, which is all that saved identities need."""
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

    def composed(self, id_features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The features that go into the prompt: all if they are stacked, else one embedding.

        Args:
            id_features: [batch, refs, ...], from `encode_photos`; padding has weight 0.
            weights: [batch, refs], >= 0.

        Returns:
            Features [batch, refs or 1, ...] and their weights [batch, refs or 1].
        """
        return (
            (id_features, weights) if self.one_embedding is None else self.one_embedding(id_features, weights)
        )

    def fuse(
        self,
        prompt_embeds: Tensor,
        id_features: Tensor,
        class_tokens_mask: Tensor,
        counts: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Stack the ID features in place of the class tokens; see `FuseModule.forward`.

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
