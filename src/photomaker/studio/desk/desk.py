"""The desk: takes orders of several callers, draws them in turn, and stores the results.

Everything that outlives one session is here: saved people and pictures, jobs, their owners, and limits.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, time
from types import TracebackType
from typing import Literal

from PIL import Image

from photomaker.errors import NotThere, PhotoError, SettingsError
from photomaker.files import keep_names
from photomaker.images import Photo, read_photo, save_png
from photomaker.studio.desk.limits import Limits
from photomaker.studio.desk.records import Job, JobEvent, Person, Picture, Upload
from photomaker.studio.desk.store import IDENTITY, PICTURE, PORTRAIT, Store, new_id
from photomaker.studio.desk.workers import BATCH, IDENTIFIED, Drawer, Following, Measure, Workshop
from photomaker.studio.engine import Engine, mix
from photomaker.studio.orders.plain import PlainOrder, full_order
from photomaker.studio.orders.planning import Plan
from photomaker.studio.photos.portraits import blended, portrait_of
from photomaker.studio.provenance.manifest import Sealing
from photomaker.types import Identity

_log = logging.getLogger(__name__)
LARGEST_PHOTO, LARGEST_PICTURE = 4096, 2048
"""Longest side in pixels of given photos in memory and of given pictures on disk."""


class Desk:
    """Takes orders of several callers and draws them in fair turns; thread-safe.

    An owner is any text that identifies a caller; what belongs to one does not exist for another.

    Examples:
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
        *,
        seal: Sealing = True,
    ) -> None:
        """Open the folder with its unfinished jobs; nothing is drawn until `start`.

        Args:
            engine: Checks photos and orders, and draws.
            folder: Data folder.
            limits: Limits on requests.
            allowed: Names and paths of the LoRA, ControlNets and adapters that callers may name.
            ttl: Seconds after which stored data is deleted; None keeps it.
            drawers: Draw instead of the engine, each in its own thread.
            measure: Called with seconds by phase, and with likeness.
            batch: Pictures in a turn.
            seal: How pictures are signed; see `photomaker.studio.pictures.saving.save_samples`.

        Raises:
            SettingsError: The method is tuned for each person, or another process has the folder open.
            OutputError: The folder cannot be written to.
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
        self._ttl = ttl
        self._secret = self.store.secret()
        self.workshop = Workshop(
            engine,
            self.store,
            self.plan,
            self.limits,
            [engine] if drawers is None else drawers,
            self._measured,
            batch,
            seal,
        )
        self._tending: threading.Thread | None = None

    def _measured(self, name: str, value: float) -> None:
        self.measure(name, value)

    # ---- open and closed

    def start(self) -> Desk:
        """Start drawing."""
        self.workshop.start()
        if self._ttl is not None:
            self._tending = threading.Thread(target=self._tend, name="photomaker-ttl", daemon=True)
            self._tending.start()
        return self

    def stop(self) -> None:
        """Stop drawing, within one step; unfinished jobs return to the queue, and listeners are released."""
        self.workshop.stop()

    def close(self) -> None:
        """Stop, wait until pictures are saved, and release the folder."""
        self.stop()
        self.workshop.join()
        if self._tending is not None:
            self._tending.join()
        self.store.close()

    def __enter__(self) -> Desk:
        """Start drawing."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def counts(self) -> dict[str, int]:
        """The number of waiting jobs, and of running ones."""
        return self.workshop.counts()

    @property
    def open_jobs(self) -> int:
        """The number of unfinished jobs."""
        return self.workshop.open_jobs

    @property
    def working(self) -> bool:
        """Whether jobs are drawn: it was started and has not stopped."""
        return self.workshop.working

    # ---- people

    def add_person(
        self,
        owner: str,
        photos: Sequence[Upload],
        name: str = "",
        reuse: bool = False,
        consent: str | None = None,
    ) -> Person:
        """Make an identity from photos and save it; of the photos only a small portrait is kept.

        Args:
            owner: The owner.
            photos: Photos of one person; those that the coach would drop are left out, unless it would drop all.
            name: Name of the person.
            reuse: Whether to reuse an identity made earlier from the same photos.
            consent: Who agreed, when, and to what; written into every picture of the person.

        Raises:
            PhotoError: There are none or too many, one cannot be read, or none shows a face.
            SettingsError: The name is too long, or the consent is not text.
            OutputError: It cannot be saved.
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
        identity = self.engine.identity(sitting, consent=consent)
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
        """Mix two people and save the mix.

        Args:
            owner: The owner.
            first: Id or name of the person at share 0.
            second: Id or name of the person at share 1.
            share: 0..1.
            name: Name of the mix.
            how: See `photomaker.studio.engine.mix`.

        Raises:
            NotThere: There is no such person.
            SettingsError: The share is outside 0..1, or the name is too long.
            IdentityError: The two were made by different models.
            OutputError: It cannot be stored.
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
        """A saved person by id, or the last one saved with this name.

        Raises:
            NotThere: There is none such.
        """
        return self.store.person(owner, name)

    def rename_person(self, owner: str, id_: str, name: str) -> Person:
        """Rename a saved person.

        Raises:
            NotThere: There is none such.
            SettingsError: The name is too long.
            OutputError: It cannot be stored.
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
        """The identity file, as all front ends read it.

        Raises:
            NotThere: There is none such.
        """
        return self.store.path(IDENTITY, self.store.person(owner, name).id)

    def portrait(self, owner: str, name: str) -> Path | None:
        """A small PNG of the person's face; None if there is none.

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
        self.workshop.cancel_all_of(person.id, "the person was deleted")
        self.store.delete_person(owner, person.id)

    # ---- pictures

    def add_picture(self, owner: str, upload: Upload) -> Picture:
        """Store a start picture, a mask, a structure picture or a style picture.

        Raises:
            PhotoError: It is not a picture, or too large.
            OutputError: It cannot be stored.
        """
        return self._keep_given(owner, self._photo(upload).image)

    def add_clear_mask(self, owner: str, upload: Upload) -> Picture:
        """Store a mask whose transparent pixels are redrawn, as in other programs; in our masks these are white.

        Raises:
            PhotoError: It is not a picture, too large, or has no transparent pixels.
            OutputError: It cannot be stored.
        """
        name = self._photo(upload).name
        with Image.open(io.BytesIO(upload.read())) as read:
            clear = read.convert("RGBA").getchannel("A").point(lambda value: 255 * (value == 0))
        if clear.getbbox() is None:
            raise PhotoError(
                f"the mask {name} has no transparent pixels; make it transparent where the picture should be redrawn"
            )
        return self._keep_given(owner, clear.convert("RGB"))

    def _keep_given(self, owner: str, image: Image.Image) -> Picture:
        image.thumbnail((LARGEST_PICTURE, LARGEST_PICTURE))
        picture = Picture(new_id("pic"), time(), image.width, image.height)
        save_png(image, self.store.path(PICTURE, picture.id), overwrite=False, source=None)
        self.store.add_picture(owner, picture)
        return picture

    def picture(self, owner: str, id_: str) -> Picture:
        """Details of a picture.

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
        """A ticket that allows anybody who has it to read one picture for a limited time.

        Raises:
            NotThere: There is none such.
        """
        self.store.picture(owner, id_)
        until = int(time() + seconds)
        return f"{until}.{self._seal(id_, until)}"

    def picture_by_ticket(self, id_: str, ticket: str) -> Path:
        """The PNG file of a ticket.

        Raises:
            NotThere: The ticket is invalid, for a different picture, or expired.
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
        """Check an order without submitting it.

        Raises:
            PhotoMakerError: Something in it cannot be done.
        """
        self.limits.check_plain(order)
        full = full_order(order, _Shelf(self, owner))
        plan = self.engine.plan(full)
        self.limits.check(plan.order)
        return plan

    def submit(self, owner: str, order: PlainOrder) -> Job:
        """Submit an order.

        Args:
            owner: The owner.
            order: The order.

        Returns:
            The waiting job.

        Raises:
            QueueFull: Too many are waiting.
            PhotoMakerError: The order cannot be drawn.
        """
        self.workshop.check(owner)
        plan = self.plan(owner, order)
        people = [self.store.person(owner, name).id for name in order.people]
        order = replace(order, people=tuple(people))
        kept = len(list(plan.order.couples())) * plan.order.n
        job = Job(new_id("job"), "queued", order, time(), None, None, kept)
        self.workshop.take(owner, job, plan.notes)
        for one in people:
            self.store.use(one)
        return self.job(owner, job.id)

    def job(self, owner: str, id_: str) -> Job:
        """The state of a job.

        Raises:
            NotThere: There is none such.
        """
        return self.workshop.placed(self.store.job(owner, id_))

    def check_job(self, owner: str, id_: str) -> None:
        """Check that a job exists; faster than reading it.

        Raises:
            NotThere: There is none such.
        """
        self.store.check_job(owner, id_)

    def jobs(self, owner: str, most: int = 100) -> list[Job]:
        """The last jobs, the newest first."""
        return [self.workshop.placed(job) for job in self.store.jobs(owner, most)]

    def cancel(self, owner: str, id_: str) -> Job:
        """Stop a job within one step; finished pictures stay. A job that has ended is not changed.

        Raises:
            NotThere: There is none such.
        """
        job = self.store.job(owner, id_)
        self.workshop.cancel(job.id, "")
        return self.job(owner, job.id)

    def delete_job(self, owner: str, id_: str) -> None:
        """Stop a job and delete it with all its pictures.

        Raises:
            NotThere: There is none such.
        """
        job = self.store.job(owner, id_)
        self.workshop.forget(job.id)
        self.store.delete_job(owner, job.id)

    def events(self, owner: str, id_: str, after: int = 0) -> Iterator[JobEvent]:
        """The events of a job, from beginning to end; waits for new ones.

        Args:
            owner: The owner.
            id_: The job.
            after: Skip stored events up to this number.

        Raises:
            NotThere: There is no such job; raised at the call.
        """
        woken = threading.Event()
        following = self.follow(owner, id_, woken.set, after)
        return _waiting_for(following, woken)

    def follow(
        self, owner: str, id_: str, notify: Callable[[], None], after: int = 0, previews: bool = True
    ) -> Following:
        """Listen to a job without blocking a thread.

        Args:
            owner: The owner.
            id_: The job.
            notify: Called from any thread when there are new events; it must return at once and not raise.
            after: Skip stored events up to this number.
            previews: Whether steps have previews; these cost a little and are made only if a listener wants them.

        Raises:
            NotThere: There is no such job.
        """
        self.check_job(owner, id_)
        return self.workshop.follow(id_, notify, after, previews)

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
        keep_names(self.store.path(IDENTITY, person.id).parent)
        self.store.add_person(owner, person, digest)
        return person

    # ---- time to live

    def _tend(self) -> None:
        assert self._ttl is not None
        while not self.workshop.stopping.wait(min(60.0, max(0.2, self._ttl / 10))):
            try:
                self.expire(time() - self._ttl)
            except Exception:  # noqa: BLE001 - tried again soon
                _log.exception("expired data could not be deleted")

    def expire(self, before: float) -> None:
        """Delete jobs with their pictures, people and uploaded pictures last used before a time."""
        old = self.store.expired(before)
        needed = self.workshop.needed()
        for kind, delete in (
            ("jobs", self.store.delete_job),
            ("people", self.store.delete_person),
            ("pictures", self.store.delete_picture),
        ):
            for owner, id_ in old[kind]:
                if id_ not in needed:
                    with suppress(NotThere):
                        delete(owner, id_)


@dataclass(frozen=True)
class _Shelf:
    """The people, pictures and models that an owner's orders may name."""

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
            raise SettingsError(f"this server has no model {name[:60]!r}; it has: {known}")
        return self.desk.allowed[name]


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
            f"the name has {len(name)} characters or unprintable ones; give up to {most} printable characters"
        )
    return name
