"""Settings of a comparison of methods, checked before anything is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from photomaker import checks
from photomaker.errors import SettingsError
from photomaker.evaluation.judges.settings import JudgeSettings
from photomaker.evaluation.plans.evaluate.settings import SPLIT_SIZE, check_gallery, check_shares, check_words
from photomaker.evaluation.prompts import BenchPrompt, prompt_list
from photomaker.evaluation.running.methods import Entry


@dataclass(frozen=True)
class ComparisonSettings:
    """One comparison; what is not listed here is as in `EvaluationSettings`, the same for all methods.

    Attributes:
        methods: The methods, in the order of the table.
        out: Folder of the results; rows and pictures are kept in `methods_rows` inside it.
        base: Base model of all methods, a folder or hub id; None is the bundled one.
        photos: A folder with a folder of photos for each person; None takes drawn people.
        classes: With `photos`, the class word of each person by the name of their folder.
        people: People scored for methods that need no tuning, 2 or more.
        tuned_people: People scored for methods that tune weights for each person; the first of the same people.
        gallery: People among whom a picture must find its person, with drawn people.
        prompt_list: "world", "paper", or a text file with one prompt a line.
        prompts: How many of them, from the first on; 0 is all.
        unseen: Photos that it never gets, to score by; 0 leaves those columns empty, where there are no more photos.
        counts: Numbers of reference photos for the curve of likeness over photos, for methods without tuning.
        merges: Merge shares for the curve of likeness and prompt accuracy, of methods that have a merge step.
        curve_people: People of those two curves; 0 leaves them out.
        curve_prompts: Photo-style prompts of the curve over photos; that over the merge step takes all prompts.
        pairs: Pairs of people of one class that are mixed, for methods that can; 0 leaves mixing out.
        size: Side of the pictures; None is the base's own.
        judge: Who measures.

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
    pairs: int = 10
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
        check_words(self.split, self.dtype)
        check_shares("merges", self.merges)
        self._check_people()
        prompt_list(self.prompt_list)

    def _check_people(self) -> None:
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
            "curve_people": (0, SPLIT_SIZE), "curve_prompts": (1, 10_000), "pairs": (0, SPLIT_SIZE),
            "processes": (1, 256), "threads": (1, 256), "samples": (1, 1_000_000),
        }  # fmt: skip
        given = [(name, getattr(self, name), bounds) for name, bounds in limits.items()]
        given += [("counts", value, (1, 64)) for value in self.counts]
        for name, value, (low, high) in given:
            checks.whole(name, value, low, high)
        if self.photos is None:
            check_gallery(self.gallery, self.people)


def prompts_of(settings: ComparisonSettings) -> tuple[BenchPrompt, ...]:
    """The prompts that the settings ask for.

    Raises:
        SettingsError: The list cannot be read, or has fewer.
    """
    listed = prompt_list(settings.prompt_list)
    if settings.prompts > len(listed):
        raise SettingsError(
            f"prompts is {settings.prompts} and the list {settings.prompt_list} has {len(listed)}; give no more"
        )
    return listed[: settings.prompts] if settings.prompts else listed
