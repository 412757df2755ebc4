"""A dataset of synthetic pictures on disk: flat arrays mapped into memory, one row for each picture."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from photomaker.errors import SettingsError
from photomaker.outside import read_file
from photomaker.processes import serve_parent
from photomaker.synthetic.captions import caption
from photomaker.synthetic.distributions import factor_vector, other_ages, person, view, with_class
from photomaker.synthetic.factors import (
    CLOTHES,
    COLOURS,
    EYEWEAR,
    HATS,
    PERSON_CLASSES,
    SCENES,
    STYLES,
    Person,
    View,
)
from photomaker.synthetic.items import item_mask
from photomaker.synthetic.relief import depth_of
from photomaker.synthetic.renderer import render

SIZE = 128
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "style": STYLES,
    "scene": SCENES,
    "hat": HATS,
    "hat_colour": COLOURS,
    "eyewear": EYEWEAR,
    "clothing": CLOTHES,
    "clothing_colour": COLOURS,
    "person_class": PERSON_CLASSES,
}
OTHER_AGE = 0.2
"""Share of the pictures that show a person at another age, as albums do."""

GENERIC, GENERIC_WORD = 0.04, "person"
"""Share of the captions that leave age and gender open, so that "a person" can be asked for."""

_CHUNK = 20


@dataclass(frozen=True)
class WorldPlan:
    """What a dataset holds.

    Attributes:
        start: Person index of the first person.
        people: How many people, 1 or more.
        views: Pictures of each, 2 or more.
    """

    start: int
    people: int
    views: int

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.start < 0 or self.people < 1 or self.views < 2:
            raise SettingsError(
                f"{self} is not a dataset; start must be 0 or more, people 1 or more, views 2 or more"
            )


def shown_class(someone: Person, seed: int) -> str:
    """The class that a person has in a picture: mostly their own, in albums also those of other ages."""
    rng = np.random.default_rng((13, someone.seed, seed))
    return (
        str(rng.choice(other_ages(someone.person_class)))
        if rng.random() < OTHER_AGE
        else someone.person_class
    )


def pictured(index: int, number: int, views: int) -> tuple[Person, View]:
    """Who is in a picture of a dataset, of the class shown, and in which circumstances.

    Args:
        index: Number of the person.
        number: Number of the picture among the person's.
        views: Pictures of each person.
    """
    someone, seed = person(index), index * views + number
    return with_class(someone, shown_class(someone, seed)), view(someone, seed)


def _draw_people(task: tuple[int, int, int]) -> dict[str, np.ndarray]:
    start, count, views = task
    columns: dict[str, list[Any]] = {
        name: [] for name in ("images", "masks", "boxes", "landmarks", *ATTRIBUTES)
    }
    for index in range(start, start + count):
        for number in range(views):
            shown, seen = pictured(index, number, views)
            picture = render(shown, seen, SIZE)
            columns["images"].append(picture.image)
            columns["masks"].append(picture.mask)
            columns["boxes"].append(picture.box)
            columns["landmarks"].append(picture.landmarks)
            for name, words in ATTRIBUTES.items():
                value = shown.person_class if name == "person_class" else getattr(seen, name)
                columns[name].append(
                    -1 if name == "hat_colour" and seen.hat == "none" else words.index(value)
                )
    return {name: np.asarray(values) for name, values in columns.items()}


def _tasks(plan: WorldPlan) -> Iterator[tuple[int, tuple[int, int, int]]]:
    for first in range(0, plan.people, _CHUNK):
        yield first, (plan.start + first, min(_CHUNK, plan.people - first), plan.views)


def claim(folder: Path, described: dict[str, Any]) -> None:
    """Make a folder for a dataset and note in it what it holds.

    Raises:
        SettingsError: The folder holds another dataset.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stated = folder / "plan.json"
    if stated.exists() and read_file(stated, "choose an empty folder") != described:
        raise SettingsError(f"{folder} holds another dataset ({stated.read_text()}); choose an empty folder")
    stated.write_text(json.dumps(described))


def write_world(folder: Path, plan: WorldPlan, workers: int = 1) -> Path:
    """Draw a dataset; an interrupted run continues where it stopped.

    Args:
        folder: Where to write; made if missing.
        plan: What to draw.
        workers: Processes to draw with.

    Returns:
        The folder.

    Raises:
        SettingsError: The folder holds another dataset.
    """
    claim(folder, {"start": plan.start, "people": plan.people, "views": plan.views, "size": SIZE})
    done = folder / "done"
    done.mkdir(exist_ok=True)
    rows = plan.people * plan.views
    arrays = {
        name: open_array(folder / f"{name}.npy", dtype, (rows, *shape))
        for name, (dtype, shape) in _columns().items()
    }
    left = [(first, task) for first, task in _tasks(plan) if not (done / str(first)).exists()]
    with multiprocessing.get_context("spawn").Pool(workers, serve_parent) as pool:
        drawn = pool.imap(_draw_people, [task for _, task in left])
        for (first, _), columns in tqdm(zip(left, drawn, strict=True), total=len(left), unit="group"):
            for name, values in columns.items():
                arrays[name][first * plan.views : first * plan.views + len(values)] = values
            (done / str(first)).touch()
    for array in arrays.values():
        array.flush()
    return folder


def _columns() -> dict[str, tuple[type, tuple[int, ...]]]:
    columns: dict[str, tuple[type, tuple[int, ...]]] = {
        "images": (np.uint8, (SIZE, SIZE, 3)),
        "masks": (np.uint8, (SIZE, SIZE)),
        "boxes": (np.float32, (4,)),
        "landmarks": (np.float32, (5, 2)),
    }
    return columns | dict.fromkeys(ATTRIBUTES, (np.int8, ()))


def open_array(path: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap:
    """An array on disk to write into, made where it is missing."""
    if path.exists():
        return np.lib.format.open_memmap(path, mode="r+")
    part = path.with_suffix(".part")
    array = np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=shape)
    os.replace(part, path)
    return array


class WorldDataset:
    """A dataset that `write_world` drew.

    Attributes:
        images: uint8 [n, 128, 128, 3], mapped from disk.
        masks: uint8 [n, 128, 128], 255 where the person is, mapped from disk.
        boxes: float32 [n, 4], face boxes in pixels.
        landmarks: float32 [n, 5, 2], pixels.
        person: int64 [n], row number of the person, 0 .. people - 1.
        attributes: Name -> int64 [n], an index into `attribute_names`; hat_colour is -1 if there is no hat.
        attribute_names: Name -> the words of that attribute.
        factors: float32 [people, F], identity factors scaled to deviate by about one.
        is_photo: bool [n], whether the style is photo.
    """

    attribute_names = ATTRIBUTES

    def __init__(self, folder: Path, plan: WorldPlan) -> None:
        """Map the arrays."""
        self.folder, self.plan = folder, plan
        rows = plan.people * plan.views
        self.images = np.load(folder / "images.npy", mmap_mode="r")[:rows]
        self.masks = np.load(folder / "masks.npy", mmap_mode="r")[:rows]
        self.boxes = np.load(folder / "boxes.npy")[:rows]
        self.landmarks = np.load(folder / "landmarks.npy")[:rows]
        self.attributes = {
            name: np.load(folder / f"{name}.npy")[:rows].astype(np.int64) for name in ATTRIBUTES
        }
        self.person = np.repeat(np.arange(plan.people), plan.views)
        self.is_photo = self.attributes["style"] == STYLES.index("photo")

    @classmethod
    def open(cls, folder: str | os.PathLike[str], people: int | None = None) -> WorldDataset:
        """Open a finished dataset.

        Args:
            folder: Where `write_world` drew it.
            people: How many of its people, from the first on; None is all of them.

        Raises:
            SettingsError: There is none in the folder, it is unfinished, or it has fewer people.
        """
        folder = Path(folder)
        if not (folder / "plan.json").is_file():
            raise SettingsError(f"{folder} has no dataset; draw one with scripts/train_small/world.py")
        stated = read_file(folder / "plan.json", "draw the dataset again in an empty folder")
        plan = WorldPlan(stated["start"], stated["people"], stated["views"])
        missing = sum(not (folder / "done" / str(first)).exists() for first, _ in _tasks(plan))
        if missing:
            raise SettingsError(
                f"the dataset in {folder} lacks {missing} groups; run scripts/train_small/world.py again"
            )
        if people is not None and not 1 <= people <= plan.people:
            raise SettingsError(
                f"{people} people are requested, but {folder} has {plan.people}; give a number up to that"
            )
        return cls(folder, plan if people is None else WorldPlan(plan.start, people, plan.views))

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.person)

    @cached_property
    def people(self) -> list[Person]:
        """The people, in order."""
        return [person(self.plan.start + row) for row in range(self.plan.people)]

    @cached_property
    def factors(self) -> np.ndarray:
        """Identity factors of every person, float32 [people, F]."""
        return np.stack([factor_vector(someone) for someone in self.people])

    def rows_of(self, person_row: int) -> np.ndarray:
        """The rows that show a person, int64."""
        return np.arange(person_row * self.plan.views, (person_row + 1) * self.plan.views)

    def depth(self, row: int) -> np.ndarray:
        """How near the person is in a picture, uint8 [128, 128], 255 nearest; redrawn each time."""
        someone, number = divmod(row, self.plan.views)
        return depth_of(*pictured(self.plan.start + someone, number, self.plan.views), SIZE)

    def words(self, row: int) -> dict[str, str]:
        """What a picture shows, attribute by attribute, in words."""
        return {name: words[max(0, int(self.attributes[name][row]))] for name, words in ATTRIBUTES.items()}

    def item_mask(self, row: int, item: str) -> np.ndarray:
        """Where a picture shows the hat or the clothing, drawn again to know; see `photomaker.synthetic.items`.

        Args:
            row: Of the picture.
            item: `hat` or `clothing`.
        """
        index, number = self.plan.start + int(self.person[row]), int(row) % self.plan.views
        someone, seed = person(index), index * self.plan.views + number
        shown = with_class(someone, shown_class(someone, seed))
        half = item_mask(shown, view(someone, seed), item, SIZE // 2)  # a quarter of the time
        return half.repeat(2, 0).repeat(2, 1)

    def caption(
        self, row: int, rng: np.random.Generator, describe: float = 0.0, trigger: str | None = None
    ) -> str:
        """Write a caption for a picture; see `photomaker.synthetic.captions.caption`.

        A small share says "person" in place of the class word.
        """
        words = self.words(row)
        shown = with_class(self.people[int(self.person[row])], words["person_class"])
        word = GENERIC_WORD if rng.random() < GENERIC else None
        return caption(shown, words, rng, describe, trigger, word)
