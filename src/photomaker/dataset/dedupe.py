"""Equal and nearly equal photos of a person: the largest stays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from photomaker.dataset.base import Dropped, Row, TableStep
from photomaker.errors import SettingsError

_BITS = 64


@dataclass(frozen=True)
class Dedupe(TableStep):
    """Settings of the step.

    Attributes:
        distance: Bits of 64 in which the looks of two photos may differ while they count as the same, 0 to 64; -1
            looks for equal files only.

    Raises:
        SettingsError: The distance is outside its range.
    """

    name: ClassVar[str] = "dedupe"
    columns: ClassVar[pa.Schema] = pa.schema([])

    distance: int = 4

    def __post_init__(self) -> None:
        """Check the range."""
        if not -1 <= self.distance <= _BITS:
            raise SettingsError(f"dedupe.distance is {self.distance}; give -1 to {_BITS}")

    def open(self) -> Callable[[list[Row]], Iterable[Row | Dropped]]:
        """Nothing has to be loaded."""
        return self._person

    def _person(self, rows: list[Row]) -> Iterator[Row | Dropped]:
        """Largest first, a photo stays unless one that stays is like it; equal sizes are judged by key."""
        order = sorted(
            range(len(rows)), key=lambda n: (-rows[n]["width"] * rows[n]["height"], rows[n]["key"])
        )
        looks = np.array([int(row["look"], 16) for row in rows], dtype=np.uint64)
        first_of: dict[str, int] = {}
        stay: list[int] = []
        fate: dict[int, Dropped] = {}
        for n in order:
            twin = first_of.setdefault(rows[n]["sha256"], n)
            if twin != n:
                fate[n] = Dropped(rows[n], "exact duplicate", f"of {rows[twin]['key']}")
                continue
            differ = np.bitwise_count(looks[stay] ^ looks[n])
            if stay and differ.min() <= self.distance:
                near = int(differ.argmin())
                fate[n] = Dropped(
                    rows[n], "near duplicate", f"of {rows[stay[near]]['key']}, {differ[near]} bits differ"
                )
            else:
                stay.append(n)
        for n, row in enumerate(rows):
            yield fate.get(n, row)
