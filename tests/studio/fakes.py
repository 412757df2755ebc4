"""Faces and a method that need no weights: what a picture "shows" is written into its colour.

red: how many faces the picture has; blue: who is seen, as an angle of 0 to 90 degrees.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import threading
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from photomaker.faces import Detector, Recogniser
from photomaker.methods.base import Method
from photomaker.pipelines.steps.watching import Step
from photomaker.types import Face, Identity


def picture(faces: int = 1, who: int = 0, size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.new("RGB", size, (faces, 0, who))


def save(path: Path, faces: int = 1, who: int = 0) -> Path:
    picture(faces, who).save(path)
    return path


class FakeDetector(Detector):
    def detect(self, image):
        count = image.getpixel((0, 0))[0]
        return [
            Face((0.0, 0.0, 10.0 + place, 10.0 + place), 0.9, np.zeros((5, 2), np.float32))
            for place in range(count)
        ]


class FakeRecogniser(Recogniser):
    def embed_batch(self, images, faces):
        assert len(images) == len(faces)
        angles = [image.getpixel((0, 0))[2] / 255 * math.pi / 2 for image in images]
        return np.array([[math.cos(a), math.sin(a)] for a in angles], np.float32).reshape(-1, 2)


class FakeMethod(Method):
    """Draws pictures in which the face turns away from the person by one step of blue with each seed."""

    name = "fake"

    def __init__(self):
        self.batches = []

    def fit(self, references, *, notes=None):
        self.check(references)
        return Identity(
            "fake", {"id_features": torch.ones(len(references), 3), "weights": torch.ones(len(references))}
        )

    def generate(self, identity, requests, *, watch=None):
        self.batches.append(len(requests))
        return [
            picture(faces=request.sampling.seed % 10 != 9, who=request.sampling.seed * 10)
            for request in requests
        ]


def bundle(root: Path) -> Path:
    """A folder like the bundled model, with a true manifest and nonsense in the files."""
    files = {
        "base/model_index.json": b"{}",
        "base/unet/x.safetensors": b"x",
        "adapter/photomaker.safetensors": b"y",
    }
    listing = {}
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
        listing[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (root / "manifest.json").write_text(json.dumps({"files": listing}))
    return root


class SteppingMethod(FakeMethod):
    """Draws in steps that somebody watches, and waits at a gate before each; before batch `holds` it closes it."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.drawn = []
        self.fails = None
        self.holds = None
        self.pace = 0.0

    def generate(self, identity, requests, *, watch=None):
        steps = requests[0].sampling.steps
        if len(self.batches) == self.holds:
            self.begun.clear()
            self.gate.clear()
        for number in range(1, steps + 1):
            self.begun.set()
            assert self.gate.wait(20)
            time.sleep(self.pace)
            if self.fails is not None:
                raise self.fails
            if watch is not None:
                watch(Step(number, steps, torch.zeros(len(requests), 4, 2, 2), None))
        self.drawn += [(request.prompt, request.sampling.seed) for request in requests]
        return super().generate(identity, requests, watch=watch)


def stepping_engine(monkeypatch):
    """An engine of fakes whose previews are grey, and its method."""
    from photomaker.pipelines.steps import previews
    from photomaker.studio.engine import Engine
    from photomaker.studio.opening import Backends, Profile

    monkeypatch.setattr(previews, "preview", lambda step: [picture() for _ in step.clean])
    method = SteppingMethod()
    about = {"Software": "photomaker", "model": "fake", "model_hash": "0" * 16}
    profile = Profile(kind=SteppingMethod, line="fake, cpu fp32")
    return Engine(lambda: method, Backends(FakeDetector(), FakeRecogniser()), about, profile), method


def png(faces: int = 1, who: int = 0, size: tuple[int, int] = (64, 64)) -> bytes:
    data = io.BytesIO()
    picture(faces, who, size).save(data, "PNG")
    return data.getvalue()
