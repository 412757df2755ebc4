"""What a build starts from: URL lists, a folder per person, or img2dataset's tars, read once into slices of a list.

The list is sorted by person and source, and a photo's key is its place in it. So keys depend on the input alone, and
the photos of a person lie side by side.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from photomaker.dataset.base import KEY
from photomaker.dataset.shards import write_atomically, write_parquet
from photomaker.errors import SettingsError
from photomaker.images import SUFFIXES
from photomaker.outside import read_file, read_object

LISTED = pa.schema(
    [
        *KEY,
        ("source", pa.string()),
        ("place", pa.string()),
        ("remote", pa.bool_()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("twice", pa.bool_()),
    ]
)
"""Columns of the list. `source` is what the dataset says of a photo's origin; `place` is the URL (`remote`) or the file
that it is read from, at `offset` for `size` bytes where that is a tar; `twice` marks what the list names again."""

_FOUND = pa.schema([LISTED.field(name) for name in ("person", "source", "place", "offset", "size")])
_BATCH = 10_000
_SHOWN = 20


@dataclass(frozen=True)
class Input:
    """Where the photos come from; exactly one of the first three is given.

    Attributes:
        urls: A list with a name and a URL in each row: CSV, TSV, JSON lines or parquet, distinguished by the ending.
        folders: A folder that holds one folder for each person, named after that person, with photos in it.
        img2dataset: A folder of tars as img2dataset writes them, with a parquet beside each or a json in it.
        name_column: Column or json field that names the person; `folders` need none.
        url_column: Column of the URL.

    Raises:
        SettingsError: None is given, or several.
    """

    urls: Path | None = None
    folders: Path | None = None
    img2dataset: Path | None = None
    name_column: str = "name"
    url_column: str = "url"

    def __post_init__(self) -> None:
        """Check that there is one input."""
        given = [name for name in ("urls", "folders", "img2dataset") if getattr(self, name) is not None]
        if len(given) != 1:
            raise SettingsError(
                f"the input is {' and '.join(given) or 'not given'}; give one of urls, folders, img2dataset"
            )


@dataclass(frozen=True)
class Listing:
    """What a list holds.

    Attributes:
        rows: Photos.
        units: Slices.
        people: Different names.
        empty: Some names of people without any photo.
        ignored: Files that are no pictures by their names, or that lie in no person's folder.
    """

    rows: int
    units: int
    people: int
    empty: tuple[str, ...] = ()
    ignored: int = 0


def check(source: Input) -> None:
    """See whether there is such an input, without reading all of it.

    Raises:
        SettingsError: It is missing, or a list lacks a column.
    """
    if source.urls is not None:
        if not source.urls.is_file():
            raise SettingsError(
                f"there is no list {source.urls}; give a CSV, TSV, JSON lines or parquet file"
            )
        if source.urls.suffix.lower() not in _READERS:
            raise SettingsError(
                f"the list {source.urls} has an unknown ending; use one of {', '.join(_READERS)}"
            )
        return
    folder = source.folders or source.img2dataset
    if folder is None or not folder.is_dir():
        raise SettingsError(f"there is no folder {folder}; check the input's path")


def read(folder: Path) -> Listing | None:
    """The listing that `write` has finished in a folder, or None."""
    path = folder / "list.json"
    if not path.is_file():
        return None
    stated = read_file(path, "build the dataset again in an empty folder")
    return Listing(**{**stated, "empty": tuple(stated["empty"])})


def write(folder: Path, source: Input, unit: int) -> Listing:
    """Read an input and write it as slices `NNNNN.parquet` with the columns of `LISTED`.

    Args:
        folder: Where to write them.
        source: The input.
        unit: Rows of a slice.

    Raises:
        SettingsError: The input is missing, damaged, empty, or lacks a column.
        OutputError: The folder cannot be written.
    """
    check(source)
    empty: tuple[str, ...] = ()
    ignored = 0
    if source.urls is not None:
        found = _urls(source.urls, source)
    elif source.folders is not None:
        found, empty, ignored = _folders(source.folders)
    else:
        assert source.img2dataset is not None
        found = _tars(source.img2dataset, source)
    if not found.num_rows:
        raise SettingsError(
            f"{source.urls or source.folders or source.img2dataset} has no photos; check the input"
        )
    table = _keyed(found, unit, remote=source.urls is not None)
    units = -(-table.num_rows // unit)
    for number in range(units):
        write_parquet(folder / f"{number:05d}.parquet", table.slice(number * unit, unit))
    listing = Listing(table.num_rows, units, pc.count_distinct(table["person"]).as_py(), empty, ignored)
    write_atomically(folder / "list.json", json.dumps(listing.__dict__, indent=1).encode())
    return listing


def _keyed(found: pa.Table, unit: int, remote: bool) -> pa.Table:
    table = found.sort_by([(name, "ascending") for name in ("person", "source", "place", "offset")])
    rows = range(table.num_rows)
    width = max(8, len(str(table.num_rows)))
    same = [
        pc.equal(table[name].slice(1), table[name].slice(0, len(rows) - 1)) for name in ("person", "source")
    ]
    again = pc.and_(*same).combine_chunks() if len(rows) > 1 else pa.array([], pa.bool_())
    if isinstance(again, pa.ChunkedArray):
        again = pa.concat_arrays(again.chunks)
    columns = {
        "key": pa.array([f"{row:0{width}d}" for row in rows], pa.string()),
        "shard": pa.array([row // unit for row in rows], pa.int32()),
        "remote": pa.array([remote] * len(rows), pa.bool_()),
        "twice": pa.concat_arrays([pa.array([False]), again]),
    }
    return pa.table(
        [columns[name] if name in columns else table[name] for name in LISTED.names], schema=LISTED
    )


def _csv(path: Path, columns: Sequence[str]) -> pa.Table:
    from pyarrow import csv

    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    return csv.read_csv(
        path,
        parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string())),
    )


def _jsonl(path: Path, columns: Sequence[str]) -> pa.Table:
    from pyarrow import json as lines

    return lines.read_json(path)


def _parquet(path: Path, columns: Sequence[str]) -> pa.Table:
    names = pq.read_schema(path).names
    return pq.read_table(path, columns=[name for name in columns if name in names] or names)


_READERS = {".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}


def _urls(path: Path, source: Input) -> pa.Table:
    try:
        # names of columns are decoded where they are first asked for, texts where they are used
        table = _READERS[path.suffix.lower()](path, (source.name_column, source.url_column))
        name, url = (_text(table, column, path) for column in (source.name_column, source.url_column))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        text = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise SettingsError(f"the list {path} cannot be read ({text}); fix it") from error
    nothing = pa.nulls(table.num_rows, pa.int64())
    return pa.table([name, url, url, nothing, nothing], schema=_FOUND)


def _text(table: pa.Table, column: str, path: Path) -> pa.ChunkedArray:
    if column not in table.column_names:
        raise SettingsError(
            f"the list {path} has no column {column!r} but {', '.join(table.column_names)}; "
            "name it in input.name_column or input.url_column"
        )
    return pc.utf8_trim_whitespace(pc.fill_null(pc.cast(table[column], pa.string()), ""))


def _folders(root: Path) -> tuple[pa.Table, tuple[str, ...], int]:
    empty: list[str] = []
    ignored = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal ignored
        for folder in sorted(root.iterdir()):
            if not folder.is_dir():
                ignored += 1
                continue
            files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
            photos = [file for file in files if _is_photo(file)]
            ignored += len(files) - len(photos)
            if not photos:
                empty.append(folder.name.encode("utf-8", "replace").decode())
            for file in photos:
                source = file.relative_to(root).as_posix()
                yield {"person": folder.name, "source": source, "place": str(file.resolve())}

    return _collected(rows()), tuple(empty[:_SHOWN]), ignored


def _collected(rows: Iterator[dict[str, Any]]) -> pa.Table:
    """Rows as a table, some at a time: rows of plain values take many times the room."""
    parts = [_FOUND.empty_table()]
    while batch := list(islice(rows, _BATCH)):
        parts.append(pa.Table.from_pylist(batch, schema=_FOUND))
    return pa.concat_tables(parts)


def _is_photo(file: Path) -> bool:
    """Whether a file is a picture by its name, and the name one that can be written down."""
    try:
        str(file).encode()
    except UnicodeEncodeError:
        return False
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


def _tars(root: Path, source: Input) -> pa.Table:
    tars = sorted(root.rglob("*.tar"))
    if not tars:
        raise SettingsError(f"{root} has no .tar file; give the folder that img2dataset wrote")
    return _collected(row for tar in tars for row in _members(tar, root, source))


def _members(path: Path, root: Path, source: Input) -> Iterator[dict[str, Any]]:
    known = _beside(path.with_suffix(".parquet"), source)
    pictures: list[tuple[str, str, int, int]] = []
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                key, _, extension = info.name.rpartition("/")[2].rpartition(".")
                if f".{extension.lower()}" in SUFFIXES:
                    pictures.append((key, info.name, info.offset_data, info.size))
                elif extension == "json" and key not in known:
                    taken = tar.extractfile(info)
                    known[key] = read_object(taken.read()) if taken else {}
    except (OSError, tarfile.TarError, ValueError) as error:
        raise SettingsError(f"the tar {path} is damaged; leave it out or download it again") from error
    if pictures and not any(source.name_column in fields for fields in known.values()):
        raise SettingsError(
            f"neither the parquet nor the json files of {path} have a field {source.name_column!r}; "
            "name the one with the person in input.name_column"
        )
    for key, name, offset, size in pictures:
        fields = known.get(key, {})
        yield {
            "person": str(fields.get(source.name_column) or "").strip(),
            "source": str(fields.get(source.url_column) or f"{path.relative_to(root).as_posix()}/{name}"),
            "place": str(path.resolve()),
            "offset": offset,
            "size": size,
        }


def _beside(path: Path, source: Input) -> dict[str, dict[str, Any]]:
    """The rows of the parquet beside a tar by their keys; none where it is missing or does not name people."""
    if not path.is_file():
        return {}
    try:
        names = pq.read_schema(path).names
        if "key" not in names or source.name_column not in names:
            return {}
        wanted = [name for name in ("key", source.name_column, source.url_column) if name in names]
        return {row["key"]: row for row in pq.read_table(path, columns=wanted).to_pylist()}
    except (pa.ArrowInvalid, OSError) as error:
        raise SettingsError(f"{path} is damaged; leave it out or download it again") from error
