"""What an ablation is asked to do, checked before anything is opened; and the choices that it varies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from photomaker import checks
from photomaker.errors import SettingsError
from photomaker.evaluation.plans.evaluate.settings import EvaluationSettings
from photomaker.evaluation.prompts import PROMPTS

NAME = "ablation"
SPLIT = "validation"
REFERENCES = 4
"""Photos of a person on all axes except `photos`."""

SHIPPED = "shipped"
"""The bundled adapter, which is scored, too."""

REFERENCE = "reference"
PHOTOS = "photos"


@dataclass(frozen=True)
class Axis:
    """One choice of the method, with everything else held.

    Attributes:
        title: Heading of its part of the page.
        question: What it tells apart, in one sentence.
        labels: Variant to what it is called there; the first one is the reference. None for the number of photos, which
            needs no training of its own.
    """

    title: str
    question: str
    labels: Mapping[str, str] | None


AXES: Mapping[str, Axis] = {
    "stacking": Axis(
        "Stacked, average, linear",
        "Each photo has a token of its own, or all photos become one embedding: their mean, or a mean whose shares a "
        "linear layer reads off the photos.",
        {REFERENCE: "stacked", "average": "average", "linear": "linear"},
    ),
    "mask": Axis(
        "Masked loss",
        "For half of the rows the loss counts the person only, or for none.",
        {REFERENCE: "half masked", "no_mask": "none masked"},
    ),
    "noise": Axis(
        "Backgrounds of the ID photos",
        "In training the background of half of the ID photos is noise, or all stay as they are; in drawing all photos "
        "have their backgrounds.",
        {REFERENCE: "noise", "no_noise": "as they are"},
    ),
    "target": Axis(
        "The target among the ID photos",
        "In training the picture to be drawn is never among its own ID photos, or may be.",
        {REFERENCE: "never", "target_among": "may be"},
    ),
    PHOTOS: Axis(
        "Number of ID photos",
        "The reference, trained with one to four photos a row, draws from more and more photos.",
        None,
    ),
    "class_word": Axis(
        "Class-word fusion",
        "The class word's text features are fused with the photos', or the photos' features alone go through the same "
        "layers.",
        {REFERENCE: "fused", "no_class_word": "photos alone"},
    ),
}


@dataclass(frozen=True)
class AblationSettings:
    """One run of the ablations.

    Attributes:
        data: Folder of synthetic people that `write_world` drew, none of them of the split that is scored; None draws
            `train_people` people into the cache.
        out: Folder of the result files; trainings and pictures are kept in `.cache` inside it.
        axes: Which of `AXES` to run.
        seeds: Trainings of each variant, with the seeds 0, 1, ...
        steps: Optimiser steps of a training.
        batch_size: Pictures a step.
        precision: Autocast precision of the trainings, bf16 or fp32.
        new_lora: Whether the LoRA starts anew instead of with the bundled adapter's; that takes many more steps.
        train_people: People trained on, the first ones of the data; 4 of them are kept for the log's validation.
        views: Pictures of each, where they are drawn.
        people: People scored, 2 or more.
        prompts: How many prompts of the benchmark, from the first on; one picture each.
        sampling_steps: Denoising steps.
        guidance: Guidance scale.
        merge: Share of text-only steps, 0..1.
        counts: Numbers of photos on the axis of that name, rising.
        dtype: Precision of drawing, see `EvaluationSettings`.
        processes: Trainings at a time, each on one thread.
        samples: Bootstrap resamples.

    Raises:
        SettingsError: A value is outside its range, or an axis is unknown.
    """

    data: Path | None = None
    out: Path = Path("benchmarks")
    axes: tuple[str, ...] = tuple(AXES)
    seeds: int = 3
    steps: int = 200
    batch_size: int = 16
    precision: Literal["bf16", "fp32"] = "bf16"
    new_lora: bool = False
    train_people: int = 800
    views: int = 10
    people: int = 24
    prompts: int = 6
    sampling_steps: int = 12
    guidance: float = 2.0
    merge: float = 0.1
    counts: tuple[int, ...] = (1, 2, 3, 4, 6, 8)
    dtype: str = "bf16"
    processes: int = 2
    samples: int = 2000

    def __post_init__(self) -> None:
        """Check every value."""
        limits = {
            "seeds": (1, 100), "steps": (1, 1_000_000), "batch_size": (1, 1024), "train_people": (2, 1_000_000),
            "views": (2, 1000), "people": (2, 10_000), "prompts": (1, len(PROMPTS)), "sampling_steps": (1, 1000),
            "processes": (1, 64), "samples": (1, 1_000_000),
        }  # fmt: skip
        for name, (low, high) in limits.items():
            checks.whole(name, getattr(self, name), low, high)
        self._check_words()
        self.judged(None)  # has the rest checked

    def _check_words(self) -> None:
        if self.precision not in ("bf16", "fp32"):
            raise SettingsError(f"precision is {self.precision!r}; give bf16 or fp32")
        for axis in self.axes:
            if axis not in AXES:
                near = get_close_matches(axis, AXES, n=1)
                hint = f"did you mean {near[0]}?" if near else f"give some of {', '.join(AXES)}"
                raise SettingsError(f"there is no axis {axis!r}; {hint}")
        if not self.axes or len(set(self.axes)) < len(self.axes):
            raise SettingsError(
                f"axes are {', '.join(self.axes) or 'empty'}; give some of {', '.join(AXES)}, each once"
            )
        if not self.counts or min(self.counts) < 1 or list(self.counts) != sorted(set(self.counts)):
            shown = ", ".join(map(str, self.counts)) or "empty"
            raise SettingsError(f"counts are {shown}; give numbers of photos from 1 up, in ascending order")

    @classmethod
    def tiny(cls) -> AblationSettings:
        """A trial run of seconds for each variant: everything runs, but the figures mean nothing."""
        return cls(
            seeds=1, steps=2, batch_size=2, train_people=8, views=4, people=2, prompts=1, sampling_steps=2,
            counts=(1, 2), processes=1, samples=20, precision="fp32", dtype="fp32",
        )  # fmt: skip

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants that the axes need, the reference first."""
        named = [name for axis in self.axes for name in AXES[axis].labels or ()]
        return tuple(dict.fromkeys([REFERENCE, *named]))

    def counts_of(self, variant: str) -> tuple[int, ...]:
        """Numbers of photos that a variant draws from."""
        wanted = self.counts if variant == REFERENCE and PHOTOS in self.axes else ()
        return tuple(sorted({REFERENCES, *wanted}))

    def judged(self, adapter: Path | None) -> EvaluationSettings:
        """How an adapter is scored; None is the bundled one."""
        return EvaluationSettings(
            adapter=adapter, name=NAME, out=self.out, split=SPLIT, people=self.people, prompts=self.prompts,
            seeds=1, references=max(REFERENCES, *self.counts), gallery=self.people, steps=self.sampling_steps,
            guidance=self.guidance, merge=self.merge, parts=("main",), processes=1, dtype=self.dtype,
            samples=self.samples,
        )  # fmt: skip

    @property
    def threads(self) -> int | None:
        """Threads of each process; None leaves this process's as they are."""
        return None if self.processes == 1 else 1


@dataclass(frozen=True)
class Job:
    """One training with its scores, or the scores of the bundled adapter alone.

    Attributes:
        variant: What is trained, or `SHIPPED`.
        seed: Of the training.
    """

    variant: str
    seed: int = 0

    @property
    def called(self) -> str:
        """For people."""
        shipped = self.variant == SHIPPED
        return "the shipped adapter" if shipped else f"{self.variant.replace('_', ' ')}, seed {self.seed}"

    def size(self, settings: AblationSettings) -> int:
        """How much there is to do: steps, and people to draw."""
        steps = 0 if self.variant == SHIPPED else settings.steps
        return steps + settings.people * len(settings.counts_of(self.variant))
