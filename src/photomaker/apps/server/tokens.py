"""Owners by token: tokens from a file, compared in constant time."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path

from photomaker.errors import SettingsError

LOCAL = "local"
"""The only owner if there are no tokens."""
SHORTEST = 16
"""Fewest characters of a token."""


@dataclass(frozen=True)
class Tokens:
    """Tokens and their owners.

    Attributes:
        owners: Token and owner, in the order of the file.
    """

    owners: tuple[tuple[str, str], ...]

    def owner(self, given: str) -> str | None:
        """The owner of a token, or None, in constant time."""
        found = None
        for token, owner in self.owners:
            if secrets.compare_digest(token.encode(), given.encode()):
                found = owner
        return found


def read_tokens(file: Path) -> Tokens:
    """Read a file of tokens, one on each line; empty lines and lines that begin with # are skipped.

    Raises:
        SettingsError: It cannot be read, has no token, or one that is too short or repeated.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsError(f"cannot read the tokens in {file}: {reason}; check the path") from error
    tokens = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not tokens:
        raise SettingsError(f"{file} has no token; make one: openssl rand -hex 32 > {file}")
    for number, token in enumerate(tokens, 1):
        if len(token) < SHORTEST or not token.isascii() or len(token.split()) > 1:
            raise SettingsError(
                f"token {number} in {file} is shorter than {SHORTEST} characters or has spaces; make one: openssl rand "
                "-hex 32"
            )
    if len(set(tokens)) < len(tokens):
        raise SettingsError(f"{file} has the same token twice; give each caller a different one")
    return Tokens(tuple((token, _owner(token)) for token in tokens))


def _owner(token: str) -> str:
    """A name that does not reveal the token and does not depend on its line in the file."""
    return "token-" + hashlib.sha256(token.encode()).hexdigest()[:16]
