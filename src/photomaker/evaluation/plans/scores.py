"""Scores of each person that several plans compare, and the real people whom they are scored by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from photomaker.evaluation import metrics
from photomaker.evaluation.metrics import Floats
from photomaker.evaluation.plans.cast import Cast, Grid, open_runner, per_person
from photomaker.evaluation.plans.evaluate.settings import EvaluationSettings
from photomaker.evaluation.running.runner import Progress
from photomaker.evaluation.running.worker import Tools


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


class RealPeople:
    """The people of a plan with their real photos, measured once for all that is scored by them.

    Args:
        settings: People, prompts and processes; `references` is the largest number of photos.
        tools: Where people and judge come from.
        folder: Keeps the measurements.
        progress: See `running.runner.Runner`.
    """

    def __init__(
        self, settings: EvaluationSettings, tools: Tools, folder: Path, progress: Progress | None = None
    ) -> None:
        """Measure what is not kept already."""
        mark = f"{tools.judge(settings).fingerprint()} {tools.world().fingerprint()}"
        with open_runner(settings, tools, folder, mark, progress) as runner:
            self.cast = Cast(settings, runner, settings.merge, settings.guidance)
            # all of it now, while the runner is open
            self.real, self.references, self.unseen = self.cast.real, self.cast.references, self.cast.unseen

    def scores(self, grid: Grid, references: int) -> Scores:
        """Scores of generated pictures that were made from so many photos."""

        def excess(pictures: np.ndarray, row: int) -> np.ndarray:
            return metrics.copy_paste(pictures, self.references[row, :references], self.unseen[row])

        photos = grid.photos()
        people = len(photos.embeddings)
        correct, stated = grid.accuracy(self.cast.classes)
        return Scores(
            per_person(photos.score(self.cast.likeness)),
            per_person(self.real.photos().score(self.cast.likeness)),
            (photos.score(excess) * photos.found).reshape(people, -1).sum(axis=1),
            photos.found.reshape(people, -1).sum(axis=1).astype(float),
            correct,
            stated,
        )
