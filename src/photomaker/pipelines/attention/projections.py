"""Caches keys and values of the prompt for each phase, because the text does not change between steps.

Cross-attention multiplies the prompt embeddings by the same matrices in every step. While a pipeline draws, the results
are kept as long as the very same embeddings come in; the pictures are the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from photomaker.pipelines.attention.wrapping import forward_in


def changes(tensor: Tensor) -> object:
    """Something that stays equal as long as nobody changes a tensor in place.

    Under `torch.inference_mode`, in which some programs call us, changes are not counted: then nothing is equal to it.
    """
    return object() if tensor.is_inference() else tensor._version


class _Kept:
    """A projection that remembers its last input and result."""

    def __init__(self, module: nn.Module, forward: Callable[..., Tensor]) -> None:
        self.module, self.forward = module, forward
        self.given: Tensor | None = None
        self.state: tuple[Any, ...] = ()
        self.result: Tensor | None = None

    def __call__(self, given: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if torch.is_grad_enabled() or args or kwargs:
            return self.forward(given, *args, **kwargs)
        state = (changes(given), *_lora_state(self.module))
        if self.result is None or given is not self.given or state != self.state:
            self.given, self.state, self.result = given, state, self.forward(given)
        return self.result


def _lora_state(module: nn.Module) -> tuple[Any, ...]:
    """What changes a projection's result besides its input, if somebody switches LoRA while a picture is drawn."""
    if not isinstance(module, BaseTunerLayer):
        return ()
    return (tuple(module.active_adapters), module.disable_adapters, tuple(module.scaling.values()))


@contextmanager
def kept_projections(unet: nn.Module) -> Iterator[None]:
    """Keep the keys and values of a UNet's cross-attention during the context."""
    layers = [
        layer
        for name, attention in unet.named_modules()
        if name.endswith(".attn2")
        for layer in (getattr(attention, "to_k", None), getattr(attention, "to_v", None))
        if isinstance(layer, nn.Module)
    ]
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(forward_in(layer, partial(_Kept, layer)))
        yield
