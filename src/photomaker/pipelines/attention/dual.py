"""PhotoVerse's two branches: pseudo-words in the text, and a second attention over image tokens beside the text's.

Source: PhotoVerse, arXiv 2309.05793, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from photomaker.prompts import ExpandedPrompt, Rows


class DualAttention(nn.Module):
    """An attention processor: text * Attn(Q, K, V) + image * Attn(Q, K_s, V_s).

    K and V of the text are changed by low-rank updates; K_s and V_s read the image tokens. All start at nothing but
    K_s and V_s, which the caller fills.

    Args:
        width: Width D of prompt embeddings and image tokens.
        channels: Width of the layer.
        rank: Of the updates.

    Attributes:
        on: Whether any of it counts; otherwise the layer is as it was.
        tokens: Image tokens [batch, tokens, D] of the batch that is drawn, or of one whose last rows it is, as in a
            step without guidance; zeros add nothing.
        text: Weight of the text's branch, a number or [batch, 1, 1].
        image: Weight of the image's branch, the same.
        values: V_s of the last call while gradients are computed.
    """

    def __init__(self, width: int, channels: int, rank: int) -> None:
        """Make the layers."""
        super().__init__()
        self.k_down, self.v_down = (nn.Linear(width, rank, bias=False) for _ in range(2))
        self.k_up, self.v_up = (nn.Linear(rank, channels, bias=False) for _ in range(2))
        self.to_k_s, self.to_v_s = (nn.Linear(width, channels, bias=False) for _ in range(2))
        for up in (self.k_up, self.v_up):
            nn.init.zeros_(up.weight)
        self.on = True
        self.tokens: Tensor | None = None
        self.text: float | Tensor = 1.0
        self.image: float | Tensor = 1.0
        self.values: Tensor | None = None

    def forward(
        self,
        attn: Any,  # noqa: ANN401 - a diffusers attention layer
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """See diffusers' `AttnProcessor2_0`, whose result this is where `on` is false."""
        del temb
        assert encoder_hidden_states is not None, "PhotoVerse works on cross-attention"
        mask = heads_of_mask(attn, attention_mask, encoder_hidden_states)
        query = heads_of(attn, attn.to_q(hidden_states))
        key, value = attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        if self.on:
            key = key + self.k_up(self.k_down(encoder_hidden_states))
            value = value + self.v_up(self.v_down(encoder_hidden_states))
        seen = attended(query, heads_of(attn, key), heads_of(attn, value), mask)
        if self.on and self.tokens is not None:
            tokens = self.tokens[-len(encoder_hidden_states) :].to(encoder_hidden_states)
            values = self.to_v_s(tokens)
            self.values = values if torch.is_grad_enabled() else None
            other = attended(query, heads_of(attn, self.to_k_s(tokens)), heads_of(attn, values))
            seen = self.text * seen + self.image * other
        return put_out(attn, seen.to(query.dtype), hidden_states)


def heads_of(attn: Any, rows: Tensor) -> Tensor:  # noqa: ANN401 - a diffusers attention layer
    """Rows [batch, places, channels] by the layer's heads [batch, heads, places, width]."""
    return rows.unflatten(-1, (attn.heads, -1)).transpose(1, 2)


def heads_of_mask(attn: Any, mask: Tensor | None, words: Tensor) -> Tensor | None:  # noqa: ANN401
    """An attention mask as the layer's heads take it [batch, heads, 1, places]; None where there is none."""
    if mask is None:
        return None
    batch, length = words.shape[:2]
    mask = attn.prepare_attention_mask(mask, length, batch)
    return mask.view(batch, attn.heads, -1, mask.shape[-1])


def put_out(attn: Any, seen: Tensor, residual: Tensor) -> Tensor:  # noqa: ANN401 - a diffusers attention layer
    """What the layer makes of what was seen [batch, places, channels]; `residual` is what went into it."""
    out = attn.to_out[1](attn.to_out[0](seen))
    return (out + residual if attn.residual_connection else out) / attn.rescale_output_factor


def attended(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of heads [batch, heads, places, width], joined again to [batch, places, channels]."""
    seen = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return seen.transpose(1, 2).flatten(2)


def word_places(rows: Sequence[ExpandedPrompt]) -> Tensor:
    """Where pseudo-words stand, bool [rows, length]: at all copies of the class token but the first."""
    marked = torch.tensor([row.class_tokens for row in rows])
    return marked & (marked.cumsum(dim=1) > 1)


@contextmanager
def words_in(text_encoders: Sequence[Any], rows: Rows, words: Tensor) -> Iterator[None]:
    """Pseudo-words in the text encoders' word embeddings during the context.

    Args:
        text_encoders: Both text encoders.
        rows: Prompts whose class token is followed by as many copies of it as there are words; rows without copies take
            none.
        words: [rows, words, D1 + D2], the part of each encoder side by side.
    """
    widths = [int(encoder.config.hidden_size) for encoder in text_encoders]
    with ExitStack() as stack:
        for encoder, own, part in zip(text_encoders, rows, words.split(widths, dim=-1), strict=True):
            places = word_places(own)
            # a word that fell off the end of a prompt is left out
            order = (places.cumsum(dim=1) - 1)[places].to(part.device)
            chosen = part[places.nonzero()[:, 0].to(part.device), order]
            change = _replacing(places.view(-1, own[0].chunk), chosen)
            hook = encoder.get_input_embeddings().register_forward_hook(change)
            stack.callback(hook.remove)
        yield


def _replacing(places: Tensor, words: Tensor) -> Any:  # noqa: ANN401 - a torch hook
    def replace(_module: nn.Module, _inputs: object, found: Tensor) -> Tensor:
        return found.masked_scatter(places.to(found.device)[..., None], words.to(found))

    return replace
