"""Watching a picture come: told after every denoising step of any stock pipeline, and a way to stop it there.

The scheduler's `step` is the one place that every diffusers pipeline passes once a step, whatever its task; the stock
callbacks differ from task to task and some have none.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from photomaker.pipelines.steps.merging import steps_of


@dataclass(frozen=True, eq=False)
class Step:
    """A denoising step that was done.

    Attributes:
        number: Of the step, from 1.
        steps: In all.
        clean: Latents of the pictures as the model sees them now without noise, [rows, channels, height, width].
        pipeline: What draws them, for `photomaker.pipelines.steps.previews`.
    """

    number: int
    steps: int
    clean: Tensor
    pipeline: Any


Watch = Callable[[Step], None]
"""Called with every step; what it raises ends the drawing, and every change of the model is undone."""


@contextmanager
def watched(pipeline: Any, watch: Watch | None) -> Iterator[None]:  # noqa: ANN401 - any stock pipeline
    """Have somebody told of every step of a pipeline during the context.

    Args:
        pipeline: A diffusers pipeline.
        watch: Called with every step; may be None.
    """
    if watch is None:
        yield
        return
    scheduler = pipeline.scheduler
    stock, calls = scheduler.step, 0

    @functools.wraps(stock)
    def step(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        nonlocal calls
        result = stock(model_output, timestep, sample, *args, **kwargs)
        calls += 1
        number, steps = -(-calls // scheduler.order), steps_of(pipeline)
        if calls % scheduler.order == 0 or number == steps:
            watch(Step(number, steps, clean_latents(scheduler, model_output, timestep, sample), pipeline))
        return result

    with step_in(scheduler, step):
        yield


@contextmanager
def step_in(scheduler: Any, step: Callable[..., Any]) -> Iterator[None]:  # noqa: ANN401 - any diffusers scheduler
    """Have another function in place of a scheduler's `step` during the context; they may be nested."""
    before = vars(scheduler).get("step")
    scheduler.step = step
    try:
        yield
    finally:
        if before is None:
            del scheduler.step
        else:
            scheduler.step = before


def clean_latents(scheduler: Any, output: Tensor, timestep: Any, sample: Tensor) -> Tensor:  # noqa: ANN401
    """What the model takes for the picture without noise.

    Args:
        scheduler: A diffusers scheduler in the middle of a run.
        output: What the model gave [rows, channels, height, width].
        timestep: Of the step.
        sample: The noisy latents that went in, of the same shape.

    Returns:
        Latents of the same shape; the noisy ones as they are, where the scheduler's noise is of an unknown kind.

    Source: arXiv 2006.11239, equation 15, for noise; arXiv 2202.00512, appendix D, for v; arXiv 2206.00364, table 1,
    for EDM.
    """
    if hasattr(scheduler, "precondition_outputs"):
        sigma = scheduler.sigmas[scheduler.step_index - 1].to(sample.device)
        return scheduler.precondition_outputs(sample, output, sigma).detach()  # type: ignore[no-any-return]
    if not hasattr(scheduler, "alphas_cumprod"):
        return sample.detach()
    place = min(max(round(float(timestep)), 0), len(scheduler.alphas_cumprod) - 1)
    # rescaled to zero terminal SNR, the last signal is 0: nothing is known of the picture yet
    kept = float(scheduler.alphas_cumprod[place].clamp(min=1e-6))
    signal, noise = kept**0.5, (1 - kept) ** 0.5
    # schedulers after Karras et al. hold the picture unscaled beside growing noise, and start from more than 1 of it
    if float(scheduler.init_noise_sigma) > 1:
        sample = sample * signal
    kind = str(scheduler.config.prediction_type)
    if kind == "sample":
        return output.detach()
    if kind == "v_prediction":
        return (signal * sample - noise * output).detach()
    return ((sample - noise * output) / signal).detach()
