"""Cross-attention maps during training, and a loss that directs a person's pixels to the person's tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

SMALLEST = 1e-4
"""Added to shares of attention before their logarithm is taken."""


class AttentionRecorder:
    """Keeps the attention of some layers while gradients are computed.

    Args:
        unet: A diffusers UNet; the layers are switched to attention by plain matrix products, which has probabilities.
        names: The layers, as in `encoders.ip_adapter.cross_attentions`.

    Attributes:
        kept: What the last call saw, [batch, heads, places, length] a layer; cleared by whoever reads it.
    """

    def __init__(self, unet: Any, names: Iterable[str]) -> None:  # noqa: ANN401 - a diffusers UNet
        """Watch the layers from now on."""
        self.kept: list[Tensor] = []
        processors = dict(unet.attn_processors)
        for name in names:
            layer = unet.get_submodule(name)
            layer.get_attention_scores = self._recording(layer)
            processors[f"{name}.processor"] = AttnProcessor()
        unet.set_attn_processor(processors)

    def _recording(self, layer: Any) -> Any:  # noqa: ANN401 - a diffusers attention layer
        scores = layer.get_attention_scores

        def recorded(query: Tensor, key: Tensor, attention_mask: Tensor | None = None) -> Tensor:
            probabilities = scores(query, key, attention_mask)
            if torch.is_grad_enabled():
                # heads are next to each other
                self.kept.append(probabilities.unflatten(0, (-1, layer.heads)))
            return probabilities

        return recorded

    def taken(self) -> list[Tensor]:
        """What was kept, which is then forgotten."""
        kept = self.kept.copy()
        self.kept.clear()
        return kept


def shrunk_mask(mask: Tensor, places: int) -> Tensor:
    """A mask at a layer's resolution.

    Args:
        mask: The person's share of each latent cell [batch, 1, h, w].
        places: Places of the layer, h * w divided by a square.

    Returns:
        [batch, places], row by row.
    """
    shrink = round((mask.shape[-1] * mask.shape[-2] / places) ** 0.5)
    return nn.functional.avg_pool2d(mask, shrink, ceil_mode=True).flatten(1)


def person_attention_loss(
    attention: Tensor, tokens: Tensor, mask: Tensor, share: float
) -> tuple[Tensor, Tensor]:
    """How far the person's places are from giving the person's tokens a share of their attention.

    For the share p of a head's attention that a place gives to the tokens: max(0, log(share) - log(p)), the mean over
    heads and the person's places. Where the share is reached there is no loss, so that words keep the rest.

    Args:
        attention: Probabilities [batch, heads, places, length].
        tokens: Bool [batch, length], true at the person's tokens; rows without one do not count.
        mask: The person's share of each place [batch, places], 0..1.
        share: What is wanted, above 0 and at most 1.

    Returns:
        The loss, and the mean share that there is, both scalars and 0 if no row counts.
    """
    seen = (attention.float() * tokens[:, None, None].float()).sum(-1)
    weight = (mask * tokens.any(1)[:, None])[:, None].expand_as(seen)
    whole = weight.sum().clamp(min=SMALLEST)
    short = (math.log(share) - (seen + SMALLEST).log()).clamp(min=0)
    return (short * weight).sum() / whole, (seen.detach() * weight).sum() / whole
