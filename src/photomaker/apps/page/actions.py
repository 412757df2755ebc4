"""What the page can do, on a desk, independent of widgets."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from PIL import Image

from photomaker import weights
from photomaker.apps.page.mistakes import Mistake
from photomaker.apps.page.wishes import COMPARED, Wish, new_seed, order_of, with_setting
from photomaker.classes import class_words
from photomaker.errors import PhotoError, PhotoMakerError, PromptError, WeightsError
from photomaker.images import Photo, open_photo, read_photo
from photomaker.studio.desk.desk import LARGEST_PHOTO, Desk
from photomaker.studio.desk.records import ENDED, Job, Person, Picture, Upload
from photomaker.studio.orders.plain import PlainOrder
from photomaker.studio.orders.prompts import check_prompt
from photomaker.studio.orders.vocabulary import unknown_words

THUMB = 160
VARIATIONS = 4
EXAMPLE_SEEDS = 2
"""Pictures of an example."""
FULL_SHARE = 0.5


@dataclass(frozen=True)
class Coached:
    """A photo with the coach's verdict.

    Attributes:
        name: Of its file.
        thumb: A small JPEG.
        keep: Whether it will be used.
        kinds: Kinds of findings; empty is good.
    """

    name: str
    thumb: bytes = field(repr=False)
    keep: bool
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Coaching:
    """The coach's report on some photos.

    Attributes:
        photos: The photos one by one.
        kinds: Kinds of findings about all of them.
        judged: Whether there is a face backend.
    """

    photos: tuple[Coached, ...] = ()
    kinds: tuple[str, ...] = ()
    judged: bool = True


@dataclass(frozen=True)
class Reading:
    """How a prompt is read.

    Attributes:
        before: The text before the class word.
        word: The class word; empty if there is none.
        after: The text after it.
        unknown: Words that the bundled model has never seen.
    """

    before: str = ""
    word: str = ""
    after: str = ""
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Example:
    """An example to try without photos.

    Attributes:
        name: Key of its text.
        people: Bundled people: one, or two that are mixed.
        prompt: The prompt.
    """

    name: str
    people: tuple[str, ...]
    prompt: str


EXAMPLES = (
    Example("example_ada", ("ada",), "a photo of a woman in the snow"),
    Example("example_ben", ("ben",), "a photo of a man wearing a red cap in the forest"),
    Example("example_mix", ("ada", "ben"), "a watercolour of a person in a meadow"),
)
IDEAS = {
    "idea_beach": "a photo of a {word} wearing sunglasses on the beach",
    "idea_hat": "a photo of a {word} wearing a red hat in the city",
    "idea_library": "a photo of a {word} wearing glasses in a library",
    "idea_oil": "an oil painting of a {word} in the mountains",
    "idea_old": "a photo of an old {word} in the forest",
}
"""Example prompts."""


class Actions:
    """The page's actions; thread-safe, like the desk."""

    def __init__(self, desk: Desk) -> None:
        """Use a desk, which the caller starts and closes."""
        self.desk = desk

    # ---- what is here

    @property
    def bundled(self) -> bool:
        """Whether the model is the bundled small one."""
        return self.desk.engine.profile.bundled

    @property
    def examples(self) -> tuple[Example, ...]:
        """The one-click examples; they use bundled, drawn people, so they need the bundled model."""
        there = self.bundled and all((weights.ASSETS / "people" / name).is_dir() for name in ("ada", "ben"))
        return EXAMPLES if there else ()

    @property
    def example_faces(self) -> dict[str, str]:
        """Small pictures of the examples' people, as data URLs."""
        names = {name for one in self.examples for name in one.people}
        return {name: _bundled_face(name) for name in names}

    def styles(self) -> list[str]:
        """Names of the styles that this model can draw."""
        known = self.desk.engine.styles()
        return ["none", *(name for name, one in known.items() if not self.bundled or one.preset.bundled)]

    @property
    def delays(self) -> bool:
        """Whether the model has a merge step."""
        kind = self.desk.engine.profile.kind
        return kind is None or kind.delays

    @property
    def joins(self) -> bool:
        """Whether two people can be drawn in one picture."""
        kind = self.desk.engine.profile.kind
        return kind is None or hasattr(kind, "together")

    @property
    def own_merge(self) -> float:
        """The model's own merge step; this loads the model."""
        return float(getattr(getattr(self.desk.engine.method, "defaults", None), "merge", FULL_SHARE))

    # ---- who

    def coach(self, files: Sequence[Path]) -> Coaching:
        """Check photos.

        Raises:
            Mistake: There are too many, or one is not a picture.
            PhotoError: One is too large.
        """
        if not files:
            return Coaching()
        photos = self._photos(files)
        report = self.desk.engine.judge(photos)
        if report is None:
            return Coaching(
                tuple(Coached(one.name, _thumb(one.image), True, ()) for one in photos), judged=False
            )
        found = tuple(
            Coached(
                one.photo.name, _thumb(one.photo.image), one.keep, tuple(what.kind for what in one.findings)
            )
            for one in report.photos
        )
        return Coaching(found, tuple(one.kind for one in report.findings))

    def _photos(self, files: Sequence[Path]) -> list[Photo]:
        limits = self.desk.limits
        if len(files) > limits.photos:
            raise Mistake("too_many_photos", count=len(files), most=limits.photos)
        return [self._photo(file) for file in files]

    def check_photo(self, file: Path) -> None:
        """Check that a file is a picture.

        Raises:
            Mistake: It is not a picture.
            PhotoError: It is too large or damaged.
        """
        self._photo(file)

    def _photo(self, file: Path) -> Photo:
        self.desk.limits.check_bytes(file.name, file.stat().st_size)
        try:
            photo = read_photo(file.read_bytes(), file.name, self.desk.limits.pixels)
        except PhotoError as error:
            if not _is_picture(file):
                raise Mistake("no_picture_file", name=file.name) from error
            raise
        photo.image.thumbnail((LARGEST_PHOTO, LARGEST_PHOTO))
        return photo

    def save(self, owner: str, files: Sequence[Path], name: str, consent: str = "") -> Person:
        """Save a person.

        Args:
            owner: Whose it is.
            files: The photos.
            name: What to call the person.
            consent: Who agreed, when, and to what; empty adds no note.

        Raises:
            Mistake: There are no photos, too many, one is not a picture, or none shows a face.
            PhotoMakerError: They cannot be saved.
        """
        if not files:
            raise Mistake("no_photos")
        coaching = self.coach(files)
        if coaching.judged and all("no face" in one.kinds for one in coaching.photos):
            raise Mistake("no_faces_at_all")
        photos = [Upload(file.name, file) for file in files]
        return self.desk.add_person(owner, photos, name.strip(), consent=consent.strip() or None)

    def mix(self, owner: str, first: str | None, second: str | None, share: float, name: str) -> Person:
        """Save a mix of two people.

        Args:
            owner: Whose they are.
            first: Id of one.
            second: Id of the other.
            share: Share of the second, 0 to 100.
            name: Name of the mix.

        Raises:
            Mistake: They are not two different people.
            PhotoMakerError: One does not exist, or they cannot be mixed.
        """
        if not first or not second or first == second:
            raise Mistake("two_people")
        return self.desk.mix(owner, first, second, share / 100, name.strip())

    # ---- what

    def read(self, prompt: str) -> Reading | None:
        """How a prompt is read; None if it is empty."""
        if not prompt.strip():
            return None
        try:
            complete = check_prompt(prompt)
        except PromptError:
            return Reading(after=prompt.strip())
        before, _, after = complete.partition(" img")
        word = before.split()[-1].strip("()[]") if before.split() else ""
        start = before.rfind(word)
        unknown = unknown_words(complete) if self.bundled else ()
        return Reading(before[:start], word, before[start + len(word) :] + after, unknown)

    def idea(self, name: str, prompt: str) -> str:
        """An example prompt with the class word of the current prompt."""
        read = self.read(prompt)
        word = read.word if read is not None and read.word else "person"
        return IDEAS[name].format(word=word)

    def order(self, wish: Wish) -> PlainOrder:
        """The order for a form.

        Raises:
            Mistake: No person was chosen, or one twice, the prompt is empty or lacks a class word, or the seed is not a
                number.
        """
        order = order_of(wish, self.own_merge if self.delays else 0.0)
        words, told = len(class_words(wish.prompt)), "img" in wish.prompt.lower()
        if order.together and words != len(order.people) and not told:
            raise Mistake("read_two")
        if not words and not told:
            raise Mistake("read_none")
        kind = self.desk.engine.profile.kind
        placed = kind is None or "layout" in kind.takes
        return order if placed else replace(order, layout=())

    def start_picture(self, owner: str, file: Path) -> Picture:
        """Store a start picture.

        Raises:
            Mistake: It is not a picture.
            PhotoMakerError: It cannot be stored.
        """
        self._photo(file)
        return self.desk.add_picture(owner, Upload(file.name, file))

    # ---- examples

    def example(self, owner: str, name: str) -> tuple[Person, Wish]:
        """The person of an example, saved if necessary, and its form.

        Raises:
            PhotoMakerError: The example does not exist, or the person cannot be saved.
        """
        found = {one.name: one for one in self.examples}.get(name)
        if found is None:
            raise WeightsError("the bundled people are missing; install photomaker again")
        people = [self.bundled_person(owner, one) for one in found.people]
        person = people[0] if len(people) == 1 else self._between(owner, people)
        return person, Wish(person.id, found.prompt, count=EXAMPLE_SEEDS, seed="7")

    def bundled_person(self, owner: str, name: str) -> Person:
        """Ada or Ben.

        Raises:
            PhotoMakerError: They cannot be saved.
        """
        files = sorted((weights.ASSETS / "people" / name).glob("*.png"))
        return self.desk.add_person(
            owner, [Upload(file.name, file) for file in files], name.title(), reuse=True
        )

    def _between(self, owner: str, people: Sequence[Person]) -> Person:
        name = " & ".join(one.name for one in people)
        for one in self.desk.people(owner):
            if one.name == name:
                return one
        return self.desk.mix(owner, people[0].id, people[1].id, FULL_SHARE, name)

    # ---- a chosen picture

    def again(self, owner: str, id_: str) -> PlainOrder:
        """The order that draws a picture again.

        Raises:
            NotThere: It no longer exists.
            Mistake: It was not drawn here.
        """
        picture = self.desk.picture(owner, id_)
        if picture.job is None or picture.seed is None:
            raise Mistake("no_such_picture")
        order = self.desk.job(owner, picture.job).order
        order = replace(order, n=1, seeds=(picture.seed,), best_of=1)
        if len(order.prompts) > 1:  # the picture's prompt already contains the style
            order = replace(order, prompts=(picture.prompt,), style="none", pairs=False)
        if len(order.people) > 1 and not order.together:
            order = replace(order, people=(self.desk.person(owner, picture.person).id,), pairs=False)
        return order

    def variations(self, owner: str, id_: str) -> PlainOrder:
        """The same order with other seeds.

        Raises:
            PhotoMakerError: See `again`.
        """
        return replace(self.again(owner, id_), seeds=(), seed=new_seed(), n=VARIATIONS)

    def redrawn(self, owner: str, id_: str) -> PlainOrder:
        """The same order with the face redrawn at any size.

        Raises:
            PhotoMakerError: See `again`.
        """
        picture = self.desk.picture(owner, id_)
        return replace(self.again(owner, id_), redraw=str(max(picture.width, picture.height)))

    def compared(self, owner: str, id_: str, what: str, values: Sequence[str | None]) -> list[PlainOrder]:
        """The same order with two values of a setting.

        Raises:
            Mistake: The values are not two different ones.
            PhotoMakerError: See `again`.
        """
        order = self.again(owner, id_)
        if what not in COMPARED or None in values or len(set(values)) < len(values):
            raise Mistake("two_values")
        merge = self.own_merge if self.delays else 0.0
        return [with_setting(order, what, str(value), merge) for value in values]

    def submit(self, owner: str, orders: Sequence[PlainOrder]) -> list[str]:
        """Submit orders; all or none.

        Returns:
            Ids of their jobs.

        Raises:
            PhotoMakerError: One cannot be drawn.
        """
        jobs: list[str] = []
        try:
            for order in orders:
                jobs.append(self.desk.submit(owner, order).id)
        except PhotoMakerError:
            for job in jobs:
                self.desk.cancel(owner, job)
            raise
        return jobs

    def unfinished(self, owner: str) -> Job | None:
        """The last job, if it has not ended: a reloaded page continues with it."""
        jobs = self.desk.jobs(owner, 1)
        return jobs[0] if jobs and jobs[0].state not in ENDED else None


@cache
def _bundled_face(name: str) -> str:
    photo = sorted((weights.ASSETS / "people" / name).glob("*.png"))[0]
    return f"data:image/jpeg;base64,{base64.b64encode(_thumb(open_photo(photo).image)).decode()}"


def _thumb(image: Image.Image) -> bytes:
    small = image.convert("RGB")
    small.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=85)
    return data.getvalue()


def _is_picture(file: Path) -> bool:
    """Whether a file begins like a picture, so that its damage is worth reporting."""
    starts = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*", b"MM\0*")
    head = file.read_bytes()[:12] if file.stat().st_size else b""
    return head.startswith(starts) or head[4:8] == b"ftyp"
