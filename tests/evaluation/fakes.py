"""A world, a judge and a method without any model: an embedding and labels are written into a picture's pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from PIL import Image

from photomaker.errors import PhotoError
from photomaker.evaluation.judges.bundled import Measured
from photomaker.evaluation.people.world import stable_seed
from photomaker.evaluation.prompts import ATTRIBUTES, PROMPTS
from photomaker.evaluation.running.methods import Entry
from photomaker.evaluation.running.worker import Tools
from photomaker.types import Identity, Reference, Request

WIDTH = 24
CLASSES = ("man", "woman", "old man")
WORDS: dict[str, tuple[str, ...]] = {
    name: tuple(sorted({"none", *(prompt.states[name] for prompt in PROMPTS if name in prompt.states)}))
    for name in ATTRIBUTES
}
WORDS["person_class"] = CLASSES
FACELESS = 2_000_001
"""A person whose references never show a face."""


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def noise(seed: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=WIDTH))


def draw(vector: np.ndarray, labels: Mapping[str, str]) -> Image.Image:
    """Write embedding and labels into a 32 x 32 picture."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[0, :WIDTH] = np.round((vector[:, None] + 1) * 127)
    for column, name in enumerate(ATTRIBUTES):
        pixels[1, column] = WORDS[name].index(labels.get(name, WORDS[name][0]))
    return Image.fromarray(pixels)


def vector_of(picture: Image.Image) -> np.ndarray:
    row = np.asarray(picture)[0, :WIDTH, 0].astype(np.float32) / 127 - 1
    return np.zeros(WIDTH, np.float32) if np.ptp(row) == 0 else unit(row).astype(np.float32)


class FakeWorld:
    def people(self, split: str, count: int) -> list[int]:
        start = {"validation": 1_000_000, "test": 2_000_000}[split]
        return list(range(start, start + count))

    def name_of(self, person: int) -> str:
        return str(person)

    def class_of(self, person: int) -> str:
        return CLASSES[person % len(CLASSES)]

    def photos(self, person: int, role: str, count: int) -> list[Image.Image]:
        if person == FACELESS and role == "references":
            return [draw(np.ones(WIDTH), {})] * count
        seeds = [stable_seed(person, role, index) for index in range(count)]
        return [draw(unit(noise(person) + 0.5 * noise(seed)), {}) for seed in seeds]

    def context(self, person: int, seed: int, states: Mapping[str, str], as_class: str = "") -> Image.Image:
        vector = unit(noise(person) + 0.5 * noise(stable_seed(person, "context", seed)))
        return draw(vector, {**states, "person_class": as_class or self.class_of(person)})

    def marks_of(self, person: int) -> Mapping[str, str]:
        return {"mole": ("none", "chin")[person % 2], "freckles": "none", "beard": "none"}

    def changed_classes(self, person: int) -> Mapping[str, Sequence[str]]:
        own = self.class_of(person)
        return {
            "age": [name for name in CLASSES if name != own],
            "gender": ["man" if own == "woman" else "woman"],
        }

    def fingerprint(self) -> str:
        return "world"


class FakeJudge:
    def measure(self, pictures: Sequence[Image.Image]) -> Measured:
        codes = np.stack([np.asarray(picture)[1, : len(ATTRIBUTES), 0] for picture in pictures])
        labels = {
            name: np.asarray(WORDS[name])[np.minimum(codes[:, column], len(WORDS[name]) - 1)]
            for column, name in enumerate(ATTRIBUTES)
        }
        vectors = np.stack([vector_of(picture) for picture in pictures])
        found = np.any(vectors != 0, axis=1)
        more = {"sharpness": np.float32(found * 2), "face_features": vectors, "third": vectors[:, ::-1]}
        return Measured(vectors, labels, more=more)

    def fingerprint(self) -> str:
        return "judge"


class FakeMethod:
    """Its likeness falls and its prompt accuracy rises with the merge step; more photos help."""

    generated = 0

    def fit(self, references: Sequence[Reference]) -> Identity:
        vectors = np.stack([vector_of(reference.image) for reference in references])
        if not np.any(vectors):
            raise PhotoError("no photo shows a face; give one that does")
        return Identity("fake", {"v": torch.from_numpy(unit(vectors.mean(0)))}, {})

    def generate(
        self, identity: Identity, requests: Sequence[Request], *, watch: object = None
    ) -> list[Image.Image]:
        FakeMethod.generated += len(requests)
        return [self._one(identity.tensors["v"].numpy(), request) for request in requests]

    def _one(self, vector: np.ndarray, request: Request) -> Image.Image:
        merge = 0.2 if request.sampling.merge is None else request.sampling.merge
        seed = request.sampling.seed
        face = unit((1 - merge) * vector + 0.3 * noise(seed) + merge * noise(seed + 1))
        right = np.random.default_rng(seed).uniform() < 0.8 + merge
        return draw(face, states_of(request.prompt) if right else {})


def states_of(text: str) -> dict[str, str]:
    for person_class in CLASSES:
        for prompt in PROMPTS:
            if prompt.text(person_class, "img") == text:
                return {**prompt.states, "person_class": person_class}
    raise AssertionError(text)


def fake_mix(parts: Sequence[tuple[Identity, float]]) -> Identity:
    vector = sum(weight * identity.tensors["v"] for identity, weight in parts)
    return Identity("fake", {"v": torch.nn.functional.normalize(torch.as_tensor(vector), dim=0)}, {})


def open_world(settings: object) -> FakeWorld:
    return FakeWorld()


def open_judge(settings: object) -> FakeJudge:
    return FakeJudge()


def open_references(settings: object) -> Callable[[Sequence[Image.Image], str], list[Reference]]:
    return lambda photos, name: [Reference(photo, name) for photo in photos]


def open_method(entry: Entry, settings: object) -> FakeMethod:
    return FakeMethod()


def hashes(entry: Entry, settings: object) -> dict[str, str]:
    return {"base": "b" * 16, "adapter": str(entry.adapter or "a" * 16)}


TOOLS = Tools(open_world, open_judge, open_references, open_method, hashes, mix=fake_mix)
