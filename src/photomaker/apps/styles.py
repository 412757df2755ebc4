"""`photomaker styles`: lists the values of `--style`."""

from __future__ import annotations

from pathlib import Path

from photomaker.apps import terminal
from photomaker.studio.orders.styles import NONE, styles


def run(more: Path | None = None) -> None:
    """List the styles.

    Args:
        more: A file with the user's own styles.

    Raises:
        SettingsError: The file cannot be read.
    """
    rows = [
        (one.name, one.preset.prompt, "yes" if one.preset.bundled is not None else "")
        for one in styles(more).values()
    ]
    rows.append((NONE, "the prompt as it is", "yes"))
    terminal.table("Styles", ("name", "resulting prompt", "bundled model"), rows)
