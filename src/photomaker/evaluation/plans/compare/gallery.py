"""Everybody's photos as the judge sees them, and how pictures compare with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from photomaker.evaluation import metrics
from photomaker.evaluation.judges.networks import RECOGNISERS
from photomaker.evaluation.plans.compare.people import People
from photomaker.evaluation.running.store import Store, load


@dataclass(frozen=True)
class Gallery:
    """Everybody's photos as the judge sees them.

    Attributes:
        arrays: By person, `unseen_first`, `references_first`, `references_clip` and so on.
        classes: By person.
    """

    arrays: Sequence[Mapping[str, np.ndarray]]
    classes: Sequence[str]

    @classmethod
    def read(cls, store: Store, people: People) -> Gallery:
        """Read what `PersonPhotos` wrote."""
        everybody = range(len(people.names()))
        return cls(
            [load(store.person(row)) for row in everybody], [people.class_of(row) for row in everybody]
        )

    def scores(self, arrays: Mapping[str, np.ndarray], person: int, *, alone: bool) -> dict[str, np.ndarray]:
        """What compares pictures with photos, each [n]; nan if there is nothing to compare with.

        Args:
            arrays: As `Seen.arrays`.
            person: Row of the person.
            alone: The pictures are the person's own photos of the gallery, in order: each is compared with the others.
        """
        scores: dict[str, np.ndarray] = {}
        own = self.arrays[person]
        for name in RECOGNISERS:
            scores |= {
                f"{key}_{name}": value
                for key, value in self._faces(arrays[name], person, name, alone).items()
            }
        for name, title in (("clip", "clip_i"), ("dino", "dino")):
            if name in arrays and f"references_{name}" in own:
                scores[title] = metrics.mean_cosine(arrays[name], own[f"references_{name}"])
        return scores

    def _faces(self, pictures: np.ndarray, person: int, name: str, alone: bool) -> dict[str, np.ndarray]:
        nothing = np.full(len(pictures), np.nan)
        role = "unseen" if f"unseen_{name}" in self.arrays[person] else "references"
        everybody = [photos[f"{role}_{name}"] for photos in self.arrays]
        own, references = everybody[person], self.arrays[person].get(f"references_{name}")
        if alone and len(own) < 2:  # noqa: PLR2004
            return {"sim_references": nothing, "sim_unseen": nothing, "copy_paste": nothing, "stranger": nothing,
                    "hit": nothing}  # fmt: skip
        near = _beside(pictures) if alone else metrics.mean_cosine(pictures, own)
        to_references = (
            near
            if references is None or (alone and role == "references")
            else metrics.mean_cosine(pictures, references)
        )
        unseen = near if role == "unseen" else nothing
        gallery = np.stack([photos.sum(0) for photos in everybody])
        hits = [
            _hit(picture, gallery - (_row(gallery, person, picture) if alone else 0), person)
            for picture in pictures
        ]
        return {
            "sim_references": to_references,
            "sim_unseen": unseen,
            "copy_paste": to_references - unseen,
            "stranger": self._stranger(pictures, everybody, person),
            "hit": np.array(hits, dtype=float),
        }

    def _stranger(self, pictures: np.ndarray, everybody: Sequence[np.ndarray], person: int) -> np.ndarray:
        """Mean cosine with photos of all others of the class; nan if there is nobody else."""
        same = self.classes[person]
        others = [row for row, word in enumerate(self.classes) if word == same and row != person]
        if not others:
            return np.full(len(pictures), np.nan)
        return metrics.mean_cosine(pictures, np.concatenate([everybody[row] for row in others]))


def _beside(photos: np.ndarray) -> np.ndarray:
    """Mean cosine of each photo with the others; 0 for one without a face."""
    return np.array(
        [metrics.mean_cosine(photos[[at]], np.delete(photos, at, 0))[0] for at in range(len(photos))]
    )


def _row(gallery: np.ndarray, person: int, picture: np.ndarray) -> np.ndarray:
    """A gallery of zeros, except for one person's own picture, which is taken out of their sum."""
    taken = np.zeros_like(gallery)
    taken[person] = picture
    return taken


def _hit(picture: np.ndarray, gallery: np.ndarray, person: int) -> bool:
    return bool(metrics.retrieved(picture[None], gallery, np.array([person]))[0])
