"""Opening a stock SDXL pipeline, and where its parts stay."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from photomaker.errors import SettingsError, WeightsError
from photomaker.hub import base_folder, variant_of
from photomaker.outside import read_file
from photomaker.pipelines.drawing.memory import MemoryPlan, apply_memory, plan_memory
from photomaker.weights import bundled


def open_pipeline(
    kind: Any,  # noqa: ANN401 - a diffusers pipeline class
    base: str | os.PathLike[str] | None,
    dtype: torch.dtype,
    variant: str | None = None,
) -> Any:  # noqa: ANN401 - of that class
    """Load a base model into a pipeline.

    Args:
        kind: The pipeline's class.
        base: Diffusers folder or hub id of an SDXL model; None is the bundled small one.
        dtype: Precision of all models.
        variant: Which form of the weights to load, such as `fp16`; None is the plain one, or the only one.

    Raises:
        WeightsError: It is missing, altered or damaged.
    """
    path = bundled("base") if base is None else base_folder(base, variant)
    try:
        with quietly():
            pipeline = kind.from_pretrained(
                path, dtype=dtype, add_watermarker=False, variant=variant_of(path, variant)
            )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise WeightsError(
            f"the base model {path} cannot be loaded ({reason}); give a diffusers SDXL folder"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def unet_config(base: str | os.PathLike[str] | None, variant: str | None = None) -> dict[str, Any]:
    """The configuration of a base's UNet, read before any weights are.

    Args:
        base: Diffusers folder or hub id of an SDXL model; None is the bundled small one.
        variant: Which form of the weights is meant, such as `fp16`.

    Raises:
        WeightsError: It is missing or damaged.
    """
    folder = bundled("base") if base is None else base_folder(base, variant)
    return read_file(folder / "unet" / "config.json", "fetch the base again", WeightsError)


def place_pipeline(
    pipeline: Any,  # noqa: ANN401 - any SDXL pipeline
    device: str | torch.device | None,
    memory: str,
    whole: bool = False,
) -> MemoryPlan:
    """Put a pipeline where it should draw.

    Args:
        pipeline: A loaded pipeline.
        device: Where to compute; None is CUDA if available, else the CPU.
        memory: See `photomaker.pipelines.drawing.memory`.
        whole: Whether the UNet must stay in one piece, because something is put into it.

    Raises:
        SettingsError: `memory` is not a known plan, or cuts up a UNet that must stay whole.
    """
    plan = plan_memory(pipeline, str(device or ("cuda" if torch.cuda.is_available() else "cpu")), memory)
    if whole and plan.offload == "sequential":
        raise SettingsError(
            f"memory is {memory}, with the plan {plan.line()}, which this method cannot follow; choose balanced"
        )
    apply_memory(pipeline, plan)
    return plan


@contextmanager
def quietly() -> Iterator[None]:
    """No bars and no remarks of the libraries while weights are loaded."""
    level = diffusers_logging.get_verbosity()
    shown = [
        library for library in (diffusers_logging, transformers_logging) if library.is_progress_bar_enabled()
    ]
    diffusers_logging.set_verbosity_error()
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(level)
        for library in shown:
            library.enable_progress_bar()
