"""Step: photos that show another person are found by their face embeddings and dropped.

Source: PhotoMaker, arXiv 2312.04461, appendix: a face's score is its summed similarity to all others of the person's
photos; of several faces in a photo the top score stays; scores are summed again over the faces that stayed, and a
photo goes whose score lies k standard deviations below the mean. Of n scores none can lie further than
(n - 1) / sqrt(n) deviations from their mean, so that with the paper's k of 8 nothing is ever dropped from fewer than
66 photos; that is why another rule is the default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from photomaker.dataset.base import Dropped, Row, TableStep
from photomaker.errors import SettingsError

ANOTHER = "another person"
Rule = Literal["core", "peeling", "deviation", "paper"]
DEFAULTS: dict[Rule, float] = {"core": 0.5, "peeling": 0.6, "deviation": 7.0, "paper": 8.0}
"""The k of each rule where none is given, except for the paper's chosen on synthetic people that are used for nothing
else: precision and recall are in docs/dataset_models.md."""
_NORMAL = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
_SPREAD = 0.02
"""Least deviation, in cosine: a few photos may by chance be as alike as one another."""


@dataclass(frozen=True)
class Verify(TableStep):
    """Keeps of each photo the face that is most like the person's other photos, and drops other people's photos.

    Attributes:
        rule: How a photo of another person is told; see `kept`.
        k: The rule's threshold; None takes its default in `DEFAULTS`.
        least: Mean cosine to the person's other photos below which a photo is dropped whatever the rule says; the
            rule "paper" knows no such limit.

    Raises:
        SettingsError: A value is out of range.
    """

    name: ClassVar[str] = "verify"
    columns: ClassVar[pa.Schema] = pa.schema(
        [
            ("box", pa.list_(pa.float32())),
            ("landmarks", pa.list_(pa.float32())),
            ("embedding", pa.list_(pa.float32())),
            ("verified", pa.float32()),
        ]
    )

    rule: Rule = "core"
    k: float | None = None
    least: float = 0.25

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.rule not in DEFAULTS:
            raise SettingsError(f"rule is {self.rule!r}; choose one of {', '.join(DEFAULTS)}")
        if self.k is not None and not self.k > 0:
            raise SettingsError(f"k is {self.k}; give a number above 0, or null for the rule's own")
        if not -1 <= self.least <= 1:
            raise SettingsError(f"least is {self.least}; give a cosine from -1 to 1")

    @property
    def threshold(self) -> float:
        """The k that is used."""
        return DEFAULTS[self.rule] if self.k is None else self.k

    def open(self) -> Callable[[list[Row]], Iterable[Row | Dropped]]:
        """See `TableStep.open`."""

        def step(rows: list[Row]) -> Iterator[Row | Dropped]:
            photo = np.repeat(np.arange(len(rows)), [len(row["faces"]) for row in rows])
            vectors = np.array([face["embedding"] for row in rows for face in row["faces"]], np.float64)
            faces = [face for row in rows for face in row["faces"]]
            best = top_faces(vectors @ vectors.T, photo)
            likeness = vectors[best] @ vectors[best].T
            stays = self.kept(likeness)
            alone = stays.sum() == 1
            scores = mean_likeness(likeness, stays if stays.any() else ~stays).tolist()
            for place, (row, score) in enumerate(zip(rows, scores, strict=True)):
                face = faces[best[place]]
                columns = {name: face[name] for name in ("box", "landmarks", "embedding")}
                if stays[place]:
                    yield {**row, **columns, "verified": None if alone else score}
                else:
                    yield Dropped({**row, **columns}, ANOTHER, f"mean cosine {score:.2f}")

        return step

    def kept(self, likeness: np.ndarray) -> np.ndarray:
        """Which photos of a group show the person that most of them show.

        Args:
            likeness: [n, n] cosines between the chosen faces of n photos.

        Returns:
            [n] bool; a single photo always stays.
        """
        if len(likeness) < 2:  # noqa: PLR2004
            return np.ones(len(likeness), bool)
        if self.rule == "paper":
            return paper(likeness, self.threshold)
        limit = {"peeling": peeling, "core": core, "deviation": deviation}[self.rule]
        return limit(likeness, self.threshold, self.least)


def top_faces(likeness: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """The face of each photo with the largest summed likeness to the faces of all other photos.

    Args:
        likeness: [faces, faces] cosines.
        photo: [faces] number of each face's photo, ascending from 0, none left out.

    Returns:
        [photos] places of faces, the first of several equals.
    """
    others = photo[:, None] != photo[None]
    scores = (likeness * others).sum(1)
    return np.array([places[scores[places].argmax()] for places in _groups(photo)], np.int64)


def _groups(photo: np.ndarray) -> Iterator[np.ndarray]:
    for number in range(int(photo.max(initial=-1)) + 1):
        yield np.flatnonzero(photo == number)


def mean_likeness(likeness: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The mean cosine of each photo to those of a set, itself left out.

    Args:
        likeness: [n, n] cosines.
        among: [n] bool, the set.

    Returns:
        [n]; -1 if the set holds nothing else.
    """
    counted = np.broadcast_to(among, likeness.shape) & ~np.eye(len(likeness), dtype=bool)
    count = counted.sum(1)
    return np.where(count > 0, (likeness * counted).sum(1) / np.maximum(count, 1), -1.0)


def paper(likeness: np.ndarray, k: float) -> np.ndarray:
    """The paper's rule: sums no more than k standard deviations below their mean stay.

    Source: arXiv 2312.04461, appendix, with the natural reading of "the threshold is 8 delta".
    """
    sums = likeness.sum(1) - np.diag(likeness)
    return sums >= sums.mean() - k * sums.std(ddof=1)


def deviation(likeness: np.ndarray, k: float, least: float) -> np.ndarray:
    """Mean likenesses no more than k deviations below their median stay, the deviation taken from medians, too."""
    means = mean_likeness(likeness, np.ones(len(likeness), bool))
    return means >= max(_lower(means, k), least)


def core(likeness: np.ndarray, k: float, least: float) -> np.ndarray:
    """Photos stay whose mean likeness to the half that is most alike is at least k times that half's own median.

    Wrong photos have no say while they are fewer than half, also where all of them show one other person. The half is
    found by steps of concentration, as in the fast minimum covariance determinant (Rousseeuw and
    Van Driessen 1999): the photos most like the half become the half, until nothing changes.
    """
    half = len(likeness) // 2 + 1
    inside = _nearest(np.median(likeness, axis=1), 1)
    inside = _nearest(likeness[int(inside.argmax())], half)
    for _ in range(len(likeness)):
        again = _nearest(mean_likeness(likeness, inside), half)
        if (again == inside).all():
            break
        inside = again
    means = mean_likeness(likeness, inside)
    return means >= max(k * float(np.median(means[inside])), least)


def peeling(likeness: np.ndarray, k: float, least: float) -> np.ndarray:
    """The photo least like the rest goes while its mean likeness is below k times the median one, again and again."""
    stays = np.ones(len(likeness), bool)
    while stays.sum() > 1:
        means = np.where(stays, mean_likeness(likeness, stays), np.inf)
        worst = int(means.argmin())
        if means[worst] >= max(k * float(np.median(means[stays])), least):
            break
        stays[worst] = False
    return stays


def _lower(means: np.ndarray, k: float) -> float:
    """K deviations below the median."""
    middle = float(np.median(means))
    return middle - k * max(_NORMAL * float(np.median(np.abs(means - middle))), _SPREAD)


def _nearest(scores: np.ndarray, count: int) -> np.ndarray:
    """[n] bool, the `count` largest scores."""
    chosen = np.zeros(len(scores), bool)
    chosen[np.argsort(-scores, kind="stable")[:count]] = True
    return chosen
