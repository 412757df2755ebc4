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
from photomaker.evaluation.metrics import Floats, Interval
from photomaker.evaluation.people.world import stable_seed
from photomaker.evaluation.plans.evaluate.settings import EvaluationSettings
from photomaker.evaluation.prompts import ATTRIBUTES, PROMPTS, BenchPrompt
from photomaker.evaluation.report.tables import ByPerson
from photomaker.evaluation.running.picture_sets import Contexts, Photos, Pictures
from photomaker.evaluation.running.runner import Progress, Runner
from photomaker.evaluation.running.store import Store
from photomaker.evaluation.running.worker import Tools

TRIGGER = "img"


@dataclass(frozen=True)
class Part:
    """What one part of a plan found.

    Attributes:
        row: What figures are computed from: names to arrays whose first axis is people, or pairs of them.
        detail: Plain JSON data beside the figures: by prompt, by attribute, curves.
        figures: Figures with intervals that are computed otherwise.
    """

    row: ByPerson = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Interval] = field(default_factory=dict)

    @classmethod
    def joined(cls, parts: Iterable[Part]) -> Part:
        """All that several parts found."""
        row, detail, figures = (dict[str, Any]() for _ in range(3))
        for part in parts:
            row |= part.row
            detail |= part.detail
            figures |= part.figures
        return cls(row, detail, figures)


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

    def scores(self, grid: Grid, references: int) -> Scores:
        """Scores of pictures that were made from so many photos, or of real ones."""

        def excess(pictures: np.ndarray, row: int) -> np.ndarray:
            return metrics.copy_paste(pictures, self.references[row, :references], self.unseen[row])

        photos = grid.photos()
        # Over pictures with a face: as zeros, the others would make a method look better than it is.
        over = photos.score(excess) * photos.found
        return Scores(
            per_person(photos.score(self.likeness)),
            per_person(self.real.photos().score(self.likeness)),
            over.reshape(len(over), -1).sum(axis=1),
            photos.found.reshape(len(over), -1).sum(axis=1).astype(float),
            *grid.accuracy(self.classes),
        )

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


def measured_cast(
    settings: EvaluationSettings, tools: Tools, folder: Path, progress: Progress | None = None
) -> Cast:
    """A cast whose real photos are measured, as far as that has not been done, and kept in a folder.

    Args:
        settings: People, prompts and processes; `references` is the largest number of photos.
        tools: See `Runner`.
        folder: Keeps the measurements.
        progress: See `Runner`.
    """
    mark = f"{tools.judged_by(settings)} {tools.world().fingerprint()}"
    with open_runner(settings, tools, folder, mark, progress) as runner:
        cast = Cast(settings, runner, settings.merge, settings.guidance)
        _ = cast.real, cast.references, cast.unseen  # now, while the runner is open
    return cast


def face_diversity(grid: Grid) -> np.ndarray:
    """[P] mean distance between the faces of one person's photo-style pictures."""
    photos = grid.photos()
    width = photos.embeddings.shape[-1]
    return np.array([metrics.face_diversity(rows.reshape(-1, width)) for rows in photos.embeddings])


def per_person(scores: np.ndarray) -> np.ndarray:
    """Mean of each person's scores: [P, ...] to [P]."""
    return scores.reshape(len(scores), -1).mean(axis=1)
