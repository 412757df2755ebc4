"""From rows to figures: every column of the table with its interval over people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from photomaker.evaluation import metrics
from photomaker.evaluation.comparison.rows import Row, column
from photomaker.evaluation.metrics import Interval
from photomaker.evaluation.prompts import ATTRIBUTES

WIDE = 512
"""Features above which distances between sets are resampled less, since each takes seconds."""

SET_SAMPLES, WIDE_SAMPLES = 200, 10


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: Name in the JSON and CSV files.
        title: Heading.
        better: "up", "down", or "" where neither is better.
        unit: "%" shows shares as percentages, "x" multiples; "s", "MiB", "KiB" and "" show numbers.
        table: In which table of the page it stands.
    """

    key: str
    title: str
    better: str
    unit: str = ""
    table: str = "main"


COLUMNS: tuple[Column, ...] = (
    Column("clip_t", "CLIP-T", "up"),
    Column("clip_i", "CLIP-I", "up"),
    Column("dino", "DINO", "up"),
    Column("sim_references_first", "Face Sim, references", "up"),
    Column("sim_unseen_first", "Face Sim, unseen photos", "up"),
    Column("likeness_first", "of the ceiling", "up", "%"),
    Column("copy_paste_first", "copy-paste", "down"),
    Column("stranger_first", "stranger floor", ""),
    Column("retrieval_first", "retrieval top-1", "up", "%"),
    Column("face_div", "Face Div", "up"),
    Column("fid", "FID", "down"),
    Column("kid", "KID", "down"),
    Column("prompt_accuracy", "prompt accuracy", "up", "%"),
    Column("faces", "faces found", "up", "%"),
    Column("sim_references_second", "Face Sim, references", "up", table="second"),
    Column("sim_unseen_second", "Face Sim, unseen photos", "up", table="second"),
    Column("likeness_second", "of the ceiling", "up", "%", table="second"),
    Column("copy_paste_second", "copy-paste", "down", table="second"),
    Column("stranger_second", "stranger floor", "", table="second"),
    Column("retrieval_second", "retrieval top-1", "up", "%", table="second"),
    *(
        Column(f"accuracy_{name}", name.replace("_", " "), "up", "%", table="attributes")
        for name in ATTRIBUTES
    ),
    Column("seconds_fit", "seconds to fit", "down", "s", table="cost"),
    Column("seconds", "seconds a picture", "down", "s", table="cost"),
    Column("seconds_total", "photos to first picture, s", "down", "s", table="cost"),
    Column("peak_memory_mib", "peak memory, MiB", "down", "MiB", table="cost"),
    Column("identity_kib", "identity, KiB", "down", "KiB", table="cost"),
    Column("refused", "photos refused", "down", "%", table="cost"),
    Column("beside_likeness", "Face Sim", "up", table="beside"),
    Column("beside_retrieval", "retrieval top-1", "up", "%", table="beside"),
    Column("beside_prompt_accuracy", "prompt accuracy", "up", "%", table="beside"),
    Column("beside_clip_t", "CLIP-T", "up", table="beside"),
    Column("beside_fit", "time to fit", "down", "x", table="beside"),
)
"""Every column, in the order of the tables."""


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
        return np.array([_mean(column(rows, name)) for rows in (self.photos if photos else self.people)])

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
    found: dict[str, Interval | None] = {}
    for name in ("clip_t", "clip_i", "dino"):
        found[name] = _interval(rows.means(name), samples)
    for name in ("first", "second"):
        found |= _faces(rows, real, name, samples)
    found["face_div"] = _interval(rows.means("face_div", photos=True), samples)
    found["faces"] = _interval(rows.means("face", photos=True), samples)
    found |= _sets(rows, real, samples)
    found |= _control(rows, samples)
    found |= _cost(rows, samples)
    return {name: one for name, one in found.items() if one is not None and one.value is not None}


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
        fidelity = metrics.draws(_mean, rows.means(x), samples=samples)
    return fidelity, metrics.draws(_mean, rows.means(likeness_name(rows), photos=True), samples=samples)


def beside(rows: Rows, first: Rows, samples: int) -> dict[str, Interval]:
    """A method's figures minus those of another on the same people, who are resampled together; of time the quotient.

    Args:
        rows: The main part of the method.
        first: That of the other; its further people do not count.
        samples: Bootstrap resamples.

    Returns:
        Column to figure; columns for which there is nothing are left out.
    """
    other = first.first(len(rows.people))
    likeness = likeness_name(rows)
    pairs = {
        "beside_likeness": [one.means(likeness, photos=True) for one in (rows, other)],
        "beside_retrieval": [one.means("hit_first", photos=True) for one in (rows, other)],
        "beside_clip_t": [one.means("clip_t") for one in (rows, other)],
    }
    found = {
        name: metrics.bootstrap(_difference, *pair, samples=samples)
        for name, pair in pairs.items()
        if not any(np.all(np.isnan(one)) for one in pair)
    }
    control = (*rows.accuracy(), *other.accuracy())
    if control[1].any() and control[3].any():
        found["beside_prompt_accuracy"] = metrics.bootstrap(_more_accurate, *control, samples=samples)
    times = [one.means("seconds_fit") for one in (rows, other)]
    if not any(np.any(np.isnan(one)) for one in times):
        found["beside_fit"] = metrics.bootstrap(metrics.ratio_of_means, *times, samples=samples)
    return {name: one for name, one in found.items() if one.value is not None}


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return _mean(ours - theirs)


def _more_accurate(
    correct: np.ndarray, stated: np.ndarray, others_correct: np.ndarray, others_stated: np.ndarray
) -> float:
    return metrics.prompt_accuracy(correct, stated) - metrics.prompt_accuracy(others_correct, others_stated)


def likeness_name(rows: Rows) -> str:
    """The column of likeness: to unseen photos, or to the references where there are no others."""
    unseen = rows.means("sim_unseen_first", photos=True)
    return "sim_references_first" if np.all(np.isnan(unseen)) else "sim_unseen_first"


def _faces(rows: Rows, real: Rows, name: str, samples: int) -> dict[str, Interval | None]:
    ours, ceiling = (one.means(f"sim_unseen_{name}", photos=True) for one in (rows, real))
    excess = [np.nan_to_num(column(one, f"copy_paste_{name}")) * column(one, "face") for one in rows.photos]
    faces = np.array([column(one, "face").sum() for one in rows.photos])
    has_unseen = not np.all(np.isnan(ours))
    return {
        f"sim_references_{name}": _interval(rows.means(f"sim_references_{name}", photos=True), samples),
        f"sim_unseen_{name}": _interval(ours, samples),
        f"likeness_{name}": metrics.bootstrap(metrics.ratio_of_means, ours, ceiling, samples=samples)
        if has_unseen and not np.any(np.isnan(ceiling))
        else None,
        # Over pictures with a face: as zeros, the others would make a method look better than it is.
        f"copy_paste_{name}": metrics.bootstrap(
            metrics.ratio_of_means, np.array([one.sum() for one in excess]), faces, samples=samples
        )
        if has_unseen
        else None,
        f"stranger_{name}": _interval(rows.means(f"stranger_{name}", photos=True), samples),
        f"retrieval_{name}": _interval(rows.means(f"hit_{name}", photos=True), samples),
    }


def _sets(rows: Rows, real: Rows, samples: int) -> dict[str, Interval | None]:
    """Distances between the set of pictures and the set of real ones, people resampled in both at once."""
    if not (len(rows.features) and len(real.features)) or rows.features is real.features:
        return {}
    draws = min(samples, WIDE_SAMPLES if rows.features[0].shape[1] > WIDE else SET_SAMPLES)
    everybody = np.arange(len(rows.features), dtype=float)
    found: dict[str, Interval | None] = {}
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


def _control(rows: Rows, samples: int) -> dict[str, Interval | None]:
    correct, stated = rows.accuracy()
    if not stated.any():
        return {}
    found: dict[str, Interval | None] = {
        "prompt_accuracy": metrics.bootstrap(metrics.prompt_accuracy, correct, stated, samples=samples)
    }
    for at, name in enumerate(ATTRIBUTES):
        if stated[:, at].any():
            found[f"accuracy_{name}"] = metrics.bootstrap(
                metrics.ratio_of_means, correct[:, at], stated[:, at], samples=samples
            )
    return found


def _cost(rows: Rows, samples: int) -> dict[str, Interval | None]:
    if "seconds_fit" not in rows.people[0][0]:
        return {}
    fit, each = rows.means("seconds_fit"), rows.means("seconds")
    peak = max(float(column(one, "peak_memory_mib").max()) for one in rows.people)
    return {
        "seconds_fit": _interval(fit, samples),
        "seconds": _interval(each, samples),
        "seconds_total": _interval(fit + each, samples),
        "peak_memory_mib": Interval(peak, peak, peak, len(rows.people)),
        "identity_kib": _interval(rows.means("identity_bytes") / 1024, samples),
        "refused": _interval(rows.means("refused"), samples),
    }


def _interval(by_person: np.ndarray, samples: int) -> Interval | None:
    """Mean over people who have the figure; None if nobody has."""
    if np.all(np.isnan(by_person)):
        return None
    return metrics.bootstrap(_mean, by_person, samples=samples)


def _mean(values: np.ndarray) -> float:
    usable = values[~np.isnan(values)]
    return float(usable.mean()) if len(usable) else float("nan")


def curve(parts: Mapping[float, Rows], samples: int) -> list[dict[str, object]]:
    """Likeness and, where it was read, prompt accuracy at each point of a curve, as plain JSON data."""
    points: list[dict[str, object]] = []
    for at, rows in sorted(parts.items()):
        likeness = _interval(rows.means(likeness_name(rows), photos=True), samples)
        control = _control(rows, samples).get("prompt_accuracy")
        points.append(
            {
                "at": at,
                "people": len(rows.people),
                "likeness": None if likeness is None else [likeness.value, likeness.low, likeness.high],
                "prompt_accuracy": None if control is None else [control.value, control.low, control.high],
            }
        )
    return points
