"""The work on one unit: a shard of an image step, a bucket of people of a table step, a shard of the finished dataset.

A unit writes its pictures, then what it dropped, then what it kept; the last file is what says that it is done. All
are written under another name and renamed, so that a unit that was killed leaves nothing that counts.
"""

from __future__ import annotations

import io
import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from photomaker.dataset.base import Dropped, ImageStep, Photo, Row, TableStep
from photomaker.dataset.gather import extension
from photomaker.dataset.shards import FINAL, MASK, write_parquet, write_shard, write_table, write_tar
from photomaker.dataset.stage_files import DROPPED, PLACES, Pictures, StageFiles, read_parquet
from photomaker.errors import PhotoError, PhotoMakerError
from photomaker.images import read_photo

_SAMPLES, _SMALL = 8, 256


@dataclass(frozen=True)
class Outcome:
    """What became of a unit.

    Attributes:
        unit: Its number.
        rows: Rows that came in.
        kept: Rows that stay.
        drops: Reason -> rows.
        seconds: That the unit took, models being open already.
        opening: Seconds that opening them took, if this unit was the first of its worker.
    """

    unit: int
    rows: int
    kept: int
    drops: Mapping[str, int]
    seconds: float
    opening: float = 0.0


class Task(ABC):
    """What is sent to a worker: a stage with everything that its units need, but nothing loaded."""

    @abstractmethod
    def open(self) -> Callable[[int], Outcome]:
        """Load what is needed and return the function that does a unit."""


@dataclass
class _Results:
    """Collects what a unit keeps and drops."""

    stage: str
    kept: list[Row] = field(default_factory=list)
    dropped: list[dict[str, Any]] = field(default_factory=list)
    drops: Counter[str] = field(default_factory=Counter)

    def drop(self, end: Dropped) -> None:
        """Note a dropped row, with a small picture while there are few of its kind."""
        self.drops[end.reason] += 1
        small = end.image is not None and self.drops[end.reason] <= _SAMPLES
        self.dropped.append(
            {
                **end.row,
                "stage": self.stage,
                "reason": end.reason,
                "detail": end.detail,
                "image": _small(end.image) if small and end.image is not None else None,
            }
        )

    def write(self, files: StageFiles, unit: int, schema: pa.Schema) -> None:
        """Write both tables, the kept one last."""
        write_table(files.dropped(unit), self.dropped, DROPPED)
        write_table(files.kept(unit), self.kept, schema)

    def outcome(self, unit: int, rows: int, begun: float) -> Outcome:
        """Sum up."""
        assert len(self.kept) + len(self.dropped) == rows, "a step must keep or drop every row"
        return Outcome(unit, rows, len(self.kept), dict(self.drops), time.perf_counter() - begun)


def _small(data: bytes) -> bytes | None:
    try:
        image = read_photo(data, "a dropped photo").image
    except PhotoError:
        return None
    return jpeg(image, _SMALL)


def jpeg(image: Image.Image, side: int) -> bytes:
    """A picture as JPEG, at most `side` pixels wide and high."""
    image = image.copy()
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


class Broken(Exception):
    """A fault in a step, with its traceback as text, so that it is not taken for a fault of the disk."""


def _guarded(results: Iterator[Photo | Dropped]) -> Iterator[Photo | Dropped]:
    try:
        yield from results
    except PhotoMakerError:
        raise
    except Exception as error:
        raise Broken(traceback.format_exc()) from error


@dataclass(frozen=True)
class ImageTask(Task):
    """An image step: a unit is a shard.

    Attributes:
        step: The step.
        files: Where its results go.
        source: The stage before it, or the list.
        pictures: The stage whose pictures it reads, if any.
        schema: Columns of the rows that it keeps.
    """

    step: ImageStep
    files: StageFiles
    source: StageFiles
    pictures: StageFiles | None
    schema: pa.Schema

    def open(self) -> Callable[[int], Outcome]:
        """Open the step."""
        opened = self.step.open()

        def do(unit: int) -> Outcome:
            begun = time.perf_counter()
            rows = self.source.shard(unit).to_pylist()
            results = _Results(self.step.name)
            found = self._sorted(_guarded(opened(self._photos(rows, unit))), results)
            if self.step.writes:
                self._write(found, unit)
            else:
                for _ in found:
                    pass
            results.write(self.files, unit, self.schema)
            return results.outcome(unit, len(rows), begun)

        return do

    def _photos(self, rows: Sequence[Row], unit: int) -> Iterator[Photo]:
        pictures = Pictures(self.pictures, unit) if self.pictures and rows else None
        for row in rows:
            yield Photo(row, pictures.read(row["key"]) if pictures else {})

    @staticmethod
    def _sorted(found: Iterable[Photo | Dropped], results: _Results) -> Iterator[Photo]:
        """Put rows where they belong; give on the photos that stay."""
        for one in found:
            if isinstance(one, Dropped):
                results.drop(one)
            else:
                results.kept.append(one.row)
                yield one

    def _write(self, photos: Iterable[Photo], unit: int) -> None:
        keys: list[tuple[str, bool]] = []
        places = write_tar(self.files.tar(unit), self._members(photos, keys))
        table, at = [], iter(places)
        for key, masked in keys:
            image = next(at)
            mask = next(at) if masked else None
            table.append(
                {
                    "key": key,
                    "image_offset": image.offset,
                    "image_size": image.size,
                    "mask_offset": mask.offset if mask else None,
                    "mask_size": mask.size if mask else None,
                }
            )
        write_table(self.files.places(unit), table, PLACES)

    @staticmethod
    def _members(photos: Iterable[Photo], keys: list[tuple[str, bool]]) -> Iterator[tuple[str, bytes]]:
        for photo in photos:
            key, image, mask = photo.row["key"], photo.files["image"], photo.files.get("mask")
            keys.append((key, mask is not None))
            yield f"{key}.{extension(image)}", image
            if mask is not None:
                yield f"{key}.{MASK}", mask


@dataclass(frozen=True)
class TableTask(Task):
    """A table step: a unit is a bucket of people, chosen by a hash of their names.

    Attributes:
        step: The step.
        files: Where its results go.
        source: The stage before it.
        schema: Columns of the rows that it keeps.
    """

    step: TableStep
    files: StageFiles
    source: StageFiles
    schema: pa.Schema

    def open(self) -> Callable[[int], Outcome]:
        """Open the step."""
        opened = self.step.open()

        def do(unit: int) -> Outcome:
            begun = time.perf_counter()
            table = self.source.bucket(unit, self.files.units)
            dropped = _Results(self.step.name)
            kept: list[pa.Table] = []
            for rows in _people(table):
                stay = _Results(self.step.name)
                for one in opened(rows):
                    dropped.drop(one) if isinstance(one, Dropped) else stay.kept.append(one)
                # as a table at once: rows of plain values take many times the room
                kept.append(
                    pa.Table.from_pylist(
                        [{name: row.get(name) for name in self.schema.names} for row in stay.kept],
                        schema=self.schema,
                    )
                )
            result = pa.concat_tables([self.schema.empty_table(), *kept]).sort_by("key")
            write_table(self.files.dropped(unit), dropped.dropped, DROPPED)
            write_parquet(self.files.kept(unit), result)
            assert result.num_rows + len(dropped.dropped) == table.num_rows, (
                "a step must keep or drop every row"
            )
            seconds = time.perf_counter() - begun
            return Outcome(unit, table.num_rows, result.num_rows, dict(dropped.drops), seconds)

        return do


def _people(table: pa.Table) -> Iterator[list[Row]]:
    """The rows of each person of a table that is sorted by person."""
    start = 0
    for count in _runs(table["person"]):
        yield table.slice(start, count).to_pylist()
        start += count


def _runs(column: pa.ChunkedArray) -> list[int]:
    if not len(column):
        return []
    ends = pc.run_end_encode(column.combine_chunks()).run_ends.to_numpy()
    return np.diff(ends, prepend=0).tolist()


@dataclass(frozen=True)
class ShardTask(Task):
    """The last stage: a unit is a shard of the finished dataset.

    Attributes:
        files: Where the parts of the index go.
        source: The last stage before it.
        pictures: The stage whose pictures and masks are written.
        plan: Table with the columns key, shard and target: which rows go where.
        out: Folder of the finished shards.
    """

    files: StageFiles
    source: StageFiles
    pictures: StageFiles
    plan: Path
    out: Path

    def open(self) -> Callable[[int], Outcome]:
        """Nothing has to be loaded."""
        return self._do

    def _do(self, unit: int) -> Outcome:
        begun = time.perf_counter()
        planned = read_parquet(self.plan, where=("target", unit)).sort_by("key").to_pylist()
        rows = write_shard(self.out, unit, self._photos(planned))
        write_table(self.files.kept(unit), rows, FINAL)
        return Outcome(unit, len(planned), len(rows), {}, time.perf_counter() - begun)

    def _photos(self, planned: Sequence[Row]) -> Iterator[Photo]:
        """Rows lie in the order of their shards, so that each is opened once."""
        number, known, pictures = -1, dict[str, Row](), None
        for row in planned:
            if row["shard"] != number:
                number = row["shard"]
                known = {one["key"]: one for one in self.source.shard(number).to_pylist()}
                pictures = Pictures(self.pictures, number)
            assert pictures is not None
            files = pictures.read(row["key"])
            yield Photo(known[row["key"]], {extension(files["image"]): files["image"], MASK: files["mask"]})
