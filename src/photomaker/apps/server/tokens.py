"""Who a caller is: tokens of a file, compared in constant time."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path

from photomaker.errors import SettingsError

LOCAL = "local"
"""The one owner where there are no tokens."""
SHORTEST = 16
"""Characters of a token."""


@dataclass(frozen=True)
class Tokens:
    """Tokens, each of which is an owner.

    Attributes:
        owners: Token and owner, in the order of the file.
    """

    owners: tuple[tuple[str, str], ...]

    def owner(self, given: str) -> str | None:
        """Whose a token is; None where it is nobody's. Takes the same time whichever it is, and where it differs."""
        found = None
        for token, owner in self.owners:
            if secrets.compare_digest(token.encode(), given.encode()):
                found = owner
        return found


def read_tokens(file: Path) -> Tokens:
    """Read a file of tokens, one on each line; empty lines and those that begin with # are left out.

    Raises:
        SettingsError: It cannot be read, holds no token, or one that is too short or there twice.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SettingsError(f"cannot read the tokens in {file}: {reason}; check the path") from error
    tokens = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not tokens:
        raise SettingsError(f"{file} holds no token; make one: openssl rand -hex 32 > {file}")
    for number, token in enumerate(tokens, 1):
        if len(token) < SHORTEST or not token.isascii() or len(token.split()) > 1:
            raise SettingsError(
                f"token {number} in {file} is shorter than {SHORTEST} characters or has spaces; make one: openssl rand "
                "-hex 32"
            )
    if len(set(tokens)) < len(tokens):
        raise SettingsError(f"{file} holds a token twice; give each caller one of their own")
    return Tokens(tuple((token, _owner(token)) for token in tokens))


def _owner(token: str) -> str:
    """A name that does not give the token away, and stays when lines of the file are moved."""
    return "token-" + hashlib.sha256(token.encode()).hexdigest()[:16]
