"""The desk: where orders of several callers come in, are drawn one after another, and what was made is kept.

A turn is one batch of a job's pictures; after it the next caller's job has its turn. What is finished is kept at once,
so that neither a cancel nor a kill costs a finished picture, and a job that was broken off goes on where it was.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import logging
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter, time
from types import TracebackType
from typing import Literal, Protocol

from PIL import Image

from photomaker.errors import Cancelled, NotThere, OutputError, PhotoMakerError, SettingsError
from photomaker.images import Photo, read_photo, save_png
from photomaker.studio.engine import Engine, mix, rank, told_of
from photomaker.studio.events import Cancel, Denoised, Event, Listener, Note
from photomaker.studio.kept import (
    ENDED,
    Ended,
    Job,
    JobEvent,
    Lasting,
    Person,
    Picture,
    PictureDone,
    Stepped,
    Told,
    Upload,
    Waiting,
)
from photomaker.studio.limits import Limits
from photomaker.studio.line import Line
from photomaker.studio.pieces import Piece, pieces_of
from photomaker.studio.plain_orders import PlainOrder, full_order
from photomaker.studio.planning import Plan
from photomaker.studio.portraits import blended, portrait_of
from photomaker.studio.saving import save_named
from photomaker.studio.store import IDENTITY, PICTURE, PORTRAIT, Store, new_id
from photomaker.types import Identity, Request, Sample

BATCH = 4
"""Pictures of a turn: what a short job of another caller waits for."""
TRIES = 3
"""How often a job may take the whole process with it."""
LARGEST_PHOTO, LARGEST_PICTURE = 4096, 2048
"""Longer sides in pixels that given photos and pictures are kept at in memory and on disk."""
WAITED, IDENTIFIED, DREW, SAVED = "waiting", "identity", "drawing", "saving"
"""Phases that are timed."""
LIKENESS, MADE = "likeness", "picture"

Measure = Callable[[str, float], None]
"""Told of seconds by phase, of likeness, and of 1 for each picture."""
_log = logging.getLogger(__name__)


class Drawer(Protocol):
    """Whatever draws: an `Engine`, or something that stands for one elsewhere."""

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
class _Live:
    """A job that has not ended."""

    id: str
    owner: str
    order: PlainOrder
    total: int
    done: int = 0
    cancel: Cancel = field(default_factory=Cancel)
    unwanted: str | None = None
    """Why it was cancelled; None where it was not."""
    plan: Plan | None = None
    pieces: deque[Piece] = field(default_factory=deque)
    people: dict[int, Identity] = field(default_factory=dict)
    drawing: int = 0
    step: Stepped | None = None
    since: float = field(default_factory=perf_counter)


class Following:
    """Somebody who listens to a job: what has happened since they last asked."""

    def __init__(self, desk: Desk, job: str, after: int, notify: Callable[[], None]) -> None:
        """Begin to listen; use `Desk.follow` instead."""
        self._desk, self._job, self._after = desk, job, after
        self.notify = notify
        self.ended = False
        """Whether nothing will follow."""
        self._place: int | None = None
        self._step: Stepped | None = None

    def news(self) -> list[JobEvent]:
        """What has happened since the last call; never waits."""
        kept, place, step, self.ended = self._desk._state_of(self._job, self._after)
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
        """Listen no longer."""
        self._desk._unfollow(self._job, self)


class Desk:
    """Takes orders of several callers and draws them in fair turns; safe from any number of threads.

    An owner is any text that tells callers apart; what belongs to one is not there for another.

    Example:
        >>> with Desk(Engine.open(), "data") as desk:  # doctest: +SKIP
        ...     ada = desk.add_person("me", [Upload("1.png", Path("examples/ada/1.png"))], "Ada")
        ...     job = desk.submit("me", PlainOrder((ada.id,), ("a photo of a woman img in the snow",)))
        ...     for event in desk.events("me", job.id):
        ...         print(event)
    """

    def __init__(
        self,
        engine: Engine,
        folder: str | os.PathLike[str],
        limits: Limits | None = None,
        allowed: Mapping[str, str] | None = None,
        ttl: float | None = None,
        drawers: Sequence[Drawer] | None = None,
        measure: Measure | None = None,
        batch: int = BATCH,
    ) -> None:
        """Open the folder and take up what was left there; nothing is drawn until `start`.

        Args:
            engine: Looks at photos and orders, and draws.
            folder: Where everything is kept.
            limits: What callers may ask for.
            allowed: Names and places of the LoRA, ControlNets and adapters that callers may ask for.
            ttl: Seconds after which what was made and given is deleted; None keeps it.
            drawers: What draws in the engine's place, each in a thread of its own.
            measure: Told of seconds by phase, and of likeness.
            batch: Pictures of a turn.

        Raises:
            SettingsError: The method is tuned for each person, or another process has the folder open.
            OutputError: Nothing can be written there.
        """
        if engine.tunes:
            raise SettingsError(
                f"the method {engine.method.name} is tuned for each person, which takes minutes; choose another"
            )
        self.engine = engine
        self.limits = limits or Limits()
        self.allowed = dict(allowed or {})
        self.measure: Measure = measure or (lambda _name, _value: None)
        self.store = Store(folder)
        self._drawers: Sequence[Drawer] = [engine] if drawers is None else drawers
        self._batch, self._ttl = batch, ttl
        self._changed = threading.Condition(threading.RLock())
        self._line = Line(self.limits.waiting, self.limits.waiting_each)
        self._live: dict[str, _Live] = {}
        self._unkept: dict[str, Ended] = {}
        self._followers: dict[str, list[Following]] = {}
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._pace = 1.0
        self._secret = self.store.secret()
        self._recover()

    # ---- open and closed

    def start(self) -> Desk:
        """Begin to draw."""
        for number, drawer in enumerate(self._drawers):
            self._thread(partial(self._work, drawer), f"photomaker-desk-{number}")
        if self._ttl is not None:
            self._thread(self._tend, "photomaker-desk-ttl")
        return self

    def _thread(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        """Stop drawing, within one step; jobs that are being drawn go back to the line, and listeners are let go."""
        self._stopping.set()
        with self._changed:
            for live in self._live.values():
                live.cancel.cancel()
            self._changed.notify_all()
            everyone = [one for several in self._followers.values() for one in several]
        for one in everyone:
            one.notify()

    def close(self) -> None:
        """Stop, wait for what is being put away, and let the folder go."""
        self.stop()
        for thread in self._threads:
            thread.join()
        self.store.close()

    def __enter__(self) -> Desk:
        """Begin to draw."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def counts(self) -> dict[str, int]:
        """How many jobs wait, and how many are being drawn."""
        with self._changed:
            drawing = sum(live.drawing > 0 for live in self._live.values())
            return {"waiting": len(self._line), "drawing": drawing}

    @property
    def open_jobs(self) -> int:
        """How many jobs have not ended."""
        with self._changed:
            return len(self._live)

    @property
    def working(self) -> bool:
        """Whether jobs are being drawn: it was started, and nothing has ended it."""
        return (
            not self._stopping.is_set()
            and bool(self._threads)
            and all(one.is_alive() for one in self._threads)
        )

    # ---- people

    def add_person(self, owner: str, photos: Sequence[Upload], name: str = "", reuse: bool = False) -> Person:
        """Make an identity of photos and keep it; the photos are not kept, but for a small portrait.

        Args:
            owner: Whose it is.
            photos: Of one person; those that the coach would drop are left out, unless he would drop all.
            name: What to call the person.
            reuse: Whether one that was made of the same photos earlier will do.

        Raises:
            PhotoError: There are none or too many, one cannot be read, or none shows a face.
            SettingsError: The name is too long.
            OutputError: It cannot be kept.
        """
        name = _checked_name(name)
        self.limits.check_photos(len(photos))
        read = [self._photo(one) for one in photos]
        digest = self._digest(read)
        found = self.store.same_photos(owner, digest) if reuse else None
        if found is not None:
            self.store.use(found.id)
            return found
        started = perf_counter()
        report = self.engine.judge(read)
        kept = read if report is None else [one.photo for one in report.kept] or read
        sitting = self.engine.choose(kept)
        identity = self.engine.identity(sitting)
        self.measure(IDENTIFIED, perf_counter() - started)
        person = Person(
            new_id("idn"), name, time(), identity.method, len(sitting.references),
            None if report is None else report.as_json(), sitting.notes,
        )  # fmt: skip
        return self._keep_person(owner, person, identity, portrait_of(sitting.references[0]), digest)

    def mix(
        self,
        owner: str,
        first: str,
        second: str,
        share: float,
        name: str = "",
        how: Literal["blend", "proportion"] = "blend",
    ) -> Person:
        """Make a person between two and keep it.

        Args:
            owner: Whose they are.
            first: Whom share 0 gives, by id or name.
            second: Whom share 1 gives.
            share: 0..1.
            name: What to call the new person.
            how: See `photomaker.studio.engine.mix`.

        Raises:
            NotThere: There is no such person.
            SettingsError: The share lies outside 0..1, or the name is too long.
            IdentityError: The two were made by different models.
            OutputError: It cannot be kept.
        """
        name = _checked_name(name)
        people = [self.store.person(owner, one) for one in (first, second)]
        made = mix(self.identity(owner, people[0].id), self.identity(owner, people[1].id), share, how)
        person = Person(new_id("idn"), name, time(), made.method, sum(one.photos for one in people))
        portraits = [path for one in people if (path := self.store.path(PORTRAIT, one.id)).is_file()]
        portrait = blended(portraits[0], portraits[1], share) if len(portraits) == len(people) else None
        return self._keep_person(owner, person, made, portrait, "")

    def people(self, owner: str) -> list[Person]:
        """All saved people, the newest first."""
        return self.store.people(owner)

    def person(self, owner: str, name: str) -> Person:
        """A saved person by id, or the last saved under a name.

        Raises:
            NotThere: There is none such.
        """
        return self.store.person(owner, name)

    def rename_person(self, owner: str, id_: str, name: str) -> Person:
        """Call a saved person something else.

        Raises:
            NotThere: There is none such.
            SettingsError: The name is too long.
            OutputError: It cannot be kept.
        """
        person = self.store.person(owner, id_)
        self.store.rename_person(owner, person.id, _checked_name(name))
        return self.store.person(owner, person.id)

    def identity(self, owner: str, name: str) -> Identity:
        """The identity of a saved person.

        Raises:
            NotThere: There is none such.
            IdentityError: Its file is damaged.
        """
        return Identity.load(self.identity_file(owner, name))

    def identity_file(self, owner: str, name: str) -> Path:
        """The identity's file, which every door and the command line read.

        Raises:
            NotThere: There is none such.
        """
        return self.store.path(IDENTITY, self.store.person(owner, name).id)

    def portrait(self, owner: str, name: str) -> Path | None:
        """A small PNG of the person's face; None where there is none.

        Raises:
            NotThere: There is no such person.
        """
        path = self.store.path(PORTRAIT, self.store.person(owner, name).id)
        return path if path.is_file() else None

    def delete_person(self, owner: str, id_: str) -> None:
        """Delete a saved person's files, and cancel the jobs that would draw them; pictures of them stay.

        Raises:
            NotThere: There is none such.
        """
        person = self.store.person(owner, id_)
        with self._changed:
            jobs = [live.id for live in self._live.values() if person.id in live.order.people]
        for job in jobs:
            self._cancel(job, "the person was deleted")
        self.store.delete_person(owner, person.id)

    # ---- pictures

    def add_picture(self, owner: str, upload: Upload) -> Picture:
        """Keep a start picture, a mask, or what a ControlNet or style follows.

        Raises:
            PhotoError: It is no picture, or too large.
            OutputError: It cannot be kept.
        """
        image = self._photo(upload).image
        image.thumbnail((LARGEST_PICTURE, LARGEST_PICTURE))
        picture = Picture(new_id("pic"), time(), image.width, image.height)
        save_png(image, self.store.path(PICTURE, picture.id), overwrite=False, source=None)
        self.store.add_picture(owner, picture)
        return picture

    def picture(self, owner: str, id_: str) -> Picture:
        """What is known of a picture.

        Raises:
            NotThere: There is none such.
        """
        return self.store.picture(owner, id_)

    def pictures(self, owner: str, most: int = 100, before: float | None = None) -> list[Picture]:
        """The last drawn pictures, the newest first.

        Args:
            owner: Whose they are.
            most: How many.
            before: Only those made before this time.
        """
        return self.store.pictures(owner, most, before)

    def picture_file(self, owner: str, id_: str) -> Path:
        """A picture's PNG file.

        Raises:
            NotThere: There is none such.
        """
        return self.store.path(PICTURE, self.store.picture(owner, id_).id)

    def ticket(self, owner: str, id_: str, seconds: float = 3600) -> str:
        """A text by which anybody who has it may look at one picture for a while.

        Raises:
            NotThere: There is none such.
        """
        self.store.picture(owner, id_)
        until = int(time() + seconds)
        return f"{until}.{self._seal(id_, until)}"

    def picture_by_ticket(self, id_: str, ticket: str) -> Path:
        """The PNG file that a ticket is for.

        Raises:
            NotThere: The ticket is none, is for something else, or its time is over.
        """
        until, _, seal = ticket.partition(".")
        good = until.isascii() and until.isdigit() and int(until) > time()
        if not good or not hmac.compare_digest(seal.encode(), self._seal(id_, int(until)).encode()):
            raise NotThere(f"there is no picture {id_[:60]!r}; check its id")
        return self.store.path(PICTURE, self.store.any_picture(id_).id)

    def _seal(self, id_: str, until: int) -> str:
        return hmac.digest(self._secret, f"{id_}.{until}".encode(), "sha256").hex()

    def delete_picture(self, owner: str, id_: str) -> None:
        """Delete a picture.

        Raises:
            NotThere: There is none such.
        """
        self.store.delete_picture(owner, id_)

    # ---- jobs

    def plan(self, owner: str, order: PlainOrder) -> Plan:
        """Look at an order, without taking it.

        Raises:
            PhotoMakerError: Something in it cannot be done.
        """
        self.limits.check_plain(order)
        full = full_order(order, _Shelf(self, owner))
        plan = self.engine.plan(full)
        self.limits.check(plan.order)
        return plan

    def submit(self, owner: str, order: PlainOrder) -> Job:
        """Take an order.

        Args:
            owner: Whose it is.
            order: What is asked for.

        Returns:
            The job, which waits.

        Raises:
            QueueFull: Too many wait.
            PhotoMakerError: Something in the order cannot be done.
        """
        with self._changed:
            self._line.check(owner, self._retry_after())
        plan = self.plan(owner, order)
        people = [self.store.person(owner, name).id for name in order.people]
        order = replace(order, people=tuple(people))
        kept = len(list(plan.order.couples())) * plan.order.n
        job = Job(new_id("job"), "queued", order, time(), None, None, kept)
        with self._changed:
            self._line.check(owner, self._retry_after())
            self.store.add_job(owner, job)
            for note in plan.notes:
                self.store.tell(job.id, Told(note))
            self._add(_Live(job.id, owner, order, kept))
        for one in people:
            self.store.use(one)
        return self.job(owner, job.id)

    def job(self, owner: str, id_: str) -> Job:
        """A job as it stands.

        Raises:
            NotThere: There is none such.
        """
        return self._placed(self.store.job(owner, id_))

    def jobs(self, owner: str, most: int = 100) -> list[Job]:
        """The last jobs, the newest first."""
        return [self._placed(job) for job in self.store.jobs(owner, most)]

    def cancel(self, owner: str, id_: str) -> Job:
        """Stop a job within one step; pictures that are finished stay. One that has ended is left as it is.

        Raises:
            NotThere: There is none such.
        """
        job = self.store.job(owner, id_)
        self._cancel(job.id, "")
        return self.job(owner, job.id)

    def delete_job(self, owner: str, id_: str) -> None:
        """Stop a job and delete it with all its pictures.

        Raises:
            NotThere: There is none such.
        """
        job = self.store.job(owner, id_)
        self._cancel(job.id, "")
        with self._changed:
            self._changed.wait_for(lambda: job.id not in self._live or self._stopping.is_set())
            self._unkept.pop(job.id, None)
        self.store.delete_job(owner, job.id)

    def events(self, owner: str, id_: str, after: int = 0) -> Iterator[JobEvent]:
        """What happens to a job, from its beginning to its end; waits for what is to come.

        Args:
            owner: Whose it is.
            id_: The job.
            after: Leave out what is kept up to this number.

        Raises:
            NotThere: There is no such job; told at the call.
        """
        woken = threading.Event()
        following = self.follow(owner, id_, woken.set, after)
        return _waiting_for(following, woken)

    def follow(self, owner: str, id_: str, notify: Callable[[], None], after: int = 0) -> Following:
        """Listen to a job without waiting in a thread.

        Args:
            owner: Whose it is.
            id_: The job.
            notify: Called from any thread when there is news; it must return at once and raise nothing.
            after: Leave out what is kept up to this number.

        Raises:
            NotThere: There is no such job.
        """
        job = self.store.job(owner, id_)
        following = Following(self, job.id, after, notify)
        with self._changed:
            self._followers.setdefault(job.id, []).append(following)
        return following

    # ---- what a person or picture is to an order

    def _photo(self, upload: Upload) -> Photo:
        data = upload.read()
        name = Path(upload.name).name[:100] or "a photo"
        self.limits.check_bytes(name, len(data))
        photo = read_photo(data, name, self.limits.pixels)
        photo.image.thumbnail((LARGEST_PHOTO, LARGEST_PHOTO))
        return photo

    def _digest(self, photos: Sequence[Photo]) -> str:
        made_of = [self.engine.about.get("model_hash", ""), *sorted(one.sha256 for one in photos)]
        return hashlib.sha256("\n".join(made_of).encode()).hexdigest()

    def _keep_person(
        self, owner: str, person: Person, identity: Identity, portrait: Image.Image | None, digest: str
    ) -> Person:
        identity = replace(identity, notes={**identity.notes, "name": person.name or "person"})
        identity.save(self.store.path(IDENTITY, person.id))
        if portrait is not None:
            save_png(portrait, self.store.path(PORTRAIT, person.id), source=None)
        self.store.add_person(owner, person, digest)
        return person

    # ---- jobs that have not ended

    def _recover(self) -> None:
        for left in self.store.left():
            live = _Live(left.job.id, left.owner, left.job.order, left.job.total, len(left.job.pictures))
            if left.tries >= TRIES:
                reason = f"broken off: the server ended {left.tries} times while it was drawn; ask for less"
                self.store.end(live.id, Ended("failed", reason, live.done))
                continue
            self._add(live)

    def _add(self, live: _Live) -> None:
        self._live[live.id] = live
        with self._changed:
            self._line.add(live.owner, live.id)
            self._changed.notify_all()

    def _retry_after(self) -> int:
        """Seconds until a place is free: what a job of middle length takes."""
        jobs = list(self._live.values())
        pictures = sum(live.total - live.done for live in jobs) / max(1, len(jobs))
        return max(1, min(600, math.ceil(pictures * self._pace)))

    def _placed(self, job: Job) -> Job:
        with self._changed:
            ended, live = self._unkept.get(job.id), self._live.get(job.id)
            place = self._line.place(job.id)
        if ended is not None:
            return replace(job, state=ended.state, reason=ended.reason, ended=job.ended or time())
        if live is None or job.state in ENDED:
            return job
        begun = live.drawing > 0 or live.plan is not None
        return replace(job, state="running" if begun else "queued", place=None if begun else place)

    def _cancel(self, id_: str, reason: str) -> None:
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

    def _state_of(self, id_: str, after: int) -> tuple[list[Lasting], int | None, Stepped | None, bool]:
        """Kept events, place and step of a job, and whether nothing follows."""
        with self._changed:
            live, unkept = self._live.get(id_), self._unkept.get(id_)
            place = None if live is None or live.plan is not None else self._line.place(id_)
            step = None if live is None else live.step
        if self._stopping.is_set():
            return [], None, None, True
        kept: list[Lasting] = list(self.store.events(id_, after))
        if unkept is not None:
            kept.append(unkept)
        over = live is None or any(isinstance(one, Ended) for one in kept)
        return kept, place, step, over

    def _unfollow(self, id_: str, following: Following) -> None:
        with self._changed:
            several = self._followers.get(id_, [])
            if following in several:
                several.remove(following)
            if not several:
                self._followers.pop(id_, None)

    def _news(self, id_: str | None = None) -> None:
        """Tell those who listen to a job, or everybody, that something has changed."""
        with self._changed:
            several = [
                one for job, listening in self._followers.items() if id_ in (None, job) for one in listening
            ]
        for one in several:
            one.notify()

    # ---- drawing

    def _work(self, drawer: Drawer) -> None:
        while (live := self._next()) is not None:
            self._news()
            try:
                self._turn(live, drawer)
            except Exception:  # noqa: BLE001 - the thread draws everybody's jobs
                _log.exception("job %s could not be put away", live.id)
                self._end(live, Ended("failed", _INSIDE, live.done))

    def _next(self) -> _Live | None:
        with self._changed:
            while not self._stopping.is_set():
                job = self._line.take()
                if job is not None:
                    live = self._live[job]
                    live.drawing += 1
                    return live
                self._changed.wait()
        return None

    def _turn(self, live: _Live, drawer: Drawer) -> None:
        """Draw a piece of a job, and put away what came of it."""
        ended: Ended | None = None
        piece = None
        try:
            piece = self._begun(live)
            if piece is not None:
                self._draw(live, piece, drawer)
        except Cancelled:
            if live.unwanted is None and self._stopping.is_set():
                self.store.put_back(live.id)
                return
            ended = Ended("cancelled", live.unwanted or "", live.done)
        except PhotoMakerError as error:
            ended = Ended("failed", str(error), live.done)
        except Exception as error:  # noqa: BLE001 - one job's failure is not the desk's
            _log.exception("job %s failed", live.id)
            ended = Ended("failed", _sentence(error), live.done)
        finally:
            with self._changed:
                live.drawing -= 1
                live.step = None
        if ended is None and live.unwanted is not None:
            ended = Ended("cancelled", live.unwanted, live.done)
        if ended is not None:
            self._line_out(live)
            self._end(live, ended)
        elif not live.pieces and live.drawing == 0:
            self._end(live, Ended("done", "", live.done))
        else:
            self._news(live.id)

    def _line_out(self, live: _Live) -> None:
        with self._changed:
            live.pieces.clear()
            live.cancel.cancel()
            self._line.remove(live.id)

    def _begun(self, live: _Live) -> Piece | None:
        """The next piece of a job, which is looked at again at its first turn; the rest goes on waiting."""
        if live.plan is None:
            self.measure(WAITED, perf_counter() - live.since)
            self.store.begin(live.id)
            live.plan = self.plan(live.owner, live.order)
            live.pieces = pieces_of(live.plan, self.store.spots(live.id), self._batch)
        live.cancel.check()
        with self._changed:
            piece = live.pieces.popleft() if live.pieces else None
            if live.pieces:
                self._line.add(live.owner, live.id, front=True)
                self._changed.notify_all()
        return piece

    def _draw(self, live: _Live, piece: Piece, drawer: Drawer) -> None:
        assert live.plan is not None
        if piece.person not in live.people:
            live.people[piece.person] = self.engine.who(live.plan, piece.person, live.cancel)
        identity = live.people[piece.person]
        started = perf_counter()
        drawn = drawer.draw(
            identity,
            [request for _, request in piece.rows],
            cancel=live.cancel,
            on_event=self._listener(live),
            redraw=live.plan.order.redraw,
        )
        seconds = perf_counter() - started
        self.measure(DREW, seconds)
        self._pace += 0.2 * (seconds / len(piece.rows) - self._pace)
        self._keep(live, piece, drawn, identity)

    def _listener(self, live: _Live) -> Listener:
        def told(event: Event) -> None:
            if isinstance(event, Note):
                self.store.tell(live.id, Told(event.text))
                self._news(live.id)
            elif isinstance(event, Denoised) and live.id in self._followers:
                pictures = tuple(_jpeg(one) for one in event.preview())
                live.step = Stepped(event.step, event.steps, live.done, live.total, pictures)
                self._news(live.id)

        return told

    def _keep(self, live: _Live, piece: Piece, drawn: Sequence[Sample], identity: Identity) -> None:
        """Save the pictures that stay, then tell of them, all at once."""
        assert live.plan is not None
        started = perf_counter()
        spots = {id(sample): spot for sample, (spot, _) in zip(drawn, piece.rows, strict=True)}
        stay = list(drawn) if piece.keep == len(drawn) else rank(drawn)[: piece.keep]
        about = told_of(live.plan, piece.person)
        rows = [
            (self._saved(live, replace(sample, notes={**sample.notes, **about}), identity), spots[id(sample)])
            for sample in stay
        ]
        with self._changed:
            if live.id not in self._live:  # it was ended elsewhere, and perhaps deleted
                raise Cancelled("the job has ended")
            events = [
                PictureDone(picture, live.done + number, live.total)
                for number, (picture, _) in enumerate(rows, 1)
            ]
            self.store.add_drawn(live.owner, rows, events)
            live.done += len(rows)
        self.measure(SAVED, perf_counter() - started)
        for sample in stay:
            self.measure(MADE, 1.0)
            if sample.likeness is not None:
                self.measure(LIKENESS, sample.likeness)

    def _saved(self, live: _Live, sample: Sample, identity: Identity) -> Picture:
        weighed = None if sample.likeness is None else self.engine.verdict(sample.likeness, identity)
        told = "verdict" in sample.notes and weighed is not None
        picture = Picture(
            new_id("pic"), time(), sample.image.width, sample.image.height, live.id, sample.notes["person"],
            sample.request.prompt, sample.request.sampling.seed, sample.likeness, sample.notes.get("verdict"),
            weighed.same if told and weighed else None, weighed.share if told and weighed else None,
        )  # fmt: skip
        save_named(sample, self.store.path(PICTURE, picture.id), self.engine.about)
        return picture

    def _end(self, live: _Live, ended: Ended) -> None:
        with self._changed:
            if live.id not in self._live:
                return
            try:
                self.store.end(live.id, ended)
            except OutputError as error:  # a full disk; at the next start it is drawn again
                _log.error("the end of job %s could not be noted: %s", live.id, error)
                self._unkept[live.id] = ended
            del self._live[live.id]
            self._changed.notify_all()
        self._news()

    # ---- time to live

    def _tend(self) -> None:
        assert self._ttl is not None
        while not self._stopping.wait(min(60.0, max(0.2, self._ttl / 10))):
            try:
                self.expire(time() - self._ttl)
            except Exception:  # noqa: BLE001 - tried again soon
                _log.exception("what has outlived its time could not be deleted")

    def expire(self, before: float) -> None:
        """Delete jobs with their pictures, people and given pictures that were last of use before a time."""
        old = self.store.expired(before)
        with self._changed:
            busy = repr([live.order for live in self._live.values()])
        for kind, delete in (
            ("jobs", self.store.delete_job),
            ("people", self.store.delete_person),
            ("pictures", self.store.delete_picture),
        ):
            for owner, id_ in old[kind]:
                if id_ not in busy:
                    with suppress(NotThere):
                        delete(owner, id_)


@dataclass(frozen=True)
class _Shelf:
    """What an owner's orders may name."""

    desk: Desk
    owner: str

    def someone(self, name: str) -> tuple[Identity, str]:
        person = self.desk.person(self.owner, name)
        return self.desk.identity(self.owner, person.id), person.name or "person"

    def image(self, name: str) -> Image.Image:
        return read_photo(self.desk.picture_file(self.owner, name).read_bytes(), "the picture").image

    def model(self, name: str) -> str:
        if name not in self.desk.allowed:
            known = ", ".join(sorted(self.desk.allowed)) or "none"
            raise SettingsError(f"there is no model {name[:60]!r} on this server's list; known are: {known}")
        return self.desk.allowed[name]


_INSIDE = "something went wrong inside; the server's log says what"


def _sentence(error: Exception) -> str:
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return "the memory is too small for this job; ask for fewer or smaller pictures"
    return _INSIDE


def _waiting_for(following: Following, woken: threading.Event) -> Iterator[JobEvent]:
    try:
        while True:
            woken.clear()
            yield from following.news()
            if following.ended:
                return
            woken.wait()
    finally:
        following.close()


def _checked_name(name: str) -> str:
    most = 80
    name = " ".join(name.split())
    if len(name) > most or not name.isprintable():
        raise SettingsError(
            f"the name has {len(name)} characters or some that cannot be shown; give up to {most}"
        )
    return name


def _jpeg(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return data.getvalue()
