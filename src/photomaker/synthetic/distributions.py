"""Distributions over people and views: they sample, and they say what they contain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from photomaker.errors import SettingsError
from photomaker.synthetic.factors import (
    BEARDS,
    CHILD,
    CLOTHES,
    COLOURS,
    EYE_COLOURS,
    EYEWEAR,
    FEMININE,
    HAIRSTYLES,
    HATS,
    OLD,
    PERSON_CLASSES,
    SCENES,
    SHAPE_FACTORS,
    STYLES,
    Person,
    View,
)

TRAIN, VALIDATION, TEST = 0, 1_000_000, 2_000_000
"""First person index of each split. Splits are by person; each holds up to a million people."""


@dataclass(frozen=True)
class Uniform:
    """Real numbers in low..high, all equally likely."""

    low: float
    high: float

    def sample(self, rng: np.random.Generator) -> float:
        """Draw one."""
        return float(rng.uniform(self.low, self.high))

    def contains(self, value: object) -> bool:
        """Whether the value can be drawn."""
        return isinstance(value, (int, float)) and self.low <= value <= self.high


@dataclass(frozen=True)
class Bell:
    """Real numbers around a mean, cut off at low..high."""

    mean: float
    deviation: float
    low: float
    high: float

    def sample(self, rng: np.random.Generator) -> float:
        """Draw one."""
        return float(np.clip(rng.normal(self.mean, self.deviation), self.low, self.high))

    def contains(self, value: object) -> bool:
        """Whether the value can be drawn."""
        return isinstance(value, (int, float)) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choice:
    """One of several values, each with a weight."""

    values: tuple[Any, ...]
    weights: tuple[float, ...] | None = None

    def sample(self, rng: np.random.Generator) -> Any:  # noqa: ANN401 - whatever the values are
        """Draw one."""
        if self.weights is None:
            return self.values[int(rng.integers(len(self.values)))]
        edges = np.cumsum(self.weights)
        return self.values[int(np.searchsorted(edges, rng.uniform(0, edges[-1]), side="right"))]

    def contains(self, value: object) -> bool:
        """Whether the value can be drawn."""
        return value in self.values


Distribution = Uniform | Bell | Choice

_SHORT_HAIR = Choice(
    tuple(
        HAIRSTYLES.index(name) for name in ("cropped", "short", "parted", "swept", "curly", "round", "fringe")
    )
)
_LONG_HAIR = Choice(
    tuple(
        HAIRSTYLES.index(name)
        for name in ("bob", "fringe", "long", "wavy", "tied", "curly", "round", "parted")
    )
)
# A child's face says little of its gender at this size; girls wear what boys do not.
_GIRLS_HAIR = Choice(
    tuple(HAIRSTYLES.index(name) for name in ("bob", "fringe", "long", "wavy", "tied", "parted"))
)
_OLD_HAIR = Choice(
    tuple(HAIRSTYLES.index(name) for name in ("cropped", "short", "parted", "swept", "receding", "receding"))
)

PERSON: Mapping[str, Distribution] = {
    **dict.fromkeys(SHAPE_FACTORS, Uniform(-1.0, 1.0)),
    "seed": Choice(tuple(range(4096))),
    "person_class": Choice(PERSON_CLASSES),
    "skin": Uniform(0.0, 1.0),
    "hair_colour": Choice(tuple(range(6))),
    "hairstyle": Choice(tuple(range(len(HAIRSTYLES)))),
    "eye_colour": Choice(tuple(range(len(EYE_COLOURS)))),
    "beard": Choice(tuple(range(len(BEARDS))), (0.4, 0.15, 0.15, 0.15, 0.15)),
    "mole": Choice((0, 1, 2, 3, 4), (0.6, 0.1, 0.1, 0.1, 0.1)),
    "freckles": Uniform(0.0, 1.0),
}
"""What a person is drawn from; the hairstyle is narrowed by class in `person`."""

VIEW: Mapping[str, Distribution] = {
    "seed": Choice(tuple(range(65536))),
    "yaw": Uniform(-0.5, 0.5),
    "roll": Bell(0.0, 0.08, -0.2, 0.2),
    "shift_x": Uniform(-0.07, 0.07),
    "shift_y": Uniform(-0.04, 0.05),
    "scale": Uniform(0.93, 1.07),
    "smile": Uniform(-0.3, 1.0),
    "mouth_open": Choice((0.0, 0.0, 0.0, 0.5, 1.0)),
    "gaze": Uniform(-0.6, 0.6),
    "light": Uniform(-0.9, 0.9),
    "light_height": Uniform(0.15, 0.9),
    "warmth": Uniform(-1.0, 1.0),
    "scene": Choice(SCENES),
    "clothing": Choice(CLOTHES),
    "clothing_colour": Choice(COLOURS),
    "hat": Choice(HATS, (0.6, 0.08, 0.08, 0.08, 0.08, 0.08)),
    "hat_colour": Choice(COLOURS),
    "eyewear": Choice(EYEWEAR, (0.7, 0.15, 0.15)),
    "style": Choice(STYLES, (0.72, 0.07, 0.07, 0.07, 0.07)),
}
"""What a view is drawn from."""


def _hair(person_class: str) -> Choice:
    if person_class == "old man":
        return _OLD_HAIR
    if person_class == "girl":
        return _GIRLS_HAIR
    return _LONG_HAIR if person_class in FEMININE else _SHORT_HAIR


def person(index: int) -> Person:
    """The person with this number; the same number always gives the same person.

    Args:
        index: 0 or more; `TRAIN`, `VALIDATION` and `TEST` are where the splits begin.

    Raises:
        SettingsError: The index is negative.
    """
    if index < 0:
        raise SettingsError(f"person index is {index}; give 0 or more")
    rng = np.random.default_rng((7, index))
    values: dict[str, Any] = {field.name: PERSON[field.name].sample(rng) for field in fields(Person)}
    values["hairstyle"] = _hair(values["person_class"]).sample(rng)
    values["freckles"] = max(0.0, values["freckles"] * 1.8 - 0.8) * (1.0 if values["skin"] < 0.6 else 0.3)
    values["beard"] = values["beard"] if values["person_class"] in ("man", "old man") else 0
    return Person(**values)


def people(start: int, count: int) -> list[Person]:
    """`count` people from index `start` on."""
    return [person(start + offset) for offset in range(count)]


def with_class(someone: Person, person_class: str) -> Person:
    """The same face at another age or of another gender.

    The shape factors stay. A hairstyle that the new class does not wear is replaced by the one that
    stands at the same place
    in the new class's list; a beard stays a factor of men alone.

    Raises:
        SettingsError: The class is none of `PERSON_CLASSES`.
    """
    if person_class not in PERSON_CLASSES:
        raise SettingsError(f"person class is {person_class!r}; choose one of {', '.join(PERSON_CLASSES)}")
    worn = _hair(person_class)
    hairstyle = (
        someone.hairstyle
        if worn.contains(someone.hairstyle)
        else worn.values[someone.hairstyle % len(worn.values)]
    )
    beard = someone.beard if person_class in ("man", "old man") else 0
    return replace(someone, person_class=person_class, hairstyle=hairstyle, beard=beard)


def other_ages(person_class: str) -> tuple[str, ...]:
    """The classes that the same person has at other ages."""
    line = ("girl", "woman", "old woman") if person_class in FEMININE else ("boy", "man", "old man")
    return tuple(name for name in line if name != person_class)


def view(someone: Person, seed: int, **fixed: Any) -> View:
    """A view of a person; the same seed always gives the same view.

    Args:
        someone: The person; it seeds the view together with `seed`, and views are distributed alike
            for everybody, so that a
            person can't be told by the circumstances.
        seed: Any whole number from 0 up.
        **fixed: Factors of `View` to hold at a value, for example `style="photo", scene="beach"`.

    Raises:
        SettingsError: A fixed factor is unknown or its value is none that `VIEW` contains.
    """
    for name, value in fixed.items():
        if name not in VIEW:
            raise SettingsError(f"a view has no factor {name!r}; it has {', '.join(VIEW)}")
        if not VIEW[name].contains(value):
            raise SettingsError(f"{name} is {value!r}; it must be in {_described(VIEW[name])}")
    rng = np.random.default_rng((11, someone.seed, seed))
    values: dict[str, Any] = {name: distribution.sample(rng) for name, distribution in VIEW.items()}
    return View(**(values | fixed))


def _described(distribution: Distribution) -> str:
    if isinstance(distribution, Choice):
        return ", ".join(map(str, distribution.values[:20]))
    return f"{distribution.low} .. {distribution.high}"


def factor_names() -> tuple[str, ...]:
    """Names of the entries of `factor_vector`, in order."""
    names = [*SHAPE_FACTORS, "skin", "freckles"]
    for name, words in _CATEGORIES:
        names += [f"{name}={word}" for word in words]
    return tuple(names)


_CATEGORIES: Sequence[tuple[str, Sequence[Any]]] = (
    ("hair_colour", range(6)),
    ("hairstyle", range(len(HAIRSTYLES))),
    ("eye_colour", range(len(EYE_COLOURS))),
    ("beard", range(len(BEARDS))),
    ("mole", range(5)),
)


def factor_vector(someone: Person) -> np.ndarray:
    """Identity as numbers, float32 [F], each scaled to deviate by about one; the class is left out on purpose."""
    values = [getattr(someone, name) / 0.58 for name in SHAPE_FACTORS]
    values += [(someone.skin - 0.5) / 0.29, (someone.freckles - 0.2) / 0.3]
    for name, words in _CATEGORIES:
        share = 1.0 / len(words)
        deviation = (share * (1 - share)) ** 0.5
        values += [((getattr(someone, name) == word) - share) / deviation for word in words]
    return np.asarray(values, dtype=np.float32)


__all__ = [
    "CHILD",
    "OLD",
    "PERSON",
    "TEST",
    "TRAIN",
    "VALIDATION",
    "VIEW",
    "Bell",
    "Choice",
    "Uniform",
    "factor_names",
    "factor_vector",
    "other_ages",
    "people",
    "person",
    "view",
    "with_class",
]
