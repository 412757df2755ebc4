"""What a build did, for people to look at: counts, speed, and contact sheets of what was dropped and what was kept.

Everything is read from the build's files, so that a report can be made again at any time, also of a build that is
only begun.
"""

from __future__ import annotations

import hashlib
import heapq
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageOps

from photomaker.dataset.base import Row
from photomaker.dataset.folder import RESULT, SETTINGS
from photomaker.dataset.shards import write_atomically
from photomaker.dataset.stage_files import Pictures, StageFiles, read_parquet
from photomaker.dataset.stages import SHARD
from photomaker.dataset.tallies import Tally, stage_names, tallies
from photomaker.errors import PhotoError, SettingsError
from photomaker.images import grid, labelled, read_photo
from photomaker.outside import read_file

_SIDE, _COLUMNS = 128, 8
_ANEW = "build the dataset again in an empty folder"
_TEMPLATE = Path(__file__).with_name("report.html")


@dataclass(frozen=True)
class Sheet:
    """A contact sheet.

    Attributes:
        title: What it shows.
        file: Its path from the report's folder, or empty if no picture is known.
        lines: Lines of text for the first of them.
        count: Photos of that kind in all.
    """

    title: str
    file: str
    lines: tuple[str, ...]
    count: int


@dataclass(frozen=True)
class Sample:
    """How much is shown.

    Attributes:
        drops: Photos on the sheet of a reason, 1 or more.
        people: People who get a sheet, 0 or more.
        photos: Kept photos, and as many dropped ones at most, on a person's sheet, 1 or more.

    Raises:
        SettingsError: A value is outside its range.
    """

    drops: int = 24
    people: int = 12
    photos: int = 8

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.drops < 1 or self.people < 0 or self.photos < 1:
            raise SettingsError(
                f"{self} is not a sample; give 1 or more drops and photos, and 0 or more people"
            )


def write(out: Path, sample: Sample | None = None) -> tuple[Path, Path]:
    """Write `report.md` and `report.html` into a build's folder, and contact sheets into `report/`.

    Args:
        out: The build's folder.
        sample: How much is shown.

    Returns:
        Both files.

    Raises:
        SettingsError: The folder holds no build, or a file of it is damaged.
        OutputError: The folder cannot be written.
    """
    sample = sample or Sample()
    found = tallies(out)
    files = _Files(out)
    people = files.people(sample.people)
    dropped = {stage: _Drops(out / stage, people, sample.drops, sees) for stage, sees in files.sees.items()}
    reasons = [
        sheet
        for tally in found
        for reason, count in tally.drops.items()
        for sheet in [_reason_sheet(files, dropped[tally.name], (tally.name, reason), count)]
    ]
    persons = [_person_sheet(files, dropped.values(), person, sample.photos) for person in people]
    result = read_file(out / RESULT, _ANEW) if (out / RESULT).is_file() else None
    text, page = out / "report.md", out / "report.html"
    write_atomically(text, _markdown(found, reasons, persons, result).encode())
    write_atomically(page, _html(found, reasons, persons, result).encode())
    return text, page


class _Files:
    """The files of a build as a report needs them."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.sees: dict[str, str] = {}
        for name in stage_names(out):
            path = out / name / SETTINGS
            if path.is_file():
                self.sees[name] = read_file(path, _ANEW)["pictures"]
        self._opened: dict[tuple[str, int], Pictures] = {}
        self.kept = self._kept()

    def _kept(self) -> pa.Table:
        """key, person, shard of what the last stage keeps that has kept anything."""
        columns = ["key", "person", "shard"]
        plan = self.out / SHARD / "plan.parquet"
        if plan.is_file():
            return read_parquet(plan, columns=columns)
        for name in reversed([name for name in self.sees if name != SHARD]):
            parts = [path for path in (self.out / name).glob("*.parquet") if path.stem.isdecimal()]
            if parts:
                return pa.concat_tables([read_parquet(path, columns=columns) for path in sorted(parts)])
        return pa.table({"key": [], "person": [], "shard": []})

    def people(self, count: int) -> dict[str, list[Row]]:
        """Some people, chosen by a hash of their names, with their kept rows by key."""
        names = heapq.nsmallest(count, self.kept["person"].unique().to_pylist(), key=_lot)
        if not names:
            return {}
        rows = self.kept.filter(pc.is_in(self.kept["person"], pa.array(names, pa.string()))).sort_by("key")
        found: dict[str, list[Row]] = {name: [] for name in names}
        for row in rows.to_pylist():
            found[row["person"]].append(row)
        return found

    def picture(self, stage: str, row: Row) -> Image.Image | None:
        """The picture of a row as a stage saw it, or None."""
        if row.get("image"):
            return _opened(row["image"])
        if not self.sees[stage]:
            return None
        place = (self.sees[stage], row["shard"])
        if place not in self._opened:
            self._opened = {place: Pictures(StageFiles(self.out / place[0], 0), place[1])}
        pictures = self._opened[place]
        return _opened(pictures.read(row["key"])["image"]) if row["key"] in pictures else None

    def last_seen(self) -> str:
        """The stage that sees the latest pictures."""
        return list(self.sees)[-1]


class _Drops:
    """What a stage dropped: a sample for each reason, and everything of some people."""

    def __init__(self, folder: Path, people: Mapping[str, Any], count: int, sees: str) -> None:
        self.stage = folder.name
        self.samples: dict[str, list[Row]] = {}
        self.of_person: dict[str, list[Row]] = defaultdict(list)
        chosen: dict[str, list[tuple[bytes, int, Row]]] = defaultdict(list)
        for number, row in enumerate(_dropped_rows(folder)):
            if row["person"] in people:
                self.of_person[row["person"]].append(row)
            # a photo whose picture nobody has comes last: there is only something to read of it
            shown = b"\0" if sees or row["image"] else b"\1"
            heap = chosen[row["reason"]]
            heap.append((shown + _lot(row["key"]), number, row))
            if len(heap) > 8 * count:
                chosen[row["reason"]] = heapq.nsmallest(count, heap)
        for reason, heap in chosen.items():
            rows = [row for _, _, row in heapq.nsmallest(count, heap)]
            self.samples[reason] = sorted(rows, key=lambda row: row["key"])


def _dropped_rows(folder: Path) -> Iterator[Row]:
    for path in sorted(folder.glob("*.dropped.parquet")):
        yield from read_parquet(path).to_pylist()


def _lot(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _opened(data: bytes) -> Image.Image | None:
    try:
        return read_photo(data, "a photo of the report").image
    except PhotoError:
        return None


def _reason_sheet(files: _Files, drops: _Drops, name: tuple[str, str], count: int) -> Sheet:
    stage, reason = name
    rows = drops.samples[reason]
    cells = [(files.picture(stage, row), f"{row['person']} {row['detail']}") for row in rows]
    lines = tuple(f"{row['person']}, {row['source']}: {row['detail'] or reason}" for row in rows[:_COLUMNS])
    return Sheet(f"{stage}: {reason}", _save(files.out, f"{stage}-{reason}", cells), lines, count)


def _person_sheet(files: _Files, drops: Iterator[_Drops] | Any, person: str, most: int) -> Sheet:  # noqa: ANN401 - a view
    kept = files.kept.filter(pc.equal(files.kept["person"], person)).sort_by("key").to_pylist()
    cells = [(files.picture(files.last_seen(), row), "kept") for row in kept[:most]]
    gone = [(one.stage, row) for one in drops for row in one.of_person.get(person, ())]
    cells += [(files.picture(stage, row), f"{stage}: {row['reason']}") for stage, row in gone[:most]]
    lines = (f"{len(kept)} kept, {len(gone)} dropped",)
    return Sheet(person, _save(files.out, f"person-{_lot(person).hex()[:12]}", cells), lines, len(kept))


def _save(out: Path, name: str, cells: Sequence[tuple[Image.Image | None, str]]) -> str:
    """Write a sheet; gives its path from the report's folder, or nothing if there is no picture."""
    drawn = [
        labelled(ImageOps.pad(image, (_SIDE, _SIDE), color="#dddddd"), label, _SIDE)
        for image, label in cells
        if image is not None
    ]
    if not drawn:
        return ""
    buffer = io.BytesIO()
    grid(drawn, _COLUMNS).save(buffer, "JPEG", quality=85)
    file = f"report/{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.jpg"
    write_atomically(out / file, buffer.getvalue())
    return file


def speed(tally: Tally) -> tuple[str, str, str]:
    """Photos a second of a stage, of one core, and the share of the workers' time that was work; "-" if unknown."""
    busy = tally.busy_seconds + tally.opening_seconds
    return (
        f"{tally.timed_rows / tally.wall_seconds:.1f}" if tally.wall_seconds else "-",
        f"{tally.timed_rows / tally.busy_seconds:.1f}" if tally.busy_seconds else "-",
        f"{busy / (tally.wall_seconds * tally.workers):.0%}" if tally.wall_seconds else "-",
    )


_HEADINGS = ("stage", "in", "kept", "dropped", "photos/s", "photos/s and core", "workers", "workers busy")


def _table(found: Sequence[Tally]) -> list[tuple[str, ...]]:
    return [
        (
            one.name,
            str(one.rows),
            str(one.kept),
            str(one.rows - one.kept),
            *speed(one)[:2],
            str(one.workers),
            speed(one)[2],
        )
        for one in found
    ]


def _summary(result: Mapping[str, Any] | None) -> str:
    if result is None:
        return "The build is not finished; this is how far it is."
    return f"{result['photos']} photos of {result['people']} people in {result['shards']} shards."


def _markdown(
    found: Sequence[Tally],
    reasons: Sequence[Sheet],
    people: Sequence[Sheet],
    result: Mapping[str, Any] | None,
) -> str:
    lines = ["# The dataset", "", _summary(result), "", "## Stages", ""]
    lines += _rows(_HEADINGS, _table(found))
    lines += ["", "## Dropped", ""]
    lines += _rows(("stage: reason", "photos"), [(sheet.title, str(sheet.count)) for sheet in reasons])
    for sheet in reasons:
        lines += ["", f"### {_plain(sheet.title)}", ""]
        lines += [f"![{_plain(sheet.title)}]({sheet.file})", ""] if sheet.file else []
        lines += [f"* {_plain(line)}" for line in sheet.lines]
    lines += ["", "## Some people"]
    for sheet in people:
        lines += ["", f"### {_plain(sheet.title)}", "", *map(_plain, sheet.lines), ""]
        lines += [f"![{_plain(sheet.title)}]({sheet.file})"] if sheet.file else []
    if result is not None and result["models"]:
        models = [
            (one["stage"], one["for"], json.dumps(one["model"]), one["licence"]) for one in result["models"]
        ]
        lines += ["", "## Models", "", *_rows(("stage", "for", "model", "licence"), models)]
    return "\n".join(lines) + "\n"


def _rows(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    body = [f"| {' | '.join(map(_plain, row))} |" for row in rows]
    return [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings), *body]


def _plain(text: str) -> str:
    """Text that Markdown takes as it is, whoever wrote it."""
    return re.sub(r"([\\`*_\[\]<>|#!&])", r"\\\1", " ".join(text.split()))


def _html(
    found: Sequence[Tally],
    reasons: Sequence[Sheet],
    people: Sequence[Sheet],
    result: Mapping[str, Any] | None,
) -> str:
    from jinja2 import Environment, StrictUndefined

    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        _TEMPLATE.read_text(encoding="utf-8")
    )
    return page.render(
        summary=_summary(result),
        headings=_HEADINGS,
        stages=_table(found),
        reasons=reasons,
        people=people,
        models=result["models"] if result else (),
    )
