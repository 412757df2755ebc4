"""Where real photos of people come from: a small protocol, and the synthetic people behind it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from PIL import Image

UNSTATED = {"hat": "none", "eyewear": "none"}
"""A real photo for a prompt wears nothing the prompt does not name: hidden faces would lower the ceiling."""


class World(Protocol):
    """A source of people, of whom any number of photos can be had, in circumstances one asks for."""

    def people(self, split: str, count: int) -> list[int]:
        """The first `count` people of a split, as numbers that name them for good."""

    def name_of(self, person: int) -> str:
        """What the person is called."""

    def class_of(self, person: int) -> str:
        """The person's class phrase, for example `old man`."""

    def photos(self, person: int, role: str, count: int) -> list[Image.Image]:
        """Photos in mixed circumstances; another role gives other photos, a larger count only adds some."""

    def context(self, person: int, seed: int, states: Mapping[str, str], as_class: str = "") -> Image.Image:
        """A real picture of the person in the circumstances a prompt states, or as if of another class."""

    def marks_of(self, person: int) -> Mapping[str, str]:
        """The person's mole, freckles and beard; "none" where there is none."""

    def changed_classes(self, person: int) -> Mapping[str, Sequence[str]]:
        """Class words that change the person's `age` and `gender`."""

    def fingerprint(self) -> str:
        """Changes whenever pictures of the same people would differ."""


class SyntheticWorld:
    """The bundled synthetic people as a `World`."""

    def people(self, split: str, count: int) -> list[int]:
        """See `World.people`."""
        from photomaker.synthetic import distributions

        start = {"test": distributions.TEST, "validation": distributions.VALIDATION}[split]
        return list(range(start, start + count))

    def name_of(self, person: int) -> str:
        """See `World.name_of`: their number."""
        return str(person)

    def class_of(self, person: int) -> str:
        """See `World.class_of`."""
        from photomaker import synthetic

        return synthetic.person(person).person_class

    def photos(self, person: int, role: str, count: int) -> list[Image.Image]:
        """See `World.photos`: poses, light, scenes, clothes, hats and glasses are drawn at random."""
        seeds = [stable_seed(person, role, index) for index in range(count)]
        return [self._render(person, seed, {"style": "photo"}) for seed in seeds]

    def context(self, person: int, seed: int, states: Mapping[str, str], as_class: str = "") -> Image.Image:
        """See `World.context`: what the prompt leaves open is random, but nothing is worn on the head."""
        return self._render(person, stable_seed(person, "context", seed), UNSTATED | dict(states), as_class)

    def marks_of(self, person: int) -> Mapping[str, str]:
        """See `World.marks_of`."""
        from photomaker import synthetic
        from photomaker.synthetic.marks import marks_of

        return marks_of(synthetic.person(person))

    def changed_classes(self, person: int) -> Mapping[str, Sequence[str]]:
        """See `World.changed_classes`."""
        from photomaker.synthetic import distributions, factors

        own = self.class_of(person)
        pairs = {"man": "woman", "boy": "girl", "old man": "old woman"}
        other = pairs | {second: first for first, second in pairs.items()}
        assert set(other) == set(factors.PERSON_CLASSES)
        return {"age": distributions.other_ages(own), "gender": (other[own],)}

    def fingerprint(self) -> str:
        """See `World.fingerprint`: the hash of a picture of the first test person."""
        picture = self.photos(self.people("test", 1)[0], "fingerprint", 1)[0]
        return hashlib.sha256(np.asarray(picture).tobytes()).hexdigest()[:16]

    def _render(self, index: int, seed: int, fixed: Mapping[str, str], as_class: str = "") -> Image.Image:
        from photomaker import synthetic
        from photomaker.synthetic import distributions

        person = synthetic.person(index)
        if as_class:
            person = distributions.with_class(person, as_class)
        return Image.fromarray(synthetic.render(person, synthetic.view(person, seed, **fixed)).image)


def stable_seed(person: int, purpose: str, number: int) -> int:
    """A seed 0..2**31 - 1 that depends on nothing but its arguments."""
    digest = hashlib.sha256(f"{person} {purpose} {number}".encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1
