"""`photomaker provenance`: how pictures were made, according to their metadata, and whether it is valid."""

from __future__ import annotations

import json
from pathlib import Path

from photomaker.apps import terminal
from photomaker.studio.provenance.inspection import Inspected, State, inspect

STATUS = {State.KNOWN: 0, State.ALTERED: 1, State.UNSIGNED: 3, State.UNKNOWN: 4}
"""Exit codes; 2 is a file that cannot be read."""


def show(file: Path, as_json: bool, trust: Path | None, original: Path | None) -> int:
    """Print what a picture's file proves.

    Args:
        file: The picture.
        as_json: Whether to print JSON.
        trust: Certificates that are trusted.
        original: A signed picture to compare with.

    Returns:
        The exit code.

    Raises:
        PhotoMakerError: A file cannot be read.
    """
    found = inspect(file, trust, original)
    if as_json:
        terminal.say(json.dumps(found.as_json(), indent=2))
    else:
        _say(found)
    return STATUS[found.state]


def _say(found: Inspected) -> None:
    terminal.say(f"{found.name}: {found.sentence}")
    mark = [] if found.mark is None else [("IPTC mark", found.mark.rpartition("/")[2])]
    if found.manifest:
        terminal.table("Signed manifest", ("what", "says"), found.manifest.items())
    if mark or found.text:
        terminal.table("Unsigned text", ("what", "says"), [*mark, *found.text.items()])
