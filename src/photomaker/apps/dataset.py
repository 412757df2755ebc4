"""`photomaker dataset`: builds datasets from the command line."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from photomaker.apps import terminal
from photomaker.errors import SettingsError
from photomaker.processes import interruptible

if TYPE_CHECKING:
    from photomaker.dataset.runner import Build, Watcher
    from photomaker.dataset.settings import BuildSettings

NEEDED = ("pyarrow", "aiohttp", "jinja2")


def build(
    config: Path,
    changes: Sequence[str],
    stages: Sequence[str],
    fresh: str | None,
    paper: bool,
    dry_run: bool,
) -> None:
    """Build a dataset and report on it.

    Args:
        config: Settings file of `BuildSettings`.
        changes: "a.b=value" each, which override the file's.
        stages: Names or ranges of stages; empty is all.
        fresh: First stage to repeat; later ones are repeated, too.
        paper: Whether to use the paper's values.
        dry_run: Whether only to check the settings and print the plan.

    Raises:
        PhotoMakerError: As `Build.run`.
    """
    check_extra()
    from photomaker.dataset.runner import Build

    settings = _settings(config, changes, paper)
    if dry_run:
        _tell(Build(settings), stages, fresh)
        return
    build_from(settings, stages, fresh)


def build_from(settings: BuildSettings, stages: Sequence[str] = (), fresh: str | None = None) -> None:
    """Build what the settings describe, show progress, and write the report.

    Args:
        settings: What to build.
        stages: As in `build`.
        fresh: As in `build`.

    Raises:
        PhotoMakerError: As `Build.run`.
    """
    from photomaker.dataset.runner import Build

    with _bars() as watcher, interruptible():
        Build(settings, watcher).run(stages, fresh)
    report(settings.out)


def report(out: Path) -> None:
    """Write the report of a build again and print its counts.

    Raises:
        PhotoMakerError: The folder contains no build, or cannot be written.
    """
    check_extra()
    from photomaker.dataset import report as reports
    from photomaker.dataset.runner import tallies

    with terminal.waiting("report"):
        written = reports.write(out)
    rows = [
        (
            one.name,
            str(one.rows),
            str(one.kept),
            *reports.speed(one)[:2],
            ", ".join(f"{n} {r}" for r, n in one.drops.items()),
        )
        for one in tallies(out)
    ]
    columns = ("stage", "in", "kept", "photos/s", "and core", "dropped")
    terminal.table("Stages", columns, rows, columns[1:5])
    for path in written:
        terminal.say(str(path))


def stages(config: Path, changes: Sequence[str]) -> None:
    """Print the progress of every stage of a build.

    Raises:
        PhotoMakerError: The settings are wrong.
    """
    check_extra()
    from photomaker.dataset.runner import Build

    _tell(Build(_settings(config, changes, paper=False)), (), None)


def _settings(config: Path, changes: Sequence[str], paper: bool) -> BuildSettings:
    from photomaker import config as files
    from photomaker.dataset.settings import BuildSettings

    settings = files.read(config, BuildSettings, changes)
    return replace(settings, paper=settings.paper or paper)


def check_extra() -> None:
    """Refuse to continue if the extra `data` is not installed.

    Raises:
        SettingsError: It is not.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"building datasets needs {', '.join(missing)}; install with: pip install 'photomaker[data]'"
        )


def _tell(build: Build, stages: Sequence[str], fresh: str | None) -> None:
    wanted = build.chosen(stages)
    build.check(fresh)
    rows = [
        (
            state.name,
            "yes" if state.name in wanted else "no",
            "not started" if state.units is None else f"{state.done} of {state.units}",
        )
        for state in build.states()
    ]
    terminal.table("Stages", ("stage", "to run", "units done"), rows)
    terminal.say(f"out: {build.plan.out}")
    terminal.say(f"executor: {build.plan.run.executor}, {build.plan.run.workers or 'all'} workers")


@contextmanager
def _bars() -> Iterator[Watcher]:
    """A line for each stage: units, photos per second, dropped photos."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from photomaker.dataset.runner import Watcher
    from photomaker.dataset.tasks import Outcome

    columns = (
        TextColumn("{task.description:8}"), BarColumn(20), MofNCompleteColumn(), TextColumn("units"),
        TimeElapsedColumn(), TextColumn("{task.fields[told]}"),
    )  # fmt: skip

    class Bars(Watcher):
        def stage(self, name: str, done: int, units: int) -> None:
            bars.start()
            self.task = bars.add_task(name, total=units, told="")
            bars.update(self.task, completed=done)  # stops the clock of a finished stage
            self.rows, self.begun, self.drops = 0, time.perf_counter(), Counter[str]()

        def unit(self, name: str, outcome: Outcome) -> None:
            self.rows += outcome.rows
            self.drops.update(outcome.drops)
            rate = self.rows / (time.perf_counter() - self.begun)
            dropped = ", ".join(f"{count} {reason}" for reason, count in self.drops.most_common(3))
            bars.update(self.task, advance=1, told=f"{rate:.1f} photos/s  {dropped}")

        def note(self, line: str) -> None:
            notes.append(line)

    notes: list[str] = []
    bars = Progress(*columns, console=Console(stderr=True))
    try:
        yield Bars()
    finally:
        if bars.live.is_started:
            bars.stop()
        terminal.notes(notes)
