"""Results on disk, each whole or not there: rows of JSON, and named arrays beside them."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from photomaker.errors import OutputError
from photomaker.evaluation.report.files import write
from photomaker.outside import read_object

VERSION = 1
"""Version of the folder's layout and of how figures are computed; another one is never continued."""

MAIN = "main"
Row = dict[str, Any]


@dataclass(frozen=True)
class Store:
    """A folder of results, which an interrupted run finds again.

    Attributes:
        root: The folder.
        mark: Stands for the models behind results that are named by their content; see `named`.
    """

    root: Path
    mark: str = ""

    def begin(self, *, keep: bool = True) -> None:
        """Make the folder, out of git's sight, and empty it unless what is there shall be kept.

        Raises:
            OutputError: The folder cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.root.parent.joinpath(".gitignore").write_text("*\n", encoding="utf-8")
            for path in [] if keep else [*self.root.glob("*.npz"), *self.root.glob("*.part")]:
                path.unlink()
        except OSError as error:
            raise OutputError(
                f"cannot write to {self.root}: {error.strerror}; choose another output folder"
            ) from error

    def claim(self, name: str, stamp: Mapping[str, Any], remedy: str) -> None:
        """Take a stamp of what runs here, or make sure that the one that is there is the same.

        Args:
            name: File of the stamp, relative to the folder.
            stamp: Plain JSON data.
            remedy: What to do where another run was here.

        Raises:
            OutputError: Another version or other settings were here, or the folder cannot be written.
        """
        path = self.root / name
        if not path.exists():
            write(path, json.dumps(stamp, indent=2, sort_keys=True) + "\n")
            return
        try:
            there = read_object(path.read_bytes())
        except (OSError, ValueError) as error:
            raise OutputError(f"{path} is damaged; {remedy}") from error
        if there.get("version") != VERSION:
            raise OutputError(
                f"{self.root} is from version {there.get('version')} of the benchmark, but this is {VERSION}; {remedy}"
            )
        wanted = json.loads(json.dumps(stamp))
        other = sorted(key for key in wanted.keys() | there.keys() if wanted.get(key) != there.get(key))
        if other:
            key = other[0]
            old, new = _short(there.get(key)), _short(wanted.get(key))
            raise OutputError(f"{path} is from a run with {key} {old}, but now it is {new}; {remedy}")

    def named(self, key: str) -> Path:
        """Arrays that are named by all that they depend on."""
        return self.root / f"{key}.npz"

    def folder(self, method: str, part: str, person: int) -> Path:
        """Folder of one method's rows of one person in one part."""
        return self.root / "rows" / method / part / f"{person:06d}"

    def picture(self, method: str, person: int, number: int) -> Path:
        """Where a picture of the main part is kept."""
        return self.root / "pictures" / method / f"{person:06d}" / f"{number:04d}.png"

    def person(self, row: int) -> Path:
        """What was measured on a person's photos."""
        return self.root / "people" / f"{row:06d}.npz"

    def rows(self, method: str, part: str, person: int) -> list[Row]:
        """The rows that are there, in order; a piece is left out only where it was never written."""
        pieces = sorted(self.folder(method, part, person).glob("*.jsonl"))
        return [json.loads(line) for path in pieces for line in path.read_text("utf-8").splitlines()]

    def features(self, method: str, person: int) -> np.ndarray:
        """[n, width] features of the pictures of the main part."""
        pieces = sorted(self.folder(method, MAIN, person).glob("[0-9]*.npz"))
        return np.concatenate([load(path)["features"] for path in pieces])


def write_piece(folder: Path, number: int, rows: Sequence[Row], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a piece of rows and what belongs to them; the rows come last, since they mean that the piece is whole."""
    if arrays:
        save(folder / f"{number:04d}.npz", arrays)
    lines = (json.dumps(clean(row), sort_keys=True) + "\n" for row in rows)
    write(folder / f"{number:04d}.jsonl", "".join(lines))


def has_piece(folder: Path, number: int) -> bool:
    """Whether a piece is there."""
    return (folder / f"{number:04d}.jsonl").exists()


def save(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write named arrays, whole or not at all.

    Raises:
        OutputError: They cannot be written.
    """
    data = io.BytesIO()
    np.savez_compressed(data, **dict(arrays))  # type: ignore[arg-type]
    return write(path, data.getvalue())


def load(path: Path) -> dict[str, np.ndarray]:
    """Read named arrays."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def clean(value: Any) -> Any:  # noqa: ANN401 - any JSON data
    """Plain JSON data: numbers rounded to six digits behind the point, and null for what is not a number."""
    if isinstance(value, Mapping):
        return {str(name): clean(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [clean(inner) for inner in value]
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else round(float(value), 6)
    return value


def column(rows: Iterable[Row], name: str) -> np.ndarray:
    """A column of rows as numbers; nan if there is none."""
    return np.array([math.nan if row.get(name) is None else float(row[name]) for row in rows])


def _short(value: Any) -> str:  # noqa: ANN401 - any JSON data
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."  # noqa: PLR2004
