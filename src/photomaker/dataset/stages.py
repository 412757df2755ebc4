"""The stages of a build: their settings, their columns, and a fingerprint of all that decides what they give."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from photomaker import config
from photomaker.dataset.base import KEY, ImageStep, Step, TableStep
from photomaker.dataset.executors import Run
from photomaker.dataset.listing import Input
from photomaker.dataset.shards import FINAL
from photomaker.errors import SettingsError

SHARD = "shard"


@dataclass(frozen=True)
class Shard:
    """Settings of the last stage.

    Attributes:
        size: Photos of a finished shard, about; shards are made equally large, 1 or more.
        least: Photos that a person must have, 1 or more; training takes others of the same person, so 2.

    Raises:
        SettingsError: A value is outside its range.
    """

    size: int = 1000
    least: int = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("size", "least"):
            if getattr(self, name) < 1:
                raise SettingsError(f"shard.{name} is {getattr(self, name)}; give 1 or more")


class Plan(Protocol):
    """What a build needs of its settings; `settings.BuildSettings` is the whole."""

    @property
    def input(self) -> Input:
        """Where the photos come from."""

    @property
    def out(self) -> Path:
        """Folder of the dataset."""

    @property
    def unit(self) -> int:
        """Photos of a unit of the image stages."""

    @property
    def shard(self) -> Shard:
        """Settings of the last stage."""

    @property
    def run(self) -> Run:
        """Who builds."""

    def steps(self) -> Sequence[Step]:
        """The steps in their order, `Gather` first, without the last stage."""


@dataclass(frozen=True)
class Stage:
    """A stage of a build.

    Attributes:
        name: Its name.
        settings: Its settings, a frozen dataclass.
        schema: Columns of the rows that it keeps.
        pictures: Name of the stage whose pictures show what it sees, or empty.
        fingerprint: Of its settings and those of all stages before it.
    """

    name: str
    settings: Any
    schema: pa.Schema
    pictures: str
    fingerprint: str

    @property
    def by_person(self) -> bool:
        """Whether its units are buckets of people."""
        return isinstance(self.settings, TableStep)


def stages_of(plan: Plan) -> Iterator[Stage]:
    """The stages of a build in their order."""
    schema, pictures, fingerprint = pa.schema(KEY), "", ""
    for step in plan.steps():
        schema = _joined(schema, step.columns)
        sees = step.pictures if isinstance(step, ImageStep) else pictures
        fingerprint = _fingerprint(step.name, step, fingerprint)
        yield Stage(step.name, step, schema, sees, fingerprint)
        if isinstance(step, ImageStep) and step.writes:
            pictures = step.name
    yield Stage(SHARD, plan.shard, FINAL, pictures, _fingerprint(SHARD, plan.shard, fingerprint))


def _joined(first: pa.Schema, second: pa.Schema) -> pa.Schema:
    """Columns of both; where both have one, the second's."""
    return pa.schema([*(column for column in first if column.name not in second.names), *second])


def _fingerprint(name: str, settings: Any, before: str) -> str:  # noqa: ANN401 - any dataclass
    told = json.dumps([name, meaning(settings), before], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def meaning(settings: Any) -> Any:  # noqa: ANN401 - any plain value
    """The settings that change what comes out, as plain values."""
    if not dataclasses.is_dataclass(settings):
        return config.plain(settings)
    return {
        one.name: meaning(getattr(settings, one.name))
        for one in dataclasses.fields(settings)
        if not one.metadata.get("pace")
    }


def described(stage: Stage) -> dict[str, Any]:
    """What the folder of a stage notes of it."""
    return {
        "fingerprint": stage.fingerprint,
        "settings": meaning(stage.settings),
        "pictures": stage.pictures,
        "by_person": stage.by_person,
        "writes": isinstance(stage.settings, ImageStep) and stage.settings.writes,
    }


def difference(old: Any, new: Any, name: str = "") -> str:  # noqa: ANN401 - any plain values
    """The first value in which two tables differ, in words."""
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            return difference(before, after, f"{name}{key}.")
        return f"{name}{key} was {before!r} and is {after!r}"
    return "those of an earlier stage"
