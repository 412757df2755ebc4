"""Sets of pictures of one person: each names them in full, makes and measures them, and is kept under its own key."""

from __future__ import annotations

import hashlib
import json
import time
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from photomaker.errors import PhotoError
from photomaker.evaluation.judges.bundled import Measured
from photomaker.evaluation.running.store import Store, load, save
from photomaker.evaluation.running.worker import Worker
from photomaker.types import PLAIN, Extras, Identity, Request, Sampling

LABEL, MORE = "label_", "more_"
POSES_TRIED = 10


@dataclass(frozen=True)
class Made:
    """Pictures of one set.

    Attributes:
        pictures: The pictures.
        seconds: How long generating took; 0 for real ones.
        refused: Whether the method could do nothing with the photos; the pictures are grey then.
        followed: [5, 2] landmarks that the pictures were to have.
    """

    pictures: list[Image.Image]
    seconds: float = 0.0
    refused: bool = False
    followed: np.ndarray | None = None


class PictureSet(ABC):
    """Pictures of one person that are made and measured together, a task of `running.runner.Runner`."""

    generated = True
    """Whether a method makes them; such pictures are kept, real ones can be had again."""

    @abstractmethod
    def make(self, worker: Worker) -> Made:
        """Make the pictures."""

    def file(self, store: Store) -> Path:
        """Where the measurement is kept: its name changes with the set or with what makes and measures it."""
        return store.named(key(self, store.mark))

    def done(self, store: Store) -> bool:
        """See `running.runner.Task`."""
        return self.file(store).exists()

    def carry_out(self, worker: Worker, store: Store) -> None:
        """See `running.runner.Task`: make, measure, keep."""
        made = self.make(worker)
        measured = worker.judge.measure(made.pictures)
        # Nothing was drawn, so nothing that a prompt states can be seen, whatever a classifier says of plain grey.
        arrays: dict[str, Any] = {
            LABEL + name: np.full_like(words, "") if made.refused else words
            for name, words in measured.labels.items()
        }
        arrays |= {MORE + name: values for name, values in measured.more.items()}
        if made.followed is not None:
            apart = worker.judge.landmarks(made.pictures) - made.followed
            arrays[f"{MORE}landmark_error"] = np.linalg.norm(apart, axis=-1).mean(-1).astype(np.float32)
        if self.generated:
            arrays["pictures"] = np.stack([np.asarray(picture.convert("RGB")) for picture in made.pictures])
        taken = {"embeddings": measured.embeddings, "seconds": np.float64(made.seconds)}
        save(self.file(store), {**taken, **arrays})

    def measured(self, store: Store) -> Measured:
        """What was kept of the measurement."""
        kept = load(self.file(store))
        labels, more = (
            {name.removeprefix(kind): kept[name] for name in kept if name.startswith(kind)}
            for kind in (LABEL, MORE)
        )
        return Measured(kept["embeddings"], labels, float(kept["seconds"]), more)

    def pictures_in(self, store: Store) -> list[Image.Image]:
        """The generated pictures that were kept."""
        return [Image.fromarray(pixels) for pixels in load(self.file(store))["pictures"]]


@dataclass(frozen=True)
class Photos(PictureSet):
    """Real photos of a person in mixed circumstances.

    Attributes:
        person: Number of the person.
        role: `references` or `unseen`; other roles give other photos.
        count: How many, 1 or more.
    """

    person: int
    role: str
    count: int

    generated = False

    def make(self, worker: Worker) -> Made:
        """See `PictureSet`."""
        return Made(worker.world.photos(self.person, self.role, self.count))


@dataclass(frozen=True)
class Contexts(PictureSet):
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

    generated = False

    def make(self, worker: Worker) -> Made:
        """See `PictureSet`."""
        asked = zip(self.seeds, map(dict, self.states), strict=True)
        return Made(
            [worker.world.context(self.person, seed, states, self.as_class) for seed, states in asked]
        )


@dataclass(frozen=True)
class Pictures(PictureSet):
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

    def identity(self, worker: Worker) -> Identity:
        """The identity that the pictures are of, fitted or mixed."""
        fitted = [self._fitted(worker, person) for person in self.people]
        return worker.tools.mix(list(zip(fitted, self.weights, strict=True))) if self.weights else fitted[0]

    def _fitted(self, worker: Worker, person: int) -> Identity:
        photos = worker.world.photos(person, "references", self.references)
        return worker.method(worker.settings.entry).fit(worker.prepare(photos, f"person {person}"))

    def make(self, worker: Worker, extras: Extras = PLAIN) -> Made:
        """See `PictureSet`."""
        requests = [
            Request(prompt, self.sampling(seed), extras=extras)
            for prompt, seed in zip(self.prompts, self.seeds, strict=True)
        ]
        try:
            identity = self.identity(worker)
        except PhotoError:
            return Made(grey(len(requests)), refused=True)
        start = time.perf_counter()
        pictures = worker.method(worker.settings.entry).generate(identity, requests)
        return Made(pictures, time.perf_counter() - start)


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
class Followed(PictureSet):
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

    def make(self, worker: Worker) -> Made:
        """See `PictureSet`; a real picture without a face gives way to the next."""
        person, first = self.pose
        for seed in range(first, first + POSES_TRIED):
            picture = worker.world.context(person, seed, {})
            (landmarks,) = worker.judge.landmarks([picture])
            if np.isfinite(landmarks).all():
                break
        else:
            raise PhotoError(f"person {person} shows no face in {POSES_TRIED} pictures; choose other people")
        extras = PLAIN
        if self.scale:
            extras = Extras(controls=(worker.tools.follow(self.control, picture, landmarks, self.scale),))
        return replace(self.pictures.make(worker, extras), followed=landmarks)


def grey(count: int) -> list[Image.Image]:
    """Plain pictures, where a method can do nothing with the photos: it has no likeness for them; the run goes on."""
    return [Image.new("RGB", (128, 128), (127, 127, 127))] * count


def key(pictures: PictureSet, mark: str) -> str:
    """Name of a set's result: 32 hexadecimal digits that change with the set or what carries it out."""
    said: Any = pictures
    text = json.dumps([type(pictures).__name__, asdict(said), mark], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
