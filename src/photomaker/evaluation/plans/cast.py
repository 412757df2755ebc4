"""The cast of a plan that looks at one method in depth: its people, their photos, grids of measured pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from photomaker.evaluation import metrics
from photomaker.evaluation.judges.bundled import Measured
from photomaker.evaluation.metrics import Interval
from photomaker.evaluation.people.world import stable_seed
from photomaker.evaluation.plans.evaluate.settings import EvaluationSettings
from photomaker.evaluation.prompts import ATTRIBUTES, PROMPTS, BenchPrompt
from photomaker.evaluation.running.picture_sets import Contexts, Photos, Pictures
from photomaker.evaluation.running.runner import Progress, Runner
from photomaker.evaluation.running.store import Store
from photomaker.evaluation.running.worker import Tools

TRIGGER = "img"


@dataclass(frozen=True)
class Part:
    """What one part of the benchmark found.

    Attributes:
        figures: Figures with intervals, by name.
        detail: Plain JSON data beside them: by prompt, by attribute, curves.
    """

    figures: Mapping[str, Interval] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def joined(cls, parts: Iterable[Part]) -> Part:
        """All that several parts found."""
        figures: dict[str, Interval] = {}
        detail: dict[str, Any] = {}
        for part in parts:
            figures |= part.figures
            detail |= part.detail
        return cls(figures, detail)


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


def open_runner(
    settings: EvaluationSettings, tools: Tools, folder: Path, mark: str, progress: Progress | None
) -> Runner:
    """A runner whose results are kept in a folder.

    Args:
        settings: How many processes, and whether to go on with what is in the folder.
        tools: See `Runner`.
        folder: The folder.
        mark: Stands for the models that make and measure pictures.
        progress: See `Runner`.

    Raises:
        OutputError: The folder cannot be written.
    """
    store = Store(folder, mark)
    store.begin(keep=settings.resume)
    return Runner(settings, tools, store, progress)


class Cast:
    """The people of a run and the means to photograph and to generate them."""

    def __init__(
        self, settings: EvaluationSettings, runner: Runner, merge: float | None, guidance: float | None
    ) -> None:
        """Choose the cast: `settings.people` that are scored, among `settings.gallery`."""
        self.settings = settings
        self.runner = runner
        self.merge = merge
        self.guidance = guidance
        self.everyone = runner.world.people(settings.split, settings.gallery)
        self.people = self.everyone[: settings.people]
        self.classes = [runner.world.class_of(person) for person in self.everyone]
        self.prompts = PROMPTS[: settings.prompts]

    @cached_property
    def unseen(self) -> np.ndarray:
        """[gallery, unseen, width] photos that no method gets."""
        return self._photos("unseen", self.everyone, self.settings.unseen)

    @cached_property
    def references(self) -> np.ndarray:
        """[P, references, width] photos that the method gets."""
        return self._photos("references", self.people, self.settings.references)

    @cached_property
    def real(self) -> Grid:
        """Real pictures of the people scored, in the circumstances of the prompts."""
        tasks = [self.context_task(person, self.prompts, self.settings.seeds) for person in self.people]
        return Grid.of(self.runner.measure("real pictures", tasks), self.prompts, self.settings.seeds)

    @cached_property
    def generated(self) -> Grid:
        """Generated pictures of the people scored."""
        return self.generate("pictures", self.people, self.prompts, self.settings.seeds)

    def generate(
        self, stage: str, people: Sequence[int], prompts: Sequence[BenchPrompt], seeds: int, **changes: object
    ) -> Grid:
        """Generate and measure pictures of people.

        Args:
            stage: Name for the progress bar.
            people: Numbers of the people.
            prompts: The prompts.
            seeds: Pictures a person and prompt.
            **changes: Fields of `tasks.Pictures` to change, for example `merge=1.0`.
        """
        tasks = [_changed(self.picture_task(person, prompts, seeds), changes) for person in people]
        return Grid.of(self.runner.measure(stage, tasks), prompts, seeds)

    def picture_task(
        self, person: int, prompts: Sequence[BenchPrompt], seeds: int, as_class: str = ""
    ) -> Pictures:
        """The task of generating a person's pictures; the noise is the same whatever else changes."""
        phrase = as_class or self.runner.world.class_of(person)
        places = [(prompt, seed) for prompt in prompts for seed in range(seeds)]
        return Pictures(
            people=(person,),
            weights=(),
            references=self.settings.references,
            prompts=tuple(prompt.text(phrase, TRIGGER) for prompt, _ in places),
            seeds=tuple(stable_seed(person, prompt.name, seed) for prompt, seed in places),
            steps=self.settings.steps,
            merge=self.merge,
            guidance=self.guidance,
        )

    def context_task(
        self, person: int, prompts: Sequence[BenchPrompt], seeds: int, as_class: str = ""
    ) -> Contexts:
        """The task of drawing real pictures in the circumstances of prompts."""
        places = [(prompt, seed) for prompt in prompts for seed in range(seeds)]
        return Contexts(
            person=person,
            seeds=tuple(stable_seed(person, prompt.name, seed) for prompt, seed in places),
            states=tuple(tuple(sorted(prompt.states.items())) for prompt, _ in places),
            as_class=as_class,
        )

    def likeness(self, pictures: np.ndarray, row: int) -> np.ndarray:
        """Mean cosine of pictures [n, width] with the unseen photos of a person, [n]."""
        return metrics.mean_cosine(pictures, self.unseen[row])

    def interval(self, statistic: Callable[..., float], *columns: np.ndarray) -> Interval:
        """Bootstrap over people; see `metrics.bootstrap`."""
        return metrics.bootstrap(statistic, *columns, samples=self.settings.samples)

    def mean(self, scores: np.ndarray) -> Interval:
        """Mean over everything, with people (the first axis) resampled."""
        return self.interval(_mean, per_person(scores))

    def ratio(self, numerator: np.ndarray, denominator: np.ndarray) -> Interval:
        """Ratio of means, with people (the first axis) resampled."""
        return self.interval(metrics.ratio_of_means, per_person(numerator), per_person(denominator))

    @cached_property
    def unseen_by_third(self) -> np.ndarray:
        """The same photos as `unseen`, seen by the third recogniser."""
        tasks = [Photos(person, "unseen", self.settings.unseen) for person in self.everyone]
        return np.stack([one.more["third"] for one in self.runner.measure("unseen photos", tasks)])

    def _photos(self, role: str, people: Sequence[int], count: int) -> np.ndarray:
        tasks = [Photos(person, role, count) for person in people]
        return np.stack([one.embeddings for one in self.runner.measure(f"{role} photos", tasks)])


def _changed(task: Pictures, changes: Mapping[str, Any]) -> Pictures:
    return replace(task, **changes)


def _mean(values: np.ndarray) -> float:
    return float(values.mean())


def per_person(scores: np.ndarray) -> np.ndarray:
    """Mean of each person's scores: [P, ...] to [P]."""
    return scores.reshape(len(scores), -1).mean(axis=1)
