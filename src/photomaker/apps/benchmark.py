"""`photomaker benchmark`: compares methods."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photomaker import config as settings_file
from photomaker import registry
from photomaker.apps.measuring import options as plain_options
from photomaker.apps.measuring import show
from photomaker.errors import SettingsError

if TYPE_CHECKING:
    from photomaker.evaluation.plans.compare.settings import ComparisonSettings, Entry


def run(
    options: Mapping[str, Any],
    config: Path | None = None,
    changes: Sequence[str] = (),
    shown_in: Sequence[Path] = (),
) -> None:
    """Compare methods, print the tables and the path of the results.

    Args:
        options: The given options, with the names of `ComparisonSettings`; methods as comma-separated text.
        config: YAML file of a `ComparisonSettings`; options override it.
        changes: "a.b=value" each, which override the file's.
        shown_in: Pages whose figures are updated.

    Raises:
        PhotoMakerError: An option is out of range, a method is unknown or lacks something it needs, photos or a model
            are missing, or the folder belongs to a different run.
    """
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    from photomaker.evaluation.plans.compare.plan import compare

    settings = settings_of(options, config, changes)
    show(compare(settings, command(sys.argv[1:]), shown_in=shown_in))


def settings_of(
    options: Mapping[str, Any], config: Path | None = None, changes: Sequence[str] = ()
) -> ComparisonSettings:
    """The settings from a file, changes and options; see `run`.

    Raises:
        SettingsError: The file cannot be read, a name is unknown, or a value is out of range.
    """
    from photomaker.evaluation.plans.compare.settings import ComparisonSettings, Entry

    every = _every() if options.get("base") is None else tuple(map(Entry, _in_order()))
    if config is None and changes:
        raise SettingsError("--set changes a settings file; give one with --config, or use the options")
    start = (
        ComparisonSettings(methods=every)
        if config is None
        else settings_file.read(config, ComparisonSettings, changes)
    )
    given = plain_options(options)
    if "methods" in given:
        given["methods"] = _entries(given["methods"], start.methods)
    fewer = given.get("people", start.people)
    for name in ("tuned_people", "curve_people"):
        # defaults are lowered to a smaller number of people
        if name not in given and config is None:
            given[name] = min(getattr(start, name), fewer)
    return replace(start, **given)


def _in_order() -> list[str]:
    """The known methods: PhotoMaker first, as the reference for the others, and tuned ones last."""
    from photomaker.methods.base import Need

    def place(name: str) -> tuple[bool, bool, str]:
        return name != "photomaker", Need.TUNING in registry.find("method", name).needs, name

    return sorted(registry.names("method"), key=place)


def _every() -> tuple[Entry, ...]:
    """All methods with bundled weights, and PhotoMaker again, trained with the budget of the others."""
    from photomaker.evaluation.plans.compare.settings import Entry
    from photomaker.weights import COMPARED, SMALL, is_bundled

    files = {name: getattr(registry.find("method", name), "bundled_file", None) for name in _in_order()}
    first, *others = (Entry(name) for name, file in files.items() if file is None or is_bundled(file))
    alike = SMALL / COMPARED / "photomaker_same_budget.safetensors"
    return (first, Entry("photomaker_same_budget", "photomaker", str(alike)), *others)


def _entries(text: str, known: Sequence[Entry]) -> tuple[Entry, ...]:
    """The named methods; those that the file describes are taken from there."""
    from photomaker.evaluation.plans.compare.settings import Entry

    there = {entry.name: entry for entry in known}
    names = [name.strip() for name in text.split(",") if name.strip()]
    return tuple(there.get(name) or Entry(name) for name in names)


def command(words: Sequence[str]) -> str:
    """The command line for the results, without output folder and number of processes; files by name."""
    said, skip = ["photomaker"], False
    for word in words:
        if skip:
            skip = False
        elif word.partition("=")[0] in ("--out", "--readme", "--processes", "--threads"):
            skip = "=" not in word
        else:
            said.append(shlex.quote(Path(word).name if word.startswith("/") else word))
    return " ".join(said)
