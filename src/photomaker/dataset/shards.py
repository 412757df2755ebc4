"""Tar shards with a parquet index: how the construction stores photos, and how training reads them.

A folder of shards holds `00000.tar`, `00001.tar`, ... in webdataset's layout, so that every sample is a run of members
`KEY.jpg` (or png, webp), `KEY.mask.png` and `KEY.json`, and an `index.parquet` with a row for each sample: everything
of its json, and where in the tar its files lie, which makes any sample readable without reading the rest.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from photomaker.dataset.base import Photo, Row
from photomaker.errors import OutputError, SettingsError

INDEX = "index.parquet"
MASK = "mask.png"
ROW_GROUP = 4096
PART = ".part"
"""Ending of what is being written."""


@dataclass(frozen=True)
class Member:
    """A file inside a tar: its name, where its bytes begin, and how many there are."""

    name: str
    offset: int
    size: int


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """A file that gets its name only when all of it is on the disk, and the folder knows it."""
    part = path.with_name(f"{path.name}.{os.getpid()}{PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _settle(path.parent)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}; free some space or choose another folder"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    """Bring a folder's names to the disk, so that files which are renamed in an order also appear in it."""
    if os.name == "posix":
        entry = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(entry)
        finally:
            os.close(entry)


def as_json(value: Any) -> bytes:  # noqa: ANN401 - any plain values
    """A value as a JSON file holds it."""
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is either whole or absent.

    Raises:
        OutputError: The disk is full or the place cannot be written.
    """
    with _whole(path) as file:
        file.write(content)


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> list[Member]:
    """Write a tar that depends on its content alone, atomically.

    Args:
        path: Where.
        members: Names and contents, in order; they may be made while the file is written.

    Returns:
        Where each member lies.

    Raises:
        OutputError: The disk is full or the place cannot be written.
    """
    found = []
    with (
        _whole(path) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            found.append(Member(name, tar.offset + tarfile.BLOCKSIZE, len(content)))
            tar.addfile(info, io.BytesIO(content))
    return found


def read_tar(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Go over the samples of a tar: key, and extension -> content.

    Raises:
        SettingsError: The file is missing or no whole tar.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            key, files = "", dict[str, bytes]()
            for info in tar:
                name, _, extension = info.name.rpartition("/")[2].partition(".")
                if name != key and files:
                    yield key, files
                    files = {}
                key = name
                taken = tar.extractfile(info)
                if taken is not None:
                    files[extension] = taken.read()
            if files:
                yield key, files
    except (OSError, tarfile.TarError) as error:
        raise SettingsError(f"the shard {path} is missing or damaged; build it again") from error


def write_table(path: Path, rows: Sequence[Row], schema: pa.Schema) -> None:
    """Write rows as parquet, atomically; only the schema's columns are kept.

    Raises:
        OutputError: The place cannot be written.
    """
    table = pa.Table.from_pylist(
        [{name: row.get(name) for name in schema.names} for row in rows], schema=schema
    )
    write_parquet(path, table)


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table as parquet, atomically; row groups are small, so that a reader can leave most of them out.

    Raises:
        OutputError: The place cannot be written.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=ROW_GROUP)
    write_atomically(path, sink.getvalue().to_pybytes())


def image_extension(files: Mapping[str, bytes]) -> str:
    """The extension of a sample's picture among its files."""
    return next(name for name in files if name not in (MASK, "json"))


FINAL = pa.schema(
    [
        ("key", pa.string()),
        ("person", pa.string()),
        ("shard", pa.int32()),
        ("source", pa.string()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("box", pa.list_(pa.float32())),
        ("landmarks", pa.list_(pa.float32())),
        ("embedding", pa.list_(pa.float32())),
        ("caption", pa.string()),
        ("class_word", pa.string()),
        ("class_start", pa.int32()),
        ("class_end", pa.int32()),
        ("image_offset", pa.int64()),
        ("image_size", pa.int64()),
        ("mask_offset", pa.int64()),
        ("mask_size", pa.int64()),
    ]
)
"""Columns of the index. `box` is x0, y0, x1, y1 and `landmarks` five points x, y, both in pixels of the picture;
`embedding` is the face's by the recogniser that verified it; `caption[class_start:class_end]` is the class word as it
stands there."""

_FILES = ("image_offset", "image_size", "mask_offset", "mask_size")


def write_shard(folder: Path, number: int, photos: Iterable[Photo]) -> list[Row]:
    """Write one shard of the finished dataset.

    Args:
        folder: Of the shards.
        number: Of this shard.
        photos: Rows with all columns of `FINAL` but those about files; `files` are the picture under its extension
            (jpg, png or webp) and the mask under "mask.png".

    Returns:
        Rows of the index.

    Raises:
        OutputError: The place cannot be written.
    """
    rows: list[dict[str, Any]] = []
    members: list[tuple[str, bytes]] = []
    for photo in photos:
        row = {name: photo.row[name] for name in FINAL.names if name not in (*_FILES, "shard")}
        row["shard"] = number
        extension = image_extension(photo.files)
        members += [
            (f"{row['key']}.{extension}", photo.files[extension]),
            (f"{row['key']}.{MASK}", photo.files[MASK]),
            (f"{row['key']}.json", json.dumps(row, ensure_ascii=False).encode()),
        ]
        rows.append(row)
    places = write_tar(folder / f"{number:05d}.tar", members)
    for place, row in enumerate(rows):
        image, mask = places[3 * place : 3 * place + 2]
        row |= {
            "image_offset": image.offset, "image_size": image.size,
            "mask_offset": mask.offset, "mask_size": mask.size,
        }  # fmt: skip
    return list(rows)


class Shards:
    """A finished dataset, any sample of which can be read by its row.

    Attributes:
        folder: Where it lies.
        table: The index as a pyarrow table with the columns of `FINAL`, in order of shard and place.
    """

    def __init__(self, folder: Path, table: pa.Table) -> None:
        """Take an index as it is."""
        self.folder, self.table = folder, table
        self._shards = table["shard"].to_numpy()
        self._places = {name: table[name].to_numpy() for name in _FILES}
        self._files: dict[int, int] = {}

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Shards:
        """Open a finished dataset.

        Raises:
            SettingsError: There is no index, it lacks columns, it is empty, or a shard of it is missing or cut short.
        """
        folder = Path(folder)
        path = folder / INDEX
        if not path.is_file():
            raise SettingsError(
                f"{folder} has no finished dataset ({INDEX} is missing); build one with: photomaker dataset build"
            )
        try:
            table = pq.read_table(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise SettingsError(f"{path} is damaged; build it again") from error
        missing = [name for name in FINAL.names if name not in table.column_names]
        if missing:
            raise SettingsError(f"{path} lacks the columns {', '.join(missing)}; build it again")
        if not table.num_rows:
            raise SettingsError(f"the dataset in {folder} is empty; its report says why")
        ends = table.select(["shard", "mask_offset", "mask_size"]).to_pylist()
        needed: dict[int, int] = {}
        for row in ends:
            needed[row["shard"]] = max(needed.get(row["shard"], 0), row["mask_offset"] + row["mask_size"])
        for number, size in sorted(needed.items()):
            tar = folder / f"{number:05d}.tar"
            if not tar.is_file() or tar.stat().st_size < size:
                raise SettingsError(f"the shard {tar} is missing or cut short; build the dataset again")
        return cls(folder, table)

    def __len__(self) -> int:
        """Number of samples."""
        return int(self.table.num_rows)

    def image(self, row: int) -> bytes:
        """The encoded picture of a row."""
        return self._read(row, "image")

    def mask(self, row: int) -> bytes:
        """The person's mask of a row, PNG: 255 on the person."""
        return self._read(row, "mask")

    def _read(self, row: int, what: str) -> bytes:
        number = int(self._shards[row])
        if number not in self._files:
            self._files[number] = os.open(self.folder / f"{number:05d}.tar", os.O_RDONLY)
        size, offset = int(self._places[f"{what}_size"][row]), int(self._places[f"{what}_offset"][row])
        return os.pread(self._files[number], size, offset)

    def __getstate__(self) -> dict[str, Any]:
        """Without open files, so that another process can have it."""
        return {**self.__dict__, "_files": {}}
