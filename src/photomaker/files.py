"""Files written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic(path: Path, overwrite: bool = True, private: bool = False) -> Iterator[IO[bytes]]:
    """Write a file under a temporary name in the same folder and its own once it is whole on the disk.

    Args:
        path: Where the file should be.
        overwrite: Whether an existing file may be replaced.
        private: Whether nobody but the user may read it, from its first byte on.

    Yields:
        The open file.

    Raises:
        FileExistsError: `overwrite` is false and the file exists.
        OSError: The folder is missing, not writable, or full.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(part, "xb", opener=_private if private else None) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # a power cut may else leave the name without the bytes
        if overwrite:
            part.replace(path)
        else:
            _rename_new(part, path)
    finally:
        part.unlink(missing_ok=True)
    keep_names(path.parent)


def keep_names(folder: Path) -> None:
    """Have the names of a folder's files outlive a power cut, where the system can."""
    try:
        opened = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(opened)
    except OSError:  # nor do all file systems
        pass
    finally:
        os.close(opened)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _rename_new(part: Path, path: Path) -> None:
    """Rename without ever replacing a file, not even one that another process makes at this moment."""
    try:
        path.hardlink_to(part)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(str(path)) from None
        part.replace(path)
