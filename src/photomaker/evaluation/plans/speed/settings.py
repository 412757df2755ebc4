"""What a run of the speeds is asked to do, and what it finds of each way to draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from photomaker.checks import whole
from photomaker.errors import SettingsError
from photomaker.evaluation.metrics import Interval
from photomaker.evaluation.plans.evaluate.settings import EvaluationSettings
from photomaker.speeds import EXACT, WAYS, Way
from photomaker.types import Sampling

NAME = "speed"
REFERENCES = 4
"""Photos of a person."""


@dataclass(frozen=True)
class SpeedSettings:
    """One run.

    Attributes:
        people: People scored, 2 or more; this and what is not listed here is as in `EvaluationSettings`.
        ways: Names of ways, see `photomaker.speeds`; empty is all of them.
        rounds: How often each way is timed.
        pictures: Pictures that are timed together.
    """

    people: int = 50
    prompts: int = 10
    seeds: int = 2
    split: str = "test"
    ways: tuple[str, ...] = ()
    rounds: int = 5
    pictures: int = 1
    out: Path = Path("benchmarks")
    processes: int = 2
    threads: int = 1
    device: str = "auto"
    dtype: str = "auto"
    samples: int = 2000

    def __post_init__(self) -> None:
        """Check what the benchmark's own settings do not.

        Raises:
            SettingsError: A way is unknown, or a number out of range.
        """
        whole("rounds", self.rounds, 1, 1000)
        whole("pictures", self.pictures, 1, 64)
        for name in self.ways:
            if name not in WAYS:
                raise SettingsError(f"there is no way {name!r}; known are {', '.join(WAYS)}")
        _ = self.scored

    @property
    def scored(self) -> EvaluationSettings:
        """People, prompts and processes as the benchmark takes them."""
        return EvaluationSettings(
            name=NAME, out=self.out, split=self.split, people=self.people, gallery=max(2, self.people),
            prompts=self.prompts, seeds=self.seeds, references=REFERENCES, processes=self.processes,
            threads=self.threads, device=self.device, dtype=self.dtype, samples=self.samples,
        )  # fmt: skip

    @property
    def chosen(self) -> Mapping[str, Way]:
        """The ways that are measured, the exact one first."""
        names = dict.fromkeys((EXACT, *(self.ways or WAYS)))
        return {name: WAYS[name] for name in names}


@dataclass(frozen=True)
class Row:
    """What one way reaches.

    Attributes:
        name: Of the way.
        sampling: How it draws.
        figures: Name to interval.
        seconds: A picture, the median of the rounds.
        share: Of the exact way's seconds in the same round, the median.
        tflop: Operations of a picture, in units of 10^12.
    """

    name: str
    sampling: Sampling
    figures: Mapping[str, Interval] = field(default_factory=dict)
    seconds: float = 0.0
    share: float = 1.0
    tflop: float = 0.0
