"""Step: a caption for every photo, drawn again until it names a person.

Source: PhotoMaker, arXiv 2312.04461, appendix: captions by BLIP-2, drawn at random until a class word occurs.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa
from PIL import Image

from photomaker.classes import class_words
from photomaker.dataset.base import Dropped, ImageStep, Photo
from photomaker.dataset.batches import batches, check_batch
from photomaker.errors import SettingsError
from photomaker.faces.base import Captioner, PhraseParser, TextImageScorer
from photomaker.faces.plugins import PlugIn

CANDIDATE = pa.struct(
    [
        ("word", pa.string()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("segment", pa.string()),
        ("clip", pa.float32()),
    ]
)
"""A class word in a caption: in the singular; where it stands, in characters; the phrase around it; how well that
phrase fits the person, 0..1, or null where no choice has to be made."""

GREY = (127, 127, 127)


@dataclass(frozen=True)
class Caption(ImageStep):
    """Writes captions and finds the class words in them.

    Attributes:
        captioner: Writes them.
        parser: Finds the phrase around each class word.
        scorer: Judges phrases against the person where there are several class words.
        tries: Captions drawn at most; the first is the captioner's most likely one.
        batch: Photos captioned together. With 1, a caption does not depend on other photos; more is faster on a GPU.

    Raises:
        SettingsError: A value is out of range.
    """

    name: ClassVar[str] = "caption"
    pictures: ClassVar[str] = "segment"
    columns: ClassVar[pa.Schema] = pa.schema(
        [("caption", pa.string()), ("tries", pa.int32()), ("candidates", pa.list_(CANDIDATE))]
    )

    captioner: PlugIn = field(default_factory=lambda: PlugIn("florence2"))
    parser: PlugIn = field(default_factory=lambda: PlugIn("rules"))
    scorer: PlugIn = field(default_factory=lambda: PlugIn("clip"))
    tries: int = 5
    batch: int = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_batch(self.batch)
        if self.tries < 1:
            raise SettingsError(f"tries is {self.tries}; give 1 or more")

    @property
    def licences(self) -> dict[str, str]:
        """Licences of the models."""
        return {
            "captioner": self.captioner.licence,
            "parser": self.parser.licence,
            "scorer": self.scorer.licence,
        }

    def open(self) -> Callable[[Iterable[Photo]], Iterator[Photo | Dropped]]:
        """See `ImageStep.open`."""
        captioner = self.captioner.open("captioner")
        parser, scorer = self.parser.open("phrase parser"), self.scorer.open("text-image scorer")

        def step(photos: Iterable[Photo]) -> Iterator[Photo | Dropped]:
            for batch in batches(photos, self.batch):
                images = [photo.image() for photo in batch]
                captions, tries = self._captions(captioner, batch, images)
                for photo, image, caption, count in zip(batch, images, captions, tries, strict=True):
                    found = _candidates(photo, image, caption, parser, scorer)
                    row = {**photo.row, "caption": caption, "tries": count, "candidates": found}
                    yield Photo(row, photo.files)

        return step

    def _captions(
        self, captioner: Captioner, photos: list[Photo], images: list[Image.Image]
    ) -> tuple[list[str], list[int]]:
        captions, tries = captioner.caption_batch(images), [1] * len(images)
        for number in range(1, self.tries):
            left = [place for place, caption in enumerate(captions) if not class_words(caption)]
            seeds = [seed_of(str(photos[place].row["key"]), number) for place in left]
            again = captioner.caption_batch([images[place] for place in left], seeds)
            for place, caption in zip(left, again, strict=True):
                captions[place], tries[place] = caption, number + 1
        return captions, tries


def seed_of(key: str, number: int) -> int:
    """The seed of a row's try, the same on every machine: 0 or more, below 2**63."""
    return int.from_bytes(hashlib.sha256(f"{number} {key}".encode()).digest()[:8], "big") >> 1


def _candidates(
    photo: Photo, image: Image.Image, caption: str, parser: PhraseParser, scorer: TextImageScorer
) -> list[dict[str, Any]]:
    words = class_words(caption)
    segments = parser.phrases(caption, words)
    scores: list[float | None] = [None] * len(words)
    if len(words) > 1:
        scores = list(scorer.score(person_region(image, photo.files["mask"]), segments))
    return [
        {"word": word.word, "start": word.start, "end": word.end, "segment": segment, "clip": score}
        for word, segment, score in zip(words, segments, scores, strict=True)
    ]


def person_region(image: Image.Image, mask: bytes) -> Image.Image:
    """The person alone: everything else grey, cut to the mask's bounds."""
    person = Image.open(io.BytesIO(mask)).convert("L")
    region = Image.composite(image, Image.new("RGB", image.size, GREY), person)
    return region.crop(person.getbbox())
