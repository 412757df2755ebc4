"""The V2 ID encoder: a recogniser's face embedding becomes tokens that read the photo's patches."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    PreTrainedModel,  # noqa: F401 - diffusers looks for it beside the class, to learn how a saved component is loaded
)

from photomaker.encoders.id_encoder import PhotoMakerIDEncoder, vision_config
from photomaker.encoders.resampler import QFormerPerceiver
from photomaker.errors import IdentityError

# the released V2 adapter, beside `FULL_SIZE`
FULL_SIZE_V2: dict[str, Any] = {
    "id_embeddings_dim": 512,
    "num_tokens": 2,
    "resampler_depth": 4,
    "resampler_head": 128,
    "resampler_ff": 4,
    "resampler_ratio": 4,
}


def vision_config_v2(**sizes: int | str) -> CLIPVisionConfig:
    """Configuration of a V2 ID encoder: the released one, with any of its sizes replaced.

    Args:
        sizes: Names of `FULL_SIZE` and `FULL_SIZE_V2`, or further fields of `CLIPVisionConfig`.
    """
    own = {name: sizes.pop(name, value) for name, value in FULL_SIZE_V2.items()}
    config = vision_config(**sizes)
    for name, value in own.items():
        setattr(config, name, value)
    return config


class PhotoMakerIDEncoder_CLIPInsightfaceExtendtoken(PhotoMakerIDEncoder):
    """CLIP image encoder, face embedding and resampler; each photo takes several class tokens.

    Parameter names are those of the released `photomaker-v2.bin`, which holds the V1 projections too and does not use
    them.

    Args:
        config: From `vision_config_v2`; None gives the released size (543 million parameters). A number is taken for
            `id_embeddings_dim`, which comes first in the official signature.
        id_embeddings_dim: Width of the face embeddings, where no config is given.
        num_tokens: Tokens of a photo, where no config is given.
    """

    version = "v2"
    needs_faces = True

    def __init__(
        self, config: CLIPVisionConfig | int | None = None, id_embeddings_dim: int = 512, num_tokens: int = 2
    ) -> None:
        """Build the layers."""
        if isinstance(config, int) or config is None:
            sizes = vision_config_v2(id_embeddings_dim=config or id_embeddings_dim, num_tokens=num_tokens)
        else:
            sizes = config
        super().__init__(sizes)
        self.num_tokens = sizes.num_tokens
        self.qformer_perceiver = QFormerPerceiver(
            sizes.id_embeddings_dim,
            self.width,
            sizes.num_tokens,
            sizes.hidden_size,
            sizes.resampler_depth,
            sizes.resampler_head,
            sizes.resampler_ff,
            sizes.resampler_ratio,
        )

    def encode_photos(self, pixel_values: Tensor, id_embeds: Tensor | None = None) -> Tensor:
        """ID features of photos, before fusion.

        Args:
            pixel_values: Normalised photos [batch, refs, 3, size, size], from `preprocess`.
            id_embeds: Face embeddings of the same photos [batch, refs, id_embeddings_dim], as a recogniser gives them,
                not normalised.

        Returns:
            [batch, refs, num_tokens, D].

        Raises:
            IdentityError: The face embeddings are missing or not one for each photo.
        """
        batch, refs = pixel_values.shape[:2]
        width = int(self.config.id_embeddings_dim)
        got = None if id_embeds is None else tuple(id_embeds.shape)
        if id_embeds is None or got != (batch, refs, width):
            raise IdentityError(
                f"the V2 encoder needs a face embedding of {width} numbers for each of {refs} photos, got "
                f"{'none' if got is None else f'shape {got}'}; give id_embeds of shape ({batch}, {refs}, {width})"
            )
        # Without the LayerNorm that V1's pooled output goes through.
        patches = self.vision_model(pixel_values.flatten(0, 1)).last_hidden_state
        tokens = self.qformer_perceiver(id_embeds.flatten(0, 1).to(patches.dtype), patches)
        return tokens.view(batch, refs, self.num_tokens, self.width)

    def forward(  # type: ignore[override]
        self, id_pixel_values: Tensor, prompt_embeds: Tensor, class_tokens_mask: Tensor, id_embeds: Tensor
    ) -> Tensor:
        """Encode and fuse in one call (the official signature).

        Args:
            id_pixel_values: [batch, refs, 3, size, size].
            prompt_embeds: [batch, length, D].
            class_tokens_mask: Bool [batch, length], `num_tokens` class tokens for each photo.
            id_embeds: [batch, refs, id_embeddings_dim].

        Returns:
            New prompt embeddings [batch, length, D].
        """
        return self.fuse(prompt_embeds, self.encode_photos(id_pixel_values, id_embeds), class_tokens_mask)
