"""Checks single values from a caller: type and range, with one sentence if they are wrong."""

from __future__ import annotations

import math
import operator
import reprlib
from collections.abc import Sequence
from numbers import Real

from photomaker.errors import PhotoMakerError, SettingsError


def shown(value: object) -> str:
    """A value as it stands in a message: shortened, on one line."""
    return " ".join(reprlib.repr(value).split())


def whole(name: str, value: object, least: int, most: int | None = None) -> int:
    """A whole number within a range; what counts as one is an int, or numpy's, but no bool and no 2.0.

    Args:
        name: What to call it in the message.
        value: What was given.
        least: The smallest that is allowed.
        most: The largest; None for no bound.

    Raises:
        SettingsError: It is not a whole number, or is outside.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least or (most is not None and number > most):
        wanted = f"{least} or more" if most is None else f"a whole number from {least} to {most}"
        raise SettingsError(f"{name} is {shown(value)}; give {wanted}")
    return number


def number(name: str, value: object, least: float, most: float = math.inf, wanted: str = "") -> float:
    """A finite number within a range.

    Args:
        name: What to call it in the message.
        value: What was given.
        least: The smallest that is allowed.
        most: The largest.
        wanted: How the message puts the range; made of the bounds where it is left out.

    Raises:
        SettingsError: It is not a number, not finite, or is outside.
    """
    good = isinstance(value, Real) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or not least <= value <= most:  # type: ignore[arg-type, operator]
        bounds = f"from {least:g} up" if most == math.inf else f"from {least:g} to {most:g}"
        raise SettingsError(f"{name} is {shown(value)}; give {wanted or f'a number {bounds}'}")
    return float(value)  # type: ignore[arg-type]


def text(
    name: str, value: object, remedy: str = "give a text", error: type[PhotoMakerError] = SettingsError
) -> str:
    """A text.

    Raises:
        PhotoMakerError: It is none; of the given class.
    """
    if not isinstance(value, str):
        raise error(f"{name} is {shown(value)}, a {type(value).__name__}; {remedy}")
    return value


def one_of(name: str, value: object, known: Sequence[str]) -> str:
    """One of some words.

    Raises:
        SettingsError: It is none of them.
    """
    if value not in known:
        raise SettingsError(f"{name} is {shown(value)}; choose {', '.join(known)}")
    return str(value)


def instance(name: str, value: object, kind: type | tuple[type, ...], remedy: str) -> None:
    """A value of a kind.

    Raises:
        SettingsError: It is of another.
    """
    if not isinstance(value, kind):
        raise SettingsError(f"{name} is {shown(value)}, a {type(value).__name__}; {remedy}")
