"""Values that a desk stores and returns: people, pictures, jobs, and a job's events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from photomaker.studio.orders.plain import PlainOrder

State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED = frozenset({"done", "failed", "cancelled"})


@dataclass(frozen=True)
class Upload:
    """A file from a caller.

    Attributes:
        name: Its name in messages.
        data: Its bytes, or a file on this machine that the front end wrote.
    """

    name: str
    data: bytes | Path

    def read(self) -> bytes:
        """Its bytes."""
        return self.data if isinstance(self.data, bytes) else self.data.read_bytes()


@dataclass(frozen=True)
class Person:
    """A saved person.

    Attributes:
        id: Its id.
        name: Name given by the caller; may be empty.
        made: Seconds since 1970.
        method: The method of the identity, for example `photomaker-v1`.
        photos: Number of photos it was made from.
        report: The coach's report on all given photos; None for a mix, and without a face backend.
        notes: Notes for the caller, one sentence each.
    """

    id: str
    name: str
    made: float
    method: str
    photos: int
    report: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A stored picture, drawn or uploaded.

    Attributes:
        id: Its id.
        made: Seconds since 1970.
        width: In pixels.
        height: In pixels.
        job: Id of its job; None for an uploaded picture.
        person: Name of the person.
        prompt: The prompt, with trigger and style.
        seed: Its seed.
        likeness: Mean cosine to the person's photos; None if not measured.
        verdict: The verdict, in one sentence.
        same: Whether it is the same person; None if unknown.
        share: Likeness relative to that of the photos to each other: 0 a stranger, 1 another photo.
    """

    id: str
    made: float
    width: int
    height: int
    job: str | None = None
    person: str = ""
    prompt: str = ""
    seed: int | None = None
    likeness: float | None = None
    verdict: str | None = None
    same: bool | None = None
    share: float | None = None


@dataclass(frozen=True)
class Job:
    """The state of a job.

    Attributes:
        id: Its id.
        state: `queued`, `running`, `done`, `failed` or `cancelled`.
        order: The order.
        made: Seconds since 1970.
        started: When its first picture was begun.
        ended: When it ended.
        total: Number of pictures when it is done.
        place: Place in the queue, 1 is next; None if it is not waiting.
        reason: Why it failed or was cancelled, in one sentence.
        pictures: Finished pictures, by person, prompt and seed; with `best_of`, the best first.
    """

    id: str
    state: State
    order: PlainOrder
    made: float
    started: float | None
    ended: float | None
    total: int
    place: int | None = None
    reason: str = ""
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Waiting:
    """Place in the queue; sent whenever it changes, and not stored.

    Attributes:
        place: 1 is next.
    """

    place: int
    kind: Literal["queued"] = "queued"


@dataclass(frozen=True)
class Told:
    """A note for the caller.

    Attributes:
        text: One sentence.
        number: Number of the event within the job, from 1.
    """

    text: str
    number: int = 0
    kind: Literal["note"] = "note"


@dataclass(frozen=True)
class Stepped:
    """A denoising step; sent only live, not stored.

    Attributes:
        step: From 1.
        steps: In all.
        done: Pictures of the job that are finished.
        total: Pictures of the job.
        previews: JPEG files, one for each picture of the batch.
    """

    step: int
    steps: int
    done: int
    total: int
    previews: tuple[bytes, ...] = field(default=(), repr=False)
    kind: Literal["step"] = "step"


@dataclass(frozen=True)
class PictureDone:
    """A picture is finished and stored.

    Attributes:
        picture: The picture.
        done: Pictures of the job that are finished.
        total: Pictures of the job.
        number: Number of the event within the job, from 1.
    """

    picture: Picture
    done: int
    total: int
    number: int = 0
    kind: Literal["picture"] = "picture"


@dataclass(frozen=True)
class Ended:
    """The job ended; this is its last event.

    Attributes:
        state: `done`, `failed` or `cancelled`.
        reason: Why it failed or was cancelled, in one sentence.
        pictures: Number of pictures.
        number: Number of the event within the job, from 1.
    """

    state: State
    reason: str = ""
    pictures: int = 0
    number: int = 0
    kind: Literal["ended"] = "ended"


JobEvent = Waiting | Told | Stepped | PictureDone | Ended
Lasting = Told | PictureDone | Ended
"""Events that are stored and sent again to later listeners."""


def written(event: Lasting) -> dict[str, Any]:
    """An event as plain data."""
    values = asdict(event)
    del values["number"], values["kind"]
    return values


def read_event(kind: str, number: int, values: Mapping[str, Any]) -> Lasting:
    """The event from the plain data of `written`."""
    if kind == "note":
        return Told(**values, number=number)
    if kind == "picture":
        return PictureDone(Picture(**values["picture"]), values["done"], values["total"], number)
    return Ended(**values, number=number)
