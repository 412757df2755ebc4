"""The tasks of a comparison: look at a person's photos; draw and measure one person's pictures by one method."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from photomaker.errors import PhotoError
from photomaker.evaluation.judges.networks import ComparisonJudge, Seen
from photomaker.evaluation.plans.compare.gallery import Gallery
from photomaker.evaluation.plans.compare.people import People
from photomaker.evaluation.plans.compare.settings import prompts_of
from photomaker.evaluation.prompts import BenchPrompt
from photomaker.evaluation.running.methods import Entry
from photomaker.evaluation.running.picture_sets import grey
from photomaker.evaluation.running.store import MAIN, Store, has_piece, load, save, write_piece
from photomaker.evaluation.running.worker import Worker, peak_memory
from photomaker.types import Face, Identity, Request, Sampling

TRIGGER = "img"
REAL = "real"
"""The row of real pictures: the ceiling."""

BASE = "base"
"""The row of what the base draws from the prompt alone: the floor of likeness, and what a method's pictures change."""

HEAD = 0.5
"""How far a head reaches beyond the box of its face, in lengths of that box's sides."""

PIECE = 20
"""Pictures that are written at a time, at least those of one prompt; what a killed run loses."""

Place = tuple[BenchPrompt, int, int]
"""Where a picture stands: its prompt, that one's number in the list, the number of the seed."""

_PHOTO = BenchPrompt("photo", "a photo of {c}", {"style": "photo"})
"""In the place of a prompt, where the picture is a photo of a person and no prompt was drawn."""


def people_of(worker: Worker) -> People:
    """Who is compared on."""
    return worker.once("people", lambda: People(worker.settings, worker.world))


@dataclass(frozen=True)
class PersonPhotos:
    """A person's own photos, measured: a task of `running.runner.Runner`.

    Attributes:
        person: Row of the person.
    """

    person: int

    def done(self, store: Store) -> bool:
        """See `running.runner.Task`."""
        return store.person(self.person).exists()

    def carry_out(self, worker: Worker, store: Store) -> None:
        """See `running.runner.Task`."""
        people, settings = people_of(worker), worker.settings
        found: dict[str, np.ndarray] = {}
        photos = {"unseen": people.unseen(self.person)}
        if self.person < settings.people or not photos["unseen"]:
            photos["references"] = people.references(self.person, settings.references)
        for role, pictures in photos.items():
            if pictures:
                arrays = worker.judge.see(pictures).arrays
                found |= {f"{role}_{name}": rows for name, rows in arrays.items() if name != "features"}
        save(store.person(self.person), found)


@dataclass(frozen=True)
class Fitted:
    """An identity with what it cost; None if the method could do nothing with the photos."""

    identity: Identity | None
    seconds: float
    size: int


@dataclass(frozen=True)
class MethodPictures:
    """One person's pictures by one method: a task of `running.runner.Runner`, whose result is rows.

    Attributes:
        method: Name of the entry, or `REAL` or `BASE`.
        part: `main`, or the name of a point of a curve.
        person: Row of the person.
        references: Photos that the method gets.
        merge: Merge share; None is the entry's own.
        prompts: Numbers of the prompts in the list of the settings.
        seeds: Pictures a prompt.
        by: Name of the entry that draws, where it is not `method`.
        second: Row of a person mixed into the first; None mixes nobody.
        share: The second's share, 0..1.
    """

    method: str
    part: str
    person: int
    references: int
    merge: float | None
    prompts: tuple[int, ...]
    seeds: int
    by: str = ""
    second: int | None = None
    share: float = 0.0

    def pieces(self) -> list[tuple[int, ...]]:
        """The prompts in the portions in which they are drawn and written."""
        share = max(1, PIECE // self.seeds)
        return [self.prompts[start : start + share] for start in range(0, len(self.prompts), share)]

    def folder(self, store: Store) -> Path:
        """Where the rows are."""
        return store.folder(self.method, self.part, self.person)

    def missing(self, store: Store) -> list[int]:
        """Numbers of the pieces that are not there yet."""
        return [number for number in range(len(self.pieces())) if not has_piece(self.folder(store), number)]

    def done(self, store: Store) -> bool:
        """See `running.runner.Task`."""
        return not self.missing(store)

    def carry_out(self, worker: Worker, store: Store) -> None:
        """See `running.runner.Task`: draw and measure the pieces that are missing."""
        if self.method == REAL:
            self._real(worker, store)
            return
        fitted = self._fit(worker, store)
        for number in self.missing(store):
            self._piece(worker, store, number, fitted)
        self._identity(store).unlink(missing_ok=True)

    def _real(self, worker: Worker, store: Store) -> None:
        """Real pictures where the world has some; else a person's unseen photos, each beside the others."""
        people, pieces = people_of(worker), [self._places(worker, piece) for piece in self.pieces()]
        listed = prompts_of(worker.settings)
        drawn = [
            people.real(self.person, [listed[at] for at in piece], self.seeds) for piece in self.pieces()
        ]
        for number, (places, pictures) in enumerate(zip(pieces, drawn, strict=True)):
            if pictures:
                self._measure(worker, store, number, places, pictures, {})
        if not any(drawn):
            photos = people.unseen(self.person) or people.references(self.person, worker.settings.references)
            self._measure(worker, store, 0, [(_PHOTO, -1, seed) for seed in range(len(photos))], photos, {})
            for number in range(1, len(pieces)):
                write_piece(self.folder(store), number, [], {})

    def _entry(self, worker: Worker) -> Entry:
        wanted = self.by or self.method
        entry: Entry = next(one for one in worker.settings.methods if one.name == wanted)
        return entry

    def _identity(self, store: Store) -> Path:
        return self.folder(store) / "identity.safetensors"

    def _fit(self, worker: Worker, store: Store) -> Fitted:
        """Fit, or take up the identity that an interrupted run has fitted."""
        file, note = self._identity(store), self.folder(store) / "fit.npz"
        if file.exists() and note.exists():
            return Fitted(Identity.load(file), float(load(note)["seconds"]), file.stat().st_size)
        photos = {row: people_of(worker).references(row, self.references) for row in self._shares()}
        start = time.perf_counter()
        try:
            identity = self._identity_of(worker, photos)
        except PhotoError:
            return Fitted(None, time.perf_counter() - start, 0)
        seconds = time.perf_counter() - start
        file.parent.mkdir(parents=True, exist_ok=True)
        identity.save(file)
        save(note, {"seconds": np.array(seconds)})
        return Fitted(identity, seconds, file.stat().st_size)

    def _shares(self) -> dict[int, float]:
        """Whose identity is drawn, with their shares."""
        own = {self.person: 1 - self.share}
        return own if self.second is None else {**own, self.second: self.share}

    def _identity_of(self, worker: Worker, photos: Mapping[int, Sequence[Image.Image]]) -> Identity:
        people, method = people_of(worker), worker.method(self._entry(worker))
        made = {
            row: method.fit(
                worker.prepare(given, f"person {row}"), notes={"class_word": people.class_of(row)}
            )
            for row, given in photos.items()
        }
        if self.second is None:
            return made[self.person]
        return worker.tools.mix([(made[row], share) for row, share in self._shares().items()])

    def _places(self, worker: Worker, piece: Sequence[int]) -> list[Place]:
        listed = worker.once("prompts", lambda: prompts_of(worker.settings))
        return [(listed[at], at, seed) for at in piece for seed in range(self.seeds)]

    def _piece(self, worker: Worker, store: Store, number: int, fitted: Fitted) -> None:
        places = self._places(worker, self.pieces()[number])
        requests = [self._request(worker, place) for place in places]
        start = time.perf_counter()
        if fitted.identity is None:
            pictures = grey(len(requests))
        else:
            pictures = worker.method(self._entry(worker)).generate(fitted.identity, requests)
        seconds = (time.perf_counter() - start) / len(requests)
        cost = {
            "seconds_fit": fitted.seconds,
            "seconds": seconds,
            "peak_memory_mib": peak_memory(),
            "identity_bytes": fitted.size,
            "refused": fitted.identity is None,
        }
        if self.method == BASE:  # nobody's photos are in it
            cost = {"seconds": seconds}
        self._measure(worker, store, number, places, pictures, cost)

    def _request(self, worker: Worker, place: Place) -> Request:
        (prompt, _, seed), settings, people = place, worker.settings, people_of(worker)
        entry = self._entry(worker)
        sampling = Sampling(
            steps=settings.steps, guidance=entry.guidance, merge=entry.merge if self.merge is None else self.merge,
            seed=people.seed(self.person, prompt, seed), width=settings.size, height=settings.size,
        )  # fmt: skip
        return Request(prompt.text(people.class_of(self.person), TRIGGER), sampling)

    def _measure(
        self,
        worker: Worker,
        store: Store,
        number: int,
        places: Sequence[Place],
        pictures: Sequence[Image.Image],
        cost: Mapping[str, Any],
    ) -> None:
        people, judge = people_of(worker), worker.judge
        seen: Seen = judge.see(pictures)
        gallery = worker.once("gallery", lambda: Gallery.read(store, people))
        alone = self.method == REAL and places[0][0] is _PHOTO
        scores = gallery.scores(seen.arrays, self.person, alone=alone)
        scores["face_div"] = diversity(judge, places, pictures, seen)
        if self.second is not None:
            scores["to_second"] = to_unseen(gallery.scores(seen.arrays, self.second, alone=False))
        if self.part == MAIN and self.method not in (REAL, BASE):
            bases = [self._picture(store, BASE, at, seed) for _, at, seed in places]
            scores["changed"] = changed(pictures, seen.faces, bases)
        said = people.class_of(self.person)
        texts = None
        if "clip" in seen.arrays:  # of texts without the trigger, which no CLIP knows
            texts = judge.texts([prompt.text(said, "") for prompt, _, _ in places])
        if texts is not None:
            scores["clip_t"] = (seen.arrays["clip"] * texts).sum(1)
        rows = [
            {
                "method": self.method,
                "part": self.part,
                "person": self.person,
                "name": people.names()[self.person],
                "prompt": prompt.name,
                "photo": prompt.is_photo,
                "seed": seed,
                "references": self.references,
                "merge": self.merge,
                "face": seen.faces[place] is not None,
                "sha256": hashlib.sha256(np.asarray(pictures[place].convert("RGB")).tobytes()).hexdigest(),
                "picture": self._keep(store, at, seed, pictures[place]),
                "correct": correct(prompt, said, seen, place, bool(cost.get("refused"))),
                **{name: float(values[place]) for name, values in scores.items()},
                **cost,
            }
            for place, (prompt, at, seed) in enumerate(places)
        ]
        features = {"features": seen.arrays["features"]} if self.part == MAIN else {}
        write_piece(self.folder(store), number, rows, features)

    def _picture(self, store: Store, method: str, at: int, seed: int) -> Path:
        return store.picture(method, self.person, max(at, 0) * self.seeds + seed)

    def _keep(self, store: Store, at: int, seed: int, picture: Image.Image) -> str | None:
        if self.part != MAIN:
            return None
        from photomaker.files import atomic

        path = self._picture(store, self.method, at, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as file:
            picture.save(file, "PNG")
        return path.relative_to(store.root).as_posix()


def correct(prompt: BenchPrompt, said: str, seen: Seen, place: int, refused: bool) -> dict[str, bool]:
    """For each attribute that a prompt states, whether the classifier saw it; nothing is seen in plain grey.

    Args:
        prompt: The prompt.
        said: The class phrase, which every prompt states.
        seen: What the judge says.
        place: Number of the picture in it.
        refused: Whether the picture is plain grey.
    """
    if not seen.labels or prompt is _PHOTO:
        return {}
    stated = {**prompt.states, "person_class": said}
    known = {name: word for name, word in stated.items() if name in seen.labels}
    return {name: not refused and bool(seen.labels[name][place] == word) for name, word in known.items()}


def diversity(
    judge: ComparisonJudge, places: Sequence[Place], pictures: Sequence[Image.Image], seen: Seen
) -> np.ndarray:
    """Diversity of the faces of one prompt, [n]."""
    values = np.full(len(pictures), np.nan)
    for at in {at for _, at, _ in places}:
        group = [place for place, (_, other, _) in enumerate(places) if other == at]
        values[group] = judge.diversity(
            [pictures[place] for place in group], [seen.faces[place] for place in group]
        )
    return values


def to_unseen(scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """[n] the deciding cosine to a person's unseen photos, or to the references where there are no others."""
    unseen = scores["sim_unseen_first"]
    return scores["sim_references_first"] if np.all(np.isnan(unseen)) else unseen


def changed(
    pictures: Sequence[Image.Image], faces: Sequence[Face | None], bases: Sequence[Path]
) -> np.ndarray:
    """How much of the base's picture a method changes where the person is not.

    Args:
        pictures: What the method drew.
        faces: The face in each.
        bases: Files of what the base draws from the same prompts and seeds.

    Returns:
        [n] mean absolute difference of the pixels outside the head, 0..1; nan where there is no face or no file.
    """
    return np.array(
        [
            math.nan if face is None or not file.exists() else _difference(picture, face, file)
            for picture, face, file in zip(pictures, faces, bases, strict=True)
        ]
    )


def _difference(picture: Image.Image, face: Face, file: Path) -> float:
    with Image.open(file) as base:
        other = np.asarray(base.convert("RGB"), dtype=np.float32)
    apart = np.abs(np.asarray(picture.convert("RGB"), dtype=np.float32) - other).mean(2) / 255
    left, top, right, bottom = face.box
    wide, high = HEAD * (right - left), HEAD * (bottom - top)
    rows, columns = np.ogrid[: apart.shape[0], : apart.shape[1]]
    outside = (
        (columns < left - wide) | (columns >= right + wide) | (rows < top - high) | (rows >= bottom + high)
    )
    return float(apart[outside].mean()) if outside.any() else math.nan
