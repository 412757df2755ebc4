"""`photomaker photos` and `photomaker identity`: from photos to saved people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from photomaker.apps.options import (
    FaceBackend,
    Faces,
    IdentityFile,
    MethodName,
    Mixing,
    Model,
    More,
    PassphraseFile,
    Photos,
    Without,
    composed,
)


def photos_check(
    places: Annotated[
        list[Path], typer.Argument(help="Folders and photos of one person.", metavar="PHOTO...")
    ],
    faces: Faces = FaceBackend.AUTO,
    json: Annotated[Path | None, typer.Option(help="JSON file to write the report to.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="PNG to write: the photos with their verdicts.")] = None,
) -> None:
    """Say which photos to keep, which to drop, why, and what to do about it."""
    from photomaker.apps.photos import check

    check(places, faces.value, json, sheet)


@composed
def identity_make(
    out: Annotated[Path, typer.Option(help="File to write, for example ada.safetensors.")],
    photos: Photos = None,
    more: More = None,
    method: MethodName = None,
    class_word: Annotated[
        str | None,
        typer.Option(help="Class word that a tuned method trains the person with, such as woman."),
    ] = None,
    consent: Annotated[
        str | None,
        typer.Option(help="Who agreed, when, and to what; kept in the identity and in every picture."),
    ] = None,
    *,
    model: Annotated[Model, Without(("memory",))],
) -> None:
    """Make an identity from photos and save it; use it instead of the photos from then on."""
    from photomaker.apps.identities import make

    engine = model.settings()
    del engine["memory"]  # one person is read with any plan
    make([*(photos or ()), *(more or ())], out, method, class_word, consent, **engine)


def identity_show(file: IdentityFile) -> None:
    """Show what an identity file holds."""
    from photomaker.apps.identities import show

    show(file)


def identity_mix(
    first: Annotated[Path, typer.Argument(help="First identity; share 0 gives it unchanged.")],
    second: Annotated[Path, typer.Argument(help="Second identity; share 1 gives it unchanged.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    share: Annotated[float, typer.Option(help="Share of the second person, 0 to 1.")] = 0.5,
    how: Annotated[
        Mixing,
        typer.Option(help="blend interpolates the features; proportion takes photos of both in proportion."),
    ] = Mixing.BLEND,
) -> None:
    """Mix two people into a new one."""
    from photomaker.apps.identities import mix

    mix(first, second, out, share, how.value)


def identity_encrypt(
    file: IdentityFile,
    out: Annotated[Path | None, typer.Option(help="File to write. (default: FILE.age)")] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Encrypt an identity with a passphrase (age)."""
    from photomaker.apps.identities import encrypt

    encrypt(file, out, passphrase_file)


def identity_decrypt(
    file: Annotated[Path, typer.Argument(help="An encrypted identity file.")],
    out: Annotated[Path | None, typer.Option(help="File to write. (default: FILE without .age)")] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Decrypt an encrypted identity."""
    from photomaker.apps.identities import decrypt

    decrypt(file, out, passphrase_file)
