"""Stacked ID embedding: photo features fused with the class word's text features, replacing that word's tokens.

Source: PhotoMaker, arXiv 2312.04461, section 3.2 ("Stacked ID Embedding"). There the sequence grows from L to
L + N - 1 tokens; here, as in the released code, the class token is repeated N times *before* the text encoders run
and L stays 77.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from photomaker.errors import IdentityError


class FusionMLP(nn.Module):
    """LayerNorm, Linear, GELU, Linear, and where widths allow a residual around all four.

    Args:
        width_in: Width of the input rows.
        width: Width of hidden and output rows.
        residual: Whether the input is added to the output; needs `width_in == width`.
    """

    def __init__(self, width_in: int, width: int, residual: bool) -> None:
        """Build the layers under the names of the released checkpoints."""
        super().__init__()
        self.layernorm = nn.LayerNorm(width_in)
        self.fc1 = nn.Linear(width_in, width)
        self.fc2 = nn.Linear(width, width)
        self.activation = nn.GELU()
        self.residual = residual

    def forward(self, rows: Tensor) -> Tensor:
        """Map rows [tokens, width_in] to [tokens, width]."""
        mapped = self.fc2(self.activation(self.fc1(self.layernorm(rows))))
        return rows + mapped if self.residual else mapped


class FuseModule(nn.Module):
    """The two MLPs that fuse one class token with one photo, and the stack that replaces the class token.

    For a class row c and a photo's features e: x = MLP1([c ; e]) + c, fused = LN(x + MLP2(x)).

    Args:
        embed_dim: Width D of the prompt embeddings, 2048 in SDXL.
        class_word: Whether the class word's features take part. Without them c is 0 in the formula: the photo's
            features alone go through the same layers. It is for ablations; released weights are trained with it.

    Source: arXiv 2312.04461, section 3.2, equation 2 (the two residuals and the last LayerNorm: released code).
    """

    def __init__(self, embed_dim: int, class_word: bool = True) -> None:
        """Build the layers under the names of the released checkpoints."""
        super().__init__()
        self.class_word = class_word
        self.mlp1 = FusionMLP(embed_dim * 2, embed_dim, residual=False)
        self.mlp2 = FusionMLP(embed_dim, embed_dim, residual=True)
        self.layer_norm = nn.LayerNorm(embed_dim)

    def fuse_rows(self, class_rows: Tensor, id_rows: Tensor) -> Tensor:
        """Fuse class rows [tokens, D] with as many photo rows [tokens, D], pairwise, to [tokens, D]."""
        if not self.class_word:
            class_rows = torch.zeros_like(class_rows)
        fused = self.mlp1(torch.cat([class_rows, id_rows], dim=-1)) + class_rows
        return self.layer_norm(self.mlp2(fused))

    def forward(
        self,
        prompt_embeds: Tensor,
        id_embeds: Tensor,
        class_tokens_mask: Tensor,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Replace the class tokens with the stacked ID embedding; no argument is changed.

        Args:
            prompt_embeds: Text features [batch, length, D].
            id_embeds: ID features [batch, refs, D] (or [batch, refs, tokens, D]); rows with fewer photos are padded.
            class_tokens_mask: Bool [batch, length], true at the class tokens; row r uses its first `mask[r].sum()`
                features, so that rows may have different numbers of photos.
            weights: Weight of each feature [batch, refs * tokens], >= 0; w gives class + w * (fused - class). None
                is 1 everywhere.

        Returns:
            New prompt embeddings [batch, length, D].

        Raises:
            IdentityError: A row has more class tokens than ID features.
        """
        batch, _, width = prompt_embeds.shape
        features = id_embeds.reshape(batch, -1, width).to(prompt_embeds.dtype)
        mask = class_tokens_mask.to(prompt_embeds.device)
        wanted = int(mask.sum(dim=1).max())
        if wanted > features.shape[1]:
            raise IdentityError(
                f"the prompt has {wanted} class tokens for {features.shape[1]} ID features; "
                "expand it by the number of photos"
            )
        order = (mask.cumsum(dim=1) - 1)[mask]
        row = mask.nonzero()[:, 0]
        class_rows = prompt_embeds[mask]
        fused = self.fuse_rows(class_rows, features[row, order])
        if weights is not None:
            weight = weights.to(fused)[row, order][:, None]
            fused = torch.where(weight == 1, fused, class_rows + weight * (fused - class_rows))
        return prompt_embeds.masked_scatter(mask[..., None], fused.to(prompt_embeds.dtype))


class OneEmbedding(nn.Module):
    """Several photos as one embedding, a weighted mean; the baseline for the stacked ID embedding.

    For features e_i of weights w_i: e = sum_i p_i e_i with p = softmax_i(s(e_i) + log w_i). Averaging has s = 0; the
    adaptive projection learns s as a linear layer, which starts at 0, so that both start as the same network.

    Args:
        width: Width D of the features.
        adaptive: Whether the shares are learned.

    Source: arXiv 2312.04461, section 4.4, which compares stacking with averaging and with adaptively projecting the
    embeddings through a linear layer; that this layer gives each photo its share is our reading.
    """

    def __init__(self, width: int, adaptive: bool) -> None:
        """Build the linear layer, if there is one."""
        super().__init__()
        self.score = nn.Linear(width, 1, bias=False) if adaptive else None  # a bias would change no share
        if self.score is not None:
            nn.init.zeros_(self.score.weight)

    def forward(self, features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Reduce rows of photos.

        Args:
            features: [batch, refs, D] or [batch, refs, tokens, D].
            weights: Weight of each photo [batch, refs], >= 0; 0 leaves it out, as padding must be.

        Returns:
            Features [batch, 1, D] (or [batch, 1, tokens, D]), and weights [batch, 1]: 1, or 0 if all were 0.
        """
        some = (weights > 0).any(dim=1, keepdim=True)
        shares = torch.where(some, weights, 1.0).log().view(*weights.shape, *[1] * (features.dim() - 2))
        if self.score is not None:
            shares = shares + self.score(features)
        shares = shares.float().softmax(dim=1).to(features.dtype)
        return (shares * features).sum(dim=1, keepdim=True), some.to(weights.dtype)
