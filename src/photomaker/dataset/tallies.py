"""What the stages of a build have done so far, counted from their files."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from photomaker.dataset.folder import LOG, MARK, SETTINGS
from photomaker.dataset.stage_files import read_parquet
from photomaker.dataset.tasks import Outcome
from photomaker.errors import OutputError, SettingsError
from photomaker.outside import read_object


@dataclass(frozen=True)
class Tally:
    """What a stage did, counted from its files.

    Attributes:
        name: Of the stage.
        rows: Photos that came in.
        kept: Photos that stay.
        drops: Reason -> photos, most frequent first.
        timed_rows: Photos of the units whose time is known; a unit that finished just before a kill may lack it.
        busy_seconds: That these took, summed over workers.
        opening_seconds: For models to be loaded, summed over workers.
        wall_seconds: That went by, over all runs.
        workers: At work in the last run.
    """

    name: str
    rows: int
    kept: int
    drops: Mapping[str, int]
    timed_rows: int
    busy_seconds: float
    opening_seconds: float
    wall_seconds: float
    workers: int


def tallies(out: Path) -> list[Tally]:
    """Count what the stages of a build have done so far.

    Raises:
        SettingsError: The folder holds no build, or a file of it is damaged.
    """
    return [_tally(out / name) for name in stage_names(out) if (out / name / SETTINGS).is_file()]


def stage_names(out: Path) -> list[str]:
    """Names of the stages of a build in a folder.

    Raises:
        SettingsError: There is none.
    """
    try:
        return list(read_object((out / MARK).read_bytes())["stages"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{out} has no dataset built by photomaker; give a build's folder") from error


def _tally(folder: Path) -> Tally:
    import pyarrow.parquet as pq

    drops: Counter[str] = Counter()
    kept = 0
    for path in sorted(folder.glob("*.parquet")):
        if path.name.endswith(".dropped.parquet"):
            drops.update(read_parquet(path, columns=["reason"])["reason"].to_pylist())
        elif path.stem.isdecimal():
            kept += pq.read_metadata(path).num_rows
    busy = opening = wall = last = 0.0
    rows, workers = 0, 0
    for line in _log_lines(folder / LOG):
        if "workers" in line:
            wall, last, workers = wall + last, 0.0, line["workers"]
            continue
        rows, busy, opening = rows + line["rows"], busy + line["seconds"], opening + line["opening"]
        last = line["at"]
    ordered = dict(sorted(drops.items(), key=lambda item: (-item[1], item[0])))
    busy, opening, wall = (round(value, 3) for value in (busy, opening, wall + last))
    return Tally(folder.name, kept + drops.total(), kept, ordered, rows, busy, opening, wall, workers)


def _log_lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                yield read_object(line)
            except ValueError:  # the line at which a run was killed
                continue


@contextmanager
def logged(path: Path, workers: int) -> Iterator[Callable[[Outcome], None]]:
    """Append how long units took; only figures depend on it."""
    begun = time.perf_counter()
    try:
        with path.open("a", encoding="utf-8", buffering=1) as file:
            file.write("\n" + json.dumps({"workers": workers}) + "\n")

            def log(outcome: Outcome) -> None:
                told = {"unit": outcome.unit, "rows": outcome.rows, "seconds": outcome.seconds}
                told |= {"opening": outcome.opening, "at": time.perf_counter() - begun}
                file.write(json.dumps(told) + "\n")

            yield log
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}; free some space and start again"
        ) from error
