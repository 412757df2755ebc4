"""The list of stages, run in order or in any part, one unit after another, resumed where a run was broken off.

    OUT/build.json          what the folder is
    OUT/list/               the input, cut into slices
    OUT/STAGE/              one folder for each stage: NNNNN.parquet (kept), NNNNN.dropped.parquet, NNNNN.tar
    OUT/shards/             the finished dataset, with index.parquet
    OUT/dataset.json        written last: settings, versions, counts, seconds, licences

A unit is done when its NNNNN.parquet is there, which is written last and renamed when it is whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from photomaker import config
from photomaker.dataset import listing
from photomaker.dataset.base import KEY, ImageStep, Step, TableStep
from photomaker.dataset.executors import Executor, Run
from photomaker.dataset.gather import Gather
from photomaker.dataset.listing import Input, Listing
from photomaker.dataset.shards import FINAL, INDEX, PART, write_atomically, write_parquet, write_table
from photomaker.dataset.units import (
    DROPPED,
    ImageWork,
    Outcome,
    ShardWork,
    StageFiles,
    TableWork,
    Work,
    read_parquet,
)
from photomaker.errors import OutputError, SettingsError
from photomaker.outside import read_file, read_object

MARK, RESULT, LOG, SETTINGS, LOCK = "build.json", "dataset.json", "log.jsonl", "settings.json", ".lock"
_ANEW = "build the dataset again in an empty folder"
SHARD = "shard"
_FORMAT = 1
_MOST_BUCKETS = 64
_LIBRARIES = (
    "numpy",
    "pillow",
    "pyarrow",
    "aiohttp",
    "torch",
    "transformers",
    "onnxruntime",
    "insightface",
    "spacy",
)


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


@dataclass(frozen=True)
class State:
    """How far a stage is: units done and in all; None if that is not known yet."""

    name: str
    done: int
    units: int | None


@dataclass
class Watcher:
    """Is told what happens; does nothing by itself."""

    def stage(self, name: str, done: int, units: int) -> None:
        """A stage begins, with some units done by an earlier run."""

    def unit(self, name: str, outcome: Outcome) -> None:
        """A unit is done."""

    def note(self, line: str) -> None:
        """Something that the user should know."""


@dataclass
class Build:
    """A build in its folder.

    Attributes:
        plan: Its settings.
        watcher: Called with progress.
    """

    plan: Plan
    watcher: Watcher = field(default_factory=Watcher)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """All stages in their order."""
        return tuple(_stages(self.plan))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the stages in their order."""
        return tuple(stage.name for stage in self.stages)

    def chosen(self, names: Sequence[str]) -> tuple[str, ...]:
        """Stages to run, in their order, from names or ranges such as "detect:segment"; none mean all.

        Raises:
            SettingsError: A name is unknown.
        """
        wanted: set[str] = set()
        for name in names:
            first, colon, last = name.partition(":")
            low = self._place(first) if first else 0
            high = (self._place(last) if last else len(self.names) - 1) if colon else low
            wanted.update(self.names[low : high + 1])
        return tuple(name for name in self.names if name in wanted or not names)

    def _place(self, name: str) -> int:
        if name not in self.names:
            raise SettingsError(f"there is no stage {name!r}; the stages are {', '.join(self.names)}")
        return self.names.index(name)

    def check(self, fresh: str | None = None) -> None:
        """Whether this build can go on in its folder; reads only.

        Args:
            fresh: Stage from which on everything is to be done again.

        Raises:
            SettingsError: There is no such stage, the input is missing, or the folder holds other files, another
                dataset, or stages that were made with other settings.
        """
        if fresh is not None:
            self._place(fresh)
        if self._listing is None:
            listing.check(self.plan.input)
        out = self.plan.out
        mark = out / MARK
        if not mark.is_file():
            if out.exists() and (not out.is_dir() or any(_is_foreign(path) for path in out.iterdir())):
                raise SettingsError(
                    f"{out} is not empty and is not a dataset of photomaker; choose another folder"
                )
            return
        stated, ours = read_file(mark, _ANEW), self._marked()
        if stated != ours and fresh != self.names[0]:
            raise SettingsError(
                f"{out} holds another dataset ({_difference(stated, ours)}); choose another folder, "
                f"or rebuild it with --fresh {self.names[0]}"
            )
        for stage in self.stages:
            if stage.name == fresh:
                return
            self._check_settings(stage)

    def _check_settings(self, stage: Stage) -> None:
        path = self.plan.out / stage.name / SETTINGS
        if not path.is_file() or not any(path.parent.glob("*.parquet")):
            return
        stated = read_file(path, _ANEW)
        if stated["fingerprint"] != stage.fingerprint:
            change = _difference(stated["settings"], _described(stage)["settings"], f"{stage.name}.")
            raise SettingsError(
                f"{self.plan.out} has photos of the stage {stage.name} made with other settings ({change}); "
                f"set them back, or repeat this stage and the later ones with --fresh {stage.name}"
            )

    def states(self) -> list[State]:
        """How far every stage is."""
        found = []
        for stage in self.stages:
            units = self._units(stage)
            missing = len(self._files(stage).missing()) if units is not None else 0
            found.append(State(stage.name, (units or 0) - missing, units))
        return found

    def run(self, stages: Sequence[str] = (), fresh: str | None = None) -> None:
        """Build.

        Args:
            stages: See `chosen`.
            fresh: Stage from which on everything is done again.

        Raises:
            SettingsError: As `check`; or a stage before the first that is wanted is not finished; or another build is
                at work in the folder.
            OutputError: The disk is full or the folder cannot be written; what is done stays.
            WeightsError: A model cannot be loaded.
        """
        wanted = self.chosen(stages)
        self.check(fresh)
        out = self.plan.out
        with _alone(out):
            if fresh is not None:
                self._forget(fresh)
            if not (out / MARK).is_file():
                write_atomically(out / MARK, _json(self._marked()))
            sweep(out)
            try:
                with self.plan.run.open() as executor:
                    for stage in self.stages:
                        if stage.name in wanted:
                            self._run_stage(stage, executor)
            finally:
                sweep(out)

    def _forget(self, fresh: str) -> None:
        """Delete a stage and all that follow; what says that they are done goes first."""
        out = self.plan.out
        place = self._place(fresh)
        (out / RESULT).unlink(missing_ok=True)
        (out / "shards" / INDEX).unlink(missing_ok=True)
        (out / SHARD / "plan.json").unlink(missing_ok=True)
        for name in reversed(self.names[place:]):
            for path in (out / name).glob("*.parquet"):
                path.unlink()
            shutil.rmtree(out / name, ignore_errors=True)
        shutil.rmtree(out / "shards", ignore_errors=True)
        if not place:
            (out / "list" / "list.json").unlink(missing_ok=True)
            shutil.rmtree(out / "list", ignore_errors=True)
            (out / MARK).unlink(missing_ok=True)
            vars(self).pop("_listing", None)

    def _run_stage(self, stage: Stage, executor: Executor) -> None:
        if stage is self.stages[0]:
            self._list()
        else:
            self._check_before(stage)
        write_atomically(self.plan.out / stage.name / SETTINGS, _json(_described(stage)))
        if stage.name == SHARD:
            self._plan_shards()
        files, workers = self._files(stage), executor.workers
        if isinstance(stage.settings, Gather) and self.plan.input.urls is not None:
            workers = stage.settings.fetch.most_workers(workers)
        work = self._work(stage, files, workers)
        missing = files.missing()
        self.watcher.stage(stage.name, files.units - len(missing), files.units)
        if missing:
            workers = min(workers, len(missing))
            executor.ready(workers)
            with _logged(files.folder / LOG, workers) as log:
                for outcome in executor.run(work, missing, workers):
                    log(outcome)
                    self.watcher.unit(stage.name, outcome)
        if stage.name == SHARD:
            self._finish()

    def _check_before(self, stage: Stage) -> None:
        for before in self.stages[: self._place(stage.name)]:
            units = self._units(before)
            missing = len(self._files(before).missing()) if units is not None else 1
            if missing:
                raise SettingsError(
                    f"the stage {stage.name} needs {before.name}, of which {missing} of {units or 1} parts "
                    f"are missing; run it first with --stages {before.name}"
                )

    def _list(self) -> None:
        if self._listing is None:
            listing.write(self.plan.out / "list", self.plan.input, self.plan.unit)
            vars(self).pop("_listing", None)
        found = self._listing
        assert found is not None
        if found.empty:
            self.watcher.note(f"{len(found.empty)} people without any photo, such as {found.empty[0]}")
        if found.ignored:
            self.watcher.note(f"{found.ignored} files that are not pictures by their names were left out")

    @cached_property
    def _listing(self) -> Listing | None:
        return listing.read(self.plan.out / "list")

    def _units(self, stage: Stage) -> int | None:
        """Units of a stage; None if that is not known yet."""
        if stage.name == SHARD:
            path = self.plan.out / SHARD / "plan.json"
            return read_file(path, _ANEW)["shards"] if path.is_file() else None
        if self._listing is None:
            return None
        return min(self._listing.units, _MOST_BUCKETS) if stage.by_person else self._listing.units

    def _files(self, stage: Stage) -> StageFiles:
        return StageFiles(self.plan.out / stage.name, self._units(stage) or 0, stage.by_person)

    def _files_of(self, name: str) -> StageFiles:
        return self._files(self.stages[self._place(name)])

    def _work(self, stage: Stage, files: StageFiles, workers: int) -> Work:
        place = self._place(stage.name)
        listed = StageFiles(self.plan.out / "list", files.units)
        source = self._files(self.stages[place - 1]) if place else listed
        step = stage.settings
        if isinstance(step, TableStep):
            return TableWork(step, files, source, stage.schema)
        if isinstance(step, ImageStep):
            if isinstance(step, Gather):
                step = dataclasses.replace(step, fetch=step.fetch.shared(step.fetch.most_workers(workers)))
            pictures = self._files_of(step.pictures) if step.pictures else None
            return ImageWork(step, files, source, pictures, stage.schema)
        return ShardWork(
            files,
            source,
            self._files_of(stage.pictures),
            files.folder / "plan.parquet",
            self.plan.out / "shards",
        )

    def _plan_shards(self) -> None:
        """Choose which photos make the dataset, and which shard each goes to."""
        folder = self.plan.out / SHARD
        if (folder / "plan.json").is_file():
            return
        last = self._files(self.stages[-2])
        needed = [name for name in FINAL.names if name in self.stages[-2].schema.names]
        parts = [_light(read_parquet(last.kept(unit), columns=needed)) for unit in range(last.units)]
        table = pa.concat_tables(parts).sort_by("key")
        reasons = _unfit(table, self.plan.shard.least)
        stay = pc.is_null(pa.array([reason for reason, _ in reasons], pa.string()))
        gone = [{"stage": SHARD, "reason": reason, "detail": detail} for reason, detail in reasons if reason]
        rows = table.filter(pc.invert(stay)).to_pylist()
        dropped = [{**row, **told} for row, told in zip(rows, gone, strict=True)]
        kept = table.filter(stay).select(["key", "person", "shard"])
        shards = -(-kept.num_rows // self.plan.shard.size)
        targets = [row * shards // kept.num_rows for row in range(kept.num_rows)]
        plan = kept.append_column("target", pa.array(targets, pa.int32()))
        write_table(folder / "plan.dropped.parquet", dropped, DROPPED)
        write_parquet(folder / "plan.parquet", plan)
        people = pc.count_distinct(kept["person"]).as_py()
        lost = pc.count_distinct(table["person"]).as_py() - people
        if lost:
            self.watcher.note(
                f"{lost} people have fewer than {self.plan.shard.least} photos left and are dropped"
            )
        if not kept.num_rows:
            self.watcher.note("no photo is left for the dataset; the report says why")
        counts = {"shards": shards, "photos": kept.num_rows, "people": people, "came": table.num_rows}
        write_atomically(folder / "plan.json", _json(counts))

    def _finish(self) -> None:
        """Write the index, then what says that all is done."""
        out = self.plan.out
        files = self._files(self.stages[-1])
        parts = [read_parquet(files.kept(unit)) for unit in range(files.units)]
        write_parquet(out / "shards" / INDEX, pa.concat_tables([FINAL.empty_table(), *parts]))
        counts = read_file(files.folder / "plan.json", _ANEW)
        result = {
            "format": _FORMAT,
            **{name: counts[name] for name in ("people", "photos", "shards")},
            "settings": config.plain(self.plan),
            "versions": _versions(),
            "models": _models(self.stages),
            "stages": [dataclasses.asdict(tally) for tally in tallies(out)],
        }
        write_atomically(out / RESULT, _json(result))

    def _marked(self) -> dict[str, Any]:
        return {
            "dataset": "photomaker",
            "format": _FORMAT,
            "input": config.plain(self.plan.input),
            "unit": self.plan.unit,
            "stages": list(self.names),
        }


def _stages(plan: Plan) -> Iterator[Stage]:
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
    told = json.dumps([name, _meaning(settings), before], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def _meaning(settings: Any) -> Any:  # noqa: ANN401 - any plain value
    """The settings that change what comes out, as plain values."""
    if not dataclasses.is_dataclass(settings):
        return config.plain(settings)
    return {
        one.name: _meaning(getattr(settings, one.name))
        for one in dataclasses.fields(settings)
        if not one.metadata.get("pace")
    }


def _described(stage: Stage) -> dict[str, Any]:
    return {
        "fingerprint": stage.fingerprint,
        "settings": _meaning(stage.settings),
        "pictures": stage.pictures,
        "by_person": stage.by_person,
        "writes": isinstance(stage.settings, ImageStep) and stage.settings.writes,
    }


def _difference(old: Any, new: Any, name: str = "") -> str:  # noqa: ANN401 - any plain values
    """The first value in which two tables differ, in words."""
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            return _difference(before, after, f"{name}{key}.")
        return f"{name}{key} was {before!r} and is {after!r}"
    return "those of an earlier stage"


def _json(value: Any) -> bytes:  # noqa: ANN401 - any plain values
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def _light(table: pa.Table) -> pa.Table:
    """The columns by which a row is known, and whether any other of it is missing."""
    lacking = [
        pc.if_else(pc.is_null(table[name]), f"{name} ", "")
        for name in table.column_names
        if name not in ("key", "person", "shard", "source")
    ]
    told = pc.binary_join_element_wise(*lacking, "") if lacking else pa.array([""] * table.num_rows)
    return table.select(["key", "person", "shard", "source"]).append_column("lacks", told)


def _unfit(table: pa.Table, least: int) -> list[tuple[str | None, str]]:
    """Reason and detail for each row that cannot stay, (None, "") for the others."""
    people, lacks = table["person"].to_pylist(), table["lacks"].to_pylist()
    whole = Counter(person for person, lack in zip(people, lacks, strict=True) if not lack)
    found: list[tuple[str | None, str]] = []
    for person, lack in zip(people, lacks, strict=True):
        if lack:
            found.append(("incomplete", f"without {lack.strip()}"))
        elif whole[person] < least:
            found.append(("too few photos", f"{whole[person]} of at least {least}"))
        else:
            found.append((None, ""))
    return found


@dataclass(frozen=True)
class Tally:
    """What a stage did, counted from its files.

    Attributes:
        name: Of the stage.
        rows: Photos that came in.
        kept: Photos that stay.
        drops: Reason -> photos, most frequent first.
        timed_rows: Photos of the units whose time is known; a unit that finished just before a kill may lack it.
        busy_seconds: That these took, summed over workers.
        opening_seconds: For models to be loaded, summed over workers.
        wall_seconds: That went by, over all runs.
        workers: At work in the last run.
    """

    name: str
    rows: int
    kept: int
    drops: Mapping[str, int]
    timed_rows: int
    busy_seconds: float
    opening_seconds: float
    wall_seconds: float
    workers: int


def tallies(out: Path) -> list[Tally]:
    """Count what the stages of a build have done so far.

    Raises:
        SettingsError: The folder holds no build, or a file of it is damaged.
    """
    return [_tally(out / name) for name in stage_names(out) if (out / name / SETTINGS).is_file()]


def stage_names(out: Path) -> list[str]:
    """Names of the stages of a build in a folder.

    Raises:
        SettingsError: There is none.
    """
    try:
        return list(read_object((out / MARK).read_bytes())["stages"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{out} has no dataset built by photomaker; give a build's folder") from error


def _tally(folder: Path) -> Tally:
    import pyarrow.parquet as pq

    drops: Counter[str] = Counter()
    kept = 0
    for path in sorted(folder.glob("*.parquet")):
        if path.name.endswith(".dropped.parquet"):
            drops.update(read_parquet(path, columns=["reason"])["reason"].to_pylist())
        elif path.stem.isdecimal():
            kept += pq.read_metadata(path).num_rows
    busy = opening = wall = last = 0.0
    rows, workers = 0, 0
    for line in _log_lines(folder / LOG):
        if "workers" in line:
            wall, last, workers = wall + last, 0.0, line["workers"]
            continue
        rows, busy, opening = rows + line["rows"], busy + line["seconds"], opening + line["opening"]
        last = line["at"]
    ordered = dict(sorted(drops.items(), key=lambda item: (-item[1], item[0])))
    busy, opening, wall = (round(value, 3) for value in (busy, opening, wall + last))
    return Tally(folder.name, kept + drops.total(), kept, ordered, rows, busy, opening, wall, workers)


def _log_lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                yield read_object(line)
            except ValueError:  # the line at which a run was killed
                continue


@contextmanager
def _logged(path: Path, workers: int) -> Iterator[Callable[[Outcome], None]]:
    """Append how long units took; only figures depend on it."""
    begun = time.perf_counter()
    try:
        with path.open("a", encoding="utf-8", buffering=1) as file:
            file.write("\n" + json.dumps({"workers": workers}) + "\n")

            def log(outcome: Outcome) -> None:
                told = {"unit": outcome.unit, "rows": outcome.rows, "seconds": outcome.seconds}
                told |= {"opening": outcome.opening, "at": time.perf_counter() - begun}
                file.write(json.dumps(told) + "\n")

            yield log
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}; free some space and start again"
        ) from error


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("photomaker", *_LIBRARIES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _models(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    return [
        {
            "stage": stage.name,
            "for": purpose,
            "model": _meaning(getattr(stage.settings, purpose, None)),
            "licence": licence,
        }
        for stage in stages
        if isinstance(stage.settings, Step)
        for purpose, licence in stage.settings.licences.items()
    ]


def sweep(out: Path) -> None:
    """Remove what a run that was killed has left half-written."""
    for path in out.rglob(f"*{PART}"):
        path.unlink(missing_ok=True)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep other builds out of the folder, until this process ends in whatever way."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = (out / LOCK).open("w")
    except OSError as error:
        raise OutputError(f"cannot write to {out}: {error.strerror}; choose another folder") from error
    with file:
        try:
            _lock(file.fileno())
        except OSError as error:
            raise SettingsError(
                f"another build is running in {out}; wait for it or choose another folder"
            ) from error
        yield


def _is_foreign(path: Path) -> bool:
    """Whether a file was left by nobody who was about to build."""
    return path.name != LOCK and path.suffix != PART


def _lock(file: int) -> None:
    if os.name == "posix":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
