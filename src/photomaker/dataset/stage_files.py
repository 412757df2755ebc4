"""Where a stage keeps what its units gave, and how that is read again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from photomaker.errors import SettingsError

DROPPED = pa.schema(
    [
        ("key", pa.string()),
        ("person", pa.string()),
        ("shard", pa.int32()),
        ("source", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("image", pa.binary()),
    ]
)
"""Columns of what a unit dropped; `image` is a small JPEG of some of those whose picture is kept nowhere else."""


PLACES = pa.schema(
    [
        ("key", pa.string()),
        ("image_offset", pa.int64()),
        ("image_size", pa.int64()),
        ("mask_offset", pa.int64()),
        ("mask_size", pa.int64()),
    ]
)


@dataclass(frozen=True)
class StageFiles:
    """Where a stage keeps its results.

    Attributes:
        folder: Of the stage.
        units: Number of its units.
        by_person: Whether a unit is a bucket of people and not a shard.
    """

    folder: Path
    units: int
    by_person: bool = False

    def kept(self, unit: int) -> Path:
        """What the unit kept; it is done when this file is there."""
        return self.folder / f"{unit:05d}.parquet"

    def dropped(self, unit: int) -> Path:
        """What the unit dropped."""
        return self.folder / f"{unit:05d}.dropped.parquet"

    def tar(self, unit: int) -> Path:
        """The pictures that the unit wrote."""
        return self.folder / f"{unit:05d}.tar"

    def places(self, unit: int) -> Path:
        """Where each picture lies in the tar."""
        return self.folder / f"{unit:05d}.places.parquet"

    def missing(self) -> list[int]:
        """Units that are not done."""
        there = {path.name for path in self.folder.glob("*.parquet")}
        return [unit for unit in range(self.units) if self.kept(unit).name not in there]

    def shard(self, number: int) -> pa.Table:
        """Kept rows of a shard, by key."""
        if not self.by_person:
            return read_parquet(self.kept(number))
        parts = [read_parquet(self.kept(unit), where=("shard", number)) for unit in range(self.units)]
        return pa.concat_tables(parts).sort_by("key")

    def bucket(self, number: int, buckets: int) -> pa.Table:
        """Kept rows of a bucket's people, by person and key."""
        if self.by_person:
            return read_parquet(self.kept(number)).sort_by([("person", "ascending"), ("key", "ascending")])
        parts = [self._of_bucket(unit, number, buckets) for unit in range(self.units)]
        return pa.concat_tables(parts).sort_by([("person", "ascending"), ("key", "ascending")])

    def _of_bucket(self, unit: int, number: int, buckets: int) -> pa.Table:
        """One column tells whether the others have to be read at all."""
        person = read_parquet(self.kept(unit), columns=["person"])["person"]
        ours = [name for name in person.unique().to_pylist() if bucket_of(name, buckets) == number]
        if not ours:
            return read_parquet(self.kept(unit)).slice(0, 0)
        return read_parquet(self.kept(unit)).filter(pc.is_in(person, pa.array(ours, pa.string())))


def bucket_of(person: str, buckets: int) -> int:
    """The bucket of a person, the same everywhere."""
    return int.from_bytes(hashlib.sha256(person.encode()).digest()[:8]) % buckets


def read_parquet(
    path: Path, columns: Sequence[str] | None = None, where: tuple[str, int] | None = None
) -> pa.Table:
    """Read a table that a unit wrote.

    Args:
        path: The file.
        columns: Those that are wanted; None takes all.
        where: A column of whole numbers and the value that rows must have there; parts of the file without it are
            not read.

    Raises:
        SettingsError: It is missing or damaged.
    """
    filters = None if where is None else [(where[0], "=", where[1])]
    try:
        return pq.read_table(path, columns=columns and list(columns), filters=filters)
    except (pa.ArrowInvalid, OSError) as error:
        raise SettingsError(f"{path} is missing or damaged; build its stage again with --fresh") from error


class Pictures:
    """Pictures that a stage wrote, read one by one."""

    def __init__(self, files: StageFiles, unit: int) -> None:
        """Read where they lie."""
        self._path = files.tar(unit)
        self._places = {row["key"]: row for row in read_parquet(files.places(unit)).to_pylist()}

    def __contains__(self, key: object) -> bool:
        """Whether there is a picture of that key."""
        return key in self._places

    def read(self, key: str) -> dict[str, bytes]:
        """Its files: "image", and "mask" where there is one.

        Raises:
            SettingsError: The tar is missing or cut short.
        """
        place = self._places[key]
        try:
            with self._path.open("rb") as tar:
                files = {
                    name: os.pread(tar.fileno(), place[f"{name}_size"], place[f"{name}_offset"])
                    for name in ("image", "mask")
                    if place[f"{name}_size"] is not None
                }
        except OSError as error:
            raise SettingsError(f"the pictures {self._path} are missing; build that stage again") from error
        if any(len(content) != place[f"{name}_size"] for name, content in files.items()):
            raise SettingsError(f"the pictures {self._path} are cut short; build that stage again")
        return files
