"""Settings of a comparison of methods, checked before anything is opened."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from photomaker.errors import SettingsError
from photomaker.evaluation.prompts import prompt_list
from photomaker.evaluation.settings import DTYPES, SPLIT_SIZE, SPLITS
from photomaker.faces.plugins import PlugIn

Plain = str | int | float | bool | None
EVALUATION = "evaluation"
"""Name of the bundled recogniser that nothing but evaluation ever sees."""


@dataclass(frozen=True)
class Entry:
    """One row of the table: a method and what it runs with.

    Attributes:
        name: What it is called in tables and folders.
        method: Its name in the registry; empty is `name`.
        adapter: Its own weights; None is what it comes with.
        merge: Share of text-only steps, 0..1; None is the method's own default.
        guidance: Guidance scale; None is the method's own default.
        options: Further arguments of its `open`, by name.

    Raises:
        SettingsError: A value is outside its range.
    """

    name: str
    method: str = ""
    adapter: str | None = None
    merge: float | None = None
    guidance: float | None = None
    options: Mapping[str, Plain] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the values."""
        if not self.name or any(sign in self.name for sign in "/\\:") or self.name in {".", "..", "real"}:
            raise SettingsError(
                f"a method is called {self.name!r}; give it a plain name without slashes, other than 'real'"
            )
        if self.merge is not None and not 0 <= self.merge <= 1:
            raise SettingsError(f"merge of {self.name} is {self.merge}; give a share from 0 to 1")
        if self.guidance is not None and not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise SettingsError(f"guidance of {self.name} is {self.guidance}; give a number from 0 up")

    @property
    def registered(self) -> str:
        """The method's name in the registry."""
        return self.method or self.name


@dataclass(frozen=True)
class JudgeSettings:
    """Who measures the pictures.

    Attributes:
        detector: Finds faces.
        recogniser: Decides the figures; no method may have seen it. "evaluation" is the bundled one.
        second: Another recogniser, beside it.
        attributes: Whether the bundled classifier reads what the prompts state; it knows drawn people only.
        clip: CLIP for CLIP-T and CLIP-I, a folder or hub id; None leaves the columns empty.
        dino: DINO (ViT) for the column of that name, a folder or hub id; None leaves it empty.
        lpips_trunk: torchvision's AlexNet or VGG-16 for LPIPS; None takes the small distance instead.
        lpips_heads: LPIPS's own weights that go with it.
        inception: FID's Inception weights; None takes features of the bundled classifier instead.

    Raises:
        SettingsError: Half of LPIPS is named.
    """

    detector: PlugIn = field(default_factory=PlugIn)
    recogniser: PlugIn = field(default_factory=lambda: PlugIn(EVALUATION))
    second: PlugIn = field(default_factory=PlugIn)
    attributes: bool = True
    clip: str | None = None
    dino: str | None = None
    lpips_trunk: str | None = None
    lpips_heads: str | None = None
    inception: str | None = None

    def __post_init__(self) -> None:
        """Check that LPIPS is whole."""
        if (self.lpips_trunk is None) != (self.lpips_heads is None):
            raise SettingsError("LPIPS needs two files; give both lpips_trunk and lpips_heads, or neither")


@dataclass(frozen=True)
class ComparisonSettings:
    """One comparison.

    Attributes:
        methods: The methods, in the order of the table.
        out: Folder of the results; rows and pictures are kept in `methods_rows` inside it.
        base: Base model of all methods, a folder or hub id; None is the bundled one.
        photos: A folder with a folder of photos for each person; None takes drawn people.
        classes: With `photos`, the class word of each person by the name of their folder.
        split: With drawn people, `test`, or `validation` while something is still being chosen.
        people: People scored for methods that need no tuning, 2 or more.
        tuned_people: People scored for methods that tune weights for each person; the first of the same people.
        gallery: People among whom a picture must find its person, with drawn people.
        prompt_list: "world", "paper", or a text file with one prompt a line.
        prompts: How many of them, from the first on; 0 is all.
        seeds: Pictures a person and prompt.
        references: Photos that the method gets.
        unseen: Photos that it never gets, to score by; 0 leaves those columns empty, where there are no more photos.
        steps: Denoising steps, the same for all.
        counts: Numbers of reference photos for the curve of likeness over photos, for methods without tuning.
        merges: Merge shares for the sweep of methods that have one.
        curve_people: People of those two curves; 0 leaves them out.
        curve_prompts: Photo-style prompts of those two curves.
        size: Side of the pictures; None is the base's own.
        judge: Who measures.
        processes: Processes at work.
        threads: Threads of each.
        device: `auto`, or a torch device.
        dtype: `auto` (bf16 on a GPU, fp32 otherwise), `fp32`, `bf16`, `fp16`.
        samples: Bootstrap resamples.

    Raises:
        SettingsError: A value is outside its range, or two contradict each other.
    """

    methods: tuple[Entry, ...] = field(default_factory=lambda: (Entry("photomaker"),))
    out: Path = Path("benchmarks")
    base: str | None = None
    photos: Path | None = None
    classes: Mapping[str, str] = field(default_factory=dict)
    split: str = "test"
    people: int = 50
    tuned_people: int = 8
    gallery: int = 200
    prompt_list: str = "world"
    prompts: int = 10
    seeds: int = 2
    references: int = 4
    unseen: int = 6
    steps: int = 20
    counts: tuple[int, ...] = (1, 2, 4, 8)
    merges: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.5)
    curve_people: int = 20
    curve_prompts: int = 4
    size: int | None = None
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    processes: int = 2
    threads: int = 1
    device: str = "auto"
    dtype: str = "auto"
    samples: int = 2000

    def __post_init__(self) -> None:
        """Check every value."""
        self._check_whole_numbers()
        names = [entry.name for entry in self.methods]
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or twice:
            wrong = f"{twice[0]!r} is named twice" if twice else "no method is named"
            raise SettingsError(f"{wrong}; give each method of the comparison once")
        if self.split not in SPLITS:
            raise SettingsError(f"split is {self.split!r}; choose {' or '.join(SPLITS)}")
        if self.dtype not in ("auto", *DTYPES):
            raise SettingsError(f"dtype is {self.dtype!r}; choose auto, {', '.join(DTYPES)}")
        for value in self.merges:
            if not 0 <= value <= 1:
                raise SettingsError(f"merges has {value}; give shares from 0 to 1")
        self._check_people()
        prompt_list(self.prompt_list)

    def _check_people(self) -> None:
        if self.gallery < self.people and self.photos is None:
            raise SettingsError(
                f"gallery is {self.gallery} for {self.people} people; give at least as many as are scored"
            )
        if self.tuned_people > self.people or self.curve_people > self.people:
            raise SettingsError(
                f"tuned_people is {self.tuned_people} and curve_people {self.curve_people} of {self.people} people; "
                "give no more than are scored"
            )
        if self.photos is None and not self.unseen:
            raise SettingsError("unseen is 0; give 1 or more, drawn people have as many photos as needed")

    def _check_whole_numbers(self) -> None:
        limits = {
            "people": (2, SPLIT_SIZE), "tuned_people": (2, SPLIT_SIZE), "gallery": (2, SPLIT_SIZE),
            "prompts": (0, 10_000), "seeds": (1, 1000), "references": (1, 64), "unseen": (0, 64), "steps": (1, 1000),
            "curve_people": (0, SPLIT_SIZE), "curve_prompts": (1, 10_000), "processes": (1, 256), "threads": (1, 256),
            "samples": (1, 1_000_000),
        }  # fmt: skip
        given = [(name, getattr(self, name), bounds) for name, bounds in limits.items()]
        given += [("counts", value, (1, 64)) for value in self.counts]
        for name, value, (low, high) in given:
            if not isinstance(value, int) or not low <= value <= high:
                raise SettingsError(f"{name} is {value}; give a whole number from {low} to {high}")
