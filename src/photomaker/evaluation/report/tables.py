"""The table maker: columns of a table, their figures with intervals over people, and both as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from photomaker.evaluation import metrics
from photomaker.evaluation.metrics import Floats, Interval

ByPerson = Mapping[str, Floats]
"""What a row of a table is computed from: names to arrays whose first axis is people."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        key: Name in the files for programs.
        title: Heading.
        statistic: Takes arrays whose first axis is people, and returns one number; None where figures come otherwise.
        of: The arrays that it takes, by their names in a row.
        better: "up", "down", or "" where neither is better.
        unit: "%" shows shares as percentages, "x" multiples; "s", "MiB", "KiB" and "" show numbers.
        table: In which table of a page it stands.
    """

    key: str
    title: str
    statistic: Callable[..., float] | None = None
    of: tuple[str, ...] = ()
    better: str = ""
    unit: str = ""
    table: str = "main"

    def arrays(self, row: ByPerson) -> list[Floats] | None:
        """What it is computed from; None where the row lacks some of it."""
        known = self.statistic is not None and all(name in row for name in self.of)
        return [row[name] for name in self.of] if known else None


def figures(columns: Iterable[Column], row: ByPerson, samples: int) -> dict[str, Interval]:
    """Each column's figure with its bootstrap interval over people, where the row has what it is computed from."""
    found = {}
    for one in columns:
        arrays = one.arrays(row)
        if one.statistic is not None and arrays is not None:
            found[one.key] = metrics.bootstrap(one.statistic, *arrays, samples=samples)
    return found


def differences(
    columns: Iterable[Column], row: ByPerson, other: ByPerson, samples: int
) -> dict[str, Interval]:
    """How much figures exceed those of another row, person by person: people are resampled in both together."""
    found = {}
    for one in columns:
        own, others = one.arrays(row), one.arrays(other)
        if one.statistic is not None and own is not None and others is not None:
            excess = _excess(one.statistic, len(own))
            found[one.key] = metrics.bootstrap(excess, *own, *others, samples=samples)
    return found


def _excess(statistic: Callable[..., float], half: int) -> Callable[..., float]:
    return lambda *both: statistic(*both[:half]) - statistic(*both[half:])


def values(columns: Iterable[Column], row: ByPerson) -> dict[str, float]:
    """Each column's figure without an interval."""
    known = ((one, one.arrays(row)) for one in columns)
    return {one.key: one.statistic(*arrays) for one, arrays in known if one.statistic and arrays is not None}


def plain(found: Mapping[str, Interval]) -> dict[str, Any]:
    """Figures as plain JSON data."""
    return {name: asdict(one) for name, one in found.items()}


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; empty if there are no rows."""
    lines = [" | ".join(map(str, row)) for row in rows]
    if not lines:
        return ""
    return "\n".join(f"| {line} |" for line in (" | ".join(head), "|".join("---" for _ in head), *lines))


def interval_text(figure: Mapping[str, Any] | Interval, percentage: bool) -> str:
    """A figure with its interval in words, as a percentage or with three digits."""
    found = asdict(figure) if isinstance(figure, Interval) else figure
    if found["value"] is None:
        return "undefined"
    show = percent if percentage else number
    return f"{show(found['value'])} ({show(found['low'])} to {show(found['high'])})"


def percent(value: float) -> str:
    """A share as a percentage."""
    return f"{100 * value:.1f} %"


def number(value: float) -> str:
    """A number with three digits."""
    return f"{value:.3f}"
