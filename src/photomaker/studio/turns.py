"""Turns at one model: any number of threads ask, one at a time draws, in the order in which they came.

A diffusers pipeline holds the state of a run (its scheduler, its hooks, what was put into its UNet), so that two
threads must not draw with it at once. A long call takes a turn for each batch and goes to the end of the queue after
it, so that a short call beside it waits for a batch and not for hundreds of pictures.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from photomaker.errors import SettingsError
from photomaker.studio.events import Cancel

_LOOK = 0.05
"""Seconds between two looks at the cancel token of somebody who waits."""


class Turns:
    """A lock that is handed on in the order of asking."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        self._holder: int | None = None

    @contextmanager
    def turn(
        self, cancel: Cancel | None = None, waits: Callable[[int], None] | None = None
    ) -> Iterator[None]:
        """Hold the model as long as the context lasts.

        Args:
            cancel: Ends the waiting.
            waits: Told how many are before this one, at first and when that changes; not told where nobody is.

        Raises:
            Cancelled: The token was set while waiting.
            SettingsError: This thread has the turn already, for example in a callback: it would wait for ever.
        """
        me = threading.get_ident()
        if self._holder == me:
            raise SettingsError(
                "the engine was called from inside one of its own callbacks; call it again after the callback"
            )
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
        try:
            self._wait(ticket, cancel, waits)
            self._holder = me
            yield
        finally:
            with self._changed:
                if self._queue and self._queue[0] is ticket:
                    self._holder = None
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _wait(self, ticket: object, cancel: Cancel | None, waits: Callable[[int], None] | None) -> None:
        told = 0
        while True:
            with self._changed:
                place = self._queue.index(ticket)
                if place and place == told:
                    self._changed.wait(_LOOK)
                    place = self._queue.index(ticket)
            if cancel is not None:
                cancel.check()
            if not place:
                return
            if place != told and waits is not None:
                waits(place)
            told = place
