"""Settings files: YAML in, a frozen dataclass out, and every mistake reported in one sentence."""

from __future__ import annotations

import dataclasses
import functools
import os
import types
import typing
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from photomaker.checks import shown
from photomaker.errors import SettingsError
from photomaker.outside import read_yaml

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Settings = TypeVar("Settings")
LARGEST = 1_000_000
"""Bytes that a settings file may have."""


def read(path: str | os.PathLike[str], kind: type[Settings], changes: Sequence[str] = ()) -> Settings:
    """Read a settings file.

    Args:
        path: A YAML file; its keys are the fields of `kind`, and fields that are dataclasses are tables in turn.
        kind: A frozen dataclass whose field types are plain values, tuples, mappings, or dataclasses of the same sort.
        changes: "a.b=value" each, which override the file's; the value is read as YAML.

    Raises:
        SettingsError: The file cannot be read, a key is unknown, or a value has the wrong type or range.
    """
    return make(_with_changes(table(Path(path)), changes), kind, str(path))


def make(values: Mapping[str, Any], kind: type[Settings], where: str = "the settings") -> Settings:
    """Build settings from plain values; see `read`.

    Raises:
        SettingsError: As `read`.
    """
    from pydantic import ValidationError

    plain_kind: type = kind  # to mypy, no type of a type variable can be hashed
    _check_names(values, kind, where)
    try:
        made: Settings = _reader(plain_kind).validate_python(dict(values))
        return made
    except RecursionError as error:
        raise SettingsError(f"{where} is nested too deep; write plain values") from error
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or kind.__name__
        if first["type"] == "missing":
            raise SettingsError(f"{where} lacks {name}; add it") from error
        raise SettingsError(
            f"{name} in {where} is {shown(first['input'])}; {first['msg'][0].lower()}{first['msg'][1:]}"
        ) from error


@functools.cache
def _hints(kind: type) -> Mapping[str, Any]:
    return typing.get_type_hints(kind)


@functools.cache
def _reader(kind: type) -> TypeAdapter[Any]:
    """What reads a kind of settings: made once, for that takes longer than reading."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def plain(value: Any) -> Any:  # noqa: ANN401 - any settings, any value of them
    """Settings, or a value of them, as plain JSON values, with paths as text and tuples as lists."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, os.PathLike) else value


def table(path: Path) -> dict[str, Any]:
    """The names and values of a YAML file.

    Raises:
        SettingsError: It cannot be read, or holds something else.
    """
    import yaml

    try:
        if path.stat().st_size > LARGEST:
            raise SettingsError(f"{path} has more than {LARGEST} bytes; that is not a settings file")
        found = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsError(f"cannot read the settings file {path}: {reason}; check the path") from error
    except (ValueError, OverflowError) as error:
        raise SettingsError(f"{path} cannot be read: {_reason(error)}; fix it there") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise SettingsError(f"{path} is not valid YAML{line}; fix it there") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise SettingsError(f"{path} holds a {type(found).__name__}; write `name: value` lines")
    return found


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:150]


def _with_changes(values: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    import yaml

    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or not name:
            raise SettingsError(
                f"the change {change!r} is not name=value; write for instance train.steps=100"
            )
        *tables, last = name.split(".")
        place = values
        for table in tables:
            inner = place.get(table)
            if inner is None:
                inner = place[table] = {}
            if not isinstance(inner, dict):
                raise SettingsError(
                    f"{table} in the change {change!r} is a value, not a table; check the name"
                )
            place = inner
        try:
            place[last] = read_yaml(text)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            raise SettingsError(
                f"the value of the change {shown(change)} is not valid YAML; put it in quotes"
            ) from error
    return values


def _check_names(values: Mapping[str, Any], kind: type, where: str, prefix: str = "") -> None:
    hints = _hints(kind)
    known = [field.name for field in dataclasses.fields(kind) if field.init]
    for name, value in values.items():
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known are {', '.join(known)}"
            raise SettingsError(f"there is no setting {prefix}{name} in {where}; {hint}")
        inner = _dataclass_of(hints[name])
        for one in value if isinstance(value, list) else [value]:
            if inner and isinstance(one, Mapping):
                _check_names(one, inner, where, f"{prefix}{name}.")


def _dataclass_of(hint: Any) -> type | None:  # noqa: ANN401 - any annotation
    """The dataclass that a field holds, also where it may be None or a field holds several."""
    several = isinstance(hint, types.UnionType) or typing.get_origin(hint) is tuple
    options = typing.get_args(hint) if several else (hint,)
    return next((option for option in options if dataclasses.is_dataclass(option)), None)  # type: ignore[arg-type, return-value]
