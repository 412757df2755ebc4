"""Event handlers: they call the page's actions and return the changed widgets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr

from photomaker.apps.page import views
from photomaker.apps.page.actions import IDEAS, Coaching
from photomaker.apps.page.files import Links
from photomaker.apps.page.mistakes import Mistake, sentence
from photomaker.apps.page.progress import Progress, progress
from photomaker.apps.page.texts import LANGUAGES, say, spoken
from photomaker.apps.page.widgets import Widgets
from photomaker.apps.page.wishes import Wish
from photomaker.errors import NotThere, PhotoMakerError
from photomaker.studio.desk.records import Picture
from photomaker.studio.orders.plain import PlainOrder

PAGE = 24
"""Earlier pictures shown at a time."""
Changes = dict[Any, Any]


class Handlers:
    """The page's event handlers; each returns the widgets that it changes."""

    def __init__(self, widgets: Widgets, links: Links, owner_of: Callable[[gr.Request], str]) -> None:
        """Handle events of some widgets.

        Args:
            widgets: The widgets.
            links: Makes links to pictures.
            owner_of: Gives the owner of a request.
        """
        self.w, self.actions, self.links, self._owner = widgets, widgets.actions, links, owner_of
        self._desk = widgets.actions.desk

    # ---- the page

    async def load(self, kept: str, request: gr.Request) -> AsyncIterator[Changes]:
        """A visitor opens the page; the display of their unfinished job continues."""
        owner = self._owner(request)
        language = kept if kept in LANGUAGES else spoken(request.headers.get("accept-language", ""))
        yield await asyncio.to_thread(self._whole, language, owner)
        job = await asyncio.to_thread(self.actions.unfinished, owner)
        if job is not None:
            async for changes in self._follow(language, owner, [job.id], ()):
                yield changes

    def speak(
        self, person: str, prompt: str, shown: list[str], labels: list[str], picked: str, start: str,
        photos: list[str], what: str, event: gr.EventData, request: gr.Request,
    ) -> Changes:  # fmt: skip
        """Change the language and keep everything else."""
        w, owner = self.w, self._owner(request)
        language = event.id if event.id in LANGUAGES else next(iter(LANGUAGES))
        changes = {**self._whole(language, owner, person), **self.compare_what(language, what)}
        changes |= self.read(language, prompt, person, request)
        coaching = Coaching()
        with suppress(PhotoMakerError):
            coaching = self.actions.coach([Path(one) for one in photos])
        changes[w.coached] = views.coaching(language, coaching)
        there = self._there(owner, shown)
        changes[w.grid] = self._grid(language, there, picked, labels) if there else self._empty(language)
        changes[w.beginning] = views.start(language, start, self.links)
        changes |= {w.status: "", w.who_says: "", w.make_says: ""}
        if picked:
            with suppress(NotThere):
                changes[w.chosen] = views.chosen(language, self._desk.picture(owner, picked), self.links)
        return changes

    def _whole(self, language: str, owner: str, person: str = "") -> Changes:
        w = self.w
        return {
            **w.spoken(language),
            **self._people(language, owner, person),
            **self._history(language, owner),
            **self.compare_what(language, "style"),
            w.language: language,
            w.kept_language: language,
            w.grid: self._empty(language),
        }

    def _empty(self, language: str) -> str:
        return views.empty(language, self.actions.examples, self.actions.example_faces)

    # ---- who

    def _people(self, language: str, owner: str, person: str, gone: bool = False) -> Changes:
        """The saved people, in every chooser; if somebody is `gone`, the second person is cleared."""
        beside: dict[str, Any] = {"label": say(language, "beside"), **({"value": ""} if gone else {})}
        people = self._desk.people(owner)
        portraits = {one.id for one in people if self._desk.portrait(owner, one.id) is not None}
        choices = [(one.name or say(language, "unnamed"), one.id) for one in people]
        return {
            self.w.library: views.library(language, people, person, self.links, portraits),
            self.w.first: gr.update(choices=choices, label=say(language, "first")),
            self.w.second: gr.update(choices=choices, label=say(language, "second")),
            self.w.beside: gr.update(choices=[(say(language, "nobody"), ""), *choices], **beside),
        }

    def dropped(self, language: str, files: list[str] | None, photos: list[str]) -> Changes:
        """Add photos; files that are not pictures are reported and left out."""
        good, says = list(photos), ""
        for file in files or ():
            try:
                self.actions.check_photo(Path(file))
                good.append(file)
            except PhotoMakerError as error:
                says = sentence(language, error)
        return self._coached(language, good, says)

    def photo_away(self, language: str, photos: list[str], event: gr.EventData) -> Changes:
        """Remove one of the photos."""
        at = int(event.id)
        return self._coached(language, [one for number, one in enumerate(photos) if number != at], "")

    def clear(self, language: str, photos: list[str]) -> Changes:
        """Remove all photos."""
        _forget(photos)
        return self._coached(language, [], "")

    def _coached(self, language: str, photos: list[str], says: str) -> Changes:
        w = self.w
        try:
            found = self.actions.coach([Path(one) for one in photos])
        except PhotoMakerError as error:
            return {w.drop: None, w.who_says: views.message(sentence(language, error))}
        return {
            w.photos: photos, w.drop: None, w.coached: views.coaching(language, found),
            w.saving: gr.update(visible=bool(photos)), w.who_says: views.message(says),
        }  # fmt: skip

    def save(
        self, language: str, photos: list[str], name: str, consent: str, prompt: str, request: gr.Request
    ) -> Changes:
        """Save and choose the person of the photos."""
        w, owner = self.w, self._owner(request)
        given = name.strip() or say(language, "person_number", number=len(self._desk.people(owner)) + 1)
        try:
            person = self.actions.save(owner, [Path(one) for one in photos], given, consent)
        except PhotoMakerError as error:
            return {w.who_says: views.message(sentence(language, error))}
        _forget(photos)
        key = "saved" if person.photos == len(photos) else "saved_fewer"
        says = say(language, key, name=person.name, kept=person.photos, given=len(photos))
        return {
            w.photos: [], w.coached: "", w.saving: gr.update(visible=False), w.name: "", w.consent: "",
            w.person: person.id, w.who_says: views.message(says, "good"), **self._people(language, owner, person.id),
            **self.read(language, prompt, person.id, request),
        }  # fmt: skip

    def in_library(
        self, language: str, person: str, prompt: str, event: gr.EventData, request: gr.Request
    ) -> Changes:
        """Choose or delete a saved person."""
        w, owner, says = self.w, self._owner(request), ""
        try:
            found = self._desk.person(owner, event.id)
            if event.act == "delete":
                self._desk.delete_person(owner, found.id)
                says = views.message(say(language, "person_deleted", name=found.name), "good")
                person = "" if person == found.id else person
            else:
                person = found.id
        except PhotoMakerError as error:
            says = views.message(sentence(language, error))
        return {
            w.person: person, w.who_says: says,
            **self._people(language, owner, person, gone=event.act == "delete"),
            **self.read(language, prompt, person, request),
        }  # fmt: skip

    def mix(
        self, language: str, first: str | None, second: str | None, share: float, name: str, prompt: str,
        request: gr.Request,
    ) -> Changes:  # fmt: skip
        """Save and choose a mix of two people."""
        w, owner = self.w, self._owner(request)
        try:
            given = name.strip() or self._mixed(language, owner, first, second)
            person = self.actions.mix(owner, first, second, share, given)
        except PhotoMakerError as error:
            return {w.who_says: views.message(sentence(language, error))}
        return {
            w.person: person.id, w.mixed_name: "",
            w.who_says: views.message(say(language, "saved", name=person.name), "good"),
            **self._people(language, owner, person.id), **self.read(language, prompt, person.id, request),
        }  # fmt: skip

    def _mixed(self, language: str, owner: str, first: str | None, second: str | None) -> str:
        if not first or not second:
            raise Mistake("two_people")
        names = [self._desk.person(owner, one).name for one in (first, second)]
        return say(language, "mixed_name", first=names[0], second=names[1])[:100]

    # ---- what

    def read(self, language: str, prompt: str, person: str, request: gr.Request) -> Changes:
        """Show how the prompt is read."""
        name = ""
        if person:
            with suppress(NotThere):
                name = self._desk.person(self._owner(request), person).name
        return {self.w.reading: views.reading(language, self.actions.read(prompt), name)}

    def idea(self, prompt: str, event: gr.EventData) -> Changes:
        """Insert an example prompt."""
        return {self.w.prompt: self.actions.idea(event.id, prompt)} if event.id in IDEAS else {}

    def begin_with(self, language: str, id_: str) -> Changes:
        """Use a chosen picture as the start picture."""
        return {
            self.w.start: id_, self.w.beginning: views.start(language, id_, self.links),
            self.w.strength: gr.update(visible=bool(id_)), self.w.upload_start: None,
        }  # fmt: skip

    def begin_anew(self, language: str) -> Changes:
        """Clear the start picture."""
        return self.begin_with(language, "")

    def begin_with_file(self, language: str, file: str | None, request: gr.Request) -> Changes:
        """Use the visitor's own picture as the start picture."""
        if not file:
            return {}
        try:
            picture = self.actions.start_picture(self._owner(request), Path(file))
        except PhotoMakerError as error:
            return {self.w.make_says: views.message(sentence(language, error))}
        finally:
            _forget([file])
        return {self.w.make_says: "", **self.begin_with(language, picture.id)}

    # ---- pictures

    async def make(
        self,
        language: str,
        request: gr.Request,
        *form: Any,
    ) -> AsyncIterator[Changes]:
        """Draw the form's order."""
        wish, owner = Wish(*form), self._owner(request)
        async for changes in self._ordered(language, owner, lambda: [self.actions.order(wish)]):
            yield changes

    async def _example(self, language: str, name: str, owner: str) -> AsyncIterator[Changes]:
        """Fill the form with an example and draw it."""
        w = self.w
        yield {w.make_says: "", w.status: views.status(language, Progress(1))}
        try:
            person, wish = await asyncio.to_thread(self.actions.example, owner, name)
        except PhotoMakerError as error:
            yield {w.make_says: views.message(sentence(language, error))}
            return
        yield {
            w.person: person.id, w.prompt: wish.prompt, w.count: wish.count, w.who_says: "",
            **await asyncio.to_thread(self._people, language, owner, person.id),
        }  # fmt: skip
        async for changes in self._ordered(language, owner, lambda: [self.actions.order(wish)]):
            yield changes

    async def again(self, language: str, id_: str, request: gr.Request) -> AsyncIterator[Changes]:
        """Draw the chosen picture again."""
        owner = self._owner(request)
        async for changes in self._ordered(language, owner, lambda: [self.actions.again(owner, id_)]):
            yield changes

    async def vary(self, language: str, id_: str, request: gr.Request) -> AsyncIterator[Changes]:
        """Draw the chosen picture with other seeds."""
        owner = self._owner(request)
        async for changes in self._ordered(language, owner, lambda: [self.actions.variations(owner, id_)]):
            yield changes

    async def redraw(self, language: str, id_: str, request: gr.Request) -> AsyncIterator[Changes]:
        """Redraw the face of the chosen picture."""
        owner = self._owner(request)
        async for changes in self._ordered(language, owner, lambda: [self.actions.redrawn(owner, id_)]):
            yield changes

    async def compare(
        self, language: str, id_: str, what: str, one: str | None, other: str | None, request: gr.Request
    ) -> AsyncIterator[Changes]:
        """Draw the chosen picture with two values of a setting, side by side."""
        owner, names = self._owner(request), {value: name for name, value in self.w.choices(language, what)}
        labels = [names.get(value or "", "") for value in (one, other)]
        async for changes in self._ordered(
            language, owner, lambda: self.actions.compared(owner, id_, what, (one, other)), labels
        ):
            yield changes

    def compare_what(self, language: str, what: str) -> Changes:
        """The values that can be compared."""
        choices = self.w.choices(language, what)
        first, last = choices[0][1], choices[-1][1]
        return {
            self.w.one: gr.update(choices=choices, value=first), self.w.other: gr.update(choices=choices, value=last),
        }  # fmt: skip

    async def _ordered(
        self, language: str, owner: str, orders: Callable[[], list[PlainOrder]], labels: Sequence[str] = ()
    ) -> AsyncIterator[Changes]:
        """Make, submit and follow orders; errors are shown in one sentence."""
        yield {self.w.make_says: "", self.w.who_says: ""}
        try:
            jobs = await asyncio.to_thread(lambda: self.actions.submit(owner, orders()))
        except PhotoMakerError as error:
            yield {self.w.make_says: views.message(sentence(language, error))}
            return
        async for changes in self._follow(language, owner, jobs, labels):
            yield changes

    async def _follow(
        self, language: str, owner: str, jobs: list[str], labels: Sequence[str]
    ) -> AsyncIterator[Changes]:
        w, told = self.w, None
        yield {
            w.jobs: jobs, w.picked: "", w.panel: gr.update(visible=False), w.make: gr.update(visible=False),
            w.cancel: gr.update(visible=True), w.status: views.status(language, Progress(1)), w.shown: [],
        }  # fmt: skip
        with suppress(NotThere):  # deleted meanwhile
            async for told in progress(self._desk, owner, jobs):
                if told.ended is None:
                    yield {
                        w.status: views.status(language, told),
                        w.grid: views.drawing(language, told, self.links, labels),
                    }
        yield await asyncio.to_thread(self._ended, language, owner, told, labels)

    def _ended(self, language: str, owner: str, told: Progress | None, labels: Sequence[str]) -> Changes:
        w = self.w
        shown = () if told is None else told.pictures if labels else told.ranked
        return {
            w.jobs: [], w.make: gr.update(visible=True), w.cancel: gr.update(visible=False),
            w.status: views.status(language, told, bool(labels)), w.shown: [one.id for one in shown],
            w.labels: list(labels), w.verbs: gr.update(visible=True), w.comparing: gr.update(visible=True),
            w.grid: self._grid(language, shown, "", labels) if shown else self._empty(language),
            **self._history(language, owner),
        }  # fmt: skip

    def _grid(self, language: str, shown: Sequence[Picture], picked: str, labels: Sequence[str]) -> str:
        return views.pictures(language, shown, self.links, picked, labels)

    def cancel(self, jobs: list[str], request: gr.Request) -> None:
        """Stop the current job; its followers are notified."""
        for job in jobs:
            with suppress(NotThere):
                self._desk.cancel(self._owner(request), job)

    async def in_grid(
        self, language: str, shown: list[str], labels: list[str], jobs: list[str], event: gr.EventData,
        request: gr.Request,
    ) -> AsyncIterator[Changes]:  # fmt: skip
        """Choose a picture, or an example if there are no pictures yet."""
        owner = self._owner(request)
        if event.act == "example":
            async for changes in self._example(language, event.id, owner):
                yield changes
            return
        yield await asyncio.to_thread(self._pick, language, owner, event.id, shown, labels, jobs)

    def _pick(
        self, language: str, owner: str, id_: str, shown: list[str], labels: list[str], jobs: list[str]
    ) -> Changes:
        w = self.w
        try:
            picture = self._desk.picture(owner, id_)
        except PhotoMakerError as error:
            return {w.make_says: views.message(sentence(language, error)), **self._history(language, owner)}
        changes = {
            w.picked: picture.id, w.panel: gr.update(visible=True),
            w.chosen: views.chosen(language, picture, self.links),
            w.verbs: gr.update(visible=not jobs), w.comparing: gr.update(visible=not jobs),
        }  # fmt: skip
        there = self._there(owner, shown)
        return {**changes, w.grid: self._grid(language, there, picture.id, labels)} if there else changes

    def in_panel(
        self, language: str, shown: list[str], labels: list[str], event: gr.EventData, request: gr.Request
    ) -> Changes:
        """Close or delete the chosen picture."""
        w, owner = self.w, self._owner(request)
        changes: Changes = {w.picked: "", w.panel: gr.update(visible=False)}
        if event.act == "delete":
            with suppress(NotThere):
                self._desk.delete_picture(owner, event.id)
            at = shown.index(event.id) if event.id in shown else None
            shown = [one for one in shown if one != event.id]
            labels = [one for number, one in enumerate(labels) if number != at]
            says = views.message(say(language, "picture_deleted"), "good")
            changes |= {w.shown: shown, w.labels: labels, w.status: says, **self._history(language, owner)}
        there = self._there(owner, shown)
        changes[w.grid] = self._grid(language, there, "", labels) if there else self._empty(language)
        return changes

    def _there(self, owner: str, ids: Sequence[str]) -> list[Picture]:
        found = []
        for one in ids:
            with suppress(NotThere):
                found.append(self._desk.picture(owner, one))
        return found

    # ---- history

    def _history(self, language: str, owner: str, before: float | None = None) -> Changes:
        found = self._desk.pictures(owner, PAGE, before)
        more = len(found) == PAGE
        return {
            self.w.earlier: views.history(language, found, self.links),
            self.w.older_than: found[-1].made if more else None,
            self.w.older: gr.update(
                visible=more or before is not None, value=say(language, "older" if more else "newest")
            ),
        }

    def older(self, language: str, before: float | None, request: gr.Request) -> Changes:
        """Show older pictures; after the oldest, start again with the newest."""
        return self._history(language, self._owner(request), before)


def _forget(files: Sequence[str]) -> None:
    """Delete Gradio's copy of an upload."""
    for file in files:
        Path(file).unlink(missing_ok=True)
