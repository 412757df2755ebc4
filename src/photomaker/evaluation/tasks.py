"""Units of work: each names its pictures in full, so that its result can be kept and found again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace

from photomaker.types import Sampling


@dataclass(frozen=True)
class Photos:
    """Real photos of a person in mixed circumstances.

    Attributes:
        person: Number of the person.
        role: `references` or `unseen`; other roles give other photos.
        count: How many, 1 or more.
    """

    person: int
    role: str
    count: int


@dataclass(frozen=True)
class Contexts:
    """Real pictures of a person in the circumstances that prompts state.

    Attributes:
        person: Number of the person.
        seeds: [n] one a picture.
        states: [n] what each prompt states, as pairs of attribute and word.
        as_class: Draw the person as of this class; empty for the person's own.
    """

    person: int
    seeds: tuple[int, ...]
    states: tuple[tuple[tuple[str, str], ...], ...]
    as_class: str = ""


@dataclass(frozen=True)
class Pictures:
    """Generated pictures of a person, or of a mixture of several.

    Attributes:
        people: One person, or those mixed.
        weights: Weight of each of those mixed, 0 or more; empty for one person.
        references: Photos given to the method of each person, 1 or more.
        prompts: [n] prompts.
        seeds: [n] seeds of the noise.
        steps: Denoising steps.
        merge: Share of text-only steps; None is the method's default.
        guidance: Guidance scale; None is the method's default.
    """

    people: tuple[int, ...]
    weights: tuple[float, ...]
    references: int
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    merge: float | None
    guidance: float | None

    def with_merge(self, merge: float | None) -> Pictures:
        """The same with another share of text-only steps."""
        return replace(self, merge=merge)

    def sampling(self, seed: int) -> Sampling:
        """How the picture of a seed is drawn."""
        return Sampling(steps=self.steps, guidance=self.guidance, merge=self.merge, seed=seed)


@dataclass(frozen=True)
class SpedPictures(Pictures):
    """Pictures that are drawn in a way of their own.

    Attributes:
        way: How, except for the seed.
    """

    way: Sampling

    def sampling(self, seed: int) -> Sampling:
        """See `Pictures`."""
        return replace(self.way, seed=seed)


@dataclass(frozen=True)
class Followed:
    """Generated pictures that a ControlNet makes follow a real picture.

    Attributes:
        pictures: What is generated.
        control: The ControlNet, as a folder or `bundled`.
        weights: Hash of the ControlNet's folder.
        scale: How closely it is followed; 0 draws without it and measures the same.
        pose: Number of the person whose picture is followed, and the picture's seed.
    """

    pictures: Pictures
    control: str
    weights: str
    scale: float
    pose: tuple[int, int]


Task = Photos | Contexts | Pictures | Followed


def key(task: Task, fingerprint: str) -> str:
    """Name of a task's result: 32 hexadecimal digits that change with the task or what carries it out."""
    text = json.dumps([type(task).__name__, asdict(task), fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
