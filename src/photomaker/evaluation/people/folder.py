"""People in a folder of photos, of whom nothing else is known."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from PIL import Image

from photomaker.classes import class_words
from photomaker.errors import PhotoError, SettingsError
from photomaker.images import list_photos, open_photo
from photomaker.weights import sha256


class FolderPeople:
    """A folder of photos for each person; the first photos by name are references, the next unseen.

    The part of a `World` that a comparison asks for where people are not drawn: there are no pictures of them in
    circumstances that one asks for.

    Args:
        place: The folder.
        classes: The class word of each person by the name of their folder.
        people: How many people are needed at least.
        references: Photos that a method gets.
        unseen: Photos that it never gets.

    Raises:
        PhotoError: The folder is missing or holds too few people, or a person too few photos.
        SettingsError: A person has no class word, or one that is none.
    """

    def __init__(
        self, place: Path, classes: Mapping[str, str], people: int, references: int, unseen: int
    ) -> None:
        """Look at the folder; photos are opened when they are asked for."""
        self._classes, self._references, self._unseen = classes, references, unseen
        self._folders = _folders(place)
        if len(self._folders) < people:
            raise PhotoError(
                f"{place} has {len(self._folders)} folders of photos for {people} people; add some or set people"
            )
        for folder in self._folders:
            _check_class(folder.name, classes)
            found, wanted = len(list_photos([folder])), references + unseen
            if found < wanted:
                raise PhotoError(
                    f"{folder} has {found} photos, but {wanted} are needed ({references} references, "
                    f"{unseen} unseen); add photos, or set references and unseen"
                )

    def people(self, split: str, count: int) -> list[int]:
        """See `World.people`: all that there are."""
        del split, count
        return list(range(len(self._folders)))

    def name_of(self, person: int) -> str:
        """See `World.name_of`."""
        return self._folders[person].name

    def class_of(self, person: int) -> str:
        """See `World.class_of`."""
        return self._classes[self.name_of(person)]

    def photos(self, person: int, role: str, count: int) -> list[Image.Image]:
        """See `World.photos`: more references than the method is to get come from behind the unseen ones."""
        files, own = list_photos([self._folders[person]]), self._references
        unseen = files[own : own + self._unseen]
        chosen = unseen if role == "unseen" else [*files[:own], *files[own + self._unseen :]]
        return [open_photo(path).image for path in chosen[:count]]

    def fingerprint(self) -> str:
        """See `World.fingerprint`: the hash of names, classes and photos."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for row, folder in enumerate(self._folders):
            for path in list_photos([folder]):
                digest.update(f"{folder.name}\0{self.class_of(row)}\0{path.name}\0{sha256(path)}\n".encode())
        return digest.hexdigest()[:16]


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
