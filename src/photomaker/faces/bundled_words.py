"""Captions, and a judge of captions, from the bundled attribute classifier: no download, synthetic people only."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL.Image import Image

from photomaker.classes import CLASS_WORDS, class_words, fitting
from photomaker.faces.attributes import AttributeClassifier
from photomaker.faces.base import Captioner, TextImageScorer

_PLACES = {
    "studio": "in a studio", "beach": "on the beach", "snow": "in the snow", "forest": "in a forest",
    "city": "in the city", "desert": "in the desert", "space": "in space", "sunset": "at sunset",
    "library": "in a library", "kitchen": "in the kitchen", "meadow": "in a meadow",
    "mountains": "in the mountains", "night": "in the city at night", "sea": "under water",
}  # fmt: skip
_STARTS = ("a photo of", "a portrait of", "a picture of", "a close up of", "there is")
_DRESSED = {
    "man": ("king", "prince"),
    "woman": ("queen", "princess"),
    "boy": ("prince",),
    "girl": ("princess",),
}
_PLURALS = {"man": "men", "woman": "women", "boy": "boys", "girl": "girls"}
_WORDLESS, _PLURAL, _OTHER, _TWO = 0.12, 0.06, 0.12, 0.12
"""Shares of captions without a class word, with a plural, with another word for the class, and with two class words."""


class BundledCaptioner(Captioner):
    """Writes what the attribute classifier sees, in words that differ from picture to picture.

    As captioners of real photos do, it sometimes names no class word, or several, or a plural.
    """

    def __init__(self, classifier: AttributeClassifier) -> None:
        """Wrap a classifier with the attributes of the synthetic people."""
        self._classifier = classifier

    @classmethod
    def open(cls) -> BundledCaptioner:
        """Read the bundled weights.

        Raises:
            WeightsError: They are missing or damaged.
        """
        return cls(AttributeClassifier.open())

    def caption_batch(self, images: Sequence[Image], seeds: Sequence[int] | None = None) -> list[str]:
        """See `Captioner.caption_batch`."""
        found = self._classifier.probabilities(images)
        captions = []
        for place in range(len(images)):
            chances = {name: values[place] for name, values in found.items()}
            if seeds is None:
                seen = {name: int(values.argmax()) for name, values in chances.items()}
                # The wording of the most likely caption depends on the picture alone.
                rng = np.random.default_rng(zlib.crc32(repr(sorted(seen.items())).encode()))
            else:
                rng = np.random.default_rng(seeds[place])
                seen = {name: _drawn(values, rng) for name, values in chances.items()}
            captions.append(
                _caption({name: self._classifier.words[name][index] for name, index in seen.items()}, rng)
            )
        return captions


def _drawn(chances: np.ndarray, rng: np.random.Generator) -> int:
    chances = chances.astype(np.float64)
    return int(rng.choice(len(chances), p=chances / chances.sum()))


def _caption(seen: Mapping[str, str], rng: np.random.Generator) -> str:
    worn = [_article(f"{seen['clothing_colour']} {seen['clothing']}")] if rng.random() < 0.7 else []  # noqa: PLR2004
    if seen["hat"] != "none":
        worn.append(_article(f"{seen['hat_colour']} {seen['hat']}"))
    if seen["eyewear"] != "none":
        worn.append(seen["eyewear"])
    parts = [str(rng.choice(_STARTS)), _subject(seen["person_class"], rng)]
    if worn:
        parts.append("wearing " + " and ".join(worn))
    return " ".join([*parts, _PLACES[seen["scene"]]])


def _subject(shown: str, rng: np.random.Generator) -> str:
    """The noun phrase for a class such as "old man"."""
    word = shown.rsplit(maxsplit=1)[-1]
    others = [other for other in fitting(word) if other != word]
    edges = np.cumsum([_WORDLESS, _PLURAL, _OTHER, _TWO / 2, _TWO / 2])
    match int(np.searchsorted(edges, rng.random(), side="right")):
        case 0:
            return "a smiling face"
        case 1:
            return f"one of the {shown.replace(word, _PLURALS[word])}"
        case 2:
            return _article(str(rng.choice(others)))
        case 3:
            return f"{_article(str(rng.choice(others)))} dressed like {_article(str(rng.choice(_DRESSED[word])))}"
        case 4:
            return f"{_article(shown)} dressed like {_article(str(rng.choice(_DRESSED[word])))}"
    return _article(shown)


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


class BundledScorer(TextImageScorer):
    """The mean probability of the attributes that a text names; a half where it names none."""

    def __init__(self, classifier: AttributeClassifier) -> None:
        """Wrap a classifier with the attributes of the synthetic people."""
        self._classifier = classifier

    @classmethod
    def open(cls) -> BundledScorer:
        """Read the bundled weights.

        Raises:
            WeightsError: They are missing or damaged.
        """
        return cls(AttributeClassifier.open())

    def score(self, image: Image, texts: Sequence[str]) -> list[float]:
        """See `TextImageScorer.score`."""
        found = {name: values[0] for name, values in self._classifier.probabilities([image]).items()}
        return [self._score(found, text) for text in texts]

    def _score(self, found: Mapping[str, np.ndarray], text: str) -> float:
        classes = self._classifier.words["person_class"]
        scores = [
            sum(
                float(found["person_class"][place])
                for place, shown in enumerate(classes)
                if _true(word.word, shown)
            )
            for word in class_words(text)
        ]
        for name in ("hat", "eyewear", "clothing", "scene"):
            words = self._classifier.words[name]
            scores += [
                float(found[name][place])
                for place, word in enumerate(words)
                if re.search(rf"\b{re.escape(word)}\b", text)
            ]
        return sum(scores) / len(scores) if scores else 0.5


def _true(word: str, shown: str) -> bool:
    """Whether a class word is true of a class such as "old man"."""
    noun = shown.rsplit(maxsplit=1)[-1]
    return noun in CLASS_WORDS and word in fitting(noun)
