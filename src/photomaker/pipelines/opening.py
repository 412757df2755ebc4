"""Loading a base model with one clear sentence where it cannot be loaded, and without the libraries' remarks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from photomaker.errors import WeightsError
from photomaker.hub import base_folder, variant_of
from photomaker.weights import bundled

Kind = TypeVar("Kind", bound=StableDiffusionXLPipeline)


def open_base(
    kind: type[Kind],
    base: str | os.PathLike[str] | None = None,
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
) -> Kind:
    """Load a base model as a pipeline without progress bars, on the CPU.

    Args:
        kind: An SDXL pipeline class.
        base: Diffusers folder or hub id of an SDXL model; None is the bundled small one.
        dtype: Precision of all models.
        variant: Which form of the weights to load, such as `fp16`; None is the plain one, or the only one.

    Raises:
        WeightsError: It is no SDXL model, or a file is missing, altered or damaged.
    """
    place = bundled("base") if base is None else base_folder(base, variant)
    try:
        with quietly():
            pipeline = kind.from_pretrained(
                place, dtype=dtype, add_watermarker=False, variant=variant_of(place, variant)
            )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise WeightsError(
            f"the base model {place} cannot be loaded ({reason}); give a diffusers SDXL folder"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@contextmanager
def quietly() -> Iterator[None]:
    """No bars, and no remark that the small autoencoder is no AutoencoderKL, while something is loaded."""
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
