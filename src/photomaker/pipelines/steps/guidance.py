"""Guidance in a part of the steps: in the others, the UNet skips the negative rows.

A hook on the UNet of an unchanged pipeline leaves the negative half of the batch out and gives the conditional half's
prediction twice, so that the pipeline's own guidance changes nothing: uncond + scale * (cond - uncond) is cond.

Source: arXiv 2404.07724 (guidance in an interval).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from photomaker.pipelines.attention.projections import changes


@dataclass
class GuidanceInterval:
    """Counts denoising steps by the UNet's calls and halves the batch outside an interval.

    Attributes:
        start: Share of the steps, 0..1, after which guidance begins.
        stop: Share after which it ends.
        steps: Tells the number of steps of the run, once it has begun.
        order: Calls of the UNet in a step.
    """

    start: float
    stop: float
    steps: Callable[[], int]
    order: int = 1
    _calls: int = 0
    _halved: bool = False
    _kept: tuple[Tensor, object, Tensor] | None = None

    @contextmanager
    def attached(self, unet: nn.Module) -> Iterator[None]:
        """Hooks on a UNet during the context; nothing, where guidance works in all steps."""
        if self.start <= 0 and self.stop >= 1:
            yield
            return
        before = unet.register_forward_pre_hook(self._before, with_kwargs=True)
        after = unet.register_forward_hook(self._after)
        try:
            yield
        finally:
            before.remove()
            after.remove()
            self._kept = None

    def guides(self, step: int) -> bool:
        """Whether guidance works in a step, counted from 0."""
        steps = self.steps()
        return round(self.start * steps) <= step < round(self.stop * steps)

    def _before(
        self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        self._halved = not self.guides(self._calls // self.order)
        self._calls += 1
        if not self._halved:
            return None
        rows = args[0].shape[0]
        words = {"encoder_hidden_states": self._words(kwargs["encoder_hidden_states"])}
        rest = {name: value for name, value in kwargs.items() if name not in words}
        return _half(args, rows), _half(rest, rows) | words

    def _after(self, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:  # noqa: ANN401
        if not self._halved:
            return None
        if isinstance(output, tuple):
            return (torch.cat([output[0]] * 2), *output[1:])
        return type(output)(sample=torch.cat([output.sample] * 2))

    def _words(self, given: Tensor) -> Tensor:
        """As one and the same tensor while the given one stays, so that work on it can be kept."""
        version = changes(given)
        if self._kept is None or self._kept[0] is not given or self._kept[1] != version:
            self._kept = given, version, given[given.shape[0] // 2 :]
        return self._kept[2]


def _half(value: Any, rows: int) -> Any:  # noqa: ANN401 - whatever a UNet is called with
    """The same with the conditional rows alone, however deep the tensors lie."""
    if isinstance(value, Tensor):
        return value[rows // 2 :] if value.dim() and value.shape[0] == rows else value
    if isinstance(value, dict):
        return {name: _half(one, rows) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_half(one, rows) for one in value)
    return value
