"""Divides a job into turns, so that others need not wait for all of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from dataclasses import dataclass

from photomaker.studio.orders.planning import Plan
from photomaker.types import Request


@dataclass(frozen=True)
class Spot:
    """Position of a picture in its job.

    Attributes:
        who: Number of the person, from 0.
        what: Number of the prompt, from 0.
        at: Number among the pictures of this person and prompt, from 0.
    """

    who: int
    what: int
    at: int


@dataclass(frozen=True)
class Piece:
    """The pictures of one turn.

    Attributes:
        person: Number of the person, from 0; people drawn together are number 0.
        rows: The pictures, each with its position in the job.
        keep: How many of them to keep, the best.
    """

    person: int
    rows: tuple[tuple[Spot, Request], ...]
    keep: int

    @property
    def whole(self) -> bool:
        """Whether it cannot be divided, because the best of all its pictures are kept."""
        return self.keep < len(self.rows)


def pieces_of(plan: Plan, done: Container[Spot], batch: int) -> deque[Piece]:
    """The remaining pieces of a job.

    Args:
        plan: The job.
        done: Finished pictures.
        batch: Pictures in a turn; with `best_of`, a turn has all candidates.
    """
    pieces: deque[Piece] = deque()
    for person in range(len(plan.order.people)):
        rows: list[tuple[Spot, Request]] = []
        for group in (one for one in plan.groups if one.person == person):
            own = [(Spot(person, group.prompt, at), request) for at, request in enumerate(group.requests)]
            if plan.order.best_of == 1:
                rows += [row for row in own if row[0] not in done]
            elif not any(spot in done for spot, _ in own):
                pieces.append(Piece(person, tuple(own), plan.order.n))
        for start in range(0, len(rows), batch):
            part = tuple(rows[start : start + batch])
            pieces.append(Piece(person, part, len(part)))
    return pieces


def next_piece(pieces: deque[Piece], most: int) -> Piece | None:
    """Take the next pictures of a job.

    Args:
        pieces: The remaining pieces; taken ones are removed.
        most: Most pictures; a piece that cannot be divided is taken whole.

    Returns:
        None if nothing is left.
    """
    if not pieces:
        return None
    first = pieces.popleft()
    rows = first.rows
    if first.whole:
        return first
    while len(rows) < most and pieces and pieces[0].person == first.person and not pieces[0].whole:
        rows += pieces.popleft().rows
    if len(rows) > most:
        pieces.appendleft(Piece(first.person, rows[most:], len(rows) - most))
    return Piece(first.person, rows[:most], min(most, len(rows)))
