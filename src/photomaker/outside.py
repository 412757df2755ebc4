"""JSON and YAML from untrusted sources: whatever they hold, one kind of error comes out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from photomaker.errors import PhotoMakerError, SettingsError

ENCRYPTED = b"age-encryption.org/"
"""What an encrypted identity begins with."""
LARGEST_JSON = 64 << 20
"""Bytes of JSON that are read; larger files are not settings, notes or an index of ours."""
DEEPEST = 200
"""Brackets in brackets of a YAML file."""
LARGEST_EXPANDED = 1_000_000
"""Values that a YAML file may stand for once its aliases are followed."""


def read_json(text: str | bytes) -> Any:  # noqa: ANN401 - whatever it holds
    """What a JSON text holds.

    Raises:
        ValueError: It is not JSON, is too large, or is nested too deep to be meant.
    """
    if len(text) > LARGEST_JSON:
        raise ValueError(f"it has more than {LARGEST_JSON >> 20} MB")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def read_object(text: str | bytes) -> dict[str, Any]:
    """The names and values of a JSON object.

    Raises:
        ValueError: See `read_json`; or it holds something else.
    """
    found = read_json(text)
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__} instead of names and values")
    return found


def read_file(path: Path, remedy: str, error: type[PhotoMakerError] = SettingsError) -> dict[str, Any]:
    """The names and values of a JSON file of ours, which may have been cut or changed since.

    Raises:
        PhotoMakerError: It cannot be read or is damaged; of the given class.
    """
    try:
        return read_object(path.read_bytes())
    except (OSError, ValueError) as reason:
        raise error(f"{path} is damaged or cannot be read; {remedy}") from reason


def read_yaml(text: str) -> Any:  # noqa: ANN401 - whatever it holds
    """What a YAML text holds, by the safe loader.

    Raises:
        yaml.YAMLError: It is not valid YAML.
        ValueError: A value cannot be read, it is nested too deep, or its aliases stand for far more than is written.
    """
    import yaml

    _check_brackets(text)
    try:
        found = yaml.safe_load(text)
        _count(found, {})
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    return found


def _check_brackets(text: str) -> None:
    """Refuse brackets in brackets before the loader meets them, whose work grows with their number squared."""
    depth = 0
    for mark in re.findall(r"[\[{}\]]", text):
        depth = depth + 1 if mark in "[{" else max(0, depth - 1)
        if depth > DEEPEST:
            raise ValueError("it is nested too deep")


def _count(value: object, known: dict[int, int]) -> int:
    """How many values this one stands for; parts that are there several times are counted so often."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = LARGEST_EXPANDED + 1  # what holds itself never ends
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(part, known) for part in parts)
    if known[id(value)] > LARGEST_EXPANDED:
        raise ValueError("its aliases stand for too many values")
    return known[id(value)]
