"""The main part: likeness against its ceiling and floor, retrieval, copy-paste, prompt accuracy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from photomaker.evaluation import metrics
from photomaker.evaluation.metrics import Interval
from photomaker.evaluation.plans.cast import Cast, Grid, Part, per_person
from photomaker.evaluation.prompts import ATTRIBUTES

TEXT_ONLY_PROMPTS = 4
"""Photo-style prompts drawn without identity, one picture a person each."""


def measure(cast: Cast) -> Part:
    """Measure the main part."""
    pieces = (_likeness, _floor, _retrieval, _copy_paste, _control, _diversity)
    return Part.joined(piece(cast) for piece in pieces)


def _likeness(cast: Cast) -> Part:
    """Cosine to unseen photos over the same figure for real pictures, photo-style prompts."""
    generated, real = cast.generated.photos(), cast.real.photos()
    ours, ceiling = generated.score(cast.likeness), real.score(cast.likeness)
    figures = {
        "likeness_cosine": cast.mean(ours),
        "ceiling_cosine": cast.mean(ceiling),
        "likeness": cast.ratio(ours, ceiling),
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
    detail = {"likeness_by_prompt": rows, "faces": _faces(cast)}
    other = cast.generated.where(lambda prompt: not prompt.is_photo)
    if other.prompts:
        figures["likeness_cosine_other_styles"] = cast.mean(other.score(cast.likeness))
    return Part(figures, detail)


def _faces(cast: Cast) -> dict[str, Mapping[str, int]]:
    """How many pictures had no face; each of them counts as cosine 0."""

    def count(grid: Grid) -> dict[str, int]:
        return {"pictures": grid.pictures, "without_face": grid.pictures - int(grid.found.sum())}

    return {"generated_photos": count(cast.generated.photos()), "real_photos": count(cast.real.photos())}


def _floor(cast: Cast) -> Part:
    """What a stranger of the same class reaches, and what the text alone reaches."""
    generated, real = cast.generated.photos(), cast.real.photos()

    def stranger(pictures: np.ndarray, row: int) -> np.ndarray:
        return metrics.stranger_cosine(pictures, cast.unseen, row, cast.classes)

    ours, ceiling, floor = (
        generated.score(cast.likeness),
        real.score(cast.likeness),
        generated.score(stranger),
    )
    prompts = generated.prompts[:TEXT_ONLY_PROMPTS]
    alone = cast.generate("text only", cast.people, prompts, 1, merge=1.0).score(cast.likeness)
    below = real.where(lambda prompt: prompt in prompts).score(cast.likeness)
    figures = {
        "stranger_cosine": cast.mean(floor),
        "stranger": cast.ratio(floor, ceiling),
        "real_stranger_cosine": cast.mean(real.score(stranger)),
        "likeness_over_stranger": cast.interval(metrics.times_floor, per_person(ours), per_person(floor)),
        "text_only_cosine": cast.mean(alone),
        "text_only": cast.ratio(alone, below),
    }
    return Part(figures)


def _retrieval(cast: Cast) -> Part:
    """How often a picture's nearest person in the gallery is the right one, over real pictures' rate."""
    gallery = metrics.centroids(cast.unseen)

    def hits(pictures: np.ndarray, row: int) -> np.ndarray:
        return metrics.retrieved(pictures, gallery, np.full(len(pictures), row)).astype(float)

    ours, real = cast.generated.photos().score(hits), cast.real.photos().score(hits)
    return Part(
        {
            "retrieval_rate": cast.mean(ours),
            "retrieval_rate_real": cast.mean(real),
            "retrieval": cast.ratio(ours, real),
        },
        {"gallery": len(gallery)},
    )


def _copy_paste(cast: Cast) -> Part:
    """Cosine to the references minus cosine to unseen photos; for real pictures it is chance alone.

    The mean is over pictures with a face: as zeros, the others would make a method look better than it is.
    """

    def excess(pictures: np.ndarray, row: int) -> np.ndarray:
        return metrics.copy_paste(pictures, cast.references[row], cast.unseen[row])

    def mean(grid: Grid) -> Interval:
        return cast.ratio(grid.score(excess), grid.found.astype(float))

    return Part({"copy_paste": mean(cast.generated.photos()), "copy_paste_real": mean(cast.real.photos())})


def _control(cast: Cast) -> Part:
    """Prompt accuracy of generated pictures, and of real ones: the classifier's own."""
    classes = cast.classes[: len(cast.people)]
    figures: dict[str, Interval] = {}
    rows: dict[str, dict[str, float]] = {}
    for name, grid in (("prompt_accuracy", cast.generated), ("prompt_accuracy_real", cast.real)):
        correct, stated = grid.accuracy(classes)
        figures[name] = cast.interval(metrics.prompt_accuracy, correct, stated)
        rows[name] = _named(metrics.accuracy_by_attribute(correct, stated))
    by_prompt = [
        {"prompt": prompt.name, "accuracy": _prompt_share(cast.generated, prompt.name, classes)}
        for prompt in cast.prompts
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


def _diversity(cast: Cast) -> Part:
    """Mean pairwise distance between the faces of one person's photo-style pictures."""

    def mean_distance(grid: Grid) -> Interval:
        width = grid.embeddings.shape[-1]
        return cast.mean(
            np.array([metrics.face_diversity(rows.reshape(-1, width)) for rows in grid.embeddings])
        )

    return Part(
        {
            "face_diversity": mean_distance(cast.generated.photos()),
            "face_diversity_real": mean_distance(cast.real.photos()),
        }
    )
