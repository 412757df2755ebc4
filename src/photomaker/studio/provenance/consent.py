"""Consent notes: who agreed, when and to what, stored with a person and written into every picture of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from photomaker.checks import shown, text
from photomaker.errors import SettingsError
from photomaker.types import Identity

CONSENT = "consent"
"""Name of the note, in an identity and in a picture's text."""
NOT_NOTED = "not noted"
LONGEST = 500
"""Most characters of a note."""
_DEEPEST = 20
"""Depth up to which mixes of mixes are followed."""
_PARTS = ("sources", "together")

Noted = Literal["noted", "partly noted", "not noted"]
"""Whether a picture has a consent note for everybody in it."""


def checked(note: object) -> str:
    """A consent note without space around it.

    Raises:
        SettingsError: It is not text, empty, too long, or has more than one line.
    """
    wanted = "write who agreed, when, and to what"
    told = text("the consent note", note, wanted).strip()
    if not told or told == NOT_NOTED:
        raise SettingsError(f"the consent note is {shown(told)}; {wanted}, or leave it out")
    if len(told) > LONGEST or not told.isprintable():
        raise SettingsError(
            f"the consent note {shown(told)} is longer than {LONGEST} characters or one line; shorten it"
        )
    return told


def with_consent(identity: Identity, note: str) -> Identity:
    """The identity with a consent note added.

    Raises:
        SettingsError: See `checked`.
    """
    return replace(identity, notes={**identity.notes, CONSENT: checked(note)})


def consents_of(notes: Mapping[str, Any]) -> tuple[str | None, ...]:
    """The consent note of each person in an identity, in order; None if there is none.

    Args:
        notes: The identity's notes.
    """
    return _consents(notes, _DEEPEST)


def _consents(notes: Mapping[str, Any], depth: int) -> tuple[str | None, ...]:
    own = notes.get(CONSENT)
    if isinstance(own, str) and own.strip():
        return (" ".join(own.split())[:LONGEST],)
    parts = [one for name in _PARTS if isinstance(listed := notes.get(name), list | tuple) for one in listed]
    inner = [one.get("notes", one) for one in parts if isinstance(one, Mapping)]
    if not inner or not depth:
        return (None,)
    return tuple(one for part in inner if isinstance(part, Mapping) for one in _consents(part, depth - 1))


def told_of(identity: Identity) -> dict[str, str]:
    """The consent lines of a picture's text: one for each person, each note once; empty if there are no notes."""
    found = dict.fromkeys(consents_of(identity.notes))
    if not any(found):
        return {}
    return {CONSENT: "\n".join(one or NOT_NOTED for one in found)}


def joined(notes: Iterable[str | None]) -> dict[str, str]:
    """The same for several pictures on one sheet, from the text of each."""
    lines = dict.fromkeys(line for note in notes for line in (note or NOT_NOTED).split("\n"))
    return {} if set(lines) <= {NOT_NOTED} else {CONSENT: "\n".join(lines)}


def lines_of(note: str | None) -> tuple[str, ...]:
    """The consent notes in a picture's text."""
    return tuple(line for line in (note or "").split("\n") if line and line != NOT_NOTED)


def noted(note: str | None) -> Noted:
    """Whether a picture's text has a consent note for everybody in it."""
    lines = (note or "").split("\n")
    if not lines_of(note):
        return "not noted"
    return "partly noted" if NOT_NOTED in lines else "noted"
