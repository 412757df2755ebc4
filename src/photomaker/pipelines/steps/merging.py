"""Delayed merging: the identity enters an unchanged diffusers pipeline through hooks, from one denoising step on.

No denoising loop is copied. The pipeline is given the text-only prompt; from the merge step on, a forward pre-hook on
its UNet puts the stacked ID embedding (tokens and pooled) in the conditional rows. A ControlNet beside it gets the
merged pooled embedding but keeps the text-only tokens, as in the official ControlNet pipeline.

Source: arXiv 2312.04461, section 3.2 (merging) and appendix B (delayed conditioning, after FastComposer).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from photomaker.pipelines.attention.projections import changes


@dataclass(frozen=True)
class Conditioning:
    """The conditional rows after merging.

    Attributes:
        embeds: Stacked ID embeddings [rows, length, D].
        pooled: Pooled embeddings of the expanded prompts [rows, P].
        active: Bool [rows]; rows without an identity keep the text-only prompt bit for bit.
        subjects: Whose token is where, where a picture shows several people.
    """

    embeds: Tensor
    pooled: Tensor
    active: Tensor
    subjects: Subjects | None = None

    def repeated(self, count: int) -> Conditioning:
        """Each row `count` times in place, the order in which diffusers draws several pictures of a prompt."""
        embeds, pooled, active = (
            part.repeat_interleave(count, dim=0) for part in (self.embeds, self.pooled, self.active)
        )
        subjects = None if self.subjects is None else self.subjects.repeated(count)
        return Conditioning(embeds, pooled, active, subjects)


@dataclass(frozen=True)
class Subjects:
    """Whose token is where, for pictures of several people.

    Attributes:
        merged: Bool [rows, people, length], in the sequence after merging.
        plain: The same in the text-only prompt, where each class word stands once.
    """

    merged: Tensor
    plain: Tensor

    def repeated(self, count: int) -> Subjects:
        """Each row `count` times in place."""
        return Subjects(*(part.repeat_interleave(count, dim=0) for part in (self.merged, self.plain)))


def steps_of(pipeline: Any) -> int:  # noqa: ANN401 - any stock pipeline
    """Denoising steps of the call that runs; image to image runs fewer than it was asked for."""
    timesteps = getattr(pipeline, "_num_timesteps", 0) or len(pipeline.scheduler.timesteps)
    return int(-(-timesteps // pipeline.scheduler.order))


class DelayedMerging:
    """Counts denoising steps by the UNet's calls and swaps the conditioning from the merge step on.

    Args:
        conditioning: The rows to put in; None leaves the prompt as it is, for methods that work in the attention alone.
        start_merge_step: The identity takes part in denoising steps of a larger index, counted from 0: -1 merges from
            the start, 0 leaves one step text-only (as the official code does). A function is asked for it when the
            first step begins.
        calls_per_step: Calls of the UNet in a denoising step: the scheduler's order.
        switch: Told before every call of the UNet whether the identity takes part in it, for what else is switched on.
    """

    def __init__(
        self,
        conditioning: Conditioning | None,
        start_merge_step: int | Callable[[], int],
        calls_per_step: int = 1,
        switch: Callable[[bool], None] | None = None,
    ) -> None:
        """Start before the first step."""
        self.conditioning = conditioning
        self.start_merge_step = start_merge_step
        self.calls_per_step = calls_per_step
        self.switch = switch
        self.calls = 0
        self.merged_steps = 0
        self._swapped: tuple[Tensor, object, Tensor] | None = None

    @property
    def merging(self) -> bool:
        """Whether the denoising step that the next UNet call belongs to is past the merge step."""
        if not isinstance(self.start_merge_step, int):
            self.start_merge_step = self.start_merge_step()
        return self.calls // self.calls_per_step > self.start_merge_step

    @property
    def steps(self) -> int:
        """Denoising steps begun."""
        return -(-self.calls // self.calls_per_step)

    @contextmanager
    def attached(self, unet: nn.Module, controlnet: nn.Module | None = None) -> Iterator[DelayedMerging]:
        """Hooks on the models during the context, also when it ends in an error."""
        with ExitStack() as stack:
            stack.callback(unet.register_forward_pre_hook(self._before_unet, with_kwargs=True).remove)
            if controlnet is not None:
                stack.callback(
                    controlnet.register_forward_pre_hook(self._before_controlnet, with_kwargs=True).remove
                )
            yield self

    def _before_unet(
        self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        merging = self.merging
        self.calls += 1
        if self.switch is not None:
            self.switch(merging)
        if not merging:
            return None
        self.merged_steps += 1
        if self.conditioning is None:
            return None
        tokens = self._tokens(kwargs["encoder_hidden_states"])
        return args, self._with_pooled(kwargs) | {"encoder_hidden_states": tokens}

    def _tokens(self, given: Tensor) -> Tensor:
        """The merged tokens, as one and the same tensor while the given ones stay, so that work on them can be kept."""
        assert self.conditioning is not None
        version = changes(given)
        if self._swapped is None or self._swapped[0] is not given or self._swapped[1] != version:
            self._swapped = given, version, self._swap(given, self.conditioning.embeds)
        return self._swapped[2]

    def _before_controlnet(
        self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        # runs before the UNet's call of the same step, so the count is right
        return (args, self._with_pooled(kwargs)) if self.merging and self.conditioning else None

    def _with_pooled(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        assert self.conditioning is not None
        added = dict(kwargs["added_cond_kwargs"])
        added["text_embeds"] = self._swap(added["text_embeds"], self.conditioning.pooled)
        return kwargs | {"added_cond_kwargs": added}

    def _swap(self, given: Tensor, merged: Tensor) -> Tensor:
        """Put the merged rows in the last rows of `given`; with guidance the rows before are the negative prompt."""
        assert self.conditioning is not None
        rows = merged.shape[0]
        assert given.shape[0] >= rows, f"{given.shape[0]} rows of conditioning for {rows} merged ones"
        conditional = given[-rows:]
        active = self.conditioning.active.to(given.device).view(-1, *[1] * (given.dim() - 1))
        swapped = torch.where(active, merged.to(conditional), conditional)
        return torch.cat([given[:-rows], swapped], dim=0)
