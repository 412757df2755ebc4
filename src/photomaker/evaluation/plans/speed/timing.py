"""Times of ways to draw, which take turns in one process, and their operations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from photomaker.evaluation.plans.cast import Cast
from photomaker.evaluation.plans.speed.settings import SpeedSettings
from photomaker.evaluation.report.files import write
from photomaker.evaluation.running.picture_sets import Pictures, SpedPictures
from photomaker.evaluation.running.runner import Progress
from photomaker.evaluation.running.worker import Tools, Worker
from photomaker.outside import read_file
from photomaker.speeds import EXACT, WAYS, Way


def drawn_by(pictures: Pictures, way: Way) -> SpedPictures:
    """The same pictures, drawn by a way."""
    return SpedPictures(**vars(pictures), way=way.applied(pictures.sampling(0)))


@dataclass(frozen=True)
class Times:
    """What a way takes.

    Attributes:
        seconds: A picture.
        share: Of the exact way's.
        tflop: Operations of a picture, in units of 10^12.
    """

    seconds: float
    share: float
    tflop: float


class Clock:
    """Times the ways in turns; rounds are kept as they are done.

    Args:
        settings: Ways and rounds.
        tools: How the method is opened.
        path: Keeps the rounds.
        prints: What the times depend on beside the ways.
    """

    def __init__(self, settings: SpeedSettings, tools: Tools, path: Path, prints: str) -> None:
        """Read the rounds that are there."""
        self.settings, self.path, self.worker = settings, path, Worker(settings.scored, tools)
        self.key = f"{prints} {settings.threads} threads {settings.pictures} pictures"
        kept = read_file(path, "delete it, and give the same command again") if path.is_file() else {}
        self.kept: dict[str, Any] = kept if kept.get("key") == self.key else {"key": self.key, "ways": {}}

    def measured(self, cast: Cast, progress: Progress | None = None) -> dict[str, Times]:
        """Every way's times, those that were not kept measured now.

        Args:
            cast: Whose first person and prompts are drawn.
            progress: Called with the rounds.
        """
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.settings.threads)
        try:
            self._measure(cast, progress)
        finally:
            torch.set_num_threads(before)
        return {name: self._times(self.kept["ways"][name]) for name in self.settings.chosen}

    def _measure(self, cast: Cast, progress: Progress | None) -> None:
        missing = {name: way for name, way in self.settings.chosen.items() if name not in self.kept["ways"]}
        if not missing:
            return
        task = cast.picture_task(cast.people[0], cast.prompts[:1], self.settings.pictures)
        exact = drawn_by(task, WAYS[EXACT])
        exact.make(self.worker)
        found: dict[str, Any] = {name: {"pairs": [], "tflop": 0.0} for name in missing}
        for number in range(self.settings.rounds):
            for name, way in missing.items():
                sped = drawn_by(task, way)
                if not number:
                    found[name]["tflop"] = self._operations(sped)
                # the exact way right before each: a slow minute hits both
                pair = [one.make(self.worker).seconds / self.settings.pictures for one in (exact, sped)]
                found[name]["pairs"].append(pair)
            if progress:
                progress("times", number + 1, self.settings.rounds)
        self.kept["ways"].update(found)
        write(self.path, json.dumps(self.kept))

    def _operations(self, task: SpedPictures) -> float:
        """Operations of one picture of a task."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            replace(task, prompts=task.prompts[:1], seeds=task.seeds[:1]).make(self.worker)
        return float(counter.get_total_flops()) / 1e12

    @staticmethod
    def _times(kept: Mapping[str, Any]) -> Times:
        exact, own = np.array(kept["pairs"]).T
        return Times(float(np.median(own)), float(np.median(own / exact)), float(kept["tflop"]))
