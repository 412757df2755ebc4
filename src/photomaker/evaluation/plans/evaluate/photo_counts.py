"""Likeness with one, two and four photos of the person."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from photomaker.evaluation import metrics
from photomaker.evaluation.plans.cast import Cast, Part
from photomaker.evaluation.plans.evaluate.columns import COUNTS
from photomaker.evaluation.plans.grid import Grid, per_person
from photomaker.evaluation.prompts import BenchPrompt

PROMPTS = 4


def measure(cast: Cast) -> Part:
    """Measure likeness for each number of photos, on the same people, prompts and noise."""
    prompts = tuple(prompt for prompt in cast.prompts if prompt.is_photo)[:PROMPTS]
    real = cast.real.where(lambda prompt: prompt in prompts).score(cast.likeness)
    curves = {
        count: _pictures(cast, prompts, count).score(cast.likeness).mean(axis=(1, 2)) for count in COUNTS
    }
    row = {"counts_ceiling": per_person(real)}
    row |= {f"cosine_{count}_photos": values for count, values in curves.items()}
    for fewer, more in pairwise(COUNTS):
        row[f"gain_{fewer}_to_{more}_photos"] = curves[more] - curves[fewer]
    curve = np.stack(list(curves.values()), axis=1).mean(axis=0)
    detail = {
        "photos": list(COUNTS),
        "cosine": [float(value) for value in curve],
        "rises": metrics.is_monotone(curve, rising=True),
    }
    return Part(row, {"counts": detail})


def _pictures(cast: Cast, prompts: tuple[BenchPrompt, ...], count: int) -> Grid:
    """Pictures made from a number of photos; those of the main part serve where it used as many."""
    if "main" in cast.settings.parts and count == cast.settings.references:
        return cast.generated.where(lambda prompt: prompt in prompts).first_seed()
    return cast.generate(f"{count} photos", cast.people, prompts, 1, references=count)
