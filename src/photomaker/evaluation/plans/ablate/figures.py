"""What the variants of an ablation reach: scores of each person, pooled over training seeds, with intervals."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from photomaker.evaluation import metrics
from photomaker.evaluation.metrics import Floats
from photomaker.evaluation.plans.cast import Cast, open_runner
from photomaker.evaluation.plans.evaluate.settings import EvaluationSettings
from photomaker.evaluation.plans.grid import Scores
from photomaker.evaluation.report import tables
from photomaker.evaluation.report.files import write
from photomaker.evaluation.report.tables import Column
from photomaker.evaluation.running.runner import Progress
from photomaker.evaluation.running.worker import Tools
from photomaker.outside import read_file

COLUMNS: tuple[Column, ...] = (
    Column(
        "likeness", "likeness, over the ceiling", metrics.ratio_of_means, ("likeness", "ceiling"), unit="%"
    ),
    Column("prompt_accuracy", "prompt accuracy", metrics.prompt_accuracy, ("correct", "stated"), unit="%"),
    Column("copy_paste", "copy-paste", metrics.ratio_of_means, ("excess", "faces")),
)
"""The columns of an ablation, computed from `Scores`."""


def measure(
    settings: EvaluationSettings,
    real: Cast,
    tools: Tools,
    counts: Sequence[int],
    folder: Path,
    progress: Progress | None = None,
) -> dict[int, Scores]:
    """Generate and score one adapter's pictures for each number of photos; kept pictures are used again.

    Args:
        settings: As those of `real`, with the adapter.
        real: The people.
        tools: How the method is opened.
        counts: Numbers of photos.
        folder: Keeps pictures and measurements; its name stands for everything that the adapter depends on.
        progress: See `running.runner.Runner`.
    """
    with open_runner(settings, tools, folder, folder.name, progress) as runner:
        cast = Cast(settings, runner, settings.merge, settings.guidance)
        found = {}
        for count in counts:
            stage = f"{count} photo{'s' if count > 1 else ''}"
            grid = cast.generate(stage, cast.people, cast.prompts, settings.seeds, references=count)
            found[count] = real.scores(grid, count)
        return found


def write_scores(path: Path, found: Mapping[int, Scores]) -> None:
    """Keep the scores of one adapter by number of photos."""
    write(path, json.dumps({str(count): scores.as_json() for count, scores in found.items()}))


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
    together = vars(pooled(seeds))
    each = [tables.values(COLUMNS, vars(one)) for one in seeds]
    result: dict[str, Any] = {
        "figures": tables.plain(tables.figures(COLUMNS, together, samples)),
        "by_seed": {
            one.key: [None if np.isnan(values[one.key]) else values[one.key] for values in each]
            for one in COLUMNS
        },
    }
    if reference is not None:
        less = tables.differences(COLUMNS, together, vars(pooled(reference)), samples)
        result["difference"] = tables.plain(less)
    return result
