"""What a process does: measure a person's photos, and draw and measure one person's pictures by one method."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from photomaker.errors import PhotoError, SettingsError
from photomaker.evaluation import metrics
from photomaker.evaluation.comparison import rows
from photomaker.evaluation.comparison.judges import (
    RECOGNISERS,
    ComparisonJudge,
    Seen,
    fingerprint,
    open_judge,
)
from photomaker.evaluation.comparison.people import People, open_people
from photomaker.evaluation.comparison.rows import MAIN, Store
from photomaker.evaluation.comparison.settings import ComparisonSettings, Entry
from photomaker.evaluation.parts.cost import MEBIBYTE, peak_memory
from photomaker.evaluation.prompts import BenchPrompt, prompt_list
from photomaker.evaluation.references import FaceReferences
from photomaker.evaluation.settings import DTYPES
from photomaker.evaluation.workshop import base_name
from photomaker.types import Identity, Reference, Request, Sampling

if TYPE_CHECKING:
    from photomaker.methods.base import Method

TRIGGER = "img"
REAL = "real"
"""The row of real pictures: the ceiling."""

PIECE = 20
"""Pictures that are written at a time, at least those of one prompt; what a killed run loses."""

Prepare = Callable[[Sequence[Image.Image], str], list[Reference]]


@dataclass(frozen=True)
class Job:
    """One person's pictures by one method.

    Attributes:
        method: Name of the entry, or `REAL`.
        part: `main`, or the name of a point of a curve.
        person: Row of the person.
        references: Photos that the method gets.
        merge: Merge share; None is the entry's own.
        prompts: Numbers of the prompts in the list of the settings.
        seeds: Pictures a prompt.
    """

    method: str
    part: str
    person: int
    references: int
    merge: float | None
    prompts: tuple[int, ...]
    seeds: int

    def pieces(self) -> list[tuple[int, ...]]:
        """The prompts in the portions in which they are drawn and written."""
        share = max(1, PIECE // self.seeds)
        return [self.prompts[start : start + share] for start in range(0, len(self.prompts), share)]

    def missing(self, store: Store) -> list[int]:
        """Numbers of the pieces that are not there yet."""
        folder = store.task(self.method, self.part, self.person)
        return [number for number in range(len(self.pieces())) if not rows.has_piece(folder, number)]


def method_class(entry: Entry) -> type[Method]:
    """The class of a method, imported but not opened.

    Raises:
        SettingsError: The method is unknown, or what it needs is not installed.
    """
    from photomaker import registry

    return registry.find("method", entry.registered)


def open_method(entry: Entry, settings: ComparisonSettings) -> Method:
    """Open a method with what its entry and the settings say.

    Raises:
        PhotoMakerError: It takes no such option, or its weights are not usable.
    """
    return method_class(entry).open(**arguments(entry, settings))  # type: ignore[attr-defined]


def arguments(entry: Entry, settings: ComparisonSettings) -> dict[str, Any]:
    """What a method is opened with: base, weights and options where they are given, device and precision.

    Raises:
        SettingsError: The method is unknown, or its `open` takes no such argument.
    """
    import torch

    device, dtype = settings.device, settings.dtype
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = "bf16" if device.startswith("cuda") else "fp32"
    takes = inspect.signature(method_class(entry).open).parameters  # type: ignore[attr-defined]
    given = {"base": settings.base, "adapter": entry.adapter, **entry.options}
    wanted = {name: value for name, value in given.items() if value is not None}
    unknown = sorted(wanted.keys() - takes.keys())
    if unknown:
        raise SettingsError(
            f"the method {entry.name} takes no {unknown[0]}; it can be opened with {', '.join(takes)}"
        )
    both = {"device": device, "dtype": getattr(torch, DTYPES[dtype])}
    return {**{name: value for name, value in both.items() if name in takes}, **wanted}


def models(entry: Entry, settings: ComparisonSettings) -> dict[str, str]:
    """What the method's pictures rest on: base and weights, hashed where they are files, and bundled files it may read.

    Raises:
        WeightsError: A file or folder is missing, or the bundled model is.
    """
    from photomaker.weights import bundled, bundled_hash, model_hash

    file = getattr(method_class(entry), "bundled_file", "adapter")
    own = entry.adapter
    return {
        "base": base_name(settings.base if settings.base is not None else bundled("base")),
        "weights": "its own" if own is None else (model_hash(own) if Path(own).exists() else own),
        "bundled": bundled_hash("base", "adapter", "faces", file),
    }


def open_references(settings: ComparisonSettings) -> Prepare:
    """What prepares photos for every method alike."""
    return FaceReferences(settings.judge.detector.open("detector"))


def judge_of(settings: ComparisonSettings) -> ComparisonJudge:
    """Open the judge."""
    return open_judge(settings.judge)


def judge_fingerprint(settings: ComparisonSettings) -> str:
    """The judge's hash, without opening it."""
    return fingerprint(settings.judge)


@dataclass(frozen=True)
class Tools:
    """How a process gets what it works with: module-level functions, so that they reach other processes.

    Attributes:
        people: Opens the people.
        judge: Opens what measures pictures.
        judge_fingerprint: The judge's hash.
        references: Opens what prepares photos, with a person's name, for a method.
        kind: Imports a method's class.
        method: Opens a method.
        models: Hashes of what is behind a method.
    """

    people: Callable[[ComparisonSettings], People] = open_people
    judge: Callable[[ComparisonSettings], ComparisonJudge] = judge_of
    judge_fingerprint: Callable[[ComparisonSettings], str] = judge_fingerprint
    references: Callable[[ComparisonSettings], Prepare] = open_references
    kind: Callable[[Entry], type[Method]] = method_class
    method: Callable[[Entry, ComparisonSettings], Method] = open_method
    models: Callable[[Entry, ComparisonSettings], Mapping[str, str]] = models


@dataclass(frozen=True)
class Fitted:
    """An identity with what it cost; None if the method could do nothing with the photos."""

    identity: Identity | None
    seconds: float
    size: int


class Worker:
    """Does one job at a time; opens what it needs when it first needs it, and keeps one method open."""

    def __init__(self, settings: ComparisonSettings, tools: Tools, store: Store) -> None:
        """Open nothing yet."""
        self._settings, self._tools, self._store = settings, tools, store
        self._open: tuple[str, Method] | None = None

    @cached_property
    def people(self) -> People:
        """Who is compared on."""
        return self._tools.people(self._settings)

    @cached_property
    def judge(self) -> ComparisonJudge:
        """Who measures."""
        return self._tools.judge(self._settings)

    @cached_property
    def prepare(self) -> Prepare:
        """Turns photos into references."""
        return self._tools.references(self._settings)

    @cached_property
    def prompts(self) -> tuple[BenchPrompt, ...]:
        """The list that the settings name."""
        return prompts_of(self._settings)

    @cached_property
    def gallery(self) -> Gallery:
        """Everybody's photos as they were measured."""
        return Gallery.read(self._store, self.people, self._settings)

    def look(self, row: int) -> None:
        """Measure a person's photos, where that has not been done."""
        path = self._store.person(row)
        if path.exists():
            return
        found: dict[str, np.ndarray] = {}
        photos = {"unseen": self.people.unseen(row)}
        if row < self._settings.people or not photos["unseen"]:
            photos["references"] = self.people.references(row, self._settings.references)
        for role, pictures in photos.items():
            if pictures:
                arrays = self.judge.see(pictures).arrays
                found |= {f"{role}_{name}": rows_ for name, rows_ in arrays.items() if name != "features"}
        rows.save(path, found)

    def do(self, job: Job) -> None:
        """Draw and measure what is missing of a job."""
        missing = job.missing(self._store)
        if not missing:
            return
        if job.method == REAL:
            self._real(job)
            return
        fitted = self._fit(job)
        for number in missing:
            self._piece(job, number, fitted)
        self._identity_file(job).unlink(missing_ok=True)

    def _real(self, job: Job) -> None:
        """Real pictures where the world has some; else a person's unseen photos, each beside the others."""
        person, pieces = job.person, job.pieces()
        drawn = [self.people.real(person, [self.prompts[at] for at in one], job.seeds) for one in pieces]
        for number, (piece, pictures) in enumerate(zip(pieces, drawn, strict=True)):
            if pictures:
                self._measure(job, number, self._places(job, piece), pictures, {})
        if not any(drawn):
            photos = self.people.unseen(person) or self.people.references(person, self._settings.references)
            places = [(_PHOTO, -1, seed) for seed in range(len(photos))]
            self._measure(job, 0, places, photos, {})
            for number in range(1, len(pieces)):
                rows.write_piece(self._store.task(job.method, job.part, person), number, [], {})

    def _method(self, name: str) -> Method:
        if self._open is None or self._open[0] != name:
            entry = next(entry for entry in self._settings.methods if entry.name == name)
            self._open = (name, self._tools.method(entry, self._settings))
        return self._open[1]

    def _identity_file(self, job: Job) -> Path:
        return self._store.task(job.method, job.part, job.person) / "identity.safetensors"

    def _fit(self, job: Job) -> Fitted:
        """Fit, or take up the identity that an interrupted run has fitted."""
        folder, file = self._store.task(job.method, job.part, job.person), self._identity_file(job)
        note = folder / "fit.npz"
        if file.exists() and note.exists():
            return Fitted(Identity.load(file), float(rows.load(note)["seconds"]), file.stat().st_size)
        method = self._method(job.method)
        photos = self.people.references(job.person, job.references)
        start = time.perf_counter()
        try:
            told = {"class_word": self.people.class_of(job.person)}
            identity = method.fit(self.prepare(photos, f"person {job.person}"), notes=told)
        except PhotoError:
            # A method that can do nothing with these photos has no likeness for them; the run continues.
            return Fitted(None, time.perf_counter() - start, 0)
        seconds = time.perf_counter() - start
        folder.mkdir(parents=True, exist_ok=True)
        identity.save(file)
        rows.save(note, {"seconds": np.array(seconds)})
        return Fitted(identity, seconds, file.stat().st_size)

    def _places(self, job: Job, piece: Sequence[int]) -> list[tuple[BenchPrompt, int, int]]:
        return [(self.prompts[at], at, seed) for at in piece for seed in range(job.seeds)]

    def _piece(self, job: Job, number: int, fitted: Fitted) -> None:
        places = self._places(job, job.pieces()[number])
        entry = next(entry for entry in self._settings.methods if entry.name == job.method)
        merge = entry.merge if job.merge is None else job.merge
        requests = [
            Request(
                prompt.text(self.people.class_of(job.person), TRIGGER),
                Sampling(
                    steps=self._settings.steps, guidance=entry.guidance, merge=merge,
                    seed=self.people.seed(job.person, prompt, seed),
                    width=self._settings.size, height=self._settings.size,
                ),
            )
            for prompt, _, seed in places
        ]  # fmt: skip
        start = time.perf_counter()
        if fitted.identity is None:
            pictures = [Image.new("RGB", (128, 128), (127, 127, 127))] * len(requests)
        else:
            pictures = self._method(job.method).generate(fitted.identity, requests)
        seconds = (time.perf_counter() - start) / len(requests)
        cost = {
            "seconds_fit": fitted.seconds,
            "seconds": seconds,
            "peak_memory_mib": _peak_memory(),
            "identity_bytes": fitted.size,
            "refused": fitted.identity is None,
        }
        self._measure(job, number, places, pictures, cost)

    def _measure(
        self,
        job: Job,
        number: int,
        places: Sequence[tuple[BenchPrompt, int, int]],
        pictures: Sequence[Image.Image],
        cost: Mapping[str, Any],
    ) -> None:
        seen = self.judge.see(pictures)
        scores = self._scores(job, places, pictures, seen)
        made = []
        for place, (prompt, at, seed) in enumerate(places):
            made.append(
                {
                    "method": job.method,
                    "part": job.part,
                    "person": job.person,
                    "name": self.people.names()[job.person],
                    "prompt": prompt.name,
                    "photo": prompt.is_photo,
                    "seed": seed,
                    "references": job.references,
                    "merge": job.merge,
                    "face": seen.faces[place] is not None,
                    "sha256": hashlib.sha256(
                        np.asarray(pictures[place].convert("RGB")).tobytes()
                    ).hexdigest(),
                    "picture": self._keep(job, max(at, 0) * job.seeds + seed, pictures[place]),
                    "correct": self._correct(job, prompt, seen, place, bool(cost.get("refused"))),
                    **{name: float(values[place]) for name, values in scores.items()},
                    **cost,
                }
            )
        features = {"features": seen.arrays["features"]} if job.part == MAIN else {}
        rows.write_piece(self._store.task(job.method, job.part, job.person), number, made, features)

    def _keep(self, job: Job, number: int, picture: Image.Image) -> str | None:
        if job.part != MAIN:
            return None
        from photomaker.images import atomic

        path = self._store.picture(job.method, job.person, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as file:
            picture.save(file, "PNG")
        return path.relative_to(self._store.root).as_posix()

    def _correct(
        self, job: Job, prompt: BenchPrompt, seen: Seen, place: int, refused: bool
    ) -> dict[str, bool]:
        """For each attribute that the prompt states, whether the classifier saw it; nothing is seen in plain grey."""
        if not seen.labels or prompt is _PHOTO:
            return {}
        stated = {**prompt.states, "person_class": self.people.class_of(job.person)}
        known = {name: word for name, word in stated.items() if name in seen.labels}
        return {name: not refused and bool(seen.labels[name][place] == word) for name, word in known.items()}

    def _scores(
        self,
        job: Job,
        places: Sequence[tuple[BenchPrompt, int, int]],
        pictures: Sequence[Image.Image],
        seen: Seen,
    ) -> dict[str, np.ndarray]:
        alone = job.method == REAL and places[0][0] is _PHOTO
        scores = self.gallery.scores(seen.arrays, job.person, alone=alone)
        scores["face_div"] = self._diversity(places, pictures, seen)
        texts = self._texts(job, places) if "clip" in seen.arrays else None
        if texts is not None:
            scores["clip_t"] = (seen.arrays["clip"] * texts).sum(1)
        return scores

    def _texts(self, job: Job, places: Sequence[tuple[BenchPrompt, int, int]]) -> np.ndarray | None:
        """Texts without the trigger, which no CLIP knows."""
        said = self.people.class_of(job.person)
        return self.judge.texts([prompt.text(said, "") for prompt, _, _ in places])

    def _diversity(
        self, places: Sequence[tuple[BenchPrompt, int, int]], pictures: Sequence[Image.Image], seen: Seen
    ) -> np.ndarray:
        """Of the faces of one prompt."""
        values = np.full(len(pictures), np.nan)
        for at in {at for _, at, _ in places}:
            group = [place for place, (_, other, _) in enumerate(places) if other == at]
            values[group] = self.judge.diversity(
                [pictures[place] for place in group], [seen.faces[place] for place in group]
            )
        return values


@dataclass(frozen=True)
class Gallery:
    """Everybody's photos as the judge sees them.

    Attributes:
        arrays: By person, `unseen_first`, `references_first`, `references_clip` and so on.
        classes: By person.
    """

    arrays: Sequence[Mapping[str, np.ndarray]]
    classes: Sequence[str]

    @classmethod
    def read(cls, store: Store, people: People, settings: ComparisonSettings) -> Gallery:
        """Read what `Worker.look` wrote."""
        del settings
        everybody = range(len(people.names()))
        return cls(
            [rows.load(store.person(row)) for row in everybody], [people.class_of(row) for row in everybody]
        )

    def scores(self, arrays: Mapping[str, np.ndarray], person: int, *, alone: bool) -> dict[str, np.ndarray]:
        """What compares pictures with photos, each [n]; nan if there is nothing to compare with.

        Args:
            arrays: As `Seen.arrays`.
            person: Row of the person.
            alone: The pictures are the person's own photos of the gallery, in order: each is compared with the others.
        """
        scores: dict[str, np.ndarray] = {}
        own = self.arrays[person]
        for name in RECOGNISERS:
            scores |= {
                f"{key}_{name}": value
                for key, value in self._faces(arrays[name], person, name, alone).items()
            }
        for name, title in (("clip", "clip_i"), ("dino", "dino")):
            if name in arrays and f"references_{name}" in own:
                scores[title] = metrics.mean_cosine(arrays[name], own[f"references_{name}"])
        return scores

    def _faces(self, pictures: np.ndarray, person: int, name: str, alone: bool) -> dict[str, np.ndarray]:
        nothing = np.full(len(pictures), np.nan)
        role = "unseen" if f"unseen_{name}" in self.arrays[person] else "references"
        everybody = [photos[f"{role}_{name}"] for photos in self.arrays]
        own, references = everybody[person], self.arrays[person].get(f"references_{name}")
        if alone and len(own) < 2:  # noqa: PLR2004
            return {"sim_references": nothing, "sim_unseen": nothing, "copy_paste": nothing, "stranger": nothing,
                    "hit": nothing}  # fmt: skip
        near = _beside(pictures) if alone else metrics.mean_cosine(pictures, own)
        to_references = (
            near
            if references is None or (alone and role == "references")
            else metrics.mean_cosine(pictures, references)
        )
        unseen = near if role == "unseen" else nothing
        gallery = np.stack([photos.sum(0) for photos in everybody])
        hits = [
            _hit(picture, gallery - (_row(gallery, person, picture) if alone else 0), person)
            for picture in pictures
        ]
        return {
            "sim_references": to_references,
            "sim_unseen": unseen,
            "copy_paste": to_references - unseen,
            "stranger": self._stranger(pictures, everybody, person),
            "hit": np.array(hits, dtype=float),
        }

    def _stranger(self, pictures: np.ndarray, everybody: Sequence[np.ndarray], person: int) -> np.ndarray:
        """Mean cosine with photos of all others of the class; nan if there is nobody else."""
        same = self.classes[person]
        others = [row for row, word in enumerate(self.classes) if word == same and row != person]
        if not others:
            return np.full(len(pictures), np.nan)
        return metrics.mean_cosine(pictures, np.concatenate([everybody[row] for row in others]))


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


_PHOTO = BenchPrompt("photo", "a photo of {c}", {"style": "photo"})
"""In the place of a prompt, where the picture is a photo of a person and no prompt was drawn."""


def _beside(photos: np.ndarray) -> np.ndarray:
    """Mean cosine of each photo with the others; 0 for one without a face."""
    return np.array(
        [metrics.mean_cosine(photos[[at]], np.delete(photos, at, 0))[0] for at in range(len(photos))]
    )


def _row(gallery: np.ndarray, person: int, picture: np.ndarray) -> np.ndarray:
    """A gallery of zeros, except for one person's own picture, which is taken out of their sum."""
    taken = np.zeros_like(gallery)
    taken[person] = picture
    return taken


def _hit(picture: np.ndarray, gallery: np.ndarray, person: int) -> bool:
    return bool(metrics.retrieved(picture[None], gallery, np.array([person]))[0])


def _peak_memory() -> float:
    """Largest memory so far in MiB: of the GPU where one is used, else of the process."""
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / MEBIBYTE
    return peak_memory() / MEBIBYTE
