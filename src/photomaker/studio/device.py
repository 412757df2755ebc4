"""The choice of device and precision, with the reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from photomaker.errors import SettingsError

if TYPE_CHECKING:
    import torch

ROOM = 0.6
"""Largest share of a machine's memory for a model's weights."""
LARGE = 2**30
"""Bytes of weights from which a CPU uses the faster precision; smaller models always give the same pictures."""
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True)
class Place:
    """Where a model runs.

    Attributes:
        device: A torch device, for example `cpu` or `cuda:0`.
        dtype: `fp32`, `bf16` or `fp16`.
        reason: The reason, in a few words.
    """

    device: str
    dtype: str
    reason: str

    @property
    def torch_dtype(self) -> torch.dtype:
        """The precision as a torch dtype."""
        import torch

        return getattr(torch, DTYPES[self.dtype])


def choose(device: str = "auto", dtype: str = "auto", memory: str = "auto", weights: int = 0) -> Place:
    """Choose device and precision: a GPU if there is one, bf16 if supported, else fp16.

    A CPU works in fp32, or in bf16 if memory should be saved or fp32 weights would fill it, or if a large model is
    timed to be faster with the processor's bf16 instructions.

    Args:
        device: `auto` or a torch device.
        dtype: `auto`, `fp32`, `bf16` or `fp16`.
        memory: A memory plan, see `photomaker.pipelines.drawing.memory`.
        weights: Bytes of the model's files, assumed to be half precision; 0 if unknown.

    Raises:
        SettingsError: The device is unknown or absent, or the precision is unknown.
    """
    import torch

    from photomaker import bfloat16

    if dtype != "auto" and dtype not in DTYPES:
        raise SettingsError(f"dtype is {dtype!r}; choose auto, {', '.join(DTYPES)}")
    name, why = (_best(), "the best device found") if device == "auto" else (device, "as asked")
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise SettingsError(
            f"device is {device!r}, which torch does not know; choose auto, cpu or cuda"
        ) from error
    _must_be_there(name, kind)
    if dtype != "auto":
        return Place(name, dtype, f"{why}, precision as asked")
    if kind == "cpu" and (memory in ("balanced", "lowest") or 2 * weights > ROOM * _installed()):
        return Place(name, "bf16", f"{why}, bf16 to save memory")
    if kind == "cpu" and weights >= LARGE and bfloat16.pays():
        return Place(name, "bf16", f"{why}, bf16 is faster on this processor")
    return Place(name, _precision(kind), why)


def _installed() -> float:
    """Bytes of memory of this machine; infinite if unknown."""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")
    return float("inf")


def _best() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _must_be_there(name: str, kind: str) -> None:
    import torch

    there: dict[str, Callable[[], bool]] = {
        "cpu": lambda: True,
        "cuda": lambda: (torch.device(name).index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available,
    }
    if kind not in there or not there[kind]():
        raise SettingsError(f"device is {name!r}, which this machine does not have; choose auto or cpu")


def _precision(kind: str) -> str:
    import torch

    if kind == "cuda":
        # V100 and older emulate bf16, many times slower than fp16
        return "bf16" if torch.cuda.get_device_capability()[0] >= 8 else "fp16"  # noqa: PLR2004 - Ampere
    return "fp16" if kind == "mps" else "fp32"
