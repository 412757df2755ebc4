"""What a benchmark run is asked to do, checked before anything is opened."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from photomaker import checks
from photomaker.errors import SettingsError
from photomaker.evaluation.prompts import PROMPTS
from photomaker.evaluation.running.methods import DTYPES, Entry

PARTS = ("sweep", "main", "quality", "counts", "mixing", "classes", "cost")
"""The parts of a run, in their order; `sweep` chooses merge step and guidance for the others."""

MORE_PARTS = ("structure",)
"""Parts that are measured where they are asked for by name."""

SPLITS = ("test", "validation")
SPLIT_SIZE = 1_000_000


@dataclass(frozen=True)
class EvaluationSettings:
    """One run of the benchmark.

    Attributes:
        method: Name of the method in the registry.
        base: Base model folder or hub name; None takes the bundled one.
        adapter: The method's own weights; None takes the bundled ones.
        name: Name of the result files; empty takes the method's name.
        out: Folder of the result files; pictures and measurements are kept in `.cache` inside it.
        split: `test`, or `validation` while something is still being chosen.
        people: People scored, 2 or more.
        prompts: How many prompts of `PROMPTS`, from the first on.
        seeds: Pictures a person and prompt.
        references: Photos given to the method, 1 or more.
        unseen: Photos of each person that the method never gets, 1 or more; likeness is measured on them.
        gallery: People among whom a picture must find its person; at least `people`.
        steps: Denoising steps.
        guidance: Guidance scale; None takes what the sweep chooses, or the method's default without a sweep.
        merge: Share of text-only steps, 0..1; None takes what the sweep chooses, or the method's default.
        merges: Merge shares the sweep tries.
        guidances: Guidance scales the sweep tries at the merge share it has chosen.
        sweep_people: People of the sweep; they are of the other split, so never scored.
        accuracy_bar: Prompt accuracy that a setting must reach in the sweep, 0..1.
        pairs: Pairs of people for identity mixing.
        parts: Which of `PARTS` and `MORE_PARTS` to run.
        control: The ControlNet of the part `structure`, as a folder or `bundled`; it follows landmarks or edges.
        control_scale: How closely it is followed.
        processes: Processes that make and measure pictures.
        threads: Threads of each process.
        device: Where the method runs: `auto`, or a torch device such as `cpu`.
        dtype: Precision of the method: `auto` (bf16 on a GPU, fp32 otherwise), `fp32`, `bf16`, `fp16`.
        samples: Bootstrap resamples.
        resume: Whether to use what an interrupted run left in the cache.

    Raises:
        SettingsError: A value is outside its range, or two contradict each other.
    """

    method: str = "photomaker"
    base: str | Path | None = None
    adapter: str | Path | None = None
    name: str = ""
    out: Path = Path("benchmarks")
    split: str = "test"
    people: int = 100
    prompts: int = len(PROMPTS)
    seeds: int = 2
    references: int = 4
    unseen: int = 6
    gallery: int = 200
    steps: int = 20
    guidance: float | None = None
    merge: float | None = None
    merges: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    guidances: tuple[float, ...] = (2.0, 3.0, 5.0)
    sweep_people: int = 20
    accuracy_bar: float = 0.95
    pairs: int = 30
    parts: tuple[str, ...] = PARTS
    control: str | Path | None = None
    control_scale: float = 1.0
    processes: int = 2
    threads: int = 1
    device: str = "auto"
    dtype: str = "auto"
    samples: int = 2000
    resume: bool = True

    def __post_init__(self) -> None:
        """Check every value."""
        self._check_whole_numbers()
        self._check_words()
        self._check_shares()

    @property
    def title(self) -> str:
        """Name of the result files."""
        return self.name or self.method

    @property
    def entry(self) -> Entry:
        """The method."""
        return Entry(self.method, adapter=None if self.adapter is None else str(self.adapter))

    @property
    def sweep_split(self) -> str:
        """The split whose people choose the settings: never the one that is scored."""
        return "validation" if self.split == "test" else "test"

    def _check_whole_numbers(self) -> None:
        limits = {
            "people": (2, SPLIT_SIZE), "prompts": (1, len(PROMPTS)), "seeds": (1, 1000),
            "references": (1, 64), "unseen": (1, 64), "gallery": (2, SPLIT_SIZE), "steps": (1, 1000),
            "sweep_people": (2, SPLIT_SIZE), "pairs": (1, SPLIT_SIZE),
            "processes": (1, 256), "threads": (1, 256),
            "samples": (1, 1_000_000),
        }  # fmt: skip
        for name, (low, high) in limits.items():
            checks.whole(name, getattr(self, name), low, high)
        check_gallery(self.gallery, self.people)

    def _check_words(self) -> None:
        check_words(self.split, self.dtype)
        known = (*PARTS, *MORE_PARTS)
        unknown = [part for part in self.parts if part not in known]
        if unknown or not self.parts:
            raise SettingsError(
                f"parts are {', '.join(self.parts) or 'empty'}; choose from {', '.join(known)}"
            )
        if "structure" in self.parts and self.control is None:
            raise SettingsError(
                "the part structure measures a ControlNet and none is given; give its folder as control"
            )
        if any(sign in self.title for sign in "/\\") or self.title in {"", ".", ".."}:
            raise SettingsError(f"name is {self.title!r}; give a plain file name without slashes")

    def _check_shares(self) -> None:
        check_shares("accuracy_bar", [self.accuracy_bar])
        check_shares("merges", self.merges)
        check_shares("merge", [] if self.merge is None else [self.merge])
        scales = [*self.guidances, *([] if self.guidance is None else [self.guidance])]
        if not (math.isfinite(self.control_scale) and self.control_scale > 0):
            raise SettingsError(f"control_scale is {self.control_scale}; give a number above 0")
        for value in scales:
            if not (math.isfinite(value) and value >= 0):
                raise SettingsError(f"guidance has {value}; give a number from 0 up, 1 switches guidance off")
        if "sweep" in self.parts and not self.merges:
            raise SettingsError(
                "merges is empty; give the sweep at least one share from 0 to 1, or leave it out of parts"
            )


def check_words(split: str, dtype: str) -> None:
    """Look at what every plan is asked for in words.

    Raises:
        SettingsError: There is no such split or precision.
    """
    if split not in SPLITS:
        raise SettingsError(f"split is {split!r}; choose {' or '.join(SPLITS)}")
    if dtype not in ("auto", *DTYPES):
        raise SettingsError(f"dtype is {dtype!r}; choose auto, {', '.join(DTYPES)}")


def check_gallery(gallery: int, people: int) -> None:
    """Make sure that all who are scored are among those who are looked for.

    Raises:
        SettingsError: The gallery is smaller.
    """
    if gallery < people:
        raise SettingsError(f"gallery is {gallery} for {people} people; give at least as many as are scored")


def check_shares(name: str, values: Sequence[float]) -> None:
    """Look at shares of the steps.

    Raises:
        SettingsError: One lies outside 0..1.
    """
    for value in values:
        if not (math.isfinite(value) and 0 <= value <= 1):
            raise SettingsError(f"{name} has {value}; give a share from 0 to 1")
