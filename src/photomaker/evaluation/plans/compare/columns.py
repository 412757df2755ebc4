"""The columns of a comparison of methods, and what they are computed from: rows to arrays, a person each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from photomaker.evaluation import metrics
from photomaker.evaluation.metrics import Interval
from photomaker.evaluation.prompts import ATTRIBUTES
from photomaker.evaluation.report import tables
from photomaker.evaluation.report.tables import ByPerson, Column
from photomaker.evaluation.running.store import Row, column

WIDE = 512
"""Features above which distances between sets are resampled less, since each takes seconds."""

SET_SAMPLES, WIDE_SAMPLES = 200, 10


def mean(values: np.ndarray) -> float:
    """Mean over people who have the figure."""
    usable = values[~np.isnan(values)]
    return float(usable.mean()) if len(usable) else float("nan")


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return mean(ours - theirs)


def _more_accurate(
    correct: np.ndarray, stated: np.ndarray, others_correct: np.ndarray, others_stated: np.ndarray
) -> float:
    return metrics.prompt_accuracy(correct, stated) - metrics.prompt_accuracy(others_correct, others_stated)


def _average(key: str, title: str, better: str, unit: str = "", table: str = "main", of: str = "") -> Column:
    """A column that is the mean of a score."""
    return Column(key, title, mean, (of or key,), better, unit, table)


def _by_recogniser(name: str, table: str) -> tuple[Column, ...]:
    return (
        _average(f"sim_references_{name}", "Face Sim, references", "up", table=table),
        _average(f"sim_unseen_{name}", "Face Sim, unseen photos", "up", table=table),
        Column(f"likeness_{name}", "of the ceiling", metrics.ratio_of_means,
               (f"sim_unseen_{name}", f"ceiling_{name}"), "up", "%", table),
        # Over pictures with a face: as zeros, the others would make a method look better than it is.
        Column(f"copy_paste_{name}", "copy-paste", metrics.ratio_of_means,
               (f"excess_{name}", f"with_face_{name}"), "down", table=table),
        _average(f"stranger_{name}", "stranger floor", "", table=table),
        _average(f"retrieval_{name}", "retrieval top-1", "up", "%", table, f"hit_{name}"),
    )  # fmt: skip


ACCURACY = Column(
    "prompt_accuracy", "prompt accuracy", metrics.prompt_accuracy, ("correct", "stated"), "up", "%"
)
COLUMNS: tuple[Column, ...] = (
    _average("clip_t", "CLIP-T", "up"),
    _average("clip_i", "CLIP-I", "up"),
    _average("dino", "DINO", "up"),
    *_by_recogniser("first", "main"),
    _average("face_div", "Face Div", "up"),
    Column("fid", "FID", better="down"),
    Column("kid", "KID", better="down"),
    ACCURACY,
    _average("faces", "faces found", "up", "%"),
    *_by_recogniser("second", "second"),
    *(
        Column(
            f"accuracy_{name}", name.replace("_", " "), metrics.ratio_of_means,
            (f"correct_{name}", f"stated_{name}"), "up", "%", "attributes",
        )
        for name in ATTRIBUTES
    ),
    Column("editability", "prompt accuracy at equal likeness", better="up", unit="%", table="editing"),
    Column("mixing_falls", "mixed pairs, less like the first at every step", better="up", unit="%", table="editing"),
    Column("mixing_rises", "mixed pairs, more like the second at every step", better="up", unit="%", table="editing"),
    _average("changed", "changed outside the head", "down", "%", "editing"),
    _average("seconds_fit", "seconds to fit", "down", "s", "cost"),
    _average("seconds", "seconds a picture", "down", "s", "cost"),
    _average("seconds_total", "photos to first picture, s", "down", "s", "cost"),
    Column("peak_memory_mib", "peak memory, MiB", better="down", unit="MiB", table="cost"),
    _average("identity_kib", "identity, KiB", "down", "KiB", "cost"),
    _average("refused", "photos refused", "down", "%", "cost"),
)  # fmt: skip
"""Every column of a method by itself, in the order of the tables."""

BESIDE: tuple[Column, ...] = (
    Column("beside_likeness", "Face Sim", _difference, ("likeness", "first_likeness"), "up", table="beside"),
    Column("beside_retrieval", "retrieval top-1", _difference, ("hit_first", "first_hit_first"), "up", "%", "beside"),
    Column(
        "beside_prompt_accuracy", "prompt accuracy", _more_accurate,
        ("correct", "stated", "first_correct", "first_stated"), "up", "%", "beside",
    ),
    Column("beside_clip_t", "CLIP-T", _difference, ("clip_t", "first_clip_t"), "up", table="beside"),
    Column(
        "beside_fit", "time to fit", metrics.ratio_of_means, ("seconds_fit", "first_seconds_fit"),
        "down", "x", "beside",
    ),
)  # fmt: skip
"""Columns of a method beside the first one on the same people, who are resampled together; of time the quotient."""

ALL_COLUMNS = (*COLUMNS, *BESIDE)


@dataclass(frozen=True)
class Rows:
    """The rows of one method in one part, people in order.

    Attributes:
        people: [P] the rows of each person, alike in number.
        features: [P] of [n, width] features of the pictures; empty if they are not needed.
    """

    people: Sequence[Sequence[Row]]
    features: Sequence[np.ndarray] = ()

    @cached_property
    def photos(self) -> list[list[Row]]:
        """The rows whose prompt asks for a photo: only there does a recogniser of photos measure likeness."""
        return [[row for row in rows if row["photo"]] for rows in self.people]

    def first(self, count: int) -> Rows:
        """The first people alone."""
        return Rows(self.people[:count], self.features[:count])

    def means(self, name: str, photos: bool = False) -> np.ndarray:
        """[P] means of a column; nan if a person has none of it."""
        return np.array([mean(column(rows, name)) for rows in (self.photos if photos else self.people)])

    def accuracy(self) -> tuple[np.ndarray, np.ndarray]:
        """How often each attribute was seen as stated, and stated: [P, attributes] each."""
        correct, stated = np.zeros((2, len(self.people), len(ATTRIBUTES)))
        for person, rows in enumerate(self.people):
            for at, name in enumerate(ATTRIBUTES):
                seen = [row["correct"][name] for row in rows if name in row["correct"]]
                stated[person, at], correct[person, at] = len(seen), sum(seen)
        return correct, stated


def figures(rows: Rows, real: Rows, samples: int) -> dict[str, Interval]:
    """Every figure of one method.

    Args:
        rows: Its main part.
        real: Real pictures of the same people, in the same order.
        samples: Bootstrap resamples.

    Returns:
        Column to figure; columns for which there is nothing are left out.
    """
    found = tables.figures(COLUMNS, by_person(rows, real), samples) | _sets(rows, real, samples)
    if "seconds_fit" in rows.people[0][0]:
        peak = max(float(column(one, "peak_memory_mib").max()) for one in rows.people)
        found["peak_memory_mib"] = Interval(peak, peak, peak, len(rows.people))
    return _defined(found)


def beside(rows: Rows, first: Rows, samples: int) -> dict[str, Interval]:
    """A method's figures beside those of another on the same people; see `BESIDE`.

    Args:
        rows: The main part of the method.
        first: That of the other; its further people do not count.
        samples: Bootstrap resamples.

    Returns:
        Column to figure; columns for which there is nothing are left out.
    """
    name, other = likeness_name(rows), first.first(len(rows.people))
    pair = []
    for one in (rows, other):
        row = dict(by_person(one))
        pair.append(row | ({"likeness": row[name]} if name in row else {}))
    own, others = pair
    return _defined(
        tables.figures(BESIDE, own | {f"first_{name}": values for name, values in others.items()}, samples)
    )


def _defined(found: Mapping[str, Interval]) -> dict[str, Interval]:
    return {name: one for name, one in found.items() if one.value is not None}


def by_person(rows: Rows, real: Rows | None = None) -> ByPerson:
    """What the columns are computed from, as far as the rows have it.

    Args:
        rows: The main part of a method.
        real: Real pictures of the same people; None for columns that do not compare with them.
    """
    found = {
        name: rows.means(name)
        for name in ("clip_t", "clip_i", "dino", "changed", "seconds_fit", "seconds", "refused")
    }
    found |= {"face_div": rows.means("face_div", photos=True), "faces": rows.means("face", photos=True)}
    found["seconds_total"] = found["seconds_fit"] + found["seconds"]
    found["identity_kib"] = rows.means("identity_bytes") / 1024
    for name in ("first", "second"):
        for score in ("sim_references", "sim_unseen", "stranger", "hit"):
            found[f"{score}_{name}"] = rows.means(f"{score}_{name}", photos=True)
        if real is not None and not np.all(np.isnan(found[f"sim_unseen_{name}"])):
            found |= _against_photos(rows, real, name)
    correct, stated = rows.accuracy()
    if stated.any():
        found |= {"correct": correct, "stated": stated}
    for at, name in enumerate(ATTRIBUTES):
        if stated[:, at].any():
            found |= {f"correct_{name}": correct[:, at], f"stated_{name}": stated[:, at]}
    return {name: values for name, values in found.items() if not np.all(np.isnan(values))}


def _against_photos(rows: Rows, real: Rows, name: str) -> dict[str, np.ndarray]:
    """What likeness and copy-paste need beside the cosines, by one recogniser."""
    excess = [np.nan_to_num(column(one, f"copy_paste_{name}")) * column(one, "face") for one in rows.photos]
    ceiling = real.means(f"sim_unseen_{name}", photos=True)
    return {
        f"excess_{name}": np.array([one.sum() for one in excess]),
        f"with_face_{name}": np.array([column(one, "face").sum() for one in rows.photos]),
        **({} if np.any(np.isnan(ceiling)) else {f"ceiling_{name}": ceiling}),
    }


def front(rows: Rows, samples: int, x: str) -> tuple[np.ndarray, np.ndarray]:
    """[samples] resampled values of prompt fidelity and likeness, of the same people drawn: for ellipses.

    Args:
        rows: The main part of a method.
        samples: Bootstrap resamples.
        x: "prompt_accuracy" or "clip_t".
    """
    if x == "prompt_accuracy":
        fidelity = metrics.draws(metrics.prompt_accuracy, *rows.accuracy(), samples=samples)
    else:
        fidelity = metrics.draws(mean, rows.means(x), samples=samples)
    return fidelity, metrics.draws(mean, rows.means(likeness_name(rows), photos=True), samples=samples)


def likeness_name(rows: Rows) -> str:
    """The column of likeness: to unseen photos, or to the references where there are no others."""
    unseen = rows.means("sim_unseen_first", photos=True)
    return "sim_references_first" if np.all(np.isnan(unseen)) else "sim_unseen_first"


def _sets(rows: Rows, real: Rows, samples: int) -> dict[str, Interval]:
    """Distances between the set of pictures and the set of real ones, people resampled in both at once."""
    if not (len(rows.features) and len(real.features)) or rows.features is real.features:
        return {}
    draws = min(samples, WIDE_SAMPLES if rows.features[0].shape[1] > WIDE else SET_SAMPLES)
    everybody = np.arange(len(rows.features), dtype=float)
    found: dict[str, Interval] = {}
    for name, distance in (("fid", metrics.frechet_distance), ("kid", metrics.kernel_distance)):
        statistic = partial(_distance, distance, rows, real)
        drawn = metrics.draws(statistic, everybody, samples=draws)
        found[name] = metrics.interval(statistic(everybody), drawn, len(everybody), recentre=True)
    return found


def _distance(
    distance: Callable[[np.ndarray, np.ndarray], float], rows: Rows, real: Rows, people: np.ndarray
) -> float:
    chosen = people.astype(int)
    return distance(
        np.concatenate([rows.features[person] for person in chosen]),
        np.concatenate([real.features[person] for person in chosen]),
    )


def curve(parts: Mapping[float, Rows], samples: int) -> list[dict[str, object]]:
    """Likeness and, where it was read, prompt accuracy at each point of a curve, as plain JSON data."""
    points: list[dict[str, object]] = []
    for at, rows in sorted(parts.items()):
        row, name = by_person(rows), likeness_name(rows)
        wanted = (Column("likeness", "", mean, (name,)), ACCURACY)
        likeness, control = (tables.figures(wanted, row, samples).get(one.key) for one in wanted)
        points.append(
            {
                "at": at,
                "people": len(rows.people),
                "likeness": None if likeness is None else [likeness.value, likeness.low, likeness.high],
                "prompt_accuracy": None if control is None else [control.value, control.low, control.high],
            }
        )
    return points


def common_likeness(curves: Iterable[Sequence[Mapping[str, Any]]]) -> float | None:
    """The likeness that every method reaches somewhere on its curve; None without curves.

    Args:
        curves: What `curve` returns, of each method.
    """
    reached = [
        max(point["likeness"][0] for point in points if point["likeness"])
        for points in curves
        if any(point["likeness"] for point in points)
    ]
    return min(reached, default=None)


def editability(parts: Mapping[float, Rows], likeness: float, samples: int) -> dict[str, Interval]:
    """Prompt accuracy where a method draws the person with a certain likeness, read off its curve.

    Args:
        parts: Rows at each strength, of the same people in the same order.
        likeness: The cosine of faces at which methods are compared.
        samples: Bootstrap resamples.

    Returns:
        The accuracy, interpolated between the points; nothing where no prompt states anything.
    """
    points = list(parts.values())
    correct, stated = (
        np.stack(both, axis=1) for both in zip(*(one.accuracy() for one in points), strict=True)
    )
    if not stated.any():
        return {}
    alike = np.stack([one.means(likeness_name(one), photos=True) for one in points], axis=1)
    statistic = partial(_accuracy_at, likeness)
    return {"editability": metrics.bootstrap(statistic, alike, correct, stated, samples=samples)}


def _accuracy_at(likeness: float, alike: np.ndarray, correct: np.ndarray, stated: np.ndarray) -> float:
    """`alike` is [P, points], the others [P, points, attributes]; beyond the curve its nearest end counts."""
    reached = np.nanmean(alike, axis=0)
    accuracy = [metrics.prompt_accuracy(correct[:, at], stated[:, at]) for at in range(len(reached))]
    order = np.argsort(reached)
    return float(np.interp(likeness, reached[order], np.array(accuracy)[order]))


def mixing(parts: Mapping[float, Rows], samples: int) -> dict[str, Interval]:
    """How many pairs become less like the first person and more like the second at every step of a mix.

    Args:
        parts: Rows at each share of the second person, of the same pairs in the same order.
        samples: Bootstrap resamples.
    """
    ordered = [rows for _, rows in sorted(parts.items())]
    to_first = np.stack([one.means(likeness_name(one), photos=True) for one in ordered], axis=1)
    to_second = np.stack([one.means("to_second", photos=True) for one in ordered], axis=1)
    return {
        name: metrics.bootstrap(partial(metrics.monotone_share, rising=rising), curves, samples=samples)
        for name, curves, rising in (("mixing_falls", to_first, False), ("mixing_rises", to_second, True))
    }
