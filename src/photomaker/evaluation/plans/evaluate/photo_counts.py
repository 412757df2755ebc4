"""Likeness with one, two and four photos of the person."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from photomaker.evaluation import metrics
from photomaker.evaluation.plans.cast import Cast, Grid, Part
from photomaker.evaluation.prompts import BenchPrompt

COUNTS = (1, 2, 4)
PROMPTS = 4


def measure(cast: Cast) -> Part:
    """Measure likeness for each number of photos, on the same people, prompts and noise."""
    prompts = tuple(prompt for prompt in cast.prompts if prompt.is_photo)[:PROMPTS]
    real = cast.real.where(lambda prompt: prompt in prompts).score(cast.likeness)
    curves = []
    for count in COUNTS:
        grid = _pictures(cast, prompts, count)
        curves.append(grid.score(cast.likeness).mean(axis=(1, 2)))
    by_person = np.stack(curves, axis=1)
    figures = {
        f"likeness_{count}_photos": cast.ratio(by_person[:, i], real) for i, count in enumerate(COUNTS)
    }
    for index, (fewer, more) in enumerate(pairwise(COUNTS)):
        figures[f"gain_{fewer}_to_{more}_photos"] = cast.mean(by_person[:, index + 1] - by_person[:, index])
    curve = by_person.mean(axis=0)
    detail = {
        "photos": list(COUNTS),
        "cosine": [float(value) for value in curve],
        "rises": metrics.is_monotone(curve, rising=True),
    }
    return Part(figures, {"counts": detail})


def _pictures(cast: Cast, prompts: tuple[BenchPrompt, ...], count: int) -> Grid:
    """Pictures made from a number of photos; those of the main part serve where it used as many."""
    if "main" in cast.settings.parts and count == cast.settings.references:
        return cast.generated.where(lambda prompt: prompt in prompts).first_seed()
    return cast.generate(f"{count} photos", cast.people, prompts, 1, references=count)
