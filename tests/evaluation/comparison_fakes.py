"""Methods and a judge for comparisons, without any model: an embedding and labels are written into pictures' pixels."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from tests.evaluation.fakes import (
    FakeJudge,
    FakeWorld,
    draw,
    noise,
    open_references,
    states_of,
    unit,
    vector_of,
)

from photomaker.errors import PhotoError
from photomaker.evaluation.judges.networks import Seen
from photomaker.evaluation.plans.compare.people import People
from photomaker.evaluation.running.worker import Tools
from photomaker.methods.base import Method, Need
from photomaker.types import Face, Identity

LOG = "made.log"


class World(FakeWorld):
    """Without the person who never shows a face."""

    def people(self, split, count):
        return list(range(2_000_010, 2_000_010 + count))


class PixelJudge:
    """Reads what the fakes write; the second recogniser sees the same face in another order of numbers."""

    def see(self, pictures):
        measured = FakeJudge().measure(pictures)
        found = np.any(measured.embeddings != 0, axis=1)
        faces = [Face((0.0, 0.0, 8.0, 8.0), 1.0, np.zeros((5, 2))) if one else None for one in found]
        arrays = {
            "first": measured.embeddings,
            "second": measured.embeddings[:, ::-1].copy(),
            "clip": measured.embeddings,
            "features": np.stack([np.asarray(one, float)[0, :3, 0] for one in pictures]),
        }
        return Seen(faces, arrays, measured.labels)

    def texts(self, prompts):
        return np.stack([unit(np.ones(24)) for _ in prompts])

    def diversity(self, pictures, faces):
        return [float(len(pictures))] * len(pictures)

    def columns(self):
        return dict.fromkeys(("first", "second", "diversity", "features", "clip", "attributes"), "pixels") | {
            "dino": ""
        }

    def fingerprint(self):
        return "judge"


class Copier(Method):
    """Draws the first reference's face again, and never what the prompt says."""

    name = "copier"

    def fit(self, references, *, notes=None):
        return Identity(self.name, {"v": torch.from_numpy(vector_of(references[0].image))}, notes or {})

    def generate(self, identity, requests, *, watch=None):
        return [draw(identity.tensors["v"].numpy(), {}) for _ in requests]


class Painter(Method):
    """Draws the mean face of the references and all that the prompt says; its likeness falls with the merge step."""

    name = "painter"
    delays = True
    mixes = True

    def fit(self, references, *, notes=None):
        vector = unit(np.mean([vector_of(one.image) for one in references], axis=0)).astype(np.float32)
        return Identity(self.name, {"v": torch.from_numpy(vector)}, notes or {})

    def generate(self, identity, requests, *, watch=None):
        drawn = []
        for request in requests:
            merge = request.sampling.merge or 0.0
            face = unit(
                (1 - merge) * identity.tensors["v"].numpy() + (0.1 + merge) * noise(request.sampling.seed)
            )
            drawn.append(draw(face, states_of(request.prompt)))
        return drawn


class Tuner(Painter):
    """As `Painter`, but tuned for each person; it cannot do anything with person 0."""

    name = "tuner"
    needs = frozenset({Need.TUNING})
    delays = mixes = False

    def fit(self, references, *, notes=None):
        if references[0].name == "person 0":
            raise PhotoError("the photos of person 0 are no good; give others")
        return super().fit(references, notes=notes)


class Sculptor(Painter):
    """Wants a structure with every prompt."""

    name = "sculptor"
    needs = frozenset({Need.STRUCTURE})


METHODS = {one.name: one for one in (Copier, Painter, Tuner, Sculptor)}


def people(settings):
    return People(settings, World())


def world(settings):
    return World()


def judge(settings):
    return PixelJudge()


def kind(entry):
    return METHODS[entry.registered]


def method(entry, settings):
    return METHODS[entry.registered]()


def slow_method(entry, settings):
    """Each piece takes half a second, and says so in a file beside the results."""

    class Slow(METHODS[entry.registered]):
        def generate(self, identity, requests, *, watch=None):
            with Path(settings.out, LOG).open("a") as log:
                log.write(f"{len(requests)}\n")
            time.sleep(0.3)
            return super().generate(identity, requests)

    return Slow()


def models(entry, settings):
    return {"weights": entry.adapter or "own"}


def mix(parts):
    """The shared direction of the faces."""
    vector = sum(share * one.tensors["v"] for one, share in parts)
    return Identity(parts[0][0].method, {"v": vector / vector.norm()}, {})


TOOLS = Tools(world, judge, open_references, method, models, kind, mix)
