"""Every figure of `photomaker evaluate`: what it is, what it is computed from, what it must reach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from photomaker.evaluation.metrics import Interval, prompt_accuracy, ratio_of_means, times_floor
from photomaker.evaluation.plans.cast import Part
from photomaker.evaluation.report import tables
from photomaker.evaluation.report.tables import Column

COUNTS = (1, 2, 4)
"""Numbers of photos of the part `counts`."""
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Weights of B in the part `mixing`; A has the rest."""
UNSHOWN = "unshown"
"""The table of figures that stand in the JSON file and in plots alone."""


def _average(values: np.ndarray) -> float:
    return float(values.mean())


def _mean(key: str, text: str, of: str = "", unit: str = "", table: str = "beside") -> Column:
    return Column(key, text, _average, (of or key,), unit=unit, table=table)


def _ratio(key: str, text: str, *of: str, unit: str = "%", table: str = "beside") -> Column:
    return Column(key, text, ratio_of_means, of, unit=unit, table=table)


def _accuracy(key: str, text: str, of: str = "", table: str = "beside") -> Column:
    return Column(key, text, prompt_accuracy, (f"{of}correct", f"{of}stated"), unit="%", table=table)


def _by_class(change: str, same: str) -> Iterator[Column]:
    yield _mean(f"{change}_accuracy", f"{change} by class word: seen as asked", unit="%")
    yield _mean(f"{change}_accuracy_real", "the same on real pictures", unit="%")
    yield _ratio(
        f"{change}_likeness", f"{change} by class word: likeness, over the same person drawn {same}",
        f"{change}_cosine", f"{change}_ceiling_cosine",
    )  # fmt: skip
    for name in ("cosine", "ceiling_cosine"):
        yield _mean(f"{change}_{name}", "", table=UNSHOWN)


def _by_structure() -> Iterator[Column]:
    ways = (("free", " without the ControlNet"), ("followed", " with it"))
    for who, said in (("person", "the person"), ("text", "the text alone")):
        named = [(f"{who}_{how}", f"{said}{where}") for how, where in ways]
        for name, text in named:
            of = f"error_{name}", f"seen_{name}"
            yield _ratio(f"landmark_error_{name}", f"landmark error in pixels, {text}", *of, unit="")
        yield from (
            _accuracy(f"accuracy_{name}", f"prompt accuracy, {text}", f"{name}_") for name, text in named
        )
        yield from (_mean(f"faces_{name}", f"faces found, {text}", unit="%") for name, text in named)
    texts = {
        "free": "likeness without the ControlNet, over the ceiling",
        "followed": "likeness with it, over the ceiling",
        "change": "likeness that it adds, in points",
    }
    for name, text in texts.items():
        yield _ratio(f"likeness_{name}", text, f"cosine_{name}", "structure_ceiling")


COLUMNS: tuple[Column, ...] = (
    _ratio("likeness", "likeness to unseen photos, over two real photos", "likeness", "real_likeness", table="main"),
    Column(
        "likeness_over_stranger", "likeness, over a stranger of the same class", times_floor,
        ("likeness", "stranger"), table="main",
    ),
    _ratio("retrieval", "retrieval of the person, over real photos", "hit", "real_hit", table="main"),
    _ratio("copy_paste", "copy-paste", "excess", "faces", unit="", table="main"),
    _accuracy("prompt_accuracy", "prompt accuracy", table="main"),
    _accuracy("prompt_accuracy_real", "the classifier's own accuracy on real pictures", "real_", "main"),
    _mean("likeness_cosine", "cosine of generated pictures to unseen photos", "likeness"),
    _mean("ceiling_cosine", "cosine of real pictures to unseen photos (the ceiling)", "real_likeness"),
    _mean("stranger_cosine", "cosine to photos of strangers of the same class (the floor)", "stranger"),
    _ratio("stranger", "the floor, over the ceiling", "stranger", "real_likeness"),
    _mean("real_stranger_cosine", "cosine of real pictures to strangers of the same class", "real_stranger"),
    _mean("text_only_cosine", "cosine of text-only pictures", "text_only"),
    _ratio("text_only", "text-only, over the ceiling", "text_only", "text_only_ceiling"),
    _mean(
        "likeness_cosine_other_styles",
        "cosine in other styles than photo (the recogniser is not made for them)",
    ),
    _mean("retrieval_rate", "retrieval rate of generated pictures", "hit", "%"),
    _mean("retrieval_rate_real", "retrieval rate of real pictures", "real_hit", "%"),
    _ratio("copy_paste_real", "copy-paste of real pictures (chance)", "real_excess", "real_faces", unit=""),
    _ratio(
        "likeness_third", "likeness by the third recogniser, which was in no loop, over two real photos",
        "likeness_third", "real_likeness_third",
    ),
    _ratio("retrieval_third", "retrieval by the third recogniser, over real photos", "hit_third", "real_hit_third"),
    _accuracy("worst_style", "prompt accuracy of the worst style but photo", "worst_"),
    _ratio(
        "marks_kept", "moles, freckles and beards seen where they belong, over real photos",
        "marks_seen", "marks_wanted",
    ),
    _ratio("sharpness", "fine detail of faces, over real photos", "sharpness", "real_sharpness", unit=""),
    Column("face_kid", "distance of face crops to real ones (KID)", table="beside"),
    Column(
        "face_kid_real", "the same between two halves of the real photos, as a mean of sizes (chance)", table="beside"
    ),
    _mean("face_diversity", "face diversity, 1 - cosine"),
    _mean("face_diversity_real", "face diversity of real pictures"),
    *(
        _ratio(
            f"likeness_{count}_photos", f"likeness with {count} photo{'s' if count > 1 else ''}, over the ceiling",
            f"cosine_{count}_photos", "counts_ceiling",
        )
        for count in COUNTS
    ),
    *(
        _mean(f"gain_{fewer}_to_{more}_photos", f"gain in cosine from {fewer} to {more} photos")
        for fewer, more in pairwise(COUNTS)
    ),
    *_by_class("age", "at that age"),
    *_by_class("gender", "with that gender"),
    *_by_structure(),
    *(_mean(f"mixing_{weight:g}_to_{side}", "", table=UNSHOWN) for weight in WEIGHTS for side in "ab"),
)  # fmt: skip
"""Every figure, in the order of the page: those with a bar in the table `main`, the others `beside` it."""


@dataclass(frozen=True)
class Bar:
    """What a figure must reach and what it aims at.

    Attributes:
        must: What it must reach.
        aim: What it aims at; None if nothing more is aimed at.
        lower_is_better: Whether small is good.
    """

    must: float
    aim: float | None = None
    lower_is_better: bool = False

    def reaches(self, value: float | None, bound: float) -> bool:
        """Whether a value is as good as a bound; an undefined one is not."""
        if value is None:
            return False
        return value <= bound if self.lower_is_better else value >= bound


BARS: Mapping[str, Bar] = {
    "likeness": Bar(0.75, 0.90),
    "likeness_over_stranger": Bar(4.0),
    "retrieval": Bar(0.50, 0.80),
    "copy_paste": Bar(0.08, 0.03, lower_is_better=True),
    "prompt_accuracy": Bar(0.93, 0.97),
    "prompt_accuracy_real": Bar(0.97),
}
"""The figures of the table `main`."""


def figures(part: Part, samples: int) -> dict[str, Interval]:
    """The figures of all that was found, with intervals over people."""
    return tables.figures(COLUMNS, part.row, samples) | dict(part.figures)
