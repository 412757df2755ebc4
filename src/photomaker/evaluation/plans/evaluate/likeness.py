"""The main part: likeness against its ceiling and floor, retrieval, copy-paste, prompt accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from photomaker.evaluation import metrics
from photomaker.evaluation.metrics import Floats
from photomaker.evaluation.plans.cast import Cast, Part
from photomaker.evaluation.plans.grid import Grid, face_diversity, per_person
from photomaker.evaluation.prompts import ATTRIBUTES

TEXT_ONLY_PROMPTS = 4
"""Photo-style prompts drawn without identity, one picture a person each."""


def measure(cast: Cast) -> Part:
    """Measure the main part."""
    ours, real = (_scores(cast, grid) for grid in (cast.generated, cast.real))
    row = ours | {f"real_{name}": values for name, values in real.items()}
    row |= {"face_diversity": row.pop("diversity"), "face_diversity_real": row.pop("real_diversity")}
    detail = {
        "likeness_by_prompt": _by_prompt(cast),
        "faces": {"generated_photos": _faces(cast.generated), "real_photos": _faces(cast.real)},
        "gallery": len(cast.unseen),
        **_accuracies(cast, row),
    }
    return Part(row | _text_only(cast) | _other_styles(cast), detail)


def _scores(cast: Cast, grid: Grid) -> dict[str, Floats]:
    """What the figures of generated or of real pictures are computed from."""
    gallery = metrics.centroids(cast.unseen)

    def stranger(pictures: np.ndarray, row: int) -> np.ndarray:
        return metrics.stranger_cosine(pictures, cast.unseen, row, cast.classes)

    def hits(pictures: np.ndarray, row: int) -> np.ndarray:
        return metrics.retrieved(pictures, gallery, np.full(len(pictures), row)).astype(float)

    photos = grid.photos()
    return {
        **vars(cast.scores(grid, cast.settings.references)),
        "stranger": per_person(photos.score(stranger)),
        "hit": per_person(photos.score(hits)),
        "diversity": face_diversity(grid),
    }


def _text_only(cast: Cast) -> dict[str, Floats]:
    """What the text alone reaches, and real pictures for the same prompts."""
    prompts = cast.generated.photos().prompts[:TEXT_ONLY_PROMPTS]
    alone = cast.generate("text only", cast.people, prompts, 1, merge=1.0)
    below = cast.real.where(lambda prompt: prompt in prompts)
    grids = {"text_only": alone, "text_only_ceiling": below}
    return {name: per_person(grid.score(cast.likeness)) for name, grid in grids.items()}


def _other_styles(cast: Cast) -> dict[str, Floats]:
    other = cast.generated.where(lambda prompt: not prompt.is_photo)
    if not other.prompts:
        return {}
    return {"likeness_cosine_other_styles": per_person(other.score(cast.likeness))}


def _by_prompt(cast: Cast) -> list[dict[str, Any]]:
    generated, real = cast.generated.photos(), cast.real.photos()
    ours, ceiling = generated.score(cast.likeness), real.score(cast.likeness)
    return [
        {
            "prompt": prompt.name,
            "cosine": float(ours[:, index].mean()),
            "ceiling": float(ceiling[:, index].mean()),
            "faces_found": float(generated.found[:, index].mean()),
        }
        for index, prompt in enumerate(generated.prompts)
    ]


def _faces(grid: Grid) -> dict[str, int]:
    """How many photo-style pictures had no face; each of them counts as cosine 0."""
    photos = grid.photos()
    return {"pictures": photos.pictures, "without_face": photos.pictures - int(photos.found.sum())}


def _accuracies(cast: Cast, row: Mapping[str, Floats]) -> dict[str, Any]:
    """Prompt accuracy by attribute, of generated pictures and of real ones, and by prompt."""
    by_attribute = {
        f"prompt_accuracy{name}": _named(
            metrics.accuracy_by_attribute(row[f"{kind}correct"], row[f"{kind}stated"])
        )
        for name, kind in (("", ""), ("_real", "real_"))
    }
    by_prompt = [
        {"prompt": prompt.name, "accuracy": _prompt_share(cast.generated, prompt.name, cast.classes)}
        for prompt in cast.prompts
    ]
    return {"accuracy_by_attribute": by_attribute, "accuracy_by_prompt": by_prompt}


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
