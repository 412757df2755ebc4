"""Whether a device computes in bfloat16, or only imitates it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch


def quick(device: str | torch.device) -> bool:
    """Whether bfloat16 pays on a device.

    Processors without instructions for it imitate it: a convolution then takes about thirty times as long as in
    float32 (measured on an AVX2 machine: 693 against 21 ms).

    Args:
        device: A torch device, or its name.
    """
    if torch.device(device).type != "cpu":
        return True
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is None or bool(supported())


@cache
def pays() -> bool:
    """Whether this processor multiplies and convolves faster in bfloat16 than in float32, timed in a moment.

    Having the instructions is not enough: some processors split them, and some builds of torch do not use them.
    """
    if not quick("cpu"):
        return False
    matrix, picture, kernel = (
        torch.randn(1024, 1024),
        torch.randn(1, 320, 32, 32),
        torch.randn(320, 320, 3, 3),
    )
    ratios = [_ratio(torch.matmul, matrix, matrix), _ratio(torch.conv2d, picture, kernel)]
    return min(ratios) >= FASTER


FASTER = 1.2
"""How many times as fast it must be."""


def _ratio(work: Callable[..., object], *given: torch.Tensor) -> float:
    """How many times as long it takes in float32."""
    half = [one.bfloat16() for one in given]
    return _best(lambda: work(*given)) / _best(lambda: work(*half))


def _best(work: Callable[[], object], tries: int = 4) -> float:
    """Seconds of the quickest of a few tries, the first of which warms up."""
    seconds = []
    for _ in range(tries):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
