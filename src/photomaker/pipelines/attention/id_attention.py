"""PuLID's attention: a second attention over a person's tokens beside the one over the text, in three modes.

Source: PuLID, arXiv 2404.16022, section 3.3; the modes are those of its released code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from photomaker.pipelines.attention.dual import attended, heads_of, heads_of_mask, put_out

_SMALLEST = 1e-12
_FIRST = 5
"""Tokens whose attention counts as the person's, in the mode `fidelity`."""


@dataclass(frozen=True)
class IDMode:
    """How the person's attention is added to the text's.

    Attributes:
        zeros: Tokens of zeros beside the person's, which take attention and give nothing.
        ortho: What of the person's branch is taken out: nothing, its share along the text's branch, or as much of that
            share as no attention goes to the person.
    """

    zeros: int
    ortho: Literal["none", "all", "unseen"]


MODES = {
    "plain": IDMode(0, "none"),
    "fidelity": IDMode(8, "unseen"),
    "style": IDMode(16, "all"),
}
"""By name: as trained; and the two that the makers offer, for likeness and for strong styles."""


class IDAttention(nn.Module):
    """An attention processor: Attn(Q, K, V) of the text + scale * Attn(Q, K_id, V_id) of the person's tokens.

    Args:
        width: Width D of prompt embeddings and tokens.
        channels: Width of the layer.

    Attributes:
        mode: See `IDMode`.
        scale: How much of the person, a number or [batch, 1, 1]; where the number is 0 the layer is as it was.
        tokens: The person's tokens [batch, tokens, D] of the batch that is drawn, or of one whose last rows it is, as
            in a step without guidance.
    """

    def __init__(self, width: int, channels: int) -> None:
        """Make the layers."""
        super().__init__()
        self.id_to_k, self.id_to_v = (nn.Linear(width, channels, bias=False) for _ in range(2))
        self.mode = MODES["plain"]
        self.scale: float | Tensor = 1.0
        self.tokens: Tensor | None = None

    def forward(
        self,
        attn: Any,  # noqa: ANN401 - a diffusers attention layer
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """See diffusers' `AttnProcessor2_0`, whose result this is where `scale` is 0."""
        del temb
        assert encoder_hidden_states is not None, "PuLID works on cross-attention"
        mask = heads_of_mask(attn, attention_mask, encoder_hidden_states)
        query = heads_of(attn, attn.to_q(hidden_states))
        key, value = attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        seen = attended(query, heads_of(attn, key), heads_of(attn, value), mask)
        if self.tokens is not None and not (isinstance(self.scale, float) and self.scale == 0):
            seen = (seen + self.scale * self._person(attn, query, seen)).to(query.dtype)
        return put_out(attn, seen.to(query.dtype), hidden_states)

    def _person(self, attn: Any, query: Tensor, seen: Tensor) -> Tensor:  # noqa: ANN401 - a diffusers layer
        """What the person's branch adds [batch, places, channels]."""
        assert self.tokens is not None
        tokens = self.tokens[-len(query) :].to(query.dtype)
        tokens = nn.functional.pad(tokens, (0, 0, 0, self.mode.zeros))
        key = heads_of(attn, self.id_to_k(tokens))
        other = attended(query, key, heads_of(attn, self.id_to_v(tokens)))
        if self.mode.ortho == "none":
            return other
        text, person = seen.float(), other.float()
        # an empty condition of zeros has a branch of zeros, along which nothing lies
        length = (text * text).sum(-2, keepdim=True).clamp(min=_SMALLEST)
        along = (text * person).sum(-2, keepdim=True) / length * text
        if self.mode.ortho == "all":
            return person - along
        # the released code leaves the scale of the products out here
        shares = (query @ key.transpose(-2, -1)).softmax(-1).mean(1)[:, :, :_FIRST].sum(-1, keepdim=True)
        return person + (shares - 1) * along
