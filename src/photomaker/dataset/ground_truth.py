"""Precision and recall of every stage of a build, on a planted world whose truth is known.

Source of the truth: `truth.json`, which `photomaker.synthetic.planted` writes beside the photos.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from photomaker.dataset.base import Row
from photomaker.dataset.stage_files import Pictures, StageFiles, read_parquet
from photomaker.dataset.tallies import stage_names
from photomaker.errors import SettingsError
from photomaker.faces.base import overlaps
from photomaker.outside import read_object

FORMAT = "photomaker-planted-2"
SAME = 0.5
"""Intersection over union from which on two boxes are of the same face."""

Truth = Mapping[str, Mapping[str, Any]]
"""Photo as "PERSON/FILE" -> what is true of it; see `photomaker.synthetic.planted.write_planted`."""


@dataclass(frozen=True)
class Count:
    """How often something was told, and how often that was right.

    Attributes:
        what: What was told, in words.
        right: Times that it was told rightly.
        told: Times that it was told.
        true: Times that it was true.
    """

    what: str
    right: int
    told: int
    true: int

    @property
    def precision(self) -> float | None:
        """Right among what was told, 0..1; None if nothing was told."""
        return self.right / self.told if self.told else None

    @property
    def recall(self) -> float | None:
        """Told among what was true, 0..1; None if nothing was true."""
        return self.right / self.true if self.true else None


@dataclass(frozen=True)
class Mean:
    """The mean of a figure in 0..1 over some photos; None if there is no photo."""

    what: str
    value: float | None
    photos: int


@dataclass(frozen=True)
class Accuracy:
    """What `compare` finds: counts with precision and recall, and means."""

    counts: tuple[Count, ...]
    means: tuple[Mean, ...]

    def markdown(self) -> str:
        """Both as tables."""
        lines = [
            "| told by the build | precision | recall | right | told | true |",
            "|---|---|---|---|---|---|",
            *(
                f"| {one.what} | {_shown(one.precision)} | {_shown(one.recall)} "
                f"| {one.right} | {one.told} | {one.true} |"
                for one in self.counts
            ),
            "",
            "| measured | mean | photos |",
            "|---|---|---|",
            *(f"| {one.what} | {_shown(one.value)} | {one.photos} |" for one in self.means),
        ]
        return "\n".join(lines) + "\n"

    def plain(self) -> list[dict[str, Any]]:
        """Both as JSON values."""
        counts = [
            {"what": one.what, "precision": one.precision, "recall": one.recall, "right": one.right}
            | {"told": one.told, "true": one.true}
            for one in self.counts
        ]
        return counts + [{"what": one.what, "mean": one.value, "photos": one.photos} for one in self.means]


def _shown(share: float | None) -> str:
    return "-" if share is None else f"{share:.3f}"


@dataclass(frozen=True)
class StageRows:
    """What came out of a stage: rows that stay, and rows that were dropped with their `reason`."""

    kept: Sequence[Row]
    dropped: Sequence[Row]


def read_truth(folder: Path) -> dict[str, dict[str, Any]]:
    """The truth about the photos of a planted world.

    Raises:
        SettingsError: There is none in the folder.
    """
    try:
        content = read_object((folder / "truth.json").read_bytes())
        if content["format"] != FORMAT:
            raise ValueError(content["format"])
        return dict(content["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{folder} has no planted world (truth.json is missing or damaged)") from error


def compare_build(world: Path, out: Path, smallest: float = 0.0) -> Accuracy:
    """Compare a build, finished or not, with the truth of the planted world that it was made from.

    Args:
        world: Folder of the planted world.
        out: Folder of the build.
        smallest: Pixels that the shorter side of a face had to have.

    Raises:
        SettingsError: Either folder is not what it should be.
    """
    stages = {
        folder.name: StageRows(*_rows(folder))
        for folder in (out / name for name in stage_names(out))
        if any(folder.glob("*.parquet"))
    }

    @lru_cache(maxsize=1)
    def pictures(shard: int) -> Pictures:
        return Pictures(StageFiles(out / "segment", 0), shard)

    def mask(row: Row) -> bytes:
        return pictures(row["shard"]).read(row["key"])["mask"]

    return compare(read_truth(world), stages, mask, world, smallest)


def _rows(folder: Path) -> tuple[list[Row], list[Row]]:
    """What the finished units of a stage kept, and what they dropped."""
    kept: list[Row] = []
    dropped: list[Row] = []
    for path in sorted(folder.glob("*.parquet")):
        if path.stem.isdecimal():
            kept += read_parquet(path).to_pylist()
        elif path.name.endswith(".dropped.parquet"):
            dropped += read_parquet(path, columns=["source", "reason"]).to_pylist()
    return kept, dropped


def name_of(row: Row) -> str:
    """The photo of a row as the truth names it, from the end of its path or address."""
    return "/".join(str(row["source"]).replace("\\", "/").split("/")[-2:])


def compare(
    truth: Truth,
    stages: Mapping[str, StageRows],
    masks: Callable[[Row], bytes] | None = None,
    true_masks: Path | None = None,
    smallest: float = 0.0,
) -> Accuracy:
    """Compare what the stages of a build did with the truth. Stages that have not run are left out.

    Args:
        truth: See `read_truth`.
        stages: Name -> rows, each with `source`.
        masks: Gives the mask, as PNG, of a row that the stage "segment" kept.
        true_masks: Folder of the planted world.
        smallest: Pixels that the shorter side of a face must have to count.
    """
    counts: list[Count] = []
    means: list[Mean] = []
    if "gather" in stages:
        counts += _gathered(truth, stages["gather"])
    if "dedupe" in stages:
        counts.append(_duplicates(truth, stages["dedupe"]))
    if "detect" in stages:
        counts += [_faces(truth, stages["detect"], smallest), _faceless(truth, stages["detect"], smallest)]
    if "verify" in stages:
        counts.append(_strangers(truth, stages["verify"]))
        means.append(_right_face(truth, stages["verify"].kept))
    if "segment" in stages and masks is not None and true_masks is not None:
        means.append(_masks(truth, stages["segment"].kept, masks, true_masks))
    if "mark" in stages:
        means.append(_class_words(truth, stages["mark"].kept))
    return Accuracy(tuple(counts), tuple(means))


def _set(rows: Iterable[Row], *reasons: str) -> set[str]:
    """Photos of rows, of dropped ones those with one of the reasons."""
    return {name_of(row) for row in rows if not reasons or row["reason"] in reasons}


def _counted(what: str, told: set[str], true: set[str]) -> Count:
    return Count(what, len(told & true), len(told), len(true))


def _gathered(truth: Truth, stage: StageRows) -> list[Count]:
    """Which photos arrive, and for each reason which go for it; another reason than the true one is wrong twice."""
    due = {name: one["due"] for name, one in truth.items()}
    told = {name: "" for name in _set(stage.kept)} | {name_of(row): row["reason"] for row in stage.dropped}
    return [
        _counted(
            f"gather: {reason}" if reason else "photo that arrives",
            {name for name, one in told.items() if one == reason},
            {name for name, one in due.items() if one == reason},
        )
        for reason in sorted({*due.values(), *told.values()})
    ]


def _duplicates(truth: Truth, stage: StageRows) -> Count:
    """Of an original and its copies one must stay, whichever it is."""
    kept, dropped = _set(stage.kept), _set(stage.dropped, "exact duplicate", "near duplicate")
    families: dict[str, set[str]] = {}
    for name in kept | dropped:
        families.setdefault(truth[name]["original"] or name, set()).add(name)
    right = sum(min(len(family & dropped), len(family) - 1) for family in families.values())
    true = sum(len(family) - 1 for family in families.values())
    return Count("duplicate", right, len(dropped), true)


def _short(box: Sequence[float]) -> float:
    return min(box[2] - box[0], box[3] - box[1])


def _faces(truth: Truth, stage: StageRows, smallest: float) -> Count:
    """A face that is smaller than asked for counts where it is found, and is not missed where it is not."""
    right = told = true = 0
    for row in stage.kept:
        found = [face["box"] for face in row["faces"]]
        there = [face["box"] for face in truth[name_of(row)]["faces"]]
        matched = _matches(found, there)
        told += len(found)
        right += len(matched)
        true += sum(place in matched or _short(box) >= smallest for place, box in enumerate(there))
    for name in _set(stage.dropped):
        true += sum(_short(face["box"]) >= smallest for face in truth[name]["faces"])
    return Count("face", right, told, true)


def _matches(found: Sequence[Sequence[float]], there: Sequence[Sequence[float]]) -> set[int]:
    """Which of the faces that are there were found, each by a box of its own."""
    shared = overlaps(np.array(found), np.array(there))
    matched: set[int] = set()
    while shared.size and shared.max() >= SAME:
        first, second = np.unravel_index(int(shared.argmax()), shared.shape)
        shared[first], shared[:, second] = 0, 0
        matched.add(int(second))
    return matched


def _faceless(truth: Truth, stage: StageRows, smallest: float) -> Count:
    seen = _set(stage.kept) | _set(stage.dropped)
    true = {
        name for name in seen if not any(_short(face["box"]) >= smallest for face in truth[name]["faces"])
    }
    return _counted("photo without a face that is large enough", _set(stage.dropped), true)


def _is_wrong(name: str, one: Mapping[str, Any]) -> bool:
    """Whether nobody in the photo is the person whose folder it lies in."""
    return name.partition("/")[0] not in {face["person"] for face in one["faces"]}


def _strangers(truth: Truth, stage: StageRows) -> Count:
    true = {name for name in _set(stage.kept) | _set(stage.dropped) if _is_wrong(name, truth[name])}
    return _counted("photo of another person", _set(stage.dropped), true)


def _right_face(truth: Truth, rows: Sequence[Row]) -> Mean:
    """Of photos with several faces, whether the person's own was chosen."""
    hits = []
    for row in rows:
        name = name_of(row)
        there = truth[name]["faces"]
        if len(there) > 1 and not _is_wrong(name, truth[name]):
            near = overlaps(np.array([row["box"]]), np.array([face["box"] for face in there]))[0]
            hits.append(there[int(near.argmax())]["person"] == name.partition("/")[0])
    return _mean("right face of two", hits)


def _masks(truth: Truth, rows: Sequence[Row], masks: Callable[[Row], bytes], folder: Path) -> Mean:
    """Intersection over union with the true mask, inside the crop."""
    values = []
    for row in rows:
        name = name_of(row)
        if _is_wrong(name, truth[name]) or truth[name]["mask"] is None:
            continue
        found = np.asarray(Image.open(io.BytesIO(masks(row))).convert("L")) > 0
        with Image.open(folder / truth[name]["mask"]) as whole:
            size = (found.shape[1], found.shape[0])
            part = whole.convert("L").resize(size, Image.Resampling.NEAREST, box=tuple(row["crop"]))
        true = np.asarray(part) > 0
        values.append((found & true).sum() / max(1, (found | true).sum()))
    return _mean("overlap of the mask with the true one", values)


def _class_words(truth: Truth, rows: Sequence[Row]) -> Mean:
    right = [row["class_word"] in truth[name_of(row)]["class_words"] for row in rows]
    return _mean("class word that is true of the person", right)


def _mean(what: str, values: Sequence[Any]) -> Mean:
    return Mean(what, float(np.mean(values)) if values else None, len(values))
