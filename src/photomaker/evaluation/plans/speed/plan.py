"""`photomaker speed`: what every way to draw with less work costs in likeness, prompt accuracy, sharpness, diversity.

All ways draw the same people, prompts and noise. Times are of ways that take turns in one process, as shares of what
the exact way takes in the same round, so that a slow minute hits all of them; beside them stands what was computed,
counted in operations, which no other work on the machine changes.
"""

from __future__ import annotations

import numpy as np

from photomaker.evaluation import metrics
from photomaker.evaluation.plans.cast import Cast, measured_cast, open_runner
from photomaker.evaluation.plans.grid import Grid, face_diversity, per_person
from photomaker.evaluation.plans.speed import page
from photomaker.evaluation.plans.speed.settings import NAME, REFERENCES, Row, SpeedSettings
from photomaker.evaluation.plans.speed.timing import Clock, drawn_by
from photomaker.evaluation.report import files, plots
from photomaker.evaluation.report.files import CACHE, Result
from photomaker.evaluation.report.tables import ByPerson, Column, figures
from photomaker.evaluation.running.runner import Progress
from photomaker.evaluation.running.worker import Tools
from photomaker.speeds import EXACT
from photomaker.types import Sampling


def _points(*columns: np.ndarray) -> float:
    """Prompt accuracy above another, in shares."""
    return metrics.prompt_accuracy(*columns[:2]) - metrics.prompt_accuracy(*columns[2:])


COLUMNS: tuple[Column, ...] = (
    Column("likeness", "likeness, over the ceiling", metrics.ratio_of_means, ("likeness", "ceiling")),
    Column("likeness_share", "likeness, of exact's", metrics.ratio_of_means, ("likeness", "exact_likeness")),
    Column("prompt_accuracy", "prompt accuracy", metrics.prompt_accuracy, ("correct", "stated")),
    Column(
        "accuracy_points", "prompt accuracy, above exact's", _points,
        ("correct", "stated", "exact_correct", "exact_stated"),
    ),
    Column(
        "sharpness_share", "sharpness, of exact's", metrics.ratio_of_means, ("sharpness", "exact_sharpness")
    ),
    Column(
        "diversity_share", "diversity, of exact's", metrics.ratio_of_means, ("diversity", "exact_diversity")
    ),
)  # fmt: skip
"""The figures of a way; those of the exact way stand beside its own, person by person."""


def run(settings: SpeedSettings, progress: Progress | None = None, tools: Tools | None = None) -> Result:
    """Measure ways and write `speed.json`, `speed.md` and `speed.png` into `settings.out`; see `measured`."""
    plots.check()
    rows = measured(settings, progress, tools)
    document, image = page.document(settings, rows), f"{NAME}.png"
    pages = {"md": page.markdown(settings, rows, image)}
    return files.publish(settings.out / NAME, document, pages, {image: page.plot(rows)})


def measured(
    settings: SpeedSettings, progress: Progress | None = None, tools: Tools | None = None
) -> list[Row]:
    """Measure ways; what is measured already is not measured again.

    Args:
        settings: What is measured.
        progress: See `running.runner.Runner`.
        tools: See `running.runner.Runner`.

    Raises:
        PhotoMakerError: A model is missing, or the results cannot be written.
    """
    tools, scored = tools or Tools(), settings.scored
    cache = settings.out / CACHE / NAME
    models = " ".join(tools.models(scored.entry, scored).values())
    judges = f"{tools.judged_by(scored)} {tools.world(scored).fingerprint()}"
    mark = f"{NAME} {models} {settings.dtype} {judges}"
    real = measured_cast(scored, tools, cache / "truth", progress)
    grids: dict[str, Grid] = {}
    with open_runner(scored, tools, cache / "pictures", mark, progress) as runner:
        cast = Cast(scored, runner, None, None)
        for name, way in settings.chosen.items():
            given = [cast.picture_task(person, cast.prompts, settings.seeds) for person in cast.people]
            sets = [drawn_by(one, way) for one in given]
            grids[name] = Grid.of(runner.measure(name, sets), cast.prompts, settings.seeds)
    times = Clock(settings, tools, cache / "times.json", mark).measured(real, progress)
    by_person = {name: _by_person(real, grid) for name, grid in grids.items()}
    exact = {f"exact_{name}": values for name, values in by_person[EXACT].items()}
    return [
        Row(
            name,
            settings.chosen[name].applied(Sampling()),
            figures(COLUMNS, {**own, **exact}, settings.samples),
            **vars(times[name]),
        )
        for name, own in by_person.items()
    ]


def _by_person(real: Cast, grid: Grid) -> ByPerson:
    """Scores of a way, with the sharpness of its photos and how far a person's photo-style faces lie apart."""
    sharp = per_person(grid.photos().more["sharpness"])
    scores = vars(real.scores(grid, REFERENCES))
    return {**scores, "sharpness": sharp, "diversity": face_diversity(grid)}
