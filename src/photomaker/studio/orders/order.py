"""An order: people, prompts, number of pictures and settings, as one value for every front end."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from photomaker.checks import instance, shown, text, whole
from photomaker.encoders.together import FEWEST, MOST
from photomaker.errors import PhotoError, PromptError, SettingsError
from photomaker.speeds import EXACT, Speed
from photomaker.studio.pictures.redraw import checked
from photomaker.types import MOST_SEED, PLAIN, Extras, Identity, Request, Sampling

if TYPE_CHECKING:
    from PIL.Image import Image

    from photomaker.studio.photos.sitting import Sitting

MOST_PICTURES = 100_000
"""Most pictures of one order, so that a typo does not draw for a month."""
IDENTITY_FILE = ".safetensors"

Who = Union[Identity, "Sitting", str, os.PathLike[str], "Image", Sequence[Any]]
"""An identity or its file, or photos: a folder, a file, a picture, or a list of these."""


@dataclass(frozen=True)
class Someone:
    """A person of an order.

    Attributes:
        who: An identity or its file, or photos.
        name: The person's name in labels and files.
    """

    who: Who
    name: str = ""


@dataclass(frozen=True)
class Order:
    """The pictures to draw: each person with each prompt, or pairs of them.

    Attributes:
        people: At least one.
        prompts: At least one; the trigger is added if it is missing.
        pairs: Whether to pair the first person with the first prompt, the second with the second, and so on.
        n: Pictures of each person and prompt.
        seeds: One seed for each of these pictures; empty counts up from the sampling's seed.
        best_of: Draw this many times `n` and keep those with the highest likeness.
        sampling: Sampling settings.
        size: `portrait`, `landscape`, `square` or `640x480`; None uses the sampling's size, or else the base's.
        style: Name of a style preset, see `photomaker.studio.orders.styles`; `none` leaves prompts unchanged.
        negative: What the pictures should not show.
        extras: LoRA, start picture, ControlNets and more.
        together: Whether all people, 2 to 4, are in each picture; the prompts have a trigger for each, in order.
        redraw: Whether to redraw small faces at a larger size: `off`, `auto` for those below a quarter of the base's
            own side, or a limit in pixels.
        speed: `exact`, `fast`, `turbo` or `auto`, see docs/speed.md; it becomes a `Speed`.

    Raises:
        PromptError: There is no prompt, or one is not text.
        PhotoError: There are no people.
        SettingsError: A value has the wrong type or is out of range, or values contradict each other.
    """

    people: tuple[Someone, ...]
    prompts: tuple[str, ...]
    pairs: bool = False
    n: int = 1
    seeds: tuple[int, ...] = ()
    best_of: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    size: str | None = None
    style: str = "none"
    negative: str | None = None
    extras: Extras = PLAIN
    redraw: str | int = "off"
    together: bool = False
    speed: Speed | str = EXACT

    def __post_init__(self) -> None:
        """Check what the order alone shows."""
        if not self.prompts:
            raise PromptError("there is no prompt; write for example 'a photo of a woman img in the snow'")
        for prompt in self.prompts:
            text("the prompt", prompt, "write for example 'a photo of a woman img in the snow'", PromptError)
        if not self.people:
            raise PhotoError("there is nobody to draw; give photos of a person, or an identity")
        if self.negative is not None:
            text("the negative prompt", self.negative, "write a text", PromptError)
        instance("sampling", self.sampling, Sampling, "give a Sampling")
        instance("extras", self.extras, Extras, "give an Extras")
        text("style", self.style, "give the name of a style, or none")
        object.__setattr__(self, "redraw", checked(self.redraw))
        object.__setattr__(self, "speed", Speed.of(self.speed))
        self._check_numbers()
        if self.size is not None:
            text("size", self.size, "give portrait, landscape, square or 640x480")
            if self.sampling.width is not None or self.sampling.height is not None:
                raise SettingsError(f"both size ({self.size}) and width or height are given; leave one out")

    def _check_numbers(self) -> None:
        for name, value in (("n", self.n), ("best_of", self.best_of)):
            whole(name, value, 1)
        for seed in self.seeds:
            whole("a seed", seed, 0, MOST_SEED)
        if self.seeds and len(self.seeds) != self.n:
            raise SettingsError(
                f"there are {len(self.seeds)} seeds for {self.n} pictures of each prompt; give one for each picture"
            )
        if self.seeds and self.best_of > 1:
            raise SettingsError(
                f"best_of is {self.best_of}, which cannot be combined with a list of seeds; leave one out"
            )
        self._check_together()
        if self.pairs and len(self.people) != len(self.prompts):
            raise SettingsError(
                f"there are {len(self.people)} people and {len(self.prompts)} prompts, which make no "
                "pairs; give as many prompts as people, or leave out pairs"
            )
        last = self.sampling.seed + self.n * self.best_of - 1
        whole("the last picture's seed", last, 0, MOST_SEED)
        if self.total > MOST_PICTURES:
            raise SettingsError(
                f"the order is for {self.total} pictures; give one of at most {MOST_PICTURES}"
            )

    def _check_together(self) -> None:
        if self.together and not FEWEST <= len(self.people) <= MOST:
            raise SettingsError(
                f"the number of people to draw together is {len(self.people)}; give {FEWEST} to {MOST}"
            )
        if self.together and self.pairs:
            raise SettingsError(
                "pairs draws each person with one prompt, but together draws all people in each picture; leave one out"
            )
        if len(self.extras.layout) > 1 and not self.together:
            raise SettingsError(
                "a layout is for several people in one picture; draw them together, or leave it out"
            )
        if self.extras.layout and len(self.extras.layout) != len(self.people):
            raise SettingsError(
                f"the layout has {len(self.extras.layout)} places for {len(self.people)} people; give one for each"
            )

    @property
    def total(self) -> int:
        """Number of pictures drawn, including those that `best_of` discards."""
        each = 1 if self.pairs or self.together else len(self.people)
        groups = len(self.prompts) * each
        return groups * self.n * self.best_of

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds of the pictures of a person and prompt, in drawing order."""
        first = self.sampling.seed
        return self.seeds or tuple(range(first, first + self.n * self.best_of))

    def couples(self) -> Iterator[tuple[int, int]]:
        """Pairs of person and prompt numbers, from 0; people drawn together are number 0."""
        for person in range(1 if self.together else len(self.people)):
            for prompt in range(len(self.prompts)):
                if not self.pairs or person == prompt:
                    yield person, prompt

    def requests(self, prompt: str, negative: str | None) -> tuple[Request, ...]:
        """One request for each picture of a complete prompt."""
        return tuple(
            Request(prompt, replace(self.sampling, seed=seed), negative, self.extras)
            for seed in self.all_seeds
        )


def as_people(who: object) -> tuple[Someone, ...]:
    """The people that a caller means: one, or several if a list holds identities, sittings, people or lists.

    A list of files, folders and pictures is photos of one person.

    Raises:
        SettingsError: It is not a person.
        PhotoError: The list is empty.
    """
    from photomaker.studio.photos.sitting import Sitting

    several = (Identity, Sitting, Someone, list, tuple)
    if isinstance(who, list | tuple):
        if not who:
            raise PhotoError("the list of people or photos is empty; give photos of a person, or an identity")
        if all(isinstance(one, several) for one in who):
            return tuple(_someone(one, place) for place, one in enumerate(who, 1))
    return (_someone(who, 1),)


def _someone(who: Any, place: int) -> Someone:  # noqa: ANN401 - looked at here
    from PIL.Image import Image as Picture

    from photomaker.studio.photos.sitting import Sitting

    if isinstance(who, Someone):
        return who if who.name else replace(who, name=_someone(who.who, place).name)
    if isinstance(who, str | os.PathLike):
        return Someone(who, Path(who).stem or f"person {place}")
    if isinstance(who, Identity):
        return Someone(who, str(who.notes.get("name", f"person {place}")))
    if isinstance(who, Sitting | Picture | list | tuple):
        return Someone(who, f"person {place}")
    raise SettingsError(
        f"the person is {shown(who)}, a {type(who).__name__}; give an identity, or photos: a folder, files or pictures"
    )


def as_prompts(prompt: object) -> tuple[str, ...]:
    """One prompt or a list of them.

    Raises:
        PromptError: It is neither.
    """
    remedy = "write for example 'a photo of a woman img in the snow'"
    if isinstance(prompt, list | tuple):
        return tuple(text("a prompt", one, remedy, PromptError) for one in prompt)
    return (text("the prompt", prompt, remedy, PromptError),)
