"""The folder of a build: one build at a time, and nothing half-written left in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from photomaker.dataset.shards import PART
from photomaker.errors import OutputError, SettingsError

MARK, RESULT, LOG, SETTINGS, LOCK = "build.json", "dataset.json", "log.jsonl", "settings.json", ".lock"
ANEW = "build the dataset anew in an empty folder"
"""What helps where a file of the folder is damaged."""


def sweep(out: Path) -> None:
    """Remove what a run that was killed has left half-written."""
    for path in out.rglob(f"*{PART}"):
        path.unlink(missing_ok=True)


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Keep other builds out of the folder, until this process ends in whatever way."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = (out / LOCK).open("w")
    except OSError as error:
        raise OutputError(f"cannot write to {out}: {error.strerror}; choose another folder") from error
    with file:
        try:
            _lock(file.fileno())
        except OSError as error:
            raise SettingsError(
                f"another build is running in {out}; wait for it or choose another folder"
            ) from error
        yield


def is_foreign(path: Path) -> bool:
    """Whether a file was left by nobody who was about to build."""
    return path.name != LOCK and path.suffix != PART


def _lock(file: int) -> None:
    if os.name == "posix":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
