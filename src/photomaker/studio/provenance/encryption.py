"""Identities encrypted with a passphrase, as age files (age-encryption.org), which other programs can open."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from photomaker.errors import IdentityError, SettingsError
from photomaker.files import atomic
from photomaker.outside import ENCRYPTED
from photomaker.types import Identity

SUFFIX = ".age"
LARGEST = 2**32
"""Most bytes of an identity; more than a tuned full-size model in half precision."""
LEAST = 8
"""Fewest characters of a passphrase."""


def passphrase_from(path: str | os.PathLike[str]) -> str:
    """The passphrase from the first line of a file.

    Raises:
        SettingsError: The file cannot be read or its first line is empty.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            line = file.readline(4096).rstrip("\r\n")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise SettingsError(
            f"cannot read the passphrase file {path}: {reason}; give a text file with the passphrase in its first line"
        ) from error
    if not line:
        raise SettingsError(
            f"the first line of the passphrase file {path} is empty; write the passphrase into it"
        )
    return line


def encrypt(path: str | os.PathLike[str], passphrase: str, out: str | os.PathLike[str] | None = None) -> Path:
    """Write an identity as an encrypted file and keep the plain one.

    Args:
        path: An identity file.
        passphrase: Eight characters or more.
        out: The file; None adds `.age` to the name.

    Raises:
        IdentityError: It is not an identity, or already encrypted.
        SettingsError: The passphrase is too short, the library is not installed, or the file exists.
    """
    place = Path(path)
    target = _free(place.with_name(place.name + SUFFIX) if out is None else Path(out))
    Identity.load(place)
    if len(passphrase) < LEAST:
        raise SettingsError(
            f"the passphrase has {len(passphrase)} characters, which is easy to guess; give {LEAST} or more"
        )
    age = _library()
    return _written(target, age.passphrase.encrypt(_read(place), passphrase))


def decrypt(path: str | os.PathLike[str], passphrase: str, out: str | os.PathLike[str] | None = None) -> Path:
    """Write an encrypted identity as a plain file and keep the encrypted one.

    Args:
        path: A file that `encrypt` wrote.
        passphrase: Its passphrase.
        out: The file; None removes `.age` from the name.

    Raises:
        IdentityError: It is not an encrypted identity, is damaged, or the passphrase is wrong.
        SettingsError: The library is not installed, or the file exists.
    """
    place = Path(path)
    if out is None and place.suffix != SUFFIX:
        raise SettingsError(f"{place} does not end in {SUFFIX}; name the plain file with --out")
    target = _free(place.with_suffix("") if out is None else Path(out))
    data = _read(place)
    if not data.startswith(ENCRYPTED):
        raise IdentityError(f"{place} is not an encrypted identity; give one that `identity encrypt` wrote")
    age = _library()
    try:
        plain = age.passphrase.decrypt(data, passphrase)
    except age.DecryptError as error:
        # the library has one exception for all errors; this is its message for a wrong passphrase
        if str(error) == "Decryption failed":
            raise IdentityError(f"the passphrase does not open {place}; try again") from error
        if "keys" in str(error):
            raise IdentityError(
                f"{place} is encrypted with a key, not with a passphrase; open it with age"
            ) from error
        raise IdentityError(f"{place} is damaged and cannot be opened; use a backup") from error
    return _written(target, plain)


def _library():  # type: ignore[no-untyped-def]  # noqa: ANN202 - a module
    if find_spec("pyrage") is None:
        raise SettingsError(
            "encrypting identities needs pyrage; install it with: pip install 'photomaker[provenance]'"
        )
    import pyrage  # type: ignore[import-untyped]

    return pyrage


def _free(target: Path) -> Path:
    if target.exists():
        raise SettingsError(f"the file {target} exists already and is never replaced; give another --out")
    return target


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise IdentityError(f"there is no identity file {path}; check the path")
    try:
        if path.stat().st_size > LARGEST:
            raise IdentityError(
                f"{path} is larger than {LARGEST >> 30} GiB and cannot be an identity; check the path"
            )
        return path.read_bytes()
    except OSError as error:
        raise IdentityError(f"cannot read {path}: {error.strerror}; check its permissions") from error


def _written(target: Path, data: bytes) -> Path:
    try:
        with atomic(target, overwrite=False, private=True) as file:
            file.write(data)
    except FileExistsError as error:
        raise SettingsError(
            f"the file {target} exists already and is never replaced; give another --out"
        ) from error
    except OSError as error:
        raise IdentityError(f"cannot write {target}: {error.strerror}; choose another place") from error
    return target
