"""Turns at one model: any number of threads can wait; one at a time draws, in order of arrival.

A diffusers pipeline holds the state of a run (scheduler, hooks, changes of its UNet), so two threads must not draw with
it at once. A long call takes a turn for each batch and then returns to the end of the queue, so a short call waits for
one batch and not for hundreds of pictures.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from photomaker.errors import SettingsError
from photomaker.studio.events import Cancel

_LOOK = 0.05
"""Seconds between checks of a waiting caller's cancel token."""


class Turns:
    """A lock that is passed on in order of arrival."""

    def __init__(self) -> None:
        """Start without waiting callers."""
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        self._holder: int | None = None

    @contextmanager
    def turn(
        self, cancel: Cancel | None = None, waits: Callable[[int], None] | None = None
    ) -> Iterator[None]:
        """Hold the model during the context.

        Args:
            cancel: Ends the waiting.
            waits: Called with the number of callers ahead, first and at each change; not called if there are none.

        Raises:
            Cancelled: The token was set while waiting.
            SettingsError: This thread already has the turn, for example in a callback: it would wait for ever.
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
