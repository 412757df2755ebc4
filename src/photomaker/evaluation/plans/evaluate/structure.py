"""What a ControlNet does: landmarks with and without it, the likeness that remains, and prompt accuracy.

The person is asked to hold the head as a stranger does in a real picture. The same prompts and noise are drawn with the
ControlNet and without it, with the person and from the text alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from photomaker.evaluation import metrics
from photomaker.evaluation.plans.evaluate.cast import Bench, Grid, Part
from photomaker.evaluation.metrics import Interval
from photomaker.evaluation.prompts import BenchPrompt
from photomaker.evaluation.running.picture_sets import Followed
from photomaker.evaluation.people.world import stable_seed
from photomaker.weights import bundled, model_hash

PROMPTS = 4
"""Photo-style prompts, one picture a person each."""
BUNDLED, BUNDLED_NET = "bundled", "methods/controlnet"


def measure(bench: Bench) -> Part:
    """Measure the part; the head is held as the next person of the gallery holds it."""
    prompts = tuple(prompt for prompt in bench.prompts if prompt.is_photo)[:PROMPTS]
    classes = bench.classes[: len(bench.people)]
    figures: dict[str, Interval] = {}
    for name, merge in (("person", bench.merge), ("text", 1.0)):
        free, follows = (
            _pictures(bench, prompts, merge, scale) for scale in (0.0, bench.settings.control_scale)
        )
        for how, grid in (("free", free), ("followed", follows)):
            figures[f"landmark_error_{name}_{how}"] = _error(bench, grid)
            correct, stated = grid.accuracy(classes)
            figures[f"accuracy_{name}_{how}"] = bench.interval(metrics.prompt_accuracy, correct, stated)
            figures[f"faces_{name}_{how}"] = bench.mean(grid.found.astype(float))
        if name == "person":
            scores = free.score(bench.likeness), follows.score(bench.likeness)
            real = bench.real.where(lambda prompt: prompt in prompts).score(bench.likeness)
            figures["likeness_free"], figures["likeness_followed"] = (
                bench.ratio(one, real) for one in scores
            )
            figures["likeness_change"] = bench.ratio(scores[1] - scores[0], real.mean(2, keepdims=True))
    detail = {"control": _called(bench.settings.control), "scale": bench.settings.control_scale}
    return Part(figures, {"structure": detail})


def _pictures(bench: Bench, prompts: tuple[BenchPrompt, ...], merge: float | None, scale: float) -> Grid:
    control = str(bench.settings.control)
    weights = model_hash(bundled(BUNDLED_NET) if control == BUNDLED else Path(control))
    tasks = []
    for row, person in enumerate(bench.people):
        other = bench.everyone[(row + 1) % len(bench.everyone)]
        pose = (other, stable_seed(person, "pose", 0))
        asked = bench.picture_task(person, prompts, 1)
        tasks.append(Followed(asked.with_merge(merge), control, weights, scale, pose))
    stage = f"{'text' if merge == 1 else 'person'}, structure {scale:g}"
    return Grid.of(bench.workshop.measure(stage, tasks), prompts, 1)


def _error(bench: Bench, grid: Grid) -> Interval:
    """Mean distance in pixels over the pictures in which a face was found."""
    error = grid.more["landmark_error"]
    there = np.isfinite(error)
    return bench.ratio(np.where(there, error, 0.0), there.astype(float))


def _called(control: str | Path | None) -> str:
    return str(control) if control == BUNDLED else Path(str(control)).name
