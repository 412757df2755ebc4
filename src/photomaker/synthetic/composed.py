"""A dataset of compositions on disk, beside that of portraits: flat arrays for each format, one row a picture."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from photomaker.errors import SettingsError
from photomaker.outside import read_file
from photomaker.processes import serve_parent
from photomaker.synthetic.captions import AFAR_PHRASES, caption, caption_of_two
from photomaker.synthetic.compositions import AFAR, FORMATS, PAIRS, compose, composition
from photomaker.synthetic.dataset import ATTRIBUTES, GENERIC, GENERIC_WORD, claim, open_array, shown_class
from photomaker.synthetic.distributions import person, with_class
from photomaker.synthetic.factors import STYLES, Person

_CHUNK = 100
MOST = 2
"""People in a picture."""


@dataclass(frozen=True)
class ComposedPlan:
    """What a dataset of compositions holds.

    Attributes:
        start: Person index of the first person.
        people: How many people, 2 or more; the second in a picture is one of them, too.
        pictures: Pictures begun with each of them, 1 or more.
        large: Share of the single people's pictures in the larger square.
    """

    start: int
    people: int
    pictures: int
    large: float = 0.1

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.start < 0 or self.people < MOST or self.pictures < 1 or not 0 <= self.large <= 1:
            raise SettingsError(
                f"{self} is not a dataset; start must be 0 or more, people 2 or more, pictures 1 or more, large 0 to 1"
            )

    def lots(self) -> dict[str, np.ndarray]:
        """By format: [n, 3] int64 of a person's index, the picture's number, and a second person's index or -1."""
        found: dict[str, list[tuple[int, int, int]]] = {name: [] for name in FORMATS}
        for index in range(self.start, self.start + self.people):
            rng = np.random.default_rng((19, index))
            draws = rng.random((self.pictures, 3))
            for number, (pair, place, size) in enumerate(draws):
                if pair < PAIRS:
                    other = (
                        self.start + (index - self.start + 1 + int(place * (self.people - 1))) % self.people
                    )
                    found["wide"].append((index, number, other))
                else:
                    name = (
                        "large"
                        if size < self.large
                        else ("square", "portrait", "landscape", "wide")[int(place * 4)]
                    )
                    found[name].append((index, number, -1))
        return {name: np.array(rows, dtype=np.int64).reshape(-1, 3) for name, rows in found.items()}


def _columns(name: str) -> dict[str, tuple[type, tuple[int, ...]]]:
    width, height = FORMATS[name]
    return {
        "images": (np.uint8, (height, width, 3)),
        "owners": (np.uint8, (height, width)),
        "people": (np.int32, (MOST,)),
        "boxes": (np.float32, (MOST, 4)),
        "landmarks": (np.float32, (MOST, 5, 2)),
        "size": (np.float32, ()),
        **{attribute: (np.int8, (MOST,)) for attribute in ATTRIBUTES},
    }


def _draw(task: tuple[str, np.ndarray]) -> dict[str, np.ndarray]:
    name, lots = task
    columns: dict[str, np.ndarray] = {
        column: np.full((len(lots), *shape), -1 if kind != np.uint8 else 0, dtype=kind)
        for column, (kind, shape) in _columns(name).items()
    }
    for row, (index, number, second) in enumerate(lots):
        seed = 1_000_000 + int(number)  # apart from the seeds of portraits
        someone, *others = [person(int(one)) for one in (index, second) if one >= 0]
        shown = [with_class(one, shown_class(one, seed)) for one in (someone, *others)]
        made = composition(shown[0], seed, shown[1] if others else None, format=name)
        picture = compose(made)
        count = len(made.people)
        numbers = {id(one): who for one, who in zip(shown, (index, second), strict=False)}
        columns["images"][row], columns["owners"][row] = picture.image, picture.owners
        columns["boxes"][row, :count], columns["landmarks"][row, :count] = picture.boxes, picture.landmarks
        columns["people"][row, :count] = [numbers[id(one)] for one in made.people]
        columns["size"][row] = made.size
        for attribute, words in ATTRIBUTES.items():
            for at, (who, seen) in enumerate(zip(made.people, made.views, strict=True)):
                value = who.person_class if attribute == "person_class" else getattr(seen, attribute)
                hidden = attribute == "hat_colour" and seen.hat == "none"
                columns[attribute][row, at] = -1 if hidden else words.index(value)
    return columns


def write_compositions(folder: Path, plan: ComposedPlan, workers: int = 1) -> Path:
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
    claim(folder, asdict(plan))
    lots = {name: rows for name, rows in plan.lots().items() if len(rows)}
    for name in lots:
        (folder / name).mkdir(exist_ok=True)
    arrays = {
        name: {
            column: open_array(folder / name / f"{column}.npy", kind, (len(rows), *shape))
            for column, (kind, shape) in _columns(name).items()
        }
        for name, rows in lots.items()
    }
    left = [
        (name, first)
        for name, rows in lots.items()
        for first in range(0, len(rows), _CHUNK)
        if not (folder / name / f"{first}.done").exists()
    ]
    with multiprocessing.get_context("spawn").Pool(workers, serve_parent) as pool:
        drawn = pool.imap(_draw, [(name, lots[name][first : first + _CHUNK]) for name, first in left])
        for (name, first), columns in tqdm(zip(left, drawn, strict=True), total=len(left), unit="group"):
            for column, values in columns.items():
                arrays[name][column][first : first + len(values)] = values
                arrays[name][column].flush()
            (folder / name / f"{first}.done").touch()
    return folder


class ComposedDataset:
    """One format of a dataset that `write_compositions` drew.

    Attributes:
        format: One of `FORMATS`.
        images: uint8 [n, height, width, 3], mapped from disk.
        owners: uint8 [n, height, width]: 0 if nobody is, else the number of the person from 1, mapped from disk.
        people: int64 [n, 2] person indices from left to right, -1 if there is no second.
        boxes: float32 [n, 2, 4] face boxes in pixels.
        landmarks: float32 [n, 2, 5, 2] pixels.
        size: float32 [n], how large the people are; see `compositions.Composition`.
        attributes: Name -> int64 [n, 2], an index into `dataset.ATTRIBUTES`.
        is_photo: bool [n], whether the style is photo.
    """

    def __init__(self, folder: Path, name: str) -> None:
        """Map the arrays of a finished dataset; use `open_all`."""
        found = {
            column: np.load(
                folder / name / f"{column}.npy", mmap_mode="r" if column in ("images", "owners") else None
            )
            for column in _columns(name)
        }
        self.format = name
        self.images, self.owners = found["images"], found["owners"]
        self.boxes, self.landmarks, self.size = found["boxes"], found["landmarks"], found["size"]
        self.people = found["people"].astype(np.int64)
        self.attributes = {attribute: found[attribute].astype(np.int64) for attribute in ATTRIBUTES}
        self.is_photo = self.attributes["style"][:, 0] == STYLES.index("photo")

    @classmethod
    def open_all(cls, folder: str | os.PathLike[str]) -> list[ComposedDataset]:
        """Open every format of a finished dataset that holds pictures.

        Raises:
            SettingsError: There is none in the folder, or it is unfinished.
        """
        folder = Path(folder)
        if not (folder / "plan.json").is_file():
            raise SettingsError(f"{folder} has no compositions; draw some with scripts/train_small/world.py")
        stated = read_file(folder / "plan.json", "draw the dataset again in an empty folder")
        lots = ComposedPlan(**{one.name: stated[one.name] for one in fields(ComposedPlan)}).lots()
        missing = sum(
            not (folder / name / f"{first}.done").exists()
            for name, rows in lots.items()
            for first in range(0, len(rows), _CHUNK)
        )
        if missing:
            raise SettingsError(
                f"the dataset in {folder} lacks {missing} groups; run scripts/train_small/world.py again"
            )
        return [cls(folder, name) for name, rows in lots.items() if len(rows)]

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.images)

    def words(self, row: int, at: int) -> dict[str, str]:
        """What a picture shows of one of its people, attribute by attribute, in words."""
        return {
            name: words[max(0, int(self.attributes[name][row, at]))] for name, words in ATTRIBUTES.items()
        }

    def caption(
        self, row: int, rng: np.random.Generator, describe: float = 0.0, trigger: str | None = None
    ) -> str:
        """Write a caption for a picture; see `captions.caption` and `captions.caption_of_two`."""
        count = 1 + int(self.people[row, 1] >= 0)
        stated = [self.words(row, at) for at in range(count)]
        shown = [
            with_class(_person(int(self.people[row, at])), stated[at]["person_class"]) for at in range(count)
        ]
        words = [GENERIC_WORD if rng.random() < GENERIC else None for _ in range(count)]
        if count == MOST:
            return caption_of_two(shown, stated, rng, describe, (trigger, trigger), words)
        text = caption(shown[0], stated[0], rng, describe, trigger, words[0])
        if self.size[row] < AFAR and rng.random() < 0.5:
            text += f" {AFAR_PHRASES[int(rng.integers(len(AFAR_PHRASES)))]}"
        return text


@cache
def _person(index: int) -> Person:
    return person(index)
