"""Engines on a Ray cluster, one for each device, that draw for a front end on one machine.

Each is a Ray actor with its own engine. If one dies, it is restarted, and a free one draws its pictures; the pictures
are the same whichever engine draws them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from photomaker.checks import whole
from photomaker.cluster import join, ray_module
from photomaker.studio.desk.workers import DrawerLost
from photomaker.studio.events import Cancel, Denoised, Event, Listener

if TYPE_CHECKING:
    from photomaker.studio.engine import Engine
    from photomaker.types import Identity, Request, Sample

EVERY = 0.2
"""Seconds between polls of an actor."""
PATIENCE = 0.5
"""Seconds between checks for cancellation."""


class Replicas:
    """A number of engines on a Ray cluster.

    Args:
        count: How many, 1 or more; None is one for each device of this machine, or for each core without devices.
        options: The arguments of `Engine.open` in each of them.
        address: Address of a running cluster, such as `auto` or `10.0.0.1:6379`; None starts Ray on this machine.
        gpus: GPUs for each; None is one if this machine has any, else none.

    Raises:
        SettingsError: Ray is not installed, there is no such cluster, or a number is out of range.

    Examples:
        >>> with Replicas(2, {}) as replicas:  # doctest: +SKIP
        ...     desk = Desk(Engine.open(), "data", drawers=replicas.drawers)
    """

    def __init__(
        self,
        count: int | None,
        options: Mapping[str, Any],
        address: str | None = None,
        gpus: float | None = None,
    ) -> None:
        """Start them; each loads its model at first use."""
        count = _devices() if count is None else count
        whole("replicas", count, 1)
        self._ray = ray_module("--executor")
        join(self._ray, address, count, "--cluster")
        self._gpus, self._options = _gpus() if gpus is None else gpus, dict(options)
        self._lock = threading.Lock()
        self._hands = [self._hand() for _ in range(count)]
        self.drawers: Sequence[Replica] = [Replica(self, number) for number in range(count)]

    def _hand(self) -> Any:  # noqa: ANN401 - a handle of Ray's
        # two calls at once, so that one can stop the other
        kind = self._ray.remote(num_cpus=1, num_gpus=self._gpus, max_concurrency=2)(_Hand)
        return kind.remote(self._options)

    def hand(self, number: int) -> Any:  # noqa: ANN401 - a handle of Ray's
        """The actor at an index."""
        with self._lock:
            return self._hands[number]

    def renew(self, number: int, dead: Any) -> None:  # noqa: ANN401 - a handle of Ray's
        """Replace a dead actor."""
        with self._lock:
            if self._hands and self._hands[number] is dead:
                self._hands[number] = self._hand()

    def processes(self) -> list[int]:
        """Their process ids, on any machine."""
        with self._lock:
            hands = list(self._hands)
        found: list[int] = self._ray.get([hand.process.remote() for hand in hands])
        return found

    def close(self) -> None:
        """Stop them, and Ray if it was started here."""
        with self._lock:
            for hand in self._hands:
                self._ray.kill(hand)
            self._hands.clear()
        self._ray.shutdown()

    def __enter__(self) -> Replicas:
        """Themselves."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


class Replica:
    """One of several engines; draws as `Engine.draw` does. Use `Replicas` to make some."""

    def __init__(self, everyone: Replicas, number: int) -> None:
        """Use the replica at an index."""
        self._everyone, self._number = everyone, number

    def draw(
        self,
        identity: Identity,
        requests: Sequence[Request],
        *,
        cancel: Cancel | None = None,
        on_event: Listener | None = None,
        redraw: str | int = "off",
    ) -> list[Sample]:
        """One picture for each request; see `Engine.draw`.

        Args:
            identity: The person.
            requests: The requests.
            cancel: Stops it within about a second.
            on_event: Called with events, and with some of the steps.
            redraw: Whether to redraw small faces; see `Order`.

        Raises:
            PhotoMakerError: Any error of the engine.
            DrawerLost: It died and is replaced; the pictures can be requested again.
        """
        from ray.exceptions import RayActorError, RayTaskError

        hand = self._everyone.hand(self._number)
        try:
            return _drawn(hand, (identity, tuple(requests), redraw), cancel, on_event)
        except RayActorError as error:
            self._everyone.renew(self._number, hand)
            raise DrawerLost(f"replica {self._number + 1} died") from error
        except RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None


def _drawn(
    hand: Any,  # noqa: ANN401 - a handle of Ray's
    work: tuple[Identity, tuple[Request, ...], str | int],
    cancel: Cancel | None,
    on_event: Listener | None,
) -> list[Sample]:
    """Draw in an actor and forward its events until the pictures are finished."""
    import ray

    told = hand.draw.options(num_returns="streaming").remote(*work, on_event is not None)
    asked = False
    while True:
        if cancel is not None and cancel.cancelled and not asked:
            asked = True
            hand.stop.remote()
        ready, _ = ray.wait([told], timeout=PATIENCE, fetch_local=False)
        if not ready:
            continue
        news = ray.get(next(told))
        if isinstance(news, list):
            return news
        if on_event is not None:
            on_event(news)


class _Hand:
    """An engine in an actor."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options, self._cancel = dict(options), Cancel()
        self._engine: Engine | None = None

    def process(self) -> int:
        """Its process id."""
        return os.getpid()

    def stop(self) -> None:
        """Cancel the current drawing."""
        self._cancel.cancel()

    def draw(
        self, identity: Identity, requests: Sequence[Request], redraw: str | int, looks: bool
    ) -> Iterator[Event | list[Sample]]:
        """Yields events, then the pictures."""
        self._cancel = Cancel()
        engine, news, there = self._opened(), _News(looks), threading.Event()
        found: list[Any] = []

        def work() -> None:
            try:
                found.append(
                    engine.draw(identity, requests, cancel=self._cancel, on_event=news.told, redraw=redraw)
                )
            except Exception as error:  # noqa: BLE001 - raised again below
                found.append(error)
            there.set()

        threading.Thread(target=work, daemon=True).start()
        done = False
        while not done:
            done = there.wait(EVERY)
            for event in news.taken():  # noqa: UP028 - Ray sends into generators, which a list could not take
                yield event
        if isinstance(found[0], Exception):
            raise found[0]
        yield found[0]

    def _opened(self) -> Engine:
        from photomaker.studio.engine import Engine

        if self._engine is None:
            self._engine = Engine.open(**self._options)
        return self._engine


class _News:
    """An engine's unread events; of steps only the latest, with its previews."""

    def __init__(self, looks: bool) -> None:
        self._looks, self._lock, self._last = looks, threading.Lock(), 0.0
        self._news: list[Event] = []

    def told(self, event: Event) -> None:
        """Store an event."""
        if isinstance(event, Denoised):
            if not self._looks or time.monotonic() - self._last < EVERY:
                return
            self._last = time.monotonic()
            event = Denoised(event.step, event.steps, event.done, event.total, tuple(event.preview()))
        with self._lock:
            self._news.append(event)

    def taken(self) -> list[Event]:
        """Take the unread events."""
        with self._lock:
            news, self._news = self._news, []
        return news


def _devices() -> int:
    import torch

    return torch.cuda.device_count() or os.cpu_count() or 1


def _gpus() -> float:
    import torch

    return 1.0 if torch.cuda.is_available() else 0.0
