"""The exponential moving average of trained weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from photomaker.training.running.sharding import (
    cut_like,
    local,
)


class Average:
    """Exponential moving average of named tensors, with a warm-up so that the first weights are forgotten soon.

    Args:
        live: The trained tensors; the average starts as a copy.
        decay: Weight of the old average in one update, 0..1; reached after about `10 * decay / (1 - decay)` updates.
    """

    def __init__(self, live: Mapping[str, Tensor], decay: float) -> None:
        """Copy the tensors."""
        self.live = dict(live)
        self.decay = decay
        self.shadow = {name: tensor.detach().clone() for name, tensor in live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights as they are after 0-based `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        shadow, live = ([local(one) for one in named.values()] for named in (self.shadow, self.live))
        torch._foreach_lerp_(shadow, live, 1 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Put the averaged weights in place, and the trained ones back afterwards."""
        kept = {name: tensor.detach().clone() for name, tensor in self.live.items()}
        copy_tensors(self.shadow, self.live)
        try:
            yield
        finally:
            copy_tensors(kept, self.live)


@torch.no_grad()
def copy_tensors(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Put numbers by name into the tensors of those names, which may be parts of weights."""
    for name, tensor in target.items():
        tensor.copy_(cut_like(source[name], tensor))


def trained_tensors(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Trainable parameters of all modules, named `module.parameter`."""
    return {
        f"{prefix}.{name}": parameter
        for prefix, module in modules.items()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def buffers_of(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Buffers of all modules, named `module.buffer`."""
    return {
        f"{prefix}.{name}": buffer
        for prefix, module in modules.items()
        for name, buffer in module.named_buffers()
    }
