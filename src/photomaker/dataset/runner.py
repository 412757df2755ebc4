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
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pyarrow as pa

from photomaker import config
from photomaker.dataset import listing
from photomaker.dataset.base import ImageStep, Step, TableStep
from photomaker.dataset.executors import Executor
from photomaker.dataset.folder import ANEW, LOG, MARK, RESULT, SETTINGS, alone, is_foreign, sweep
from photomaker.dataset.gather import Gather
from photomaker.dataset.listing import Listing
from photomaker.dataset.shard_plan import plan_shards
from photomaker.dataset.shards import FINAL, INDEX, as_json, write_atomically, write_parquet
from photomaker.dataset.stage_files import StageFiles, read_parquet
from photomaker.dataset.stages import SHARD, Plan, Shard, Stage, described, difference, meaning, stages_of
from photomaker.dataset.tallies import Tally, logged, stage_names, tallies
from photomaker.dataset.tasks import ImageTask, Outcome, ShardTask, TableTask, Task
from photomaker.errors import SettingsError
from photomaker.outside import read_file

__all__ = ["Build", "Shard", "State", "Tally", "Watcher", "stage_names", "tallies"]

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
        return tuple(stages_of(self.plan))

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
            if out.exists() and (not out.is_dir() or any(is_foreign(path) for path in out.iterdir())):
                raise SettingsError(
                    f"{out} is not empty and is not a dataset of photomaker; choose another folder"
                )
            return
        stated, ours = read_file(mark, ANEW), self._marked()
        if stated != ours and fresh != self.names[0]:
            raise SettingsError(
                f"{out} holds another dataset ({difference(stated, ours)}); choose another folder, "
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
        stated = read_file(path, ANEW)
        if stated["fingerprint"] != stage.fingerprint:
            change = difference(stated["settings"], described(stage)["settings"], f"{stage.name}.")
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
            fresh: First stage to repeat; later ones are repeated, too.

        Raises:
            SettingsError: As `check`; or a stage before the first that is wanted is not finished; or another build is
                at work in the folder.
            OutputError: The disk is full or the folder cannot be written; what is done stays.
            WeightsError: A model cannot be loaded.
        """
        wanted = self.chosen(stages)
        self.check(fresh)
        out = self.plan.out
        with alone(out):
            if fresh is not None:
                self._forget(fresh)
            if not (out / MARK).is_file():
                write_atomically(out / MARK, as_json(self._marked()))
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
        write_atomically(self.plan.out / stage.name / SETTINGS, as_json(described(stage)))
        if stage.name == SHARD:
            last = self.stages[-2]
            plan_shards(
                self.plan.out / SHARD, self._files(last), last.schema, self.plan.shard, self.watcher.note
            )
        files, workers = self._files(stage), executor.workers
        if isinstance(stage.settings, Gather) and self.plan.input.urls is not None:
            workers = stage.settings.fetch.most_workers(workers)
        work = self._work(stage, files, workers)
        missing = files.missing()
        self.watcher.stage(stage.name, files.units - len(missing), files.units)
        if missing:
            workers = min(workers, len(missing))
            executor.ready(workers)
            with logged(files.folder / LOG, workers) as log:
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
            return read_file(path, ANEW)["shards"] if path.is_file() else None
        if self._listing is None:
            return None
        return min(self._listing.units, _MOST_BUCKETS) if stage.by_person else self._listing.units

    def _files(self, stage: Stage) -> StageFiles:
        return StageFiles(self.plan.out / stage.name, self._units(stage) or 0, stage.by_person)

    def _files_of(self, name: str) -> StageFiles:
        return self._files(self.stages[self._place(name)])

    def _work(self, stage: Stage, files: StageFiles, workers: int) -> Task:
        place = self._place(stage.name)
        listed = StageFiles(self.plan.out / "list", files.units)
        source = self._files(self.stages[place - 1]) if place else listed
        step = stage.settings
        if isinstance(step, TableStep):
            return TableTask(step, files, source, stage.schema)
        if isinstance(step, ImageStep):
            if isinstance(step, Gather):
                step = dataclasses.replace(step, fetch=step.fetch.shared(step.fetch.most_workers(workers)))
            pictures = self._files_of(step.pictures) if step.pictures else None
            return ImageTask(step, files, source, pictures, stage.schema)
        return ShardTask(
            files,
            source,
            self._files_of(stage.pictures),
            files.folder / "plan.parquet",
            self.plan.out / "shards",
        )

    def _finish(self) -> None:
        """Write the index, then what says that all is done."""
        out = self.plan.out
        files = self._files(self.stages[-1])
        parts = [read_parquet(files.kept(unit)) for unit in range(files.units)]
        write_parquet(out / "shards" / INDEX, pa.concat_tables([FINAL.empty_table(), *parts]))
        counts = read_file(files.folder / "plan.json", ANEW)
        result = {
            "format": _FORMAT,
            **{name: counts[name] for name in ("people", "photos", "shards")},
            "settings": config.plain(self.plan),
            "versions": _versions(),
            "models": _models(self.stages),
            "stages": [dataclasses.asdict(tally) for tally in tallies(out)],
        }
        write_atomically(out / RESULT, as_json(result))

    def _marked(self) -> dict[str, Any]:
        return {
            "dataset": "photomaker",
            "format": _FORMAT,
            "input": config.plain(self.plan.input),
            "unit": self.plan.unit,
            "stages": list(self.names),
        }


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
            "model": meaning(getattr(stage.settings, purpose, None)),
            "licence": licence,
        }
        for stage in stages
        if isinstance(stage.settings, Step)
        for purpose, licence in stage.settings.licences.items()
    ]
