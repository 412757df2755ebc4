"""Arrays that are computed once and kept on disk, by several processes and through interruptions."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from photomaker.errors import OutputError

CHUNK = 1024
DONE = "done"


@dataclass(frozen=True)
class Share:
    """Which process this is, of how many that share the work."""

    process: int = 0
    processes: int = 1


ALONE = Share()
"""The only process."""


def computed(
    folder: Path,
    shapes: Mapping[str, tuple[int, ...]],
    compute: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    share: Share = ALONE,
    dtype: type = np.float16,
) -> dict[str, np.ndarray]:
    """Arrays from disk, computed first where an earlier call has not.

    Work is cut into chunks with one marker file each, so that a killed call continues, and so that several processes
    can share it; every process returns once all chunks of its own share are there.

    Args:
        folder: Of these arrays alone.
        shapes: Name of each array to its shape; the first side counts the rows and is the same for all.
        compute: Gives the arrays of some rows, under the same names.
        share: Which part of the work is this process's.
        dtype: Of the arrays.

    Returns:
        Read-only memory maps.

    Raises:
        OutputError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, shape in shapes.items():
            _create(folder / f"{name}.npy", shape, dtype)
        count = next(iter(shapes.values()))[0]
        starts = range(0, count, CHUNK)[share.process :: share.processes]
        left = [start for start in starts if not (folder / f"{start}.{DONE}").exists()]
        if left:
            targets = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in shapes}
            for start in tqdm(left, desc=folder.name.partition("_")[0], disable=share.process != 0):
                rows = np.arange(start, min(start + CHUNK, count))
                for name, values in compute(rows).items():
                    targets[name][rows[0] : rows[-1] + 1] = values
                    targets[name].flush()
                (folder / f"{start}.{DONE}").touch()
    except OSError as error:
        raise OutputError(
            f"cannot write {folder}: {error.strerror}; free some space or choose another folder"
        ) from error
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in shapes}


def _create(path: Path, shape: tuple[int, ...], dtype: type) -> None:
    """Make the file at its full length, once, whichever process comes first."""
    if path.exists():
        return
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=shape).flush()
        if hasattr(
            os, "posix_fallocate"
        ):  # a full disk is reported here; writing through the map would end the process
            with part.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, part.stat().st_size)
        try:
            os.link(part, path)  # a file that another process made first stays, with what it holds by now
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
