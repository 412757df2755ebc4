"""A bounded queue that is fair between callers."""

from __future__ import annotations

from collections import deque

from photomaker.errors import QueueFull


class Line:
    """Jobs in the order of their turns: the next turn goes to the caller whose last turn was longest ago.

    Each caller's jobs stay in order.

    Not thread-safe; the owner must hold a lock.

    Examples:
        >>> line = Line(most=10, each=5)
        >>> for owner, job in (("a", "a1"), ("a", "a2"), ("b", "b1")):
        ...     line.add(owner, job)
        >>> line.place("b1"), line.place("a2")
        (2, 3)
        >>> line.take(), line.take(), line.take(), line.take()
        ('a1', 'b1', 'a2', None)
    """

    def __init__(self, most: int, each: int) -> None:
        """Start empty.

        Args:
            most: Most waiting jobs.
            each: Most waiting jobs of one caller.
        """
        self._most, self._each = most, each
        self._owners: dict[str, deque[str]] = {}
        self._served: dict[str, int] = {}
        self._turns = 0

    def __len__(self) -> int:
        """Number of waiting jobs."""
        return sum(map(len, self._owners.values()))

    def check(self, owner: str, seconds: int) -> None:
        """Check that a caller may add a job. A caller with no waiting job always may.

        Args:
            owner: The caller.
            seconds: When to try again, if refused.

        Raises:
            QueueFull: Too many are waiting.
        """
        own, all_ = len(self._owners.get(owner, ())), len(self)
        if own >= self._each:
            raise QueueFull(
                f"{own} of your jobs are waiting, which is the limit; try again in {seconds} s", seconds
            )
        if own and all_ >= self._most:
            raise QueueFull(f"{all_} jobs are waiting, which is the limit; try again in {seconds} s", seconds)

    def add(self, owner: str, job: str, front: bool = False) -> None:
        """Add a job at the end of its caller's jobs, or at the front if it continues."""
        own = self._owners.setdefault(owner, deque())
        (own.appendleft if front else own.append)(job)

    def take(self) -> str | None:
        """Take the next job; None if the queue is empty."""
        owner = next(iter(self._rotation()), None)
        if owner is None:
            return None
        job = self._owners[owner].popleft()
        if not self._owners[owner]:
            del self._owners[owner]
        self._turns += 1
        self._served[owner] = self._turns
        return job

    def _rotation(self) -> list[str]:
        """Waiting callers, the next first."""
        return sorted(self._owners, key=lambda owner: self._served.get(owner, 0))

    def jobs_of(self, owner: str) -> tuple[str, ...]:
        """A caller's jobs, the next first."""
        return tuple(self._owners.get(owner, ()))

    def remove(self, job: str) -> bool:
        """Remove a job; returns whether it was in the queue."""
        for owner, own in self._owners.items():
            if job in own:
                own.remove(job)
                if not own:
                    del self._owners[owner]
                return True
        return False

    def place(self, job: str) -> int | None:
        """Place of a job: 1 is next; None if it is not waiting."""
        queues = [self._owners[owner] for owner in self._rotation()]
        for number, own in enumerate(queues):
            if job in own:
                depth = own.index(job)
                return sum(min(len(other), depth + (at < number)) for at, other in enumerate(queues)) + 1
        return None
