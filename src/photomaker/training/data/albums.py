"""Datasets as training reads them, by row: shards of photos, and synthetic people with their compositions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from photomaker.dataset.shards import Shards
from photomaker.errors import PhotoError, SettingsError
from photomaker.images import read_photo
from photomaker.prompts.expand import expand
from photomaker.prompts.trigger import TRIGGER, ParsedPrompt
from photomaker.synthetic.composed import ComposedDataset
from photomaker.synthetic.dataset import WorldDataset
from photomaker.training.recipes.base import Tokenizers

_REMEDY = "build the dataset again"


class _Decoded:
    """Pictures that are decoded when they are asked for."""

    def __init__(self, read: Callable[[int], bytes], keys: list[str], mask: bool) -> None:
        self.read, self.keys, self.mask = read, keys, mask

    def __getitem__(self, row: int) -> np.ndarray:
        row = int(row)
        name = f"{'the mask of ' if self.mask else ''}{self.keys[row]}"
        try:
            pixels = np.asarray(read_photo(self.read(row), name).image)
        except PhotoError as error:
            raise SettingsError(f"{name} in the dataset cannot be read; {_REMEDY}") from error
        return pixels[:, :, 0] if self.mask else pixels


class ShardAlbum:
    """A finished dataset as an `Album`.

    Args:
        shards: The dataset.

    Attributes:
        images: Row to uint8 [height, width, 3].
        masks: Row to uint8 [height, width].
        person: int64 [rows].
        boxes: float32 [rows, 4].
        is_photo: All true.
        sizes: Height and width of every picture [rows, 2].
        captions: Of every row, cut behind the marked class word.
        name: A name that tells this dataset from any other.

    Raises:
        SettingsError: A caption has no class word marked, a face box is missing, or a row occurs twice.
    """

    def __init__(self, shards: Shards) -> None:
        """Read the index's columns."""
        table = shards.table
        self.keys: list[str] = table["key"].to_pylist()
        if len(set(self.keys)) < len(self.keys):
            raise SettingsError(f"the dataset in {shards.folder} has a key twice; {_REMEDY}")
        self.folder, self._embeddings = shards.folder, table["embedding"]
        self._landmarks = table["landmarks"]
        self.images = _Decoded(shards.image, self.keys, mask=False)
        self.masks = _Decoded(shards.mask, self.keys, mask=True)
        people, self.person = np.unique(
            np.array(table["person"].to_pylist(), dtype=object), return_inverse=True
        )
        self._rows = np.split(np.argsort(self.person, kind="stable"), np.bincount(self.person).cumsum()[:-1])
        self.people = [str(name) for name in people]
        self.boxes = self._filled(table["box"].to_pylist(), 4, "face box")
        self.is_photo = np.ones(len(self.keys), dtype=bool)
        self.sizes = np.stack([table["height"].to_numpy(), table["width"].to_numpy()], axis=1).astype(
            np.int64
        )
        columns = (table[name].to_pylist() for name in ("caption", "class_start", "class_end"))
        self.captions = [self._cut(key, *row) for key, *row in zip(self.keys, *columns, strict=True)]
        told = repr((self.keys, table["sha256"].to_pylist(), self.sizes.tolist()))
        self.name = hashlib.sha256(told.encode()).hexdigest()[:12]

    def _filled(self, values: list[list[float] | None], width: int, what: str) -> np.ndarray:
        for key, value in zip(self.keys, values, strict=True):
            if value is None or len(value) != width:
                got = "none" if not value else f"{len(value)} numbers"
                raise SettingsError(
                    f"row {key} of the dataset in {self.folder} needs a {what} of {width} numbers, but has {got}; "
                    f"{_REMEDY} with one"
                )
        return np.array(values, dtype=np.float32)

    def _cut(self, key: str, caption: str | None, start: int | None, end: int | None) -> ParsedPrompt:
        if caption is None or start is None or end is None or not 0 <= start < end <= len(caption):
            raise SettingsError(
                f"row {key} of the dataset in {self.folder} has no class word marked in its caption {caption!r}; "
                f"{_REMEDY}"
            )
        if not caption[start:end].strip():
            raise SettingsError(
                f"the class word marked in row {key} of the dataset in {self.folder} is empty; {_REMEDY}"
            )
        return ParsedPrompt(caption[:end], caption[end:], TRIGGER)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.keys)

    def rows_of(self, person_row: int) -> np.ndarray:
        """Rows of one person."""
        return self._rows[person_row]

    def caption(
        self, row: int, rng: np.random.Generator, describe: float, trigger: str | None = None
    ) -> ParsedPrompt:
        """The caption of a row; there is only one."""
        del rng, describe, trigger
        return self.captions[row]

    @property
    def landmarks(self) -> np.ndarray:
        """Landmarks float32 [rows, 5, 2] in pixels.

        Raises:
            SettingsError: A row has none.
        """
        return self._filled(self._landmarks.to_pylist(), 10, "row of landmarks").reshape(-1, 5, 2)

    def faces(self, width: int) -> np.ndarray:
        """Face embeddings float32 [rows, width].

        Raises:
            SettingsError: A row has none, or one of another length.
        """
        return self._filled(self._embeddings.to_pylist(), width, "face embedding")

    def check_captions(self, tokenizers: Tokenizers) -> None:
        """See that every class word can be read by the text encoders, before anything is trained.

        Raises:
            PromptError: One lies behind the last token that is read.
        """
        for caption in self.captions:
            if len(caption.before) >= tokenizers[0].model_max_length:  # a token has a character or more
                expand(caption, tokenizers[0], 1)


class _Joined:
    """Arrays of several datasets, row after row."""

    def __init__(self, places: list[tuple[int, int]], arrays: Sequence[Callable[[int], np.ndarray]]) -> None:
        self.places, self.arrays = places, arrays

    def __getitem__(self, row: int) -> np.ndarray:
        part, place = self.places[int(row)]
        return self.arrays[part](place)


class WorldAlbum:
    """Portraits of synthetic people and compositions with them as one `Album`.

    The first person of a composition is its person. Only portraits stand for a person: `rows_of` gives no compositions,
    in which a face may be small.

    Args:
        portraits: The portraits.
        composed: The compositions, a format each.
        pairs: Whether pictures of two people are among the rows.

    Attributes:
        images: Row to uint8 [height, width, 3].
        masks: Row to uint8 [height, width], 255 where anybody is.
        person: int64 [rows].
        boxes: float32 [rows, 4].
        landmarks: float32 [rows, 5, 2].
        is_photo: bool [rows].
        sizes: Height and width of every picture [rows, 2].
        pair: bool [rows], whether two people are shown.
        name: A name that tells these from portraits alone.

    Raises:
        SettingsError: A composition shows somebody of whom there is no portrait.
    """

    name = "synthetic people and compositions"

    def __init__(
        self, portraits: WorldDataset, composed: Sequence[ComposedDataset], pairs: bool = False
    ) -> None:
        """Lay the rows end to end."""
        self.portraits, self.composed = portraits, list(composed)
        kept = [np.flatnonzero(pairs | (one.people[:, 1] < 0)) for one in self.composed]
        self.places = [(0, row) for row in range(len(portraits))]
        self.places += [(part + 1, int(row)) for part, rows in enumerate(kept) for row in rows]
        first = [
            one.people[rows, 0] - portraits.plan.start for one, rows in zip(self.composed, kept, strict=True)
        ]
        self.person = np.concatenate([portraits.person, *first]).astype(np.int64)
        if self.person.min() < 0 or self.person.max() >= portraits.plan.people:
            start, last = portraits.plan.start, portraits.plan.start + portraits.plan.people - 1
            shown = f"{int(self.person.min()) + start} to {int(self.person.max()) + start}"
            raise SettingsError(
                f"compositions show people {shown} and there are portraits of {start} to {last}; draw both with the "
                "same --start and --people"
            )
        each = list(zip(self.composed, kept, strict=True))
        self.boxes = np.concatenate([portraits.boxes, *(one.boxes[rows, 0] for one, rows in each)])
        self.landmarks = np.concatenate(
            [portraits.landmarks, *(one.landmarks[rows, 0] for one, rows in each)]
        ).astype(np.float32)
        self.is_photo = np.concatenate([portraits.is_photo, *(one.is_photo[rows] for one, rows in each)])
        datasets: list[WorldDataset | ComposedDataset] = [portraits, *self.composed]
        sides = np.array([one.images.shape[1:3] for one in datasets])
        self.sizes = sides[[part for part, _ in self.places]]
        second = [one.people[rows, 1] >= 0 for one, rows in zip(self.composed, kept, strict=True)]
        self.pair = np.concatenate([np.zeros(len(portraits), dtype=bool), *second])
        self.images = _Joined(self.places, [partial(_row, one.images) for one in datasets])
        covers = [partial(_row, portraits.masks), *(partial(_covered, one.owners) for one in self.composed)]
        self.masks = _Joined(self.places, covers)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.places)

    def rows_of(self, person_row: int) -> np.ndarray:
        """Portraits of one person."""
        return self.portraits.rows_of(person_row)

    def people_of(self, row: int) -> list[int]:
        """The people of a picture, from left to right, as in `person`."""
        part, place = self.places[int(row)]
        if part == 0:
            return [int(self.person[row])]
        shown = self.composed[part - 1].people[place]
        return [int(one) - self.portraits.plan.start for one in shown if one >= 0]

    def middle(self, row: int) -> float:
        """Where the border between two people is, as a share of the picture's width: between their faces."""
        part, place = self.places[int(row)]
        boxes = self.composed[part - 1].boxes[place]
        return float((boxes[0, 2] + boxes[1, 0]) / 2 / self.sizes[row, 1])

    def words(self, row: int) -> dict[str, str]:
        """What a picture of one person shows, attribute by attribute; nothing for a picture of two."""
        part, place = self.places[int(row)]
        if part == 0:
            return self.portraits.words(place)
        one = self.composed[part - 1]
        return one.words(place, 0) if one.people[place, 1] < 0 else {}

    def caption(self, row: int, rng: np.random.Generator, describe: float, trigger: str | None = None) -> str:
        """See `Album.caption`."""
        part, place = self.places[int(row)]
        data = self.portraits if part == 0 else self.composed[part - 1]
        return data.caption(place, rng, describe, trigger)

    def latents(self, parts: Sequence[np.ndarray]) -> JoinedLatents:
        """Latents of the rows, from those of the portraits and of each format."""
        return JoinedLatents(self.places, parts)


class JoinedLatents:
    """Latents of several datasets; the rows of a batch are of one size."""

    def __init__(self, places: list[tuple[int, int]], parts: Sequence[np.ndarray]) -> None:
        """Store the arguments."""
        self.places, self.parts = places, list(parts)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """float16 [batch, channels, h, w]."""
        return np.stack([self.parts[part][place] for part, place in (self.places[int(row)] for row in rows)])


def _row(array: np.ndarray, row: int) -> np.ndarray:
    return np.asarray(array[row])


def _covered(owners: np.ndarray, row: int) -> np.ndarray:
    return np.where(owners[row] > 0, np.uint8(255), np.uint8(0))
