"""`photomaker speed`: what every way to draw with less work costs in likeness, prompt accuracy, sharpness, diversity.

All ways draw the same people, prompts and noise. Times are of ways that take turns in one process, as shares of what
the exact way takes in the same round, so that a slow minute hits all of them; beside them stands what was computed,
counted in operations, which no other work on the machine changes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from photomaker.checks import whole
from photomaker.errors import SettingsError
from photomaker.evaluation import metrics, report
from photomaker.evaluation.ablation import Truth
from photomaker.evaluation.bench import Bench, Grid, per_person
from photomaker.evaluation.benchmark import CACHE
from photomaker.evaluation.metrics import Interval
from photomaker.evaluation.settings import BenchmarkSettings
from photomaker.evaluation.tasks import Pictures, SpedPictures
from photomaker.evaluation.workshop import Progress, Tools, Worker, Workshop
from photomaker.outside import read_file
from photomaker.speeds import EXACT, WAYS, Way
from photomaker.types import Sampling

NAME = "speed"
SPLITS = ("validation", "test")
REFERENCES = 4
"""Photos of a person."""


@dataclass(frozen=True)
class SpeedSettings:
    """One run.

    Attributes:
        people: People scored, 2 or more.
        prompts: Prompts, from the first on.
        seeds: Pictures a person and prompt.
        split: `validation` while something is still chosen, `test` for the figures.
        ways: Names of ways, see `photomaker.speeds`; empty is all of them.
        rounds: How often each way is timed.
        pictures: Pictures that are timed together.
        out: Folder of the results; pictures and measurements are kept in `.cache` inside it.
        processes: Processes that draw and measure pictures.
        threads: Threads of each process.
        device: Where pictures are drawn.
        dtype: Precision, see `BenchmarkSettings`.
        samples: Bootstrap resamples.
    """

    people: int = 50
    prompts: int = 10
    seeds: int = 2
    split: str = "test"
    ways: tuple[str, ...] = ()
    rounds: int = 5
    pictures: int = 1
    out: Path = Path("benchmarks")
    processes: int = 2
    threads: int = 1
    device: str = "auto"
    dtype: str = "auto"
    samples: int = 2000

    def __post_init__(self) -> None:
        """Check what the benchmark's own settings do not.

        Raises:
            SettingsError: A way is unknown, or a number out of range.
        """
        whole("rounds", self.rounds, 1, 1000)
        whole("pictures", self.pictures, 1, 64)
        unknown = [name for name in self.ways if name not in WAYS]
        if unknown:
            raise SettingsError(f"there is no way {unknown[0]!r}; known are {', '.join(WAYS)}")
        _ = self.bench

    @property
    def bench(self) -> BenchmarkSettings:
        """People, prompts and processes as the benchmark takes them."""
        return BenchmarkSettings(
            name=NAME, out=self.out, split=self.split, people=self.people, gallery=max(2, self.people),
            prompts=self.prompts, seeds=self.seeds, references=REFERENCES, processes=self.processes,
            threads=self.threads, device=self.device, dtype=self.dtype, samples=self.samples,
        )  # fmt: skip

    @property
    def chosen(self) -> Mapping[str, Way]:
        """The ways that are measured, the exact one first."""
        names = dict.fromkeys((EXACT, *(self.ways or WAYS)))
        return {name: WAYS[name] for name in names}


@dataclass(frozen=True)
class Row:
    """What one way reaches.

    Attributes:
        name: Of the way.
        sampling: How it draws.
        figures: Name to interval.
        seconds: A picture, the median of the rounds.
        share: Of the exact way's seconds in the same round, the median.
        tflop: Operations of a picture, in units of 10^12.
    """

    name: str
    sampling: Sampling
    figures: Mapping[str, Interval] = field(default_factory=dict)
    seconds: float = 0.0
    share: float = 1.0
    tflop: float = 0.0


def run(settings: SpeedSettings, progress: Progress | None = None, tools: Tools | None = None) -> list[Row]:
    """Measure ways; what is measured already is not measured again.

    Args:
        settings: What is measured.
        progress: See `Workshop`.
        tools: See `Workshop`.

    Raises:
        PhotoMakerError: A model is missing, or the results cannot be written.
    """
    tools = tools or Tools()
    cache = settings.out / CACHE / NAME
    models = " ".join(tools.models(settings.bench).values())
    prints = f"{NAME} {models} {settings.dtype} {tools.judge().fingerprint()} {tools.world().fingerprint()}"
    truth = Truth(settings.bench, tools, cache / "truth", progress)
    grids: dict[str, Grid] = {}
    with Workshop(settings.bench, tools, cache / "pictures", prints, progress) as workshop:
        bench = Bench(settings.bench, workshop, None, None)
        for name, way in settings.chosen.items():
            tasks = [_task(bench, person, way) for person in bench.people]
            grids[name] = Grid.of(workshop.measure(name, tasks), bench.prompts, settings.seeds)
    clock = Clock(settings, tools, cache / "times.json", prints)
    return _rows(settings, truth, grids, clock.measured(truth.bench, progress))


def _task(bench: Bench, person: int, way: Way) -> SpedPictures:
    given = bench.picture_task(person, bench.prompts, bench.settings.seeds)
    return SpedPictures(**vars(given), way=_sampling(given, way))


def _sampling(task: Pictures, way: Way) -> Sampling:
    return way.applied(task.sampling(0))


def _rows(
    settings: SpeedSettings, truth: Truth, grids: Mapping[str, Grid], times: Mapping[str, Times]
) -> list[Row]:
    exact = grids[EXACT]
    rows = []
    for name, grid in grids.items():
        found = _figures(truth, grid, exact, settings.samples)
        took = times[name]
        rows.append(
            Row(name, settings.chosen[name].applied(Sampling()), found, took.seconds, took.share, took.tflop)
        )
    return rows


def _figures(truth: Truth, grid: Grid, exact: Grid, samples: int) -> dict[str, Interval]:
    """The figures of a way, and how they stand to those of the exact one, person by person."""
    own, other = (truth.scores(one, REFERENCES) for one in (grid, exact))

    def interval(statistic: Any, *columns: np.ndarray) -> Interval:  # noqa: ANN401 - of any number of arrays
        return metrics.bootstrap(statistic, *columns, samples=samples)

    sharp, exact_sharp = (per_person(one.photos().more["sharpness"]) for one in (grid, exact))
    spread, exact_spread = (_diversity(one) for one in (grid, exact))
    return {
        "likeness": interval(metrics.ratio_of_means, own.likeness, own.ceiling),
        "likeness_share": interval(metrics.ratio_of_means, own.likeness, other.likeness),
        "prompt_accuracy": interval(metrics.prompt_accuracy, own.correct, own.stated),
        "accuracy_points": interval(_points, own.correct, own.stated, other.correct, other.stated),
        "sharpness_share": interval(metrics.ratio_of_means, sharp, exact_sharp),
        "diversity_share": interval(metrics.ratio_of_means, spread, exact_spread),
    }


def _points(*columns: np.ndarray) -> float:
    """Prompt accuracy above another, in shares."""
    return metrics.prompt_accuracy(*columns[:2]) - metrics.prompt_accuracy(*columns[2:])


def _diversity(grid: Grid) -> np.ndarray:
    """[P] how far a person's photo-style faces lie apart."""
    photos = grid.photos()
    width = photos.embeddings.shape[-1]
    return np.array([metrics.face_diversity(rows.reshape(-1, width)) for rows in photos.embeddings])


# ---- time


@dataclass(frozen=True)
class Times:
    """What a way takes.

    Attributes:
        seconds: A picture.
        share: Of the exact way's.
        tflop: Operations of a picture, in units of 10^12.
    """

    seconds: float
    share: float
    tflop: float


class Clock:
    """Times the ways in turns; rounds are kept as they are done.

    Args:
        settings: Ways and rounds.
        tools: How the method is opened.
        path: Keeps the rounds.
        prints: What the times depend on beside the ways.
    """

    def __init__(self, settings: SpeedSettings, tools: Tools, path: Path, prints: str) -> None:
        """Read the rounds that are there."""
        self.settings, self.path, self.worker = settings, path, Worker(settings.bench, tools)
        self.key = f"{prints} {settings.threads} threads {settings.pictures} pictures"
        kept = read_file(path, "delete it, and give the same command again") if path.is_file() else {}
        self.kept: dict[str, Any] = kept if kept.get("key") == self.key else {"key": self.key, "ways": {}}

    def measured(self, bench: Bench, progress: Progress | None = None) -> dict[str, Times]:
        """Every way's times, those that were not kept measured now.

        Args:
            bench: Whose first person and prompts are drawn.
            progress: Called with the rounds.
        """
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.settings.threads)
        try:
            self._measure(bench, progress)
        finally:
            torch.set_num_threads(before)
        return {name: self._times(self.kept["ways"][name]) for name in self.settings.chosen}

    def _measure(self, bench: Bench, progress: Progress | None) -> None:
        missing = {name: way for name, way in self.settings.chosen.items() if name not in self.kept["ways"]}
        if not missing:
            return
        task = replace(bench.picture_task(bench.people[0], bench.prompts[:1], self.settings.pictures))
        exact = SpedPictures(**vars(task), way=_sampling(task, WAYS[EXACT]))
        self.worker.make(exact)
        found: dict[str, Any] = {name: {"pairs": [], "tflop": 0.0} for name in missing}
        for number in range(self.settings.rounds):
            for name, way in missing.items():
                sped = SpedPictures(**vars(task), way=_sampling(task, way))
                if not number:
                    found[name]["tflop"] = self._operations(sped)
                # the exact way right before each: a slow minute hits both
                pair = [self.worker.make(one).seconds / self.settings.pictures for one in (exact, sped)]
                found[name]["pairs"].append(pair)
            if progress:
                progress("times", number + 1, self.settings.rounds)
        self.kept["ways"].update(found)
        report.write(self.path, json.dumps(self.kept))

    def _operations(self, task: SpedPictures) -> float:
        """Operations of one picture of a task."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.worker.make(replace(task, prompts=task.prompts[:1], seeds=task.seeds[:1]))
        return float(counter.get_total_flops()) / 1e12

    @staticmethod
    def _times(kept: Mapping[str, Any]) -> Times:
        exact, own = np.array(kept["pairs"]).T
        return Times(float(np.median(own)), float(np.median(own / exact)), float(kept["tflop"]))
