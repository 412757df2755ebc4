"""Measured pictures of people as arrays, and the scores of each person."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from photomaker.evaluation import metrics
from photomaker.evaluation.judges.bundled import Measured
from photomaker.evaluation.metrics import Floats
from photomaker.evaluation.prompts import ATTRIBUTES, BenchPrompt


@dataclass(frozen=True)
class Grid:
    """Measured pictures of people by prompt and seed.

    Attributes:
        prompts: [Q] the prompts.
        embeddings: [P, Q, S, width]; zeros where no face was found.
        labels: Attribute name to [P, Q, S] words.
        seconds: [P] that generating took.
        more: Further numbers by name, each [P, Q, S, ...]; see `judge.Measured`.
    """

    prompts: tuple[BenchPrompt, ...]
    embeddings: np.ndarray
    labels: Mapping[str, np.ndarray]
    seconds: np.ndarray
    more: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, measured: Sequence[Measured], prompts: Sequence[BenchPrompt], seeds: int) -> Grid:
        """Arrange one measurement a person, its pictures ordered by prompt and then by seed."""
        shape = (len(measured), len(prompts), seeds)
        embeddings = np.stack([one.embeddings for one in measured])
        labels = {
            name: np.stack([one.labels[name] for one in measured]).reshape(shape)
            for name in measured[0].labels
        }
        more = {
            name: np.stack([one.more[name] for one in measured]).reshape(*shape, *first.shape[1:])
            for name, first in measured[0].more.items()
        }
        seconds = np.array([one.seconds for one in measured])
        return cls(tuple(prompts), embeddings.reshape(*shape, -1), labels, seconds, more)

    @property
    def pictures(self) -> int:
        """Number of pictures."""
        return int(np.prod(self.embeddings.shape[:3]))

    @property
    def found(self) -> np.ndarray:
        """[P, Q, S] bool: whether a face was found."""
        return np.any(self.embeddings != 0, axis=-1)

    def where(self, wanted: Callable[[BenchPrompt], bool]) -> Grid:
        """The part of the grid whose prompts are wanted."""
        columns = [index for index, prompt in enumerate(self.prompts) if wanted(prompt)]
        return replace(
            self,
            prompts=tuple(self.prompts[index] for index in columns),
            embeddings=self.embeddings[:, columns],
            labels={name: words[:, columns] for name, words in self.labels.items()},
            more={name: values[:, columns] for name, values in self.more.items()},
        )

    def photos(self) -> Grid:
        """The part of the grid whose prompts ask for a photo."""
        return self.where(lambda prompt: prompt.is_photo)

    def first_seed(self) -> Grid:
        """The part of the grid with the first seed of each prompt."""
        labels = {name: words[:, :, :1] for name, words in self.labels.items()}
        more = {name: values[:, :, :1] for name, values in self.more.items()}
        return replace(self, embeddings=self.embeddings[:, :, :1], labels=labels, more=more)

    def seen_by(self, name: str) -> Grid:
        """The same as another recogniser sees it, whose embeddings are among `more`."""
        return replace(self, embeddings=self.more[name])

    def score(self, metric: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
        """Apply a metric of (pictures [n, width], row of the person) -> [n] to everybody: [P, Q, S]."""
        people, prompts, seeds, width = self.embeddings.shape
        rows = [metric(self.embeddings[row].reshape(-1, width), row) for row in range(people)]
        return np.stack(rows).reshape(people, prompts, seeds)

    def accuracy(self, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """How often each attribute was stated, and how often it was seen as stated.

        Args:
            classes: Class that the prompts state, by person.

        Returns:
            correct and stated, each [P, attributes] in the order of `ATTRIBUTES`.
        """
        people, prompts, seeds = self.embeddings.shape[:3]
        correct, stated = np.zeros((2, people, len(ATTRIBUTES)))
        for column, name in enumerate(ATTRIBUTES):
            for index in range(prompts):
                for row in range(people):
                    word = classes[row] if name == "person_class" else self.prompts[index].states.get(name)
                    if word is not None:
                        stated[row, column] += seeds
                        correct[row, column] += np.count_nonzero(self.labels[name][row, index] == word)
        return correct, stated


@dataclass(frozen=True)
class Scores:
    """What one adapter, or one way to draw, reached: a row a person.

    Attributes:
        likeness: [P] mean cosine of photo-style pictures to unseen photos.
        ceiling: [P] the same of real pictures in the same circumstances.
        excess: [P] summed copy-paste of the photo-style pictures with a face.
        faces: [P] how many those are.
        correct: [P, attributes] how often the classifier saw what the prompt states.
        stated: [P, attributes] how often prompts stated the attribute.
    """

    likeness: Floats
    ceiling: Floats
    excess: Floats
    faces: Floats
    correct: Floats
    stated: Floats

    def as_json(self) -> dict[str, Any]:
        """Plain lists."""
        return {name: values.tolist() for name, values in vars(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Scores:
        """From plain lists."""
        return cls(**{name: np.asarray(values[name], dtype=float) for name in cls.__dataclass_fields__})


def face_diversity(grid: Grid) -> np.ndarray:
    """[P] mean distance between the faces of one person's photo-style pictures."""
    photos = grid.photos()
    width = photos.embeddings.shape[-1]
    return np.array([metrics.face_diversity(rows.reshape(-1, width)) for rows in photos.embeddings])


def per_person(scores: np.ndarray) -> np.ndarray:
    """Mean of each person's scores: [P, ...] to [P]."""
    return scores.reshape(len(scores), -1).mean(axis=1)
