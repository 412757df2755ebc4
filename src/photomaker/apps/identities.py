"""`photomaker identity`: people as small files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from photomaker.apps import terminal
from photomaker.studio.engine import Engine
from photomaker.studio.engine import mix as mix_identities
from photomaker.studio.opening import PHOTOMAKER
from photomaker.studio.photos import Sitting, read_photos
from photomaker.studio.saving import check_file
from photomaker.types import Identity


def make(
    photos: Sequence[Path],
    out: Path,
    method: str | None = None,
    class_word: str | None = None,
    **engine_options: Any,
) -> None:
    """Make an identity of photos and save it.

    Args:
        photos: Files and folders.
        out: The file.
        method: Name of the method; None is PhotoMaker.
        class_word: See `Engine.identity`.
        **engine_options: Passed to `Engine.open`.

    Raises:
        PhotoMakerError: The photos cannot be used, the file cannot be written, or the model cannot be opened.
    """
    check_file(out)
    read = read_photos(photos)
    engine = Engine.open(**engine_options, method=method or PHOTOMAKER)
    sitting = engine.choose(read)
    terminal.notes(sitting.notes)
    _save(fitted(engine, sitting, class_word), out)


def fitted(engine: Engine, sitting: Sitting, class_word: str | None) -> Identity:
    """The identity of a sitting, with a sign of life, or a bar where a method is tuned."""
    with terminal.waiting("loading the model"):
        tunes = engine.tunes
        if not tunes:
            return engine.identity(sitting, class_word)
    with terminal.progress("tuning", "steps") as progress:
        return engine.identity(sitting, class_word, progress)


def show(file: Path) -> None:
    """Say what an identity file holds.

    Raises:
        IdentityError: It is no identity file.
    """
    identity = Identity.load(file)
    rows = [("method", identity.method)]
    rows += [
        (name, f"{' x '.join(map(str, tensor.shape))} {str(tensor.dtype).removeprefix('torch.')}")
        for name, tensor in identity.tensors.items()
    ]
    rows += [(name, _text(value)) for name, value in identity.notes.items()]
    terminal.table(str(file), ("what", "value"), rows)


def mix(first: Path, second: Path, out: Path, share: float, how: Literal["blend", "proportion"]) -> None:
    """Save a person between two.

    Raises:
        PhotoMakerError: A file cannot be read or written, the share is impossible, or the two do not fit.
    """
    check_file(out)
    _save(mix_identities(Identity.load(first), Identity.load(second), share, how), out)


def _save(identity: Identity, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    identity.save(out)
    terminal.say(f"{out}: {identity.method}, {out.stat().st_size / 1000:.0f} kB")


def _text(value: object) -> str:
    return (
        value
        if isinstance(value, str)
        else json.dumps(value if not isinstance(value, Mapping) else dict(value))
    )
