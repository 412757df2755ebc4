"""Draws jobs: a queue, drawing threads, and listeners.

A turn is one batch of a job's pictures; then it is the next caller's turn. Finished pictures are saved at once, so
neither cancelling nor a kill loses one, and an interrupted job continues where it was.
"""

from __future__ import annotations

import io
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter, time
from typing import Protocol

from PIL import Image

from photomaker.errors import Cancelled, OutputError, PhotoMakerError
from photomaker.studio.desk.limits import Limits
from photomaker.studio.desk.pieces import Piece, Spot, next_piece, pieces_of
from photomaker.studio.desk.queue import Line
from photomaker.studio.desk.records import (
    ENDED,
    Ended,
    Job,
    JobEvent,
    Lasting,
    Picture,
    PictureDone,
    Stepped,
    Told,
    Waiting,
)
from photomaker.studio.desk.store import PICTURE, Store, new_id
from photomaker.studio.engine import Engine, rank, told_of
from photomaker.studio.events import Cancel, Denoised, Event, Listener, Note
from photomaker.studio.orders.plain import PlainOrder
from photomaker.studio.orders.planning import Plan
from photomaker.studio.pictures.saving import save_named
from photomaker.studio.provenance.manifest import Sealing
from photomaker.types import Identity, Request, Sample

BATCH = 4
"""Pictures in a turn: a short job of another caller waits for this many."""
HANDS = 2
"""Threads of a drawer: one saves pictures while another draws the next."""
TRIES = 3
"""How often the process may die during a job."""
WAITED, IDENTIFIED, DREW, SAVED = "waiting", "identity", "drawing", "saving"
"""Timed phases."""
LIKENESS, MADE = "likeness", "picture"

Measure = Callable[[str, float], None]
"""Called with seconds by phase, with likeness, and with 1 for each picture."""
_log = logging.getLogger(__name__)


class DrawerLost(Exception):
    """Raised by a drawer that has died; another one draws its pictures."""


class Drawer(Protocol):
    """Draws pictures: an `Engine`, or a proxy for a remote one.

    A proxy raises `DrawerLost` if its engine dies.
    """

    def draw(
        self,
        identity: Identity,
        requests: Sequence[Request],
        *,
        cancel: Cancel | None = None,
        on_event: Listener | None = None,
        redraw: str | int = "off",
    ) -> list[Sample]:
        """One picture for each request; see `Engine.draw`."""


@dataclass(eq=False)
class Live:
    """An unfinished job."""

    id: str
    owner: str
    order: PlainOrder
    total: int
    done: int = 0
    cancel: Cancel = field(default_factory=Cancel)
    unwanted: str | None = None
    """Why it was cancelled; None if it was not."""
    plan: Plan | None = None
    pieces: deque[Piece] = field(default_factory=deque)
    people: dict[int, Identity] = field(default_factory=dict)
    drawing: int = 0
    lost: int = 0
    alone: bool = False
    """Whether it is drawn alone, because drawing it together with others failed."""
    step: Stepped | None = None
    since: float = field(default_factory=perf_counter)


Part = tuple[Live, Piece]
"""A piece of a job in this turn."""
Drawn = list[tuple[Part, list[Sample]]]
"""The result of a turn, to be saved."""


class Following:
    """A listener of a job, with its unread events."""

    def __init__(
        self, workshop: Workshop, job: str, after: int, notify: Callable[[], None], previews: bool = True
    ) -> None:
        """Start listening; use `Desk.follow` instead."""
        self._workshop, self._job, self._after = workshop, job, after
        self.notify, self.previews = notify, previews
        self.ended = False
        """Whether there will be no more events."""
        self._place: int | None = None
        self._step: Stepped | None = None

    def news(self) -> list[JobEvent]:
        """The events since the last call; never waits."""
        kept, place, step, self.ended = self._workshop.state_of(self._job, self._after)
        found: list[JobEvent] = list(kept)
        if kept:
            self._after = kept[-1].number
        if place is not None and place != self._place:
            found.append(Waiting(place))
        if step is not None and step is not self._step:
            found.append(step)
        self._place, self._step = place, step
        return found

    def close(self) -> None:
        """Stop listening."""
        self._workshop.unfollow(self._job, self)


class Workshop:
    """Draws jobs in fair turns; thread-safe. Callers must check the owner of a job."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        plan: Callable[[str, PlainOrder], Plan],
        limits: Limits,
        drawers: Sequence[Drawer],
        measure: Measure,
        batch: int,
        seal: Sealing = True,
    ) -> None:
        """Load the unfinished jobs of the last run.

        Args:
            engine: Checks orders.
            store: Stores results.
            plan: Checks an owner's order.
            limits: Limits on waiting jobs.
            drawers: Draw in parallel, each one turn at a time.
            measure: Called with seconds by phase, with likeness and with pictures.
            batch: Pictures in a turn.
            seal: How pictures are signed.

        Raises:
            OutputError: The store cannot be written to.
        """
        self.engine, self.store, self.measure = engine, store, measure
        self._plan, self._drawers, self._batch, self._seal = plan, drawers, batch, seal
        self._changed = threading.Condition(threading.RLock())
        self._line = Line(limits.waiting, limits.waiting_each)
        self._live: dict[str, Live] = {}
        self._unkept: dict[str, Ended] = {}
        self._followers: dict[str, list[Following]] = {}
        self.stopping = threading.Event()
        """Set when drawing has stopped."""
        self._threads: list[threading.Thread] = []
        self._pace = 1.0
        self._recover()

    # ---- open and closed

    def start(self) -> None:
        """Begin to draw."""
        for number, drawer in enumerate(self._drawers):
            locks = threading.Lock(), threading.Lock()
            for hand in range(HANDS):
                name = f"photomaker-{number}-{hand}"
                thread = threading.Thread(target=self._work, args=(drawer, *locks), name=name, daemon=True)
                self._threads.append(thread)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop drawing, within one step; unfinished jobs return to the queue, and listeners are released."""
        self.stopping.set()
        with self._changed:
            for live in self._live.values():
                live.cancel.cancel()
            self._changed.notify_all()
        self._news()

    def join(self) -> None:
        """Wait until drawn pictures are saved."""
        for thread in self._threads:
            thread.join()

    def counts(self) -> dict[str, int]:
        """The number of waiting jobs, and of running ones."""
        with self._changed:
            drawing = sum(live.drawing > 0 for live in self._live.values())
            return {"waiting": len(self._line), "drawing": drawing}

    @property
    def open_jobs(self) -> int:
        """The number of unfinished jobs."""
        with self._changed:
            return len(self._live)

    @property
    def working(self) -> bool:
        """Whether jobs are drawn: it was started and has not stopped."""
        alive = bool(self._threads) and all(one.is_alive() for one in self._threads)
        return alive and not self.stopping.is_set()

    # ---- jobs

    def check(self, owner: str) -> None:
        """Check that an owner may add a job.

        Raises:
            QueueFull: Too many are waiting.
        """
        with self._changed:
            self._line.check(owner, self._retry_after())

    def take(self, owner: str, job: Job, notes: Sequence[str]) -> None:
        """Store a job and add it to the queue.

        Raises:
            QueueFull: Too many are waiting.
            OutputError: It cannot be stored.
        """
        with self._changed:
            self.check(owner)
            self.store.add_job(owner, job)
            for note in notes:
                self.store.tell(job.id, Told(note))
            self._add(Live(job.id, owner, job.order, job.total))

    def placed(self, job: Job) -> Job:
        """A stored job with its current state."""
        with self._changed:
            ended, live = self._unkept.get(job.id), self._live.get(job.id)
            place = self._line.place(job.id)
        if ended is not None:
            return replace(job, state=ended.state, reason=ended.reason, ended=job.ended or time())
        if live is None or job.state in ENDED:
            return job
        begun = live.drawing > 0 or live.plan is not None
        return replace(job, state="running" if begun else "queued", place=None if begun else place)

    def cancel(self, id_: str, reason: str) -> None:
        """Stop a job, unless it has ended."""
        with self._changed:
            live = self._live.get(id_)
            if live is None or live.unwanted is not None:
                return
            live.unwanted = reason
            live.cancel.cancel()
            self._line.remove(id_)
            idle = live.drawing == 0
        if idle:
            self._end(live, Ended("cancelled", reason, live.done))

    def forget(self, id_: str) -> None:
        """Stop a job and wait until it is no longer drawn, so that it can be deleted."""
        self.cancel(id_, "")
        with self._changed:
            self._changed.wait_for(lambda: id_ not in self._live or self.stopping.is_set())
            self._unkept.pop(id_, None)

    def cancel_all_of(self, person: str, reason: str) -> None:
        """Stop the jobs that would draw a person."""
        with self._changed:
            jobs = [live.id for live in self._live.values() if person in live.order.people]
        for job in jobs:
            self.cancel(job, reason)

    def needed(self) -> str:
        """A text with the ids of everything that unfinished jobs need."""
        with self._changed:
            return repr([live.order for live in self._live.values()])

    def follow(self, id_: str, notify: Callable[[], None], after: int, previews: bool) -> Following:
        """Listen to a job; see `Desk.follow`."""
        following = Following(self, id_, after, notify, previews)
        with self._changed:
            self._followers.setdefault(id_, []).append(following)
        return following

    # ---- jobs that have not ended

    def _recover(self) -> None:
        for left in self.store.left():
            live = Live(left.job.id, left.owner, left.job.order, left.job.total, len(left.job.pictures))
            if left.tries >= TRIES:
                reason = f"stopped: the server died {left.tries} times during this job; ask for less"
                self.store.end(live.id, Ended("failed", reason, live.done))
                continue
            self._add(live)

    def _add(self, live: Live) -> None:
        self._live[live.id] = live
        with self._changed:
            self._line.add(live.owner, live.id)
            self._changed.notify_all()

    def _retry_after(self) -> int:
        """Seconds until a place is free: the time of a median job."""
        jobs = list(self._live.values())
        pictures = sum(live.total - live.done for live in jobs) / max(1, len(jobs))
        return max(1, min(600, math.ceil(pictures * self._pace)))

    def state_of(self, id_: str, after: int) -> tuple[list[Lasting], int | None, Stepped | None, bool]:
        """Stored events, place and step of a job, and whether it has ended."""
        with self._changed:
            live, unkept = self._live.get(id_), self._unkept.get(id_)
            place = None if live is None or live.plan is not None else self._line.place(id_)
            step = None if live is None else live.step
        if self.stopping.is_set():
            return [], None, None, True
        kept: list[Lasting] = list(self.store.events(id_, after))
        if unkept is not None:
            kept.append(unkept)
        over = live is None or any(isinstance(one, Ended) for one in kept)
        # a job may have ended after its step was read: nothing is sent after the end
        return kept, None if over else place, None if over else step, over

    def unfollow(self, id_: str, following: Following) -> None:
        """Remove a listener."""
        with self._changed:
            several = self._followers.get(id_, [])
            if following in several:
                several.remove(following)
            if not several:
                self._followers.pop(id_, None)

    def _news(self, id_: str | None = None) -> None:
        """Notify the listeners of a job, or all listeners, of a change."""
        with self._changed:
            several = [
                one for job, listening in self._followers.items() if id_ in (None, job) for one in listening
            ]
        for one in several:
            one.notify()

    # ---- drawing

    def _work(self, drawer: Drawer, free: threading.Lock, saving: threading.Lock) -> None:
        """Take turns at a drawer with its other thread: one saves while the other draws."""
        while True:
            with free:
                live = self._next()
                if live is None:
                    return
                self._news()
                drawn: Drawn = []
                with self._guarded(live):
                    drawn = self._turn(live, drawer)
                saving.acquire()  # before the drawer is released, so that its next pictures are not saved first
            try:
                for part, samples in drawn:
                    with self._guarded(part[0]):
                        self._put_away(part, samples)
            finally:
                saving.release()

    @contextmanager
    def _guarded(self, live: Live) -> Iterator[None]:
        """Run a job's turn; an error ends only this job, not the shared thread."""
        try:
            yield
        except Exception:  # noqa: BLE001 - see above
            _log.exception("job %s could not be saved", live.id)
            self._end(live, Ended("failed", _INSIDE, live.done))

    def _next(self) -> Live | None:
        with self._changed:
            while not self.stopping.is_set():
                job = self._line.take()
                if job is not None:
                    live = self._live[job]
                    live.drawing += 1
                    return live
                self._changed.wait()
        return None

    def _turn(self, live: Live, drawer: Drawer) -> Drawn:
        """Draw a piece of a job together with compatible pieces of others; returns the result of each, to be saved."""
        parts = self._parts(live)
        if not parts:
            return []
        try:
            drawn = self._drawn(parts, drawer)
        except Exception as error:  # noqa: BLE001 - one job's failure is not the others'
            for one, piece in parts:
                self._settled(one, piece, error, len(parts) > 1)
            if isinstance(error, DrawerLost):
                self.stopping.wait(1)
            return []
        return [(part, [next(drawn) for _ in part[1].rows]) for part in parts]

    def _put_away(self, part: Part, drawn: Sequence[Sample]) -> None:
        """Save the result of a piece, and notify."""
        live, piece = part
        try:
            self._keep(live, piece, drawn)
        except Exception as error:  # noqa: BLE001 - one job's failure is not the others'
            self._settled(live, piece, error)
        else:
            self._settled(live, piece, None)

    def _parts(self, live: Live) -> list[Part]:
        """A piece of a job, and pieces of the same caller's jobs that differ only in prompt and seed."""
        first = self._part(live, self._batch)
        parts = [] if first is None else [first]
        room = self._batch - sum(len(piece.rows) for _, piece in parts)
        while parts and room > 0 and (other := self._companion(live)) is not None:
            part = self._part(other, room)
            if part is not None:
                parts.append(part)
                room -= len(part[1].rows)
        return parts

    def _companion(self, live: Live) -> Live | None:
        """Take a waiting job that can be drawn with this one from the queue."""
        if not _joins(live):
            return None
        wanted = _settings(live.order)
        with self._changed:
            for other in (self._live[id_] for id_ in self._line.jobs_of(live.owner)):
                if other is not live and _joins(other) and _settings(other.order) == wanted:
                    self._line.remove(other.id)
                    other.drawing += 1
                    return other
        return None

    def _part(self, live: Live, most: int) -> Part | None:
        """The next piece of a job taken from the queue; errors in the job are reported at once."""
        try:
            piece = self._begun(live, most)
        except Exception as error:  # noqa: BLE001 - one job's failure is not the others'
            self._settled(live, None, error)
            return None
        if piece is None:
            self._settled(live, None, None)
            return None
        return live, piece

    def _begun(self, live: Live, most: int) -> Piece | None:
        """The next piece of a job, which is checked again at its first turn; the rest keeps waiting."""
        if live.plan is None:
            self.measure(WAITED, perf_counter() - live.since)
            self.store.begin(live.id)
            live.plan = self._plan(live.owner, live.order)
            live.pieces = pieces_of(live.plan, self.store.spots(live.id), self._batch)
        live.cancel.check()
        with self._changed:
            piece = next_piece(live.pieces, most)
            if live.pieces:
                self._line.add(live.owner, live.id, front=True)
                self._changed.notify_all()
        return piece

    def _settled(
        self, live: Live, piece: Piece | None, error: Exception | None, together: bool = False
    ) -> None:
        """Save the result of a piece.

        Args:
            live: The job.
            piece: The piece; None if it was not reached.
            error: The error; None if there was none.
            together: Whether it was drawn with others, one of which may be the cause.
        """
        with self._changed:
            live.drawing -= 1
            live.step = None
        if isinstance(error, Cancelled) and live.unwanted is None and self.stopping.is_set():
            self.store.put_back(live.id)
            return
        ended = self._verdict(live, piece, error, together)
        if ended is not None:
            with self._changed:
                live.pieces.clear()
                live.cancel.cancel()
                self._line.remove(live.id)
            self._end(live, ended)
        elif not live.pieces and live.drawing == 0:
            self._end(live, Ended("done", "", live.done))
        else:
            self._news(live.id)

    def _verdict(
        self, live: Live, piece: Piece | None, error: Exception | None, together: bool
    ) -> Ended | None:
        """End a job if necessary; a piece that was not drawn goes back."""
        if live.unwanted is not None:
            return Ended("cancelled", live.unwanted, live.done)
        if error is None:
            return None
        lost = isinstance(error, DrawerLost)
        if lost:
            _log.warning("what drew job %s was lost: %s", live.id, error)
            live.lost += 1
            if live.lost >= TRIES:
                return Ended(
                    "failed", f"the process drawing it died {live.lost} times; ask for less", live.done
                )
        if piece is not None and (lost or together):
            live.alone = True
            self._given_back(live, piece)
            return None
        if isinstance(error, PhotoMakerError):
            return Ended("failed", str(error), live.done)
        _log.error("job %s failed", live.id, exc_info=error)
        return Ended("failed", _sentence(error), live.done)

    def _given_back(self, live: Live, piece: Piece) -> None:
        with self._changed:
            live.pieces.appendleft(piece)
            self._line.remove(live.id)
            self._line.add(live.owner, live.id, front=True)
            self._changed.notify_all()

    def _drawn(self, parts: Sequence[Part], drawer: Drawer) -> Iterator[Sample]:
        """The pictures of all parts, in their order."""
        live, piece = parts[0]
        assert live.plan is not None
        cancel = _AnyOf([one.cancel for one, _ in parts])
        identity = self._who(live, piece.person, cancel)
        requests = [request for _, own in parts for _, request in own.rows]
        started = perf_counter()
        drawn = drawer.draw(
            identity, requests, cancel=cancel, on_event=self._listener(parts), redraw=live.plan.order.redraw
        )
        seconds = perf_counter() - started
        self.measure(DREW, seconds)
        self._pace += 0.2 * (seconds / len(requests) - self._pace)
        return iter(drawn)

    def _who(self, live: Live, person: int, cancel: Cancel) -> Identity:
        if person not in live.people:
            assert live.plan is not None
            live.people[person] = self.engine.who(live.plan, person, cancel)
        return live.people[person]

    def _listener(self, parts: Sequence[Part]) -> Listener:
        def told(event: Event) -> None:
            if isinstance(event, Note):
                for live, _ in parts:
                    self.store.tell(live.id, Told(event.text))
                    self._news(live.id)
            elif isinstance(event, Denoised):
                self._stepped(event, parts)

        return told

    def _stepped(self, event: Denoised, parts: Sequence[Part]) -> None:
        """Send a step to the listeners, each with their own pictures."""
        with self._changed:
            listening = {live.id: list(self._followers.get(live.id, ())) for live, _ in parts}
        wanted = any(one.previews for several in listening.values() for one in several)
        pictures = [_jpeg(one) for one in event.preview()] if wanted else []
        at = 0
        for live, piece in parts:
            own = pictures if len(parts) == 1 else pictures[at : at + len(piece.rows)]
            at += len(piece.rows)
            if listening[live.id]:
                live.step = Stepped(event.step, event.steps, live.done, live.total, tuple(own))
                self._news(live.id)

    def _keep(self, live: Live, piece: Piece, drawn: Sequence[Sample]) -> None:
        """Save the kept pictures, then send their events, all at once."""
        started = perf_counter()
        spots = {id(sample): spot for sample, (spot, _) in zip(drawn, piece.rows, strict=True)}
        stay = list(drawn) if piece.keep == len(drawn) else rank(drawn)[: piece.keep]
        rows: list[tuple[Picture, Spot]] = []
        try:
            for sample in stay:
                rows.append((self._saved(live, piece.person, sample), spots[id(sample)]))
            self._told(live, rows)
        except BaseException:
            for picture, _ in rows:
                self.store.path(PICTURE, picture.id).unlink(missing_ok=True)
            raise
        self.measure(SAVED, perf_counter() - started)
        for sample in stay:
            self.measure(MADE, 1.0)
            if sample.likeness is not None:
                self.measure(LIKENESS, sample.likeness)

    def _told(self, live: Live, rows: Sequence[tuple[Picture, Spot]]) -> None:
        with self._changed:
            if live.id not in self._live:  # it was ended elsewhere, and possibly deleted
                raise Cancelled("the job has ended")
            events = [
                PictureDone(picture, live.done + number, live.total)
                for number, (picture, _) in enumerate(rows, 1)
            ]
            self.store.add_drawn(live.owner, rows, events)
            live.done += len(rows)

    def _saved(self, live: Live, person: int, sample: Sample) -> Picture:
        assert live.plan is not None
        identity = self._who(live, person, live.cancel)
        sample = replace(sample, notes={**sample.notes, **told_of(live.plan, person)})
        weighed = None if sample.likeness is None else self.engine.verdict(sample.likeness, identity)
        told = "verdict" in sample.notes and weighed is not None
        picture = Picture(
            new_id("pic"), time(), sample.image.width, sample.image.height, live.id, sample.notes["person"],
            sample.request.prompt, sample.request.sampling.seed, sample.likeness, sample.notes.get("verdict"),
            weighed.same if told and weighed else None, weighed.share if told and weighed else None,
        )  # fmt: skip
        save_named(sample, self.store.path(PICTURE, picture.id), self.engine.about, seal=self._seal)
        return picture

    def _end(self, live: Live, ended: Ended) -> None:
        with self._changed:
            if live.id not in self._live:
                return
            try:
                self.store.end(live.id, ended)
            except OutputError as error:  # the disk is full; it is drawn again at the next start
                _log.error("the end of job %s could not be stored: %s", live.id, error)
                self._unkept[live.id] = ended
            del self._live[live.id]
            self._changed.notify_all()
        self._news()


class _AnyOf(Cancel):
    """Cancelled when one of several tokens is."""

    def __init__(self, several: Sequence[Cancel]) -> None:
        super().__init__()
        self._several = several

    @property
    def cancelled(self) -> bool:
        return any(one.cancelled for one in self._several)


def _joins(live: Live) -> bool:
    """Whether a job can be drawn with others of its caller: pictures of one person, from a prompt only."""
    order = live.order
    apart = order.best_of > 1 or len(order.people) > 1 or order.style_picture or order.t2i or order.pose
    return not (live.alone or apart or order.start or order.controls)


def _settings(order: PlainOrder) -> PlainOrder:
    """An order without the fields that may differ in a batch."""
    return replace(order, prompts=(), n=1, seed=0, seeds=())


_INSIDE = "internal error; see the server's log"


def _sentence(error: Exception) -> str:
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return "there is not enough memory for this job; ask for fewer or smaller pictures"
    return _INSIDE


def _jpeg(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return data.getvalue()
