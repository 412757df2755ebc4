"""What adapters of an ablation reach: scores of each person, pooled over training seeds, with intervals over people."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from photomaker.evaluation import metrics, report
from photomaker.evaluation.bench import Bench, Grid, per_person
from photomaker.evaluation.metrics import Floats, Interval
from photomaker.evaluation.settings import BenchmarkSettings
from photomaker.evaluation.workshop import Progress, Tools, Workshop
from photomaker.outside import read_file

FIGURES = ("likeness", "prompt_accuracy", "copy_paste")
"""The figures of an ablation, in the order of its tables."""


@dataclass(frozen=True)
class Scores:
    """What one adapter reached, a row a person.

    Attributes:
        likeness: [P] mean cosine of photo-style pictures to unseen photos.
        ceiling: [P] the same of real pictures in the same circumstances.
        excess: [P] summed copy-paste of the photo-style pictures with a face.
        faces: [P] how many those are.
        correct: [P, attributes] how often the classifier saw what the prompt states.
        stated: [P, attributes] how often prompts stated the attribute.
    """

    likeness: Floats
    ceiling: Floats
    excess: Floats
    faces: Floats
    correct: Floats
    stated: Floats

    def as_json(self) -> dict[str, Any]:
        """Plain lists."""
        return {name: values.tolist() for name, values in vars(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Scores:
        """From plain lists."""
        return cls(**{name: np.asarray(values[name], dtype=float) for name in cls.__dataclass_fields__})


class Truth:
    """The people of an ablation with their real photos, measured once for all adapters.

    Args:
        settings: People, prompts and processes; `references` is the largest number of photos.
        tools: Where people and judge come from.
        folder: Keeps the measurements.
        progress: See `Workshop`.
    """

    def __init__(
        self, settings: BenchmarkSettings, tools: Tools, folder: Path, progress: Progress | None = None
    ) -> None:
        """Measure what is not kept already."""
        fingerprint = f"{tools.judge().fingerprint()} {tools.world().fingerprint()}"
        with Workshop(settings, tools, folder, fingerprint, progress) as workshop:
            self.bench = Bench(settings, workshop, settings.merge, settings.guidance)
            # all of it now, while the workshop is open
            self.real, self.references, self.unseen = (
                self.bench.real,
                self.bench.references,
                self.bench.unseen,
            )

    def scores(self, grid: Grid, references: int) -> Scores:
        """Scores of generated pictures that were made from so many photos."""

        def excess(pictures: np.ndarray, row: int) -> np.ndarray:
            return metrics.copy_paste(pictures, self.references[row, :references], self.unseen[row])

        photos = grid.photos()
        people = len(photos.embeddings)
        correct, stated = grid.accuracy(self.bench.classes)
        return Scores(
            per_person(photos.score(self.bench.likeness)),
            per_person(self.real.photos().score(self.bench.likeness)),
            (photos.score(excess) * photos.found).reshape(people, -1).sum(axis=1),
            photos.found.reshape(people, -1).sum(axis=1).astype(float),
            correct,
            stated,
        )


def measure(
    settings: BenchmarkSettings,
    truth: Truth,
    tools: Tools,
    counts: Sequence[int],
    folder: Path,
    progress: Progress | None = None,
) -> dict[int, Scores]:
    """Generate and score one adapter's pictures for each number of photos; kept pictures are used again.

    Args:
        settings: As those of `truth`, with the adapter.
        truth: The people.
        tools: How the method is opened.
        counts: Numbers of photos.
        folder: Keeps pictures and measurements; its name stands for everything that the adapter depends on.
        progress: See `Workshop`.
    """
    with Workshop(settings, tools, folder, folder.name, progress) as workshop:
        bench = Bench(settings, workshop, settings.merge, settings.guidance)
        found = {}
        for count in counts:
            stage = f"{count} photo{'s' if count > 1 else ''}"
            grid = bench.generate(stage, bench.people, bench.prompts, settings.seeds, references=count)
            found[count] = truth.scores(grid, count)
        return found


def write_scores(path: Path, found: Mapping[int, Scores]) -> None:
    """Keep the scores of one adapter by number of photos."""
    report.write(path, json.dumps({str(count): scores.as_json() for count, scores in found.items()}))


def read_scores(path: Path) -> dict[int, Scores]:
    """Read what `write_scores` kept."""
    kept = read_file(path, "delete it, and give the same command again")
    return {int(count): Scores.from_json(values) for count, values in kept.items()}


def pooled(seeds: Sequence[Scores]) -> Scores:
    """One row a person: each person's scores averaged over the training seeds, counts summed."""

    def together(name: str, join: Callable[..., Floats]) -> Floats:
        return join(np.stack([getattr(one, name) for one in seeds]), axis=0)

    means = {name: together(name, np.mean) for name in ("likeness", "ceiling")}
    sums = {name: together(name, np.sum) for name in ("excess", "faces", "correct", "stated")}
    return Scores(**means, **sums)


def values(scores: Scores) -> dict[str, float]:
    """The figures of some scores, without intervals."""
    return {name: statistic(*columns(scores)) for name, (statistic, columns) in _STATISTICS.items()}


def intervals(scores: Scores, samples: int) -> dict[str, Interval]:
    """The figures with their bootstrap intervals over people."""
    return {
        name: metrics.bootstrap(statistic, *columns(scores), samples=samples)
        for name, (statistic, columns) in _STATISTICS.items()
    }


def differences(scores: Scores, reference: Scores, samples: int) -> dict[str, Interval]:
    """How much the figures exceed those of a reference, person by person on the same prompts and noise."""
    found = {}
    for name, (statistic, columns) in _STATISTICS.items():
        own, other = columns(scores), columns(reference)
        half = len(own)

        def difference(*both: Floats, statistic: Callable[..., float] = statistic, half: int = half) -> float:
            return statistic(*both[:half]) - statistic(*both[half:])

        found[name] = metrics.bootstrap(difference, *own, *other, samples=samples)
    return found


_STATISTICS: Mapping[str, tuple[Callable[..., float], Callable[[Scores], tuple[Floats, ...]]]] = {
    "likeness": (metrics.ratio_of_means, lambda one: (one.likeness, one.ceiling)),
    "prompt_accuracy": (metrics.prompt_accuracy, lambda one: (one.correct, one.stated)),
    "copy_paste": (metrics.ratio_of_means, lambda one: (one.excess, one.faces)),
}
"""Each figure's statistic, and the arrays [P, ...] that it is computed from."""


def found(seeds: Sequence[Scores], reference: Sequence[Scores] | None, samples: int) -> dict[str, Any]:
    """Everything about one variant, as JSON data.

    Args:
        seeds: Its scores, one a training seed.
        reference: Those of what it is compared with, on the same people and prompts; None for that itself.
        samples: Bootstrap resamples.

    Returns:
        `figures` (pooled over seeds, with intervals), `by_seed` (figure to one value a seed, None if it is
        undefined), and `difference` (figure to the interval of the excess over the reference), which that lacks.
    """
    together = pooled(seeds)
    each = [values(one) for one in seeds]
    result: dict[str, Any] = {
        "figures": _plain(intervals(together, samples)),
        "by_seed": {name: [None if np.isnan(one[name]) else one[name] for one in each] for name in FIGURES},
    }
    if reference is not None:
        result["difference"] = _plain(differences(together, pooled(reference), samples))
    return result


def _plain(figures: Mapping[str, Interval]) -> dict[str, Any]:
    return {name: asdict(interval) for name, interval in figures.items()}


def fingerprint(*parts: object) -> str:
    """Eight hexadecimal digits that change with any of the parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:8]
