"""Identity mixing by weights: from person A to person B in five steps."""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest

import numpy as np

from photomaker.evaluation import metrics
from photomaker.evaluation.plans.cast import Cast, Part
from photomaker.evaluation.plans.evaluate.columns import WEIGHTS
from photomaker.evaluation.running.picture_sets import Pictures

PROMPTS = 2
SEEDS = 2


def measure(cast: Cast) -> Part:
    """Measure the cosine to unseen photos of A and of B at each weight, on pairs of one class."""
    pairs = pairs_of_a_class(cast.classes[: len(cast.people)], cast.settings.pairs)
    if not pairs:
        return Part({}, {"mixing": {"pairs": 0}})
    to_first, to_second = np.zeros((2, len(pairs), len(WEIGHTS)))
    for column, weight in enumerate(WEIGHTS):
        tasks = [_task(cast, pair, weight) for pair in pairs]
        found = cast.runner.measure(f"mixing {weight:g}", tasks)
        for row, ((first, second), measured) in enumerate(zip(pairs, found, strict=True)):
            to_first[row, column] = cast.likeness(measured.embeddings, first).mean()
            to_second[row, column] = cast.likeness(measured.embeddings, second).mean()
    return _part(to_first, to_second)


def pairs_of_a_class(classes: list[str], most: int) -> list[tuple[int, int]]:
    """Rows of people paired within their class, each person once, classes taking turns."""
    members = {name: [row for row, own in enumerate(classes) if own == name] for name in sorted(set(classes))}
    queues = [list(zip(rows[::2], rows[1::2], strict=False)) for rows in members.values()]
    turns = [pair for turn in zip_longest(*queues) for pair in turn if pair is not None]
    return turns[:most]


def _task(cast: Cast, pair: tuple[int, int], weight: float) -> Pictures:
    first, second = (cast.people[row] for row in pair)
    prompts = [prompt for prompt in cast.prompts if prompt.is_photo][:PROMPTS]
    alone = cast.picture_task(first, prompts, SEEDS)
    return replace(alone, people=(first, second), weights=(1 - weight, weight))


def _part(to_first: np.ndarray, to_second: np.ndarray) -> Part:
    falls = metrics.is_monotone(to_first.mean(axis=0), rising=False)
    rises = metrics.is_monotone(to_second.mean(axis=0), rising=True)
    row = {
        f"mixing_{weight:g}_to_{side}": curves[:, column]
        for side, curves in (("a", to_first), ("b", to_second))
        for column, weight in enumerate(WEIGHTS)
    }
    detail = {
        "pairs": len(to_first),
        "weights": list(WEIGHTS),
        "to_a": [float(value) for value in to_first.mean(axis=0)],
        "to_b": [float(value) for value in to_second.mean(axis=0)],
        "monotone": falls and rises,
        "pairs_falling_to_a": metrics.monotone_share(to_first, rising=False),
        "pairs_rising_to_b": metrics.monotone_share(to_second, rising=True),
    }
    return Part(row, {"mixing": detail})
