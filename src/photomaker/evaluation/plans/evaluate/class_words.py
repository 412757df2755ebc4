"""Age and gender changed by the class word: whether the class is seen, and how much likeness remains."""

from __future__ import annotations

from typing import Any

import numpy as np

from photomaker.evaluation.judges.bundled import Measured
from photomaker.evaluation.plans.cast import Cast, Part

PROMPTS = 2

Case = tuple[int, str]
"""Row of a person, and the class the person is changed to."""


def measure(cast: Cast) -> Part:
    """Measure every change of class, against the same person drawn in that class."""
    parts = {change: _change(cast, change) for change in ("age", "gender")}
    detail = {"classes": {change: part.detail for change, part in parts.items()}}
    return Part(Part.joined(parts.values()).row, detail)


def _change(cast: Cast, change: str) -> Part:
    prompts = [prompt for prompt in cast.prompts if prompt.is_photo][:PROMPTS]
    world = cast.runner.world
    cases = [
        (row, target)
        for row, person in enumerate(cast.people)
        for target in world.changed_classes(person)[change]
    ]
    drawn = [cast.picture_task(cast.people[row], prompts, 1, target) for row, target in cases]
    real = [cast.context_task(cast.people[row], prompts, 1, target) for row, target in cases]
    ours = _scores(cast, cases, cast.runner.measure(f"{change} by class word", drawn))
    ceiling = _scores(cast, cases, cast.runner.measure(f"{change}, real pictures", real))
    mine, best = _by_person(cast, cases, ours), _by_person(cast, cases, ceiling)
    row = {
        f"{change}_accuracy": mine[:, 0],
        f"{change}_accuracy_real": best[:, 0],
        f"{change}_cosine": mine[:, 1],
        f"{change}_ceiling_cosine": best[:, 1],
    }
    return Part(row, {"by_target": _by_target(cases, ours, ceiling)})


def _scores(cast: Cast, cases: list[Case], found: list[Measured]) -> np.ndarray:
    """[cases, 2]: share of pictures seen as the target class, mean cosine to the person's unseen photos."""
    return np.array(
        [
            (
                np.mean(measured.labels["person_class"] == target),
                cast.likeness(measured.embeddings, row).mean(),
            )
            for (row, target), measured in zip(cases, found, strict=True)
        ],
        dtype=float,
    )


def _by_person(cast: Cast, cases: list[Case], scores: np.ndarray) -> np.ndarray:
    """[people, 2]: means over the changes of each person."""
    rows = np.array([row for row, _ in cases])
    return np.stack([scores[rows == row].mean(axis=0) for row in range(len(cast.people))])


def _by_target(cases: list[Case], ours: np.ndarray, ceiling: np.ndarray) -> list[dict[str, Any]]:
    """Accuracy and cosine by the class changed to."""
    targets = np.array([target for _, target in cases])
    return [
        {
            "class": str(target),
            "changes": int(np.count_nonzero(targets == target)),
            "accuracy": float(ours[targets == target, 0].mean()),
            "cosine": float(ours[targets == target, 1].mean()),
            "ceiling": float(ceiling[targets == target, 1].mean()),
        }
        for target in np.unique(targets)
    ]
