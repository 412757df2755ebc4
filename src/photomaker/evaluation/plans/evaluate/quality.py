"""What likeness does not see: sharpness, small marks, the distance of faces to real ones, a recogniser in no loop."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from photomaker.evaluation import metrics
from photomaker.evaluation.metrics import Interval
from photomaker.evaluation.plans.cast import Cast, Part
from photomaker.evaluation.plans.grid import Grid, per_person
from photomaker.evaluation.prompts import BenchPrompt
from photomaker.synthetic.marks import MARKS

DRAWS = 200
"""Bootstrap resamples of distances between sets, which take long."""
NO_MARK = "none"
HALVES = 20
"""How often the real pictures are cut in two."""


def measure(cast: Cast) -> Part:
    """Measure what the judge can measure."""
    available = set(cast.generated.more) & set(cast.real.more)
    wanted = {"sharpness": _sharpness, "face_features": _faces, "third": _third}
    pieces = [piece for name, piece in wanted.items() if name in available]
    return Part.joined(piece(cast) for piece in (*pieces, _styles, _marks))


def _sharpness(cast: Cast) -> Part:
    """Fine detail in the face over that of real pictures, in photos and in the other styles."""
    ours, real = cast.generated.photos(), cast.real.photos()
    row = {
        "sharpness": per_person(ours.more["sharpness"]),
        "real_sharpness": per_person(real.more["sharpness"]),
    }
    by_style = {}
    for style in _style_names(cast):
        one, other = (
            grid.where(partial(_has_style, style)).more["sharpness"] for grid in (cast.generated, cast.real)
        )
        by_style[style] = float(one.mean() / other.mean()) if other.mean() > 0 else None
    return Part(row, {"sharpness_by_style": by_style})


def _faces(cast: Cast) -> Part:
    """Kernel distance between the face crops of drawn and of real photos, and its size between halves of real ones."""
    ours, real = _standardised(*(_by_person(grid.photos()) for grid in (cast.generated, cast.real)))
    people = np.arange(len(ours), dtype=float)
    distance = partial(_distance, ours, real)
    drawn = metrics.draws(distance, people, samples=min(DRAWS, cast.settings.samples))
    halves = np.abs([_between_halves(real, seed) for seed in range(HALVES)])
    low, high = np.quantile(halves, [0.025, 0.975])
    value, chance = distance(people), float(halves.mean())
    figures = {
        "face_kid": metrics.interval(value, drawn, len(people), recentre=True),
        "face_kid_real": Interval(chance, float(low), float(high), len(real)),
    }
    return Part({}, {"face_kid_over_real": value / chance if chance else None}, figures)


def _between_halves(real: list[np.ndarray], seed: int) -> float:
    """The distance between two halves of everybody's real pictures: what chance alone makes of it."""
    rng = np.random.default_rng(seed)
    parts = [np.array_split(rng.permutation(rows), 2) for rows in real]
    first, second = (np.concatenate([part[at] for part in parts]) for at in (0, 1))
    return metrics.kernel_distance(first, second)


def _distance(ours: list[np.ndarray], real: list[np.ndarray], people: np.ndarray) -> float:
    chosen = people.astype(int)
    return metrics.kernel_distance(
        np.concatenate([ours[one] for one in chosen]), np.concatenate([real[one] for one in chosen])
    )


def _standardised(
    ours: list[np.ndarray], real: list[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Features over the real pictures' deviation, so that each has its say."""
    everything = np.concatenate(real)
    mean, spread = everything.mean(0), everything.std(0) + 1e-6
    first, second = ([(rows - mean) / spread for rows in one] for one in (ours, real))
    return first, second


def _by_person(grid: Grid) -> list[np.ndarray]:
    """[n, width] features of each person's faces, without pictures in which none was found."""
    found = grid.found
    return [features[there] for features, there in zip(grid.more["face_features"], found, strict=True)]


def _third(cast: Cast) -> Part:
    """Likeness and retrieval by the recogniser that no network was trained with."""
    unseen = cast.unseen_by_third

    def likeness(pictures: np.ndarray, row: int) -> np.ndarray:
        return metrics.mean_cosine(pictures, unseen[row])

    gallery = metrics.centroids(unseen)

    def hits(pictures: np.ndarray, row: int) -> np.ndarray:
        return metrics.retrieved(pictures, gallery, np.full(len(pictures), row)).astype(float)

    row = {}
    for name, grid in (("", cast.generated), ("real_", cast.real)):
        photos = grid.photos().seen_by("third")
        row[f"{name}likeness_third"] = per_person(photos.score(likeness))
        row[f"{name}hit_third"] = per_person(photos.score(hits))
    return Part(row)


def _marks(cast: Cast) -> Part:
    """How often moles, freckles and beards are seen where the person has them, over how often in real photos.

    A mark at another place, or more or fewer freckles, does not count. Beside it stands how often one is made up.
    """
    ours, real = cast.generated.photos(), cast.real.photos()
    kept: dict[str, Any] = {}
    seen, wanted = np.zeros((2, len(cast.people)))
    invented = []
    for kind in set(MARKS) & set(ours.labels) & set(real.labels):
        own = np.array([cast.runner.world.marks_of(one)[kind] for one in cast.people])
        there = own != NO_MARK
        hits, possible = (_share(grid.labels[kind] == own[:, None, None]) for grid in (ours, real))
        if there.any():
            seen, wanted = seen + hits * there, wanted + possible * there
            kept[kind] = {
                "kept": float(hits[there].mean() / max(possible[there].mean(), 1e-9)),
                "seen": float(hits[there].mean()),
                "seen_real": float(possible[there].mean()),
                "people": int(there.sum()),
            }
        if not there.all():
            made_up = _share(~np.isin(ours.labels[kind], [NO_MARK, ""]))[~there]
            invented.append(made_up.mean())
    if not wanted.any():
        return Part()
    row = {"marks_seen": seen, "marks_wanted": wanted}
    return Part(row, {"marks": kept, "marks_made_up": float(np.mean(invented)) if invented else None})


def _share(values: np.ndarray) -> np.ndarray:
    """Share of each person's pictures, [P]."""
    return values.reshape(len(values), -1).mean(1)


def _styles(cast: Cast) -> Part:
    """Prompt accuracy of each style but photo, and of the worst of them."""
    classes = cast.classes[: len(cast.people)]
    found = {
        style: cast.generated.where(partial(_has_style, style)).accuracy(classes)
        for style in _style_names(cast)
        if style != "photo"
    }
    values = {style: metrics.prompt_accuracy(*counted) for style, counted in found.items()}
    known = [style for style, value in values.items() if not np.isnan(value)]
    if not known:
        return Part()
    worst = min(known, key=lambda style: values[style])
    correct, stated = found[worst]
    return Part({"worst_correct": correct, "worst_stated": stated}, {"worst_style_name": worst})


def _style_names(cast: Cast) -> list[str]:
    return list(dict.fromkeys(prompt.states.get("style", "photo") for prompt in cast.prompts))


def _has_style(style: str, prompt: BenchPrompt) -> bool:
    return bool(prompt.states.get("style", "photo") == style)
