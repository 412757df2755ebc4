"""What a desk keeps and tells, as values: people, pictures, jobs, and what happens to a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from photomaker.studio.plain_orders import PlainOrder

State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED = frozenset({"done", "failed", "cancelled"})


@dataclass(frozen=True)
class Upload:
    """A file that a caller gives.

    Attributes:
        name: What to call it in messages.
        data: Its bytes, or a file on this machine that the door wrote itself.
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
        id: To ask for them by.
        name: What the caller calls them; may be empty.
        made: Seconds since 1970.
        method: What made the identity, for example `photomaker-v1`.
        photos: How many photos it was made of.
        report: What the coach says of all photos that were given; None for a mixed person, and where nothing finds
            faces.
        notes: What the caller should know, one sentence each.
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
    """A picture that is kept: drawn here, or given.

    Attributes:
        id: To ask for it by.
        made: Seconds since 1970.
        width: In pixels.
        height: In pixels.
        job: Id of the job that it belongs to; None for one that was given.
        person: Whom it shows.
        prompt: What was drawn, with trigger and style.
        seed: Its seed.
        likeness: Mean cosine to the person's photos; None where it was not measured.
        verdict: What that means, in one sentence.
        same: Whether it is the same person; None where nobody can tell.
        share: How near it comes to what the photos reach among themselves: 0 a stranger, 1 another photo.
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
    """A job as it stands.

    Attributes:
        id: To ask for it by.
        state: `queued`, `running`, `done`, `failed` or `cancelled`.
        order: What was asked for.
        made: Seconds since 1970.
        started: When its first picture was begun.
        ended: When it ended.
        total: Pictures that it keeps when it is done.
        place: 1 is next; None where it does not wait.
        reason: Why it failed, or was cancelled, in one sentence.
        pictures: Those that are finished, by person, prompt and seed; the best first where the best of several are
            kept.
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
    """Others are drawn first; told again whenever the place changes, and not kept.

    Attributes:
        place: 1 is next.
    """

    place: int
    kind: Literal["queued"] = "queued"


@dataclass(frozen=True)
class Told:
    """Something the caller should know.

    Attributes:
        text: One sentence.
        number: Of the event within the job, from 1.
    """

    text: str
    number: int = 0
    kind: Literal["note"] = "note"


@dataclass(frozen=True)
class Stepped:
    """A denoising step; not kept, and told only to who listens at that moment.

    Attributes:
        step: From 1.
        steps: In all.
        done: Pictures of the job that are finished.
        total: Pictures of the job.
        previews: JPEG files of what is being drawn, one for each picture of the batch.
    """

    step: int
    steps: int
    done: int
    total: int
    previews: tuple[bytes, ...] = field(default=(), repr=False)
    kind: Literal["step"] = "step"


@dataclass(frozen=True)
class PictureDone:
    """A picture is finished and kept.

    Attributes:
        picture: The picture.
        done: Pictures of the job that are finished.
        total: Pictures of the job.
        number: Of the event within the job, from 1.
    """

    picture: Picture
    done: int
    total: int
    number: int = 0
    kind: Literal["picture"] = "picture"


@dataclass(frozen=True)
class Ended:
    """The job ended; nothing follows.

    Attributes:
        state: `done`, `failed` or `cancelled`.
        reason: Why, in one sentence, where it is not done.
        pictures: How many it made.
        number: Of the event within the job, from 1.
    """

    state: State
    reason: str = ""
    pictures: int = 0
    number: int = 0
    kind: Literal["ended"] = "ended"


JobEvent = Waiting | Told | Stepped | PictureDone | Ended
Lasting = Told | PictureDone | Ended
"""Events that are kept and told again to who listens later."""


def written(event: Lasting) -> dict[str, Any]:
    """An event as plain data."""
    values = asdict(event)
    del values["number"], values["kind"]
    return values


def read_event(kind: str, number: int, values: Mapping[str, Any]) -> Lasting:
    """The event of which `written` made plain data."""
    if kind == "note":
        return Told(**values, number=number)
    if kind == "picture":
        return PictureDone(Picture(**values["picture"]), values["done"], values["total"], number)
    return Ended(**values, number=number)
