"""Pictures on disk: checked for before any model runs, never in the place of another file, and saying what they are."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from photomaker.errors import OutputError
from photomaker.images import save_png
from photomaker.types import Sample

_NUMBERED = re.compile(r"(\d+)\.png")


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """Make sure that files can be written to a folder, by writing one; nothing stays behind.

    Args:
        folder: It may not exist yet; then the nearest folder above it is tried, and it is made when pictures are saved.

    Raises:
        OutputError: Nothing can be written there.
    """
    folder = Path(folder)
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise OutputError(f"cannot write to {folder}: {nearest} is no folder; choose another folder")
    try:
        # A folder inside, because that is what a folder still to be made needs as well.
        with tempfile.TemporaryDirectory(dir=nearest, prefix=".photomaker-"):
            pass
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}; choose another folder") from error
    return folder


def check_file(path: str | os.PathLike[str]) -> Path:
    """Make sure that a file can be written.

    Raises:
        OutputError: There is a folder of that name, or nothing can be written beside it.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file in it")
    check_folder(path.parent)
    return path


def save_samples(
    samples: Sequence[Sample], folder: str | os.PathLike[str], about: Mapping[str, str] | None = None
) -> list[Path]:
    """Save pictures as `0001.png` and on, after the highest number in the folder; no file is ever replaced.

    Args:
        samples: What was generated.
        folder: It is made where it does not exist.
        about: Text to put into every file, for example the hash of the model.

    Returns:
        The files, in the order of the samples.

    Raises:
        OutputError: They cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number = max(
            (int(found[1]) for path in folder.iterdir() if (found := _NUMBERED.fullmatch(path.name))),
            default=0,
        )
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}; choose another folder") from error
    paths = []
    for sample in samples:
        path, number = _save_next(sample, folder, number + 1, about or {})
        paths.append(path)
    return paths


def _save_next(sample: Sample, folder: Path, number: int, about: Mapping[str, str]) -> tuple[Path, int]:
    metadata = {**about, **describe(sample)}
    while True:
        try:
            return save_png(sample.image, folder / f"{number:04d}.png", metadata, overwrite=False), number
        except FileExistsError:  # another process took this number meanwhile
            number += 1


def describe(sample: Sample) -> dict[str, str]:
    """What a picture's file says about it: prompt, settings, seed and likeness."""
    request, sampling = sample.request, sample.request.sampling
    facts = {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "seed": sampling.seed,
        "steps": sampling.steps,
        "guidance": sampling.guidance,
        "merge": sampling.merge,
        "likeness": None if sample.likeness is None else f"{sample.likeness:.3f}",
    }
    return {name: str(value) for name, value in facts.items() if value is not None}
