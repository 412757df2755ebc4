"""Step: which word of the caption stands for the person.

Source: PhotoMaker, arXiv 2312.04461, appendix: of several class words the one that the person's photos name most; a
caption that lacks it takes the word with the largest product of CLIP score and similarity to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from photomaker.dataset.base import Dropped, Row, TableStep
from photomaker.faces.base import TextSimilarity
from photomaker.faces.plugins import PlugIn

NO_WORD = "no class word"


@dataclass(frozen=True)
class Mark(TableStep):
    """Chooses the class word of every caption and brings plural class words into the singular.

    Attributes:
        similarity: Compares class words where a caption lacks the word that the person's photos name most.
    """

    name: ClassVar[str] = "mark"
    columns: ClassVar[pa.Schema] = pa.schema(
        [
            ("caption", pa.string()),
            ("class_word", pa.string()),
            ("class_start", pa.int32()),
            ("class_end", pa.int32()),
        ]
    )

    similarity: PlugIn = field(default_factory=lambda: PlugIn("rules"))

    @property
    def licences(self) -> dict[str, str]:
        """Licences of the models."""
        return {"similarity": self.similarity.licence}

    def open(self) -> Callable[[list[Row]], Iterable[Row | Dropped]]:
        """See `TableStep.open`."""
        similarity = self.similarity.open("text similarity")

        def step(rows: list[Row]) -> Iterator[Row | Dropped]:
            group = most_frequent(rows)
            for row in rows:
                if not row["candidates"]:
                    yield Dropped(row, NO_WORD, str(row["caption"]))
                    continue
                place = chosen(row["candidates"], group, similarity)
                caption, spans = singular(str(row["caption"]), row["candidates"])
                start, end = spans[place]
                word = row["candidates"][place]["word"]
                yield {**row, "caption": caption, "class_word": word, "class_start": start, "class_end": end}

        return step


def most_frequent(rows: Sequence[Row]) -> str:
    """The class word that most captions of a group name; of several the one that is most often named alone.

    Empty if no caption names any.
    """
    named = [sorted({one["word"] for one in row["candidates"]}) for row in rows]
    counts = Counter(word for words in named for word in words)
    alone = Counter(words[0] for words in named if len(words) == 1)
    return max(sorted(counts), key=lambda word: (counts[word], alone[word]), default="")


def chosen(candidates: Sequence[Mapping[str, Any]], group: str, similarity: TextSimilarity) -> int:
    """Place of the candidate that stands for the person.

    Args:
        candidates: One or more, see `photomaker.dataset.caption.CANDIDATE`.
        group: The class word that the person's photos name most.
        similarity: Compares class words.
    """
    if len(candidates) == 1:
        return 0
    places = [place for place, one in enumerate(candidates) if one["word"] == group]
    weights = [1.0] * len(candidates)
    if not places:
        places = list(range(len(candidates)))
        weights = similarity.similarity([one["word"] for one in candidates], group)
    return max(places, key=lambda place: candidates[place]["clip"] * weights[place])


def singular(caption: str, candidates: Sequence[Mapping[str, Any]]) -> tuple[str, list[tuple[int, int]]]:
    """Bring the class words of a caption into the singular.

    Returns:
        The caption, and where each class word stands in it.
    """
    parts, spans, done, length = [], [], 0, 0
    for one in candidates:
        before, word = caption[done : one["start"]], caption[one["start"] : one["end"]]
        if word.lower() != one["word"]:
            word = one["word"].capitalize() if word[0].isupper() else one["word"]
        length += len(before)
        spans.append((length, length + len(word)))
        length += len(word)
        parts += [before, word]
        done = one["end"]
    return "".join([*parts, caption[done:]]), spans
