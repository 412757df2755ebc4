"""What a step of the construction is: a generator from rows to rows, on one part of the data at a time.

A *row* is one photo of one person with everything that is known of it so far, as plain values. Every step adds columns
or drops the row with a reason. Two kinds of steps make up the whole list:

* an `ImageStep` looks at pictures, one *shard* (a tar file) at a time;
* a `TableStep` looks at columns alone, at all rows of one group of people at a time: grouping is a join over the index
  and never moves a picture.

A step holds settings only until `open` is called, so that it can be sent to another process or machine; models are
loaded there, once for each worker.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa
from PIL import Image

from photomaker.images import read_photo

Row = Mapping[str, Any]
"""Columns of a photo: name -> plain value (text, number, bool, list of them, or None)."""

KEY = [("key", pa.string()), ("person", pa.string()), ("shard", pa.int32())]
"""Columns that every row has: its name, unique in the dataset; whose photo it is; number of its shard."""


@dataclass(frozen=True)
class Photo:
    """A row together with its files.

    Attributes:
        row: What is known of it.
        files: Extension -> bytes: "image" is the encoded picture, "mask" the person's mask as PNG.
    """

    row: Row
    files: Mapping[str, bytes] = field(default_factory=dict)

    def image(self) -> Image.Image:
        """The picture, upright, RGB."""
        return read_photo(self.files["image"], str(self.row["key"])).image


@dataclass(frozen=True)
class Dropped:
    """A row that goes no further.

    Attributes:
        row: The row, or what is known of it.
        reason: Short fixed words, such as "no face"; reasons are counted in the report.
        detail: What exactly, such as "312 x 208 pixels".
        image: The encoded picture for the contact sheet, where the step has one that earlier steps have not kept.
    """

    row: Row
    reason: str
    detail: str = ""
    image: bytes | None = None


PACE = {"pace": True}
"""Metadata of a settings field that changes how fast a step works and never what comes out of it."""


class Step(ABC):
    """One step; subclasses are frozen dataclasses of settings.

    Attributes:
        name: Its name on the command line and the folder it writes.
        columns: The columns it adds, as a pyarrow schema.
    """

    name: ClassVar[str]
    columns: ClassVar[pa.Schema]

    @property
    def licences(self) -> Mapping[str, str]:
        """Licences of the models that it uses: what for -> the licence of the weights."""
        return {}


class ImageStep(Step):
    """A step that looks at pictures.

    Attributes:
        pictures: Name of the step whose pictures it reads.
        writes: Whether it writes pictures of its own, which the steps after it read.
    """

    pictures: ClassVar[str]
    writes: ClassVar[bool] = False

    @abstractmethod
    def open(self) -> Callable[[Iterable[Photo]], Iterator[Photo | Dropped]]:
        """Load models and return the generator.

        The generator yields one `Photo` or `Dropped` for every photo it is given, in the same order, with the row's new
        columns added. It must give the same result however the photos are cut into shards, so that randomness comes
        from a row's key. `Photo.files` matters only where `writes` is true.

        Raises:
            SettingsError: A required package is not installed.
            WeightsError: A model cannot be loaded.
        """


class TableStep(Step):
    """A step that looks at all rows of a person at once, without pictures."""

    @abstractmethod
    def open(self) -> Callable[[list[Row]], Iterable[Row | Dropped]]:
        """Load models and return the function for one person.

        It gets the rows of one person, ordered by key, and yields each of them again, with new columns or dropped.
        """
