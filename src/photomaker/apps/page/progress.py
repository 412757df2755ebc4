"""The progress of a job for the page, gathered from its events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from photomaker.errors import PromptError
from photomaker.studio.desk.desk import Desk
from photomaker.studio.desk.records import Ended, Job, JobEvent, Picture, PictureDone, Stepped, Told, Waiting
from photomaker.studio.orders.prompts import check_prompt
from photomaker.studio.orders.vocabulary import unknown_note

OFTEN = 0.12
"""Seconds between two polls of a job."""


@dataclass(frozen=True)
class Progress:
    """The progress of some pictures.

    Attributes:
        total: Total number of pictures.
        place: Place in the queue; None if not waiting.
        step: Current step of the current pictures.
        steps: Total number of steps.
        previews: JPEG files of the current pictures.
        pictures: Finished pictures, in order.
        notes: Notes for the visitor.
        ended: How the job ended; None while it runs.
    """

    total: int
    place: int | None = None
    step: int = 0
    steps: int = 0
    previews: tuple[bytes, ...] = field(default=(), repr=False)
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()
    ended: Ended | None = None

    def after(self, event: JobEvent) -> Progress:
        """The progress after an event."""
        match event:
            case Waiting():
                return replace(self, place=event.place)
            case Told():
                return replace(self, notes=(*self.notes, event.text))
            case Stepped():
                return replace(self, place=None, step=event.step, steps=event.steps, previews=event.previews)
            case PictureDone():
                left = self.previews[1:]
                return replace(self, place=None, pictures=(*self.pictures, event.picture), previews=left)
            case Ended():
                return replace(self, place=None, previews=(), ended=event)

    @property
    def share(self) -> float:
        """Share of the work done, 0 to 1."""
        drawn = len(self.pictures) + len(self.previews) * self.step / max(1, self.steps)
        return min(1.0, drawn / max(1, self.total))

    @property
    def ranked(self) -> tuple[Picture, ...]:
        """The finished pictures, sorted by likeness; those without a likeness last."""
        return tuple(
            sorted(
                self.pictures, key=lambda one: -1.0 if one.likeness is None else one.likeness, reverse=True
            )
        )


async def progress(desk: Desk, owner: str, jobs: Sequence[str]) -> AsyncIterator[Progress]:
    """Follow jobs, one after another, as one; no thread blocks.

    Args:
        desk: The desk with the jobs.
        owner: Their owner.
        jobs: Their ids.

    Yields:
        The progress, whenever it has changed.

    Raises:
        NotThere: One does not exist.
    """
    orders = [desk.job(owner, job) for job in jobs]
    told, noted = Progress(sum(job.total for job in orders)), _noted(orders)
    for number, job in enumerate(jobs, 1):
        async for events in _news(desk, owner, job):
            for event in events:
                if not (isinstance(event, Told) and event.text in noted):
                    told = told.after(event)
            goes_on = told.ended is not None and told.ended.state == "done" and number < len(jobs)
            yield replace(told, ended=None) if goes_on else told
        if told.ended is None or told.ended.state != "done":
            return


def _noted(jobs: Sequence[Job]) -> set[str | None]:
    """What the page shows by itself while a prompt is typed."""
    noted: set[str | None] = set()
    for job in jobs:
        with suppress(PromptError):
            noted.add(unknown_note([check_prompt(one) for one in job.order.prompts]))
    return noted


async def _news(desk: Desk, owner: str, job: str) -> AsyncIterator[list[JobEvent]]:
    loop, woken = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with suppress(RuntimeError):  # the event loop is closed: there are no listeners left
            loop.call_soon_threadsafe(woken.set)

    following = desk.follow(owner, job, wake)
    try:
        while True:
            woken.clear()
            events = await asyncio.to_thread(following.news)
            if events or following.ended:
                yield events
            if following.ended:
                return
            await woken.wait()
            await asyncio.sleep(OFTEN)
    finally:
        following.close()
