"""Output of the commands: results on standard output, everything else on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text


def say(line: str) -> None:
    """A result."""
    Console(highlight=False, soft_wrap=True).print(Text(line))


def note(line: str) -> None:
    """A note for the user, besides the result."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(f"note: {line}", style="yellow"))


def notes(lines: Iterable[str]) -> None:
    """Several notes."""
    for line in lines:
        note(line)


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[str] = ()
) -> None:
    """A table.

    Args:
        title: Above it.
        columns: Their headings.
        rows: Cells as text.
        numbers: Headings of the right-aligned columns.
    """
    drawn = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        drawn.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row))
    Console(highlight=False).print(drawn)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """A spinner for work without countable steps."""
    with Console(stderr=True).status(what):
        yield


@contextmanager
def progress(what: str, unit: str = "pictures") -> Iterator[Callable[[int, int], None]]:
    """A bar with the remaining time; yields a function to call with the number done and the total."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def likeness(score: float | None) -> str:
    """A likeness as readable text."""
    return "-" if score is None else f"{score:.2f}"
