"""Loads transformers models from a folder or the hub; every failure is reported in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from photomaker.errors import WeightsError
from photomaker.hub import model_folder

Part = TypeVar("Part")


def device() -> torch.device:
    """Where models run: on the first GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load(place: str, make: Callable[[Path], Part]) -> Part:
    """Find a model's folder and build what is in it.

    Args:
        place: A folder or a hub id.
        make: What to build from the folder.

    Raises:
        WeightsError: The folder is not there, or holds another kind of model, or a damaged one.
    """
    from transformers.utils import logging

    folder = model_folder(place)
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # workers would draw theirs over each other
    try:
        return make(folder)
    except Exception as error:  # what these libraries raise on a strange folder has no common base
        reason = str(error).strip().splitlines()[0][:150] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"the model {place} cannot be loaded ({reason}); get it again or name another"
        ) from error
    finally:
        if shown:
            logging.enable_progress_bar()


def load_model(kind: Any, folder: Path) -> Any:  # noqa: ANN401 - a class of transformers
    """A model of that class in evaluation mode, in half precision on a GPU; pickled weights are refused."""
    where = device()
    dtype = torch.bfloat16 if where.type == "cuda" else torch.float32
    model = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=dtype)
    return model.to(where).eval().requires_grad_(False)
