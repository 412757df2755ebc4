"""Skips work of the UNet: neighbouring steps share results that hardly change.

Deep features are kept over some steps (DeepCache): in between, only the outer layers are computed. Cross-attention is
kept once it has settled (T-GATE). Both replace the `forward` of layers of an unchanged diffusers UNet as long as a
context lasts, so that they go together with any task, attention processor, LoRA and offloading. What is kept follows a
fixed plan of steps, never the pictures themselves: a picture does not depend on those it is drawn with.

diffusers' own hooks for this (`FirstBlockCacheConfig`, `FasterCacheConfig`) are made for transformers, and do not know
the layers of SDXL's UNet.

Source: arXiv 2312.00858 (DeepCache), arXiv 2404.02747 (T-GATE).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from photomaker.pipelines.attention.wrapping import forward_in
from photomaker.types import NO_SHORTCUTS, Sampling

ALWAYS, FRESH, KEPT = "always", "fresh", "kept"
"""What a layer does in a step: compute as ever, compute and keep the result, or give what it has kept."""


@dataclass
class Sparing:
    """Counts denoising steps by the UNet's calls, and says in each what is computed.

    Attributes:
        sampling: How the pictures are drawn, with nothing left open.
        steps: Tells the number of steps of the run, once it has begun.
        order: Calls of the UNet in a step.
    """

    sampling: Sampling
    steps: Callable[[], int]
    order: int = 1
    deep: str = field(default=ALWAYS, init=False)
    words: str = field(default=ALWAYS, init=False)
    _calls: int = field(default=0, init=False)
    _rows: int = field(default=0, init=False)
    _age: int = field(default=0, init=False)
    _settled: bool = field(default=False, init=False)

    @contextmanager
    def attached(self, unet: nn.Module) -> Iterator[None]:
        """Layers of a UNet replaced during the context; nothing, where nothing is left out."""
        if self.sampling.shortcuts == NO_SHORTCUTS:
            yield
            return
        with ExitStack() as stack:
            stack.enter_context(forward_in(unet, self._counted))
            for layer in self._deep_layers(unet):
                stack.enter_context(forward_in(layer, _Kept(lambda: self.deep, layer is self._seam).around))
            if self.sampling.shortcuts.words_after < 1:
                for layer in _cross_attentions(unet):
                    stack.enter_context(forward_in(layer, _Kept(lambda: self.words, True).around))
            yield

    def _deep_layers(self, unet: nn.Module) -> list[nn.Module]:
        self._seam: nn.Module | None = None
        if self.sampling.shortcuts.deep_every == 1:
            return []
        layers, self._seam = deep_layers(unet, self.sampling.shortcuts.outer)
        return layers

    # ---- what is computed in a step

    def begins(self) -> set[int]:
        """Steps that begin a phase, in which nothing of the phase before may be used: the person or guidance joins."""
        shares = (0.0, self.sampling.merge or 0.0, self.sampling.guidance_start, self.sampling.guidance_stop)
        return {round(share * self.steps()) for share in shares}

    def _counted(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def counted(sample: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever a UNet gives
            self._plan(self._calls, len(sample))
            self._calls += 1
            return forward(sample, *args, **kwargs)

        return counted

    def _plan(self, call: int, rows: int) -> None:
        """Decide on a call; only a step's first call begins something."""
        step, later = divmod(call, self.order)
        begins = (not later and step in self.begins()) or rows != self._rows
        self._rows = rows
        if begins:
            self._age, self._settled = 0, False
        elif not later:
            self._age += 1
        self.deep = KEPT if self._keeps_deep(step) else FRESH
        self._plan_words(step)

    def _keeps_deep(self, step: int) -> bool:
        shortcuts = self.sampling.shortcuts
        return step >= round(shortcuts.deep_after * self.steps()) and self._age % shortcuts.deep_every != 0

    def _plan_words(self, step: int) -> None:
        """Cross-attention is kept from the first step of a phase that is late enough and computes all layers."""
        if step < round(self.sampling.shortcuts.words_after * self.steps()):
            self.words = ALWAYS
        elif self._settled:
            self.words = KEPT
        else:
            self.words = FRESH
            self._settled = self.deep != KEPT


class _Kept:
    """A layer that gives its last result again when the plan says so.

    Args:
        told: What it should do now, one of `ALWAYS`, `FRESH` and `KEPT`.
        needed: Whether its result is used; of others the shape is enough, which costs no memory.
    """

    def __init__(self, told: Callable[[], str], needed: bool) -> None:
        self.told, self.needed = told, needed
        self.result: Tensor | None = None
        self.listed = False

    def around(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """The layer's own function, with what was kept in its place where that is wanted."""

        def kept(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - a tensor, or a tuple of one
            told = self.told()
            if told == KEPT and self.result is not None:
                # a copy, for whoever changes it in place
                result = self.result.clone() if self.needed else self.result
                return (result,) if self.listed else result
            given = forward(*args, **kwargs)
            if told != ALWAYS:
                self._keep(given)
            return given

        return kept

    def _keep(self, given: Any) -> None:  # noqa: ANN401
        self.listed = isinstance(given, tuple)
        result: Tensor = given[0] if self.listed else given
        self.result = result if self.needed else result.new_zeros(()).expand(result.shape)


# ---- the layers of a UNet


def deep_layers(unet: Any, outer: int) -> tuple[list[nn.Module], nn.Module]:  # noqa: ANN401 - a diffusers UNet
    """The layers that are not computed where deep features are kept.

    Args:
        unet: A UNet whose up path takes one skip connection for each layer.
        outer: How many skip connections are computed beside the outermost.

    Returns:
        The layers, and the one whose result the outer layers continue with.
    """
    down = [layers for block in unet.down_blocks for layers in _down_steps(block)]
    up = [layers for block in unet.up_blocks for layers in _up_steps(block)]
    # the convolution that comes first makes the outermost connection, the last layer of the way up takes it
    outer = min(outer, len(_taking(unet)) - 2)
    first = _taking(unet)[-1 - outer]
    until = next(place for place, layers in enumerate(up) if layers[0] is first)
    skipped = [*down[outer:], [unet.mid_block], *up[:until]]
    layers = [layer for several in skipped for layer in several]
    return layers, layers[-1]


def _down_steps(block: Any) -> list[list[nn.Module]]:  # noqa: ANN401 - any down block
    """Layers of a down block, those together that make one skip connection."""
    return _pairs(block) + [[one] for one in getattr(block, "downsamplers", None) or ()]


def _up_steps(block: Any) -> list[list[nn.Module]]:  # noqa: ANN401 - any up block
    return _pairs(block) + [[one] for one in getattr(block, "upsamplers", None) or ()]


def _pairs(block: Any) -> list[list[nn.Module]]:  # noqa: ANN401 - any block
    attentions = getattr(block, "attentions", None) or ()
    pairs: list[list[nn.Module]] = [[one] for one in block.resnets]
    for pair, attention in zip(pairs, attentions, strict=False):
        pair.append(attention)
    return pairs


def _taking(unet: Any) -> list[nn.Module]:  # noqa: ANN401 - a diffusers UNet
    """The layers of the way up that take a skip connection."""
    return [resnet for block in unet.up_blocks for resnet in block.resnets]


def _cross_attentions(unet: nn.Module) -> list[nn.Module]:
    return [layer for name, layer in unet.named_modules() if name.endswith(".attn2")]
