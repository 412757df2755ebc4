"""Contrastive alignment: how much a person in the attention changes the picture that the text alone would draw.

Both are drawn from the same noise under the same words. With Q the features of the UNet that ask in a cross-attention,
Q' those of the path without the person and K the words' keys of that path, all by heads of width d:

    semantic = | softmax(K Q^T / sqrt(d)) Q - softmax(K Q'^T / sqrt(d)) Q' |^2
    layout   = | Q - Q' |^2

each as the mean over all entries, layers and steps.

Source: PuLID, arXiv 2404.16022, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from photomaker.encoders.ip_adapter import cross_attentions

Side = Literal["with", "without", "words"]


def semantic_loss(features: Tensor, other: Tensor, words: Tensor) -> Tensor:
    """How differently two pictures answer the same words.

    Args:
        features: Q [batch, heads, places, d].
        other: Q', the same.
        words: K [batch, heads, tokens, d].
    """
    return nn.functional.mse_loss(_answers(features, words), _answers(other, words))


def _answers(features: Tensor, words: Tensor) -> Tensor:
    shares = (words @ features.transpose(-2, -1) / features.shape[-1] ** 0.5).softmax(-1)
    return shares @ features


class Aligning:
    """Compares the path with a person and the path without, step by step.

    Args:
        unet: A diffusers UNet, in which either path is drawn.
        semantic: Whether, by its weight, the semantic loss counts.
        layout: Whether the layout's does.
    """

    def __init__(self, unet: Any, semantic: float, layout: float) -> None:  # noqa: ANN401 - a diffusers UNet
        """Nothing is compared yet."""
        self.layers = {name: unet.get_submodule(name) for name in cross_attentions(unet).values()}
        self.counts = {"semantic": bool(semantic), "layout": bool(layout)}
        self._kept: dict[tuple[Side, str], Tensor] = {}
        self._found: dict[str, list[Tensor]] = {name: [] for name, counts in self.counts.items() if counts}

    @contextmanager
    def recorded(self, side: Literal["with", "without"], wanted: bool) -> Iterator[None]:
        """Keep what one path's layers ask, during the context; nothing if it is not wanted."""
        with ExitStack() as stack:
            for name, layer in self.layers.items() if wanted else ():
                stack.callback(layer.to_q.register_forward_hook(self._keeping(side, name)).remove)
                if side == "without":
                    stack.callback(layer.to_k.register_forward_hook(self._keeping("words", name)).remove)
            yield

    def compare(self, rows: int) -> None:
        """Take the losses of the step that both paths have taken.

        Args:
            rows: Pictures; with guidance the layers saw as many rows without words before them, which do not count.
        """
        for name, layer in self.layers.items():
            sides: tuple[Side, ...] = ("with", "without", "words")
            features, other, words = (self._taken(side, name, layer.heads, rows) for side in sides)
            if self.counts["semantic"]:
                self._found["semantic"].append(semantic_loss(features, other, words))
            if self.counts["layout"]:
                self._found["layout"].append(nn.functional.mse_loss(features, other))
        self._kept.clear()

    def _keeping(self, side: Side, name: str) -> Any:  # noqa: ANN401 - a torch hook
        def keep(_module: nn.Module, _inputs: object, found: Tensor) -> None:
            self._kept[side, name] = found

        return keep

    def _taken(self, side: Side, name: str, heads: int, rows: int) -> Tensor:
        """By heads [rows, heads, places, d], in float32."""
        return self._kept[side, name][-rows:].float().unflatten(-1, (heads, -1)).transpose(1, 2)

    def losses(self) -> dict[str, Tensor]:
        """The means, by name; nothing if no step was compared."""
        return {name: torch.stack(several).mean() for name, several in self._found.items() if several}
