"""What a ControlNet does: landmarks with and without it, the likeness that remains, and prompt accuracy.

The person is asked to hold the head as a stranger does in a real picture. The same prompts and noise are drawn with the
ControlNet and without it, with the person and from the text alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from photomaker.evaluation.metrics import Floats
from photomaker.evaluation.people.world import stable_seed
from photomaker.evaluation.plans.cast import Cast, Part
from photomaker.evaluation.plans.grid import Grid, per_person
from photomaker.evaluation.prompts import BenchPrompt
from photomaker.evaluation.running.picture_sets import Followed
from photomaker.weights import bundled, model_hash

PROMPTS = 4
"""Photo-style prompts, one picture a person each."""
BUNDLED, BUNDLED_NET = "bundled", "methods/controlnet"


def measure(cast: Cast) -> Part:
    """Measure the part; the head is held as the next person of the gallery holds it."""
    prompts = tuple(prompt for prompt in cast.prompts if prompt.is_photo)[:PROMPTS]
    classes = cast.classes[: len(cast.people)]
    row: dict[str, Floats] = {}
    for name, merge in (("person", cast.merge), ("text", 1.0)):
        free, follows = (
            _pictures(cast, prompts, merge, scale) for scale in (0.0, cast.settings.control_scale)
        )
        for how, grid in (("free", free), ("followed", follows)):
            row |= _held(grid, f"{name}_{how}", classes)
        if name == "person":
            scores = free.score(cast.likeness), follows.score(cast.likeness)
            real = cast.real.where(lambda prompt: prompt in prompts).score(cast.likeness)
            row |= {
                "cosine_free": per_person(scores[0]),
                "cosine_followed": per_person(scores[1]),
                "cosine_change": per_person(scores[1] - scores[0]),
                "structure_ceiling": per_person(real),
            }
    detail = {"control": _called(cast.settings.control), "scale": cast.settings.control_scale}
    return Part(row, {"structure": detail})


def _pictures(cast: Cast, prompts: tuple[BenchPrompt, ...], merge: float | None, scale: float) -> Grid:
    control = str(cast.settings.control)
    weights = model_hash(bundled(BUNDLED_NET) if control == BUNDLED else Path(control))
    tasks = []
    for row, person in enumerate(cast.people):
        other = cast.everyone[(row + 1) % len(cast.everyone)]
        pose = (other, stable_seed(person, "pose", 0))
        asked = cast.picture_task(person, prompts, 1)
        tasks.append(Followed(asked.with_merge(merge), control, weights, scale, pose))
    stage = f"{'text' if merge == 1 else 'person'}, structure {scale:g}"
    return Grid.of(cast.runner.measure(stage, tasks), prompts, 1)


def _held(grid: Grid, name: str, classes: list[str]) -> dict[str, Floats]:
    """How heads are held and prompts followed; distances are over the pictures in which a face was found."""
    error = grid.more["landmark_error"]
    there = np.isfinite(error)
    correct, stated = grid.accuracy(classes)
    return {
        f"error_{name}": per_person(np.where(there, error, 0.0)),
        f"seen_{name}": per_person(there.astype(float)),
        f"{name}_correct": correct,
        f"{name}_stated": stated,
        f"faces_{name}": per_person(grid.found.astype(float)),
    }


def _called(control: str | Path | None) -> str:
    return str(control) if control == BUNDLED else Path(str(control)).name
