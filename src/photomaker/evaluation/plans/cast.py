"""The cast of a plan that looks at one method in depth: its people, and their photos and pictures, measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from photomaker.evaluation import metrics
from photomaker.evaluation.metrics import Interval
from photomaker.evaluation.people.world import stable_seed
from photomaker.evaluation.plans.evaluate.settings import EvaluationSettings
from photomaker.evaluation.plans.grid import Grid, Scores, per_person
from photomaker.evaluation.prompts import PROMPTS, BenchPrompt
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
    mark = f"{tools.judged_by(settings)} {tools.world(settings).fingerprint()}"
    with open_runner(settings, tools, folder, mark, progress) as runner:
        cast = Cast(settings, runner, settings.merge, settings.guidance)
        _ = cast.real, cast.references, cast.unseen  # now, while the runner is open
    return cast
