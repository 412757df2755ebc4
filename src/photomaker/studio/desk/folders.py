"""The folder for the user's data."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HOME = "PHOTOMAKER_HOME"
"""Environment variable that overrides the folder."""


def data_folder() -> Path:
    r"""The user's data folder for this package; it may not exist yet.

    `$PHOTOMAKER_HOME`, otherwise the system's data folder: `$XDG_DATA_HOME/photomaker`, on Linux
    `~/.local/share/photomaker`, on macOS `~/Library/Application Support/photomaker`, on Windows
    `%LOCALAPPDATA%\photomaker`.
    """
    if told := os.environ.get(HOME):
        return Path(told)
    return _system_folder() / "photomaker"


def _system_folder() -> Path:
    if told := os.environ.get("XDG_DATA_HOME"):
        return Path(told)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    return Path.home() / ".local" / "share"
