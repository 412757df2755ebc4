"""The desk: where orders of several callers come in, are drawn one after another, and what was made is kept.

Whatever a door offers beyond one sitting is here: people and pictures that stay, jobs, who they belong to, and limits.
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
from photomaker.images import Photo, keep_names, read_photo, save_png
from photomaker.studio.engine import Engine, mix
from photomaker.studio.kept import Job, JobEvent, Person, Picture, Upload
from photomaker.studio.limits import Limits
from photomaker.studio.plain_orders import PlainOrder, full_order
from photomaker.studio.planning import Plan
from photomaker.studio.portraits import blended, portrait_of
from photomaker.studio.provenance import Sealing
from photomaker.studio.store import IDENTITY, PICTURE, PORTRAIT, Store, new_id
from photomaker.studio.workshop import BATCH, IDENTIFIED, Drawer, Following, Measure, Workshop
from photomaker.types import Identity

_log = logging.getLogger(__name__)
LARGEST_PHOTO, LARGEST_PICTURE = 4096, 2048
"""Longer sides in pixels that given photos and pictures are kept at in memory and on disk."""


class Desk:
    """Takes orders of several callers and draws them in fair turns; safe from any number of threads.

    An owner is any text that tells callers apart; what belongs to one is not there for another.

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
            seal: What signs pictures; see `photomaker.studio.saving.save_samples`.

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
        """Begin to draw."""
        self.workshop.start()
        if self._ttl is not None:
            self._tending = threading.Thread(target=self._tend, name="photomaker-ttl", daemon=True)
            self._tending.start()
        return self

    def stop(self) -> None:
        """Stop drawing, within one step; jobs that are being drawn go back to the line, and listeners are let go."""
        self.workshop.stop()

    def close(self) -> None:
        """Stop, wait for what is being put away, and let the folder go."""
        self.stop()
        self.workshop.join()
        if self._tending is not None:
            self._tending.join()
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
        return self.workshop.counts()

    @property
    def open_jobs(self) -> int:
        """How many jobs have not ended."""
        return self.workshop.open_jobs

    @property
    def working(self) -> bool:
        """Whether jobs are being drawn: it was started, and nothing has ended it."""
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
        """Make an identity of photos and keep it; the photos are not kept, but for a small portrait.

        Args:
            owner: Whose it is.
            photos: Of one person; those that the coach would drop are left out, unless he would drop all.
            name: What to call the person.
            reuse: Whether one that was made of the same photos earlier will do.
            consent: Who agreed, when, and to what; every picture of the person tells it.

        Raises:
            PhotoError: There are none or too many, one cannot be read, or none shows a face.
            SettingsError: The name is too long, or the consent is no text.
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
        self.workshop.cancel_all_of(person.id, "the person was deleted")
        self.store.delete_person(owner, person.id)

    # ---- pictures

    def add_picture(self, owner: str, upload: Upload) -> Picture:
        """Keep a start picture, a mask, or what a ControlNet or style follows.

        Raises:
            PhotoError: It is no picture, or too large.
            OutputError: It cannot be kept.
        """
        return self._keep_given(owner, self._photo(upload).image)

    def add_clear_mask(self, owner: str, upload: Upload) -> Picture:
        """Keep a mask of the kind that other programs make: drawn anew where it is clear, white in ours.

        Raises:
            PhotoError: It is no picture, too large, or nowhere clear.
            OutputError: It cannot be kept.
        """
        name = self._photo(upload).name
        with Image.open(io.BytesIO(upload.read())) as read:
            clear = read.convert("RGBA").getchannel("A").point(lambda value: 255 * (value == 0))
        if clear.getbbox() is None:
            raise PhotoError(
                f"the mask {name} is nowhere clear; make it clear where the picture is drawn anew"
            )
        return self._keep_given(owner, clear.convert("RGB"))

    def _keep_given(self, owner: str, image: Image.Image) -> Picture:
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
        """A job as it stands.

        Raises:
            NotThere: There is none such.
        """
        return self.workshop.placed(self.store.job(owner, id_))

    def check_job(self, owner: str, id_: str) -> None:
        """Make sure that there is a job, which takes less time than looking at it.

        Raises:
            NotThere: There is none such.
        """
        self.store.check_job(owner, id_)

    def jobs(self, owner: str, most: int = 100) -> list[Job]:
        """The last jobs, the newest first."""
        return [self.workshop.placed(job) for job in self.store.jobs(owner, most)]

    def cancel(self, owner: str, id_: str) -> Job:
        """Stop a job within one step; pictures that are finished stay. One that has ended is left as it is.

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

    def follow(
        self, owner: str, id_: str, notify: Callable[[], None], after: int = 0, previews: bool = True
    ) -> Following:
        """Listen to a job without waiting in a thread.

        Args:
            owner: Whose it is.
            id_: The job.
            notify: Called from any thread when there is news; it must return at once and raise nothing.
            after: Leave out what is kept up to this number.
            previews: Whether steps shall show what is being drawn; they cost a little, and are made only where somebody
                wants them.

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
                _log.exception("what has outlived its time could not be deleted")

    def expire(self, before: float) -> None:
        """Delete jobs with their pictures, people and given pictures that were last of use before a time."""
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
