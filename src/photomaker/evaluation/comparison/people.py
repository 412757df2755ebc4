"""The people of a comparison: drawn people, of whom everything is known, or people in a folder of photos."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

from PIL import Image

from photomaker.classes import class_words
from photomaker.errors import PhotoError, SettingsError
from photomaker.evaluation.comparison.settings import ComparisonSettings
from photomaker.evaluation.prompts import BenchPrompt
from photomaker.evaluation.world import SyntheticWorld, World, stable_seed
from photomaker.images import list_photos, open_photo
from photomaker.weights import sha256


class People(Protocol):
    """A source of people; a person is named by a row, 0, 1, ..., and the first ones are scored."""

    def names(self) -> Sequence[str]:
        """Everybody among whom a picture must find its person."""

    def class_of(self, row: int) -> str:
        """The person's class phrase, for example `old man`."""

    def references(self, row: int, count: int) -> list[Image.Image]:
        """The first `count` reference photos; as many as there are where there are fewer."""

    def unseen(self, row: int) -> list[Image.Image]:
        """Photos that no method gets; may be empty."""

    def real(self, row: int, prompts: Sequence[BenchPrompt], seeds: int) -> list[Image.Image]:
        """Real pictures in the circumstances of the prompts, by prompt and then by seed; empty if there are none."""

    def seed(self, row: int, prompt: BenchPrompt, number: int) -> int:
        """The seed of a picture, which depends on nothing but its arguments."""

    def fingerprint(self) -> str:
        """Changes whenever photos of the same people would differ."""


class DrawnPeople:
    """The synthetic people of a split."""

    def __init__(self, settings: ComparisonSettings, world: World | None = None) -> None:
        """Take the first people of the split."""
        self._world = world or SyntheticWorld()
        self._people = self._world.people(settings.split, settings.gallery)
        self._unseen = settings.unseen

    def names(self) -> list[str]:
        """See `People.names`."""
        return [str(person) for person in self._people]

    def class_of(self, row: int) -> str:
        """See `People.class_of`."""
        return self._world.class_of(self._people[row])

    def references(self, row: int, count: int) -> list[Image.Image]:
        """See `People.references`."""
        return self._world.photos(self._people[row], "references", count)

    def unseen(self, row: int) -> list[Image.Image]:
        """See `People.unseen`."""
        return self._world.photos(self._people[row], "unseen", self._unseen)

    def real(self, row: int, prompts: Sequence[BenchPrompt], seeds: int) -> list[Image.Image]:
        """See `People.real`."""
        return [
            self._world.context(self._people[row], self.seed(row, prompt, seed), prompt.states)
            for prompt in prompts
            for seed in range(seeds)
        ]

    def seed(self, row: int, prompt: BenchPrompt, number: int) -> int:
        """See `People.seed`."""
        return stable_seed(self._people[row], prompt.name, number)

    def fingerprint(self) -> str:
        """See `People.fingerprint`."""
        return self._world.fingerprint()


class FolderPeople:
    """People in a folder: a folder of photos for each; the first photos by name are references, the next unseen.

    Args:
        settings: With `photos` and `classes`.

    Raises:
        PhotoError: The folder is missing or holds too few people, or a person too few photos.
        SettingsError: A person has no class word, or one that is none.
    """

    def __init__(self, settings: ComparisonSettings) -> None:
        """Look at the folder; photos are opened when they are asked for."""
        assert settings.photos is not None
        self._settings = settings
        self._folders = _folders(settings.photos)
        wanted = settings.references + settings.unseen
        if len(self._folders) < settings.people:
            raise PhotoError(
                f"{settings.photos} has {len(self._folders)} folders of photos for {settings.people} people; "
                "add some or set people"
            )
        for folder in self._folders:
            _check_class(folder.name, settings.classes)
            found = len(list_photos([folder]))
            if found < wanted:
                raise PhotoError(
                    f"{folder} has {found} photos, but {wanted} are needed ({settings.references} references, "
                    f"{settings.unseen} unseen); add photos, or set references and unseen"
                )

    def names(self) -> list[str]:
        """See `People.names`."""
        return [folder.name for folder in self._folders]

    def class_of(self, row: int) -> str:
        """See `People.class_of`."""
        return self._settings.classes[self._folders[row].name]

    def references(self, row: int, count: int) -> list[Image.Image]:
        """See `People.references`: more than the settings' own come from behind the unseen ones."""
        files, own, unseen = (
            list_photos([self._folders[row]]),
            self._settings.references,
            self._settings.unseen,
        )
        return _opened([*files[:own], *files[own + unseen :]][:count])

    def unseen(self, row: int) -> list[Image.Image]:
        """See `People.unseen`."""
        own = self._settings.references
        return _opened(list_photos([self._folders[row]])[own : own + self._settings.unseen])

    def real(self, row: int, prompts: Sequence[BenchPrompt], seeds: int) -> list[Image.Image]:
        """See `People.real`: there are none, since nobody has photos in such circumstances."""
        del row, prompts, seeds
        return []

    def seed(self, row: int, prompt: BenchPrompt, number: int) -> int:
        """See `People.seed`."""
        return stable_seed(row, prompt.name, number)

    def fingerprint(self) -> str:
        """See `People.fingerprint`: the hash of names, classes and photos."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for row, folder in enumerate(self._folders):
            for path in list_photos([folder]):
                digest.update(f"{folder.name}\0{self.class_of(row)}\0{path.name}\0{sha256(path)}\n".encode())
        return digest.hexdigest()[:16]


def open_people(settings: ComparisonSettings) -> People:
    """The people that the settings name.

    Raises:
        PhotoError: Photos are missing; see `FolderPeople`.
        SettingsError: A class word is missing.
    """
    return DrawnPeople(settings) if settings.photos is None else FolderPeople(settings)


def _folders(place: Path) -> list[Path]:
    if not place.is_dir():
        raise PhotoError(
            f"there is no folder {place}; give a folder that holds a folder of photos for each person"
        )
    return sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))


def _check_class(name: str, classes: Mapping[str, str]) -> None:
    if name not in classes:
        raise SettingsError(f"classes lacks {name}, who has photos; add a line such as `{name}: woman`")
    if len(class_words(classes[name])) != 1:
        raise SettingsError(
            f"the class of {name} is {classes[name]!r}; give one class word such as man, woman, boy, girl"
        )


def _opened(paths: Sequence[Path]) -> list[Image.Image]:
    return [open_photo(path).image for path in paths]
