"""The main part: likeness against its ceiling and floor, retrieval, copy-paste, prompt accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from photomaker.evaluation import metrics
from photomaker.evaluation.plans.evaluate.cast import Bench, Grid, Part, per_person
from photomaker.evaluation.metrics import Interval
from photomaker.evaluation.prompts import ATTRIBUTES

TEXT_ONLY_PROMPTS = 4
"""Photo-style prompts drawn without identity, one picture a person each."""


def measure(bench: Bench) -> Part:
    """Measure the main part."""
    figures: dict[str, Interval] = {}
    detail: dict[str, Any] = {}
    for piece in (_likeness, _floor, _retrieval, _copy_paste, _control, _diversity):
        part = piece(bench)
        figures.update(part.figures)
        detail.update(part.detail)
    return Part(figures, detail)


def _likeness(bench: Bench) -> Part:
    """Cosine to unseen photos over the same figure for real pictures, photo-style prompts."""
    generated, real = bench.generated.photos(), bench.real.photos()
    ours, ceiling = generated.score(bench.likeness), real.score(bench.likeness)
    figures = {
        "likeness_cosine": bench.mean(ours),
        "ceiling_cosine": bench.mean(ceiling),
        "likeness": bench.ratio(ours, ceiling),
    }
    rows = [
        {
            "prompt": prompt.name,
            "cosine": float(ours[:, index].mean()),
            "ceiling": float(ceiling[:, index].mean()),
            "faces_found": float(generated.found[:, index].mean()),
        }
        for index, prompt in enumerate(generated.prompts)
    ]
    detail = {"likeness_by_prompt": rows, "faces": _faces(bench)}
    other = bench.generated.where(lambda prompt: not prompt.is_photo)
    if other.prompts:
        figures["likeness_cosine_other_styles"] = bench.mean(other.score(bench.likeness))
    return Part(figures, detail)


def _faces(bench: Bench) -> dict[str, Mapping[str, int]]:
    """How many pictures had no face; each of them counts as cosine 0."""

    def count(grid: Grid) -> dict[str, int]:
        return {"pictures": grid.pictures, "without_face": grid.pictures - int(grid.found.sum())}

    return {"generated_photos": count(bench.generated.photos()), "real_photos": count(bench.real.photos())}


def _floor(bench: Bench) -> Part:
    """What a stranger of the same class reaches, and what the text alone reaches."""
    generated, real = bench.generated.photos(), bench.real.photos()

    def stranger(pictures: np.ndarray, row: int) -> np.ndarray:
        return metrics.stranger_cosine(pictures, bench.unseen, row, bench.classes)

    ours, ceiling, floor = (
        generated.score(bench.likeness),
        real.score(bench.likeness),
        generated.score(stranger),
    )
    prompts = generated.prompts[:TEXT_ONLY_PROMPTS]
    alone = bench.generate("text only", bench.people, prompts, 1, merge=1.0).score(bench.likeness)
    below = real.where(lambda prompt: prompt in prompts).score(bench.likeness)
    figures = {
        "stranger_cosine": bench.mean(floor),
        "stranger": bench.ratio(floor, ceiling),
        "real_stranger_cosine": bench.mean(real.score(stranger)),
        "likeness_over_stranger": bench.interval(metrics.times_floor, per_person(ours), per_person(floor)),
        "text_only_cosine": bench.mean(alone),
        "text_only": bench.ratio(alone, below),
    }
    return Part(figures)


def _retrieval(bench: Bench) -> Part:
    """How often a picture's nearest person in the gallery is the right one, over real pictures' rate."""
    gallery = metrics.centroids(bench.unseen)

    def hits(pictures: np.ndarray, row: int) -> np.ndarray:
        return metrics.retrieved(pictures, gallery, np.full(len(pictures), row)).astype(float)

    ours, real = bench.generated.photos().score(hits), bench.real.photos().score(hits)
    return Part(
        {
            "retrieval_rate": bench.mean(ours),
            "retrieval_rate_real": bench.mean(real),
            "retrieval": bench.ratio(ours, real),
        },
        {"gallery": len(gallery)},
    )


def _copy_paste(bench: Bench) -> Part:
    """Cosine to the references minus cosine to unseen photos; for real pictures it is chance alone.

    The mean is over pictures with a face: as zeros, the others would make a method look better than it is.
    """

    def excess(pictures: np.ndarray, row: int) -> np.ndarray:
        return metrics.copy_paste(pictures, bench.references[row], bench.unseen[row])

    def mean(grid: Grid) -> Interval:
        return bench.ratio(grid.score(excess), grid.found.astype(float))

    return Part({"copy_paste": mean(bench.generated.photos()), "copy_paste_real": mean(bench.real.photos())})


def _control(bench: Bench) -> Part:
    """Prompt accuracy of generated pictures, and of real ones: the classifier's own."""
    classes = bench.classes[: len(bench.people)]
    figures: dict[str, Interval] = {}
    rows: dict[str, dict[str, float]] = {}
    for name, grid in (("prompt_accuracy", bench.generated), ("prompt_accuracy_real", bench.real)):
        correct, stated = grid.accuracy(classes)
        figures[name] = bench.interval(metrics.prompt_accuracy, correct, stated)
        rows[name] = _named(metrics.accuracy_by_attribute(correct, stated))
    by_prompt = [
        {"prompt": prompt.name, "accuracy": _prompt_share(bench.generated, prompt.name, classes)}
        for prompt in bench.prompts
    ]
    return Part(figures, {"accuracy_by_attribute": rows, "accuracy_by_prompt": by_prompt})


def _named(by_attribute: np.ndarray) -> dict[str, float]:
    """Accuracies by name, without attributes that no prompt stated."""
    return {
        name: float(value)
        for name, value in zip(ATTRIBUTES, by_attribute, strict=True)
        if not np.isnan(value)
    }


def _prompt_share(grid: Grid, name: str, classes: list[str]) -> float:
    """Share of what one prompt states that was seen."""
    correct, stated = grid.where(lambda prompt: prompt.name == name).accuracy(classes)
    return float(correct.sum() / stated.sum())


def _diversity(bench: Bench) -> Part:
    """Mean pairwise distance between the faces of one person's photo-style pictures."""

    def mean_distance(grid: Grid) -> Interval:
        width = grid.embeddings.shape[-1]
        return bench.mean(
            np.array([metrics.face_diversity(rows.reshape(-1, width)) for rows in grid.embeddings])
        )

    return Part(
        {
            "face_diversity": mean_distance(bench.generated.photos()),
            "face_diversity_real": mean_distance(bench.real.photos()),
        }
    )
