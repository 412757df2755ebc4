"""The V2 encoder's reader of image tokens: a few latents that look at all patches of a photo.

Sources: the perceiver resampler of Flamingo (arXiv 2204.14198, section 3.1) in the form that PhotoMaker V2 uses; the
parameter names are those of the released `photomaker-v2.bin`.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


class PerceiverAttention(nn.Module):
    """Latents look at the patches and at themselves.

    Args:
        dim: Width of latents and patches.
        dim_head: Width of a head.
        heads: Number of heads.
    """

    def __init__(self, *, dim: int, dim_head: int = 64, heads: int = 8) -> None:
        """Build the layers under the names of the released checkpoint."""
        super().__init__()
        self.heads = heads
        inner = dim_head * heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:
        """Update of the latents.

        Args:
            x: Patches [batch, patches, dim].
            latents: [batch, latents, dim].

        Returns:
            [batch, latents, dim].
        """
        x, latents = self.norm1(x), self.norm2(latents)
        query = self.to_q(latents)
        key, value = self.to_kv(torch.cat([x, latents], dim=1)).chunk(2, dim=-1)
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value)
        )
        seen = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.to_out(seen.transpose(1, 2).flatten(2))


def feed_forward(dim: int, mult: int) -> nn.Sequential:
    """A layer's second half, `mult` times as wide inside, under the names of the released checkpoints."""
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, dim * mult, bias=False),
        nn.GELU(),
        nn.Linear(dim * mult, dim, bias=False),
    )


class FacePerceiverResampler(nn.Module):
    """Layers of `PerceiverAttention` and feed-forward, both with residuals (an official name).

    Args:
        dim: Width of the latents.
        depth: Number of layers.
        dim_head: Width of a head.
        heads: Number of heads.
        embedding_dim: Width of the patches.
        output_dim: Width of the output.
        ff_mult: Hidden width of the feed-forward layers, as a multiple of `dim`.
    """

    def __init__(
        self,
        *,
        dim: int = 768,
        depth: int = 4,
        dim_head: int = 64,
        heads: int = 16,
        embedding_dim: int = 1280,
        output_dim: int = 768,
        ff_mult: int = 4,
    ) -> None:
        """Build the layers under the names of the released checkpoint."""
        super().__init__()
        self.proj_in = nn.Linear(embedding_dim, dim)
        self.proj_out = nn.Linear(dim, output_dim)
        self.norm_out = nn.LayerNorm(output_dim)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [PerceiverAttention(dim=dim, dim_head=dim_head, heads=heads), feed_forward(dim, ff_mult)]
            )
            for _ in range(depth)
        )

    def forward(self, latents: Tensor, x: Tensor) -> Tensor:
        """Read the patches.

        Args:
            latents: [batch, latents, dim].
            x: Patches [batch, patches, embedding_dim].

        Returns:
            [batch, latents, output_dim].
        """
        x = self.proj_in(x)
        for layer in self.layers:
            attention, feed_forward = cast(nn.ModuleList, layer)
            latents = attention(x, latents) + latents
            latents = feed_forward(latents) + latents
        return self.norm_out(self.proj_out(latents))


class QFormerPerceiver(nn.Module):
    """A face embedding as a few tokens, which then read the photo.

    Args:
        id_embeddings_dim: Width of the face embedding.
        cross_attention_dim: Width D of the prompt embeddings.
        num_tokens: Tokens a photo becomes.
        embedding_dim: Width of the image encoder's tokens.
        depth: Layers of the resampler.
        dim_head: Width of its heads; their number is `cross_attention_dim // dim_head`.
        ff_mult: Hidden width of its feed-forward layers, as a multiple of D.
        ratio: Hidden width of the projection, as a multiple of `id_embeddings_dim`.
    """

    def __init__(
        self,
        id_embeddings_dim: int,
        cross_attention_dim: int,
        num_tokens: int,
        embedding_dim: int = 1024,
        depth: int = 4,
        dim_head: int = 128,
        ff_mult: int = 4,
        ratio: int = 4,
    ) -> None:
        """Build the layers under the names of the released checkpoint."""
        super().__init__()
        self.num_tokens = num_tokens
        self.token_proj = nn.Sequential(
            nn.Linear(id_embeddings_dim, id_embeddings_dim * ratio),
            nn.GELU(),
            nn.Linear(id_embeddings_dim * ratio, cross_attention_dim * num_tokens),
        )
        self.token_norm = nn.LayerNorm(cross_attention_dim)
        self.perceiver_resampler = FacePerceiverResampler(
            dim=cross_attention_dim,
            depth=depth,
            dim_head=dim_head,
            heads=max(1, cross_attention_dim // dim_head),
            embedding_dim=embedding_dim,
            output_dim=cross_attention_dim,
            ff_mult=ff_mult,
        )

    def forward(self, x: Tensor, last_hidden_state: Tensor) -> Tensor:
        """Tokens of photos.

        Args:
            x: Face embeddings [photos, id_embeddings_dim].
            last_hidden_state: Tokens of the image encoder [photos, tokens, embedding_dim].

        Returns:
            [photos, num_tokens, D].
        """
        tokens = self.token_norm(self.token_proj(x).unflatten(-1, (self.num_tokens, -1)))
        return tokens + self.perceiver_resampler(tokens, last_hidden_state)
