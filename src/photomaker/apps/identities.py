"""`photomaker identity`: people as small files."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from getpass import getpass
from pathlib import Path
from typing import Any, Literal

from photomaker.apps import terminal
from photomaker.errors import IdentityError, SettingsError
from photomaker.studio.engine import Engine
from photomaker.studio.engine import mix as mix_identities
from photomaker.studio.opening import PHOTOMAKER
from photomaker.studio.photos.sitting import Sitting, read_photos
from photomaker.studio.pictures.saving import check_file
from photomaker.studio.provenance import encryption
from photomaker.studio.provenance.consent import CONSENT, NOT_NOTED, consents_of, with_consent
from photomaker.studio.provenance.consent import checked as checked_consent
from photomaker.types import Identity


def make(
    photos: Sequence[Path],
    out: Path,
    method: str | None = None,
    class_word: str | None = None,
    consent: str | None = None,
    **engine_options: Any,
) -> None:
    """Make an identity from photos and save it.

    Args:
        photos: Files and folders.
        out: The file.
        method: Name of the method; None is PhotoMaker.
        class_word: See `Engine.identity`.
        consent: See `Engine.identity`.
        **engine_options: Passed to `Engine.open`.

    Raises:
        PhotoMakerError: The photos cannot be used, the file cannot be written, or the model cannot be opened.
    """
    check_file(out)
    if consent is not None:
        checked_consent(consent)
    read = read_photos(photos)
    engine = Engine.open(**engine_options, method=method or PHOTOMAKER)
    sitting = engine.choose(read)
    terminal.notes(sitting.notes)
    identity = fitted(engine, sitting, class_word)
    _save(identity if consent is None else with_consent(identity, consent), out)


def fitted(engine: Engine, sitting: Sitting, class_word: str | None) -> Identity:
    """Make the identity, with a spinner, or a progress bar if the method is tuned."""
    with terminal.waiting("loading the model"):
        tunes = engine.tunes
        if not tunes:
            return engine.identity(sitting, class_word)
    with terminal.progress("tuning", "steps") as progress:
        return engine.identity(sitting, class_word, progress)


def show(file: Path) -> None:
    """Show the content of an identity file.

    Raises:
        IdentityError: It is not an identity file.
    """
    identity = Identity.load(file)
    rows = [("method", identity.method)]
    rows += [
        (name, f"{' x '.join(map(str, tensor.shape))} {str(tensor.dtype).removeprefix('torch.')}")
        for name, tensor in identity.tensors.items()
    ]
    consents = consents_of(identity.notes)
    for place, note in enumerate(consents, 1):
        rows.append(("consent" if len(consents) == 1 else f"consent of {place}", note or NOT_NOTED))
    rows += [(name, _text(value)) for name, value in identity.notes.items() if name != CONSENT]
    terminal.table(str(file), ("what", "value"), rows)


def mix(first: Path, second: Path, out: Path, share: float, how: Literal["blend", "proportion"]) -> None:
    """Save a mix of two people.

    Raises:
        PhotoMakerError: A file cannot be read or written, the share is impossible, or the two do not fit.
    """
    check_file(out)
    _save(mix_identities(Identity.load(first), Identity.load(second), share, how), out)


def encrypt(file: Path, out: Path | None, passphrase_file: Path | None) -> None:
    """Write an identity as an encrypted file.

    Raises:
        PhotoMakerError: It is not an identity, the passphrase is too short, or the file cannot be written.
    """
    Identity.load(file)
    passphrase = _passphrase(passphrase_file, twice=True)
    with terminal.waiting("encrypting"):
        written = encryption.encrypt(file, passphrase, out)
    terminal.say(
        f"{written} is encrypted; {file} is still there: delete it after you have tested the passphrase"
    )


def decrypt(file: Path, out: Path | None, passphrase_file: Path | None) -> None:
    """Write an encrypted identity as a plain file.

    Raises:
        PhotoMakerError: It cannot be opened, or the file cannot be written.
    """
    if not file.is_file():
        raise IdentityError(f"there is no identity file {file}; check the path")
    passphrase = _passphrase(passphrase_file, twice=False)
    with terminal.waiting("decrypting"):
        written = encryption.decrypt(file, passphrase, out)
    terminal.say(f"{written} is decrypted: anyone who can read it can use it; {file} is still there")


def _passphrase(file: Path | None, twice: bool) -> str:
    """The passphrase from a file, or typed without echo."""
    if file is not None:
        return encryption.passphrase_from(file)
    if not _typed_at():
        raise SettingsError("there is no terminal to type a passphrase; give --passphrase-file")
    told = getpass("passphrase: ")
    if twice and getpass("repeat passphrase: ") != told:
        raise SettingsError("the two passphrases differ; try again")
    return told


def _typed_at() -> bool:
    return sys.stdin.isatty()


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
