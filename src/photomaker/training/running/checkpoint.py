"""Checkpoints of a training: written whole, read as data alone, kept as long as they are wanted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from photomaker.errors import OutputError, WeightsError
from photomaker.training.running.average import copy_tensors
from photomaker.training.running.recipe import Recipe

BEST = "best.pt"
CHECKPOINT_FORMAT = "photomaker-training-1"


def checkpoints(out: Path) -> list[Path]:
    """Finished checkpoints under `out`, oldest first."""
    return sorted((out / "checkpoints").glob("step_*.pt"))


def save_checkpoint(state: dict[str, Any], out: Path, keep: int) -> Path:
    """Write a checkpoint whole or not at all, and delete the oldest beyond `keep`.

    Raises:
        OutputError: It cannot be written; what there was stays.
    """
    folder = out / "checkpoints"
    path = folder / f"step_{state['step']:08d}.pt"
    part = path.with_suffix(".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:  # torch raises the latter for a write that was cut short
        part.unlink(missing_ok=True)
        raise OutputError(no_room(path, error)) from error
    for old in checkpoints(out)[:-keep]:
        old.unlink()
    return path


def no_room(path: Path, error: BaseException) -> str:
    """What to say where a file cannot be written."""
    reason = getattr(error, "strerror", None) or "the file could not be written whole"
    return (
        f"cannot write {path}: {reason}; make room and give the same command again, which continues from the last "
        "checkpoint"
    )


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, as data alone.

    Raises:
        WeightsError: It is damaged, or none of this trainer's.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        message = (
            f"{path} is not a training checkpoint or is damaged; delete it to continue from an older one"
        )
        raise WeightsError(message) from error
    if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
        raise WeightsError(f"{path} is not a checkpoint of this trainer; delete it or choose another folder")
    return state


def restore_tensors(target: Mapping[str, Tensor], source: Mapping[str, Tensor], path: Path) -> None:
    """Put the tensors of a checkpoint in their places.

    Raises:
        WeightsError: They are of other names or shapes; `path` is named.
    """
    if target.keys() != source.keys() or any(target[k].shape != source[k].shape for k in target):
        raise WeightsError(
            f"{path} belongs to a model of a different size; choose another folder or the same sizes"
        )
    copy_tensors(source, target)


def take_over(recipe: Recipe, folder: Path) -> Path:
    """Start from what an earlier training ended with: its averaged weights, where it has any.

    The newest checkpoint is taken. What the recipe trains besides, such as discriminators, stays as it is, and what was
    trained then need not be trained now.

    Args:
        recipe: What will be trained.
        folder: Of the earlier training, of the same recipe and sizes.

    Returns:
        The checkpoint.

    Raises:
        WeightsError: There is no checkpoint, or it is damaged or of something else.
    """
    found = checkpoints(folder)
    if not found:
        raise WeightsError(f"{folder} has no training checkpoint; give the folder of a training")
    state = load_checkpoint(found[-1])
    weights = state["average"] or state["weights"]
    own = {
        f"{prefix}.{name}": one
        for prefix, module in recipe.modules().items()
        for name, one in module.named_parameters()
    }
    if not weights.keys() <= own.keys():
        raise WeightsError(
            f"{found[-1]} was trained for {state['recipe']}, not for {recipe.name}; give one of the same method"
        )
    restore_tensors({name: own[name] for name in weights}, weights, found[-1])
    return found[-1]


def keep_best(saved: Path) -> None:
    """Give a checkpoint its second name, which outlives it."""
    part = saved.with_name("best.part")
    part.unlink(missing_ok=True)
    try:
        part.hardlink_to(saved)
    except OSError:  # a file system without hard links
        shutil.copyfile(saved, part)
    part.replace(saved.with_name(BEST))
