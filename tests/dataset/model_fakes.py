"""Plug-ins that answer from what a picture looks like, and photos for them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from photomaker.dataset.base import Photo
from photomaker.types import Face

POINTS = np.arange(10, dtype=np.float32).reshape(5, 2)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def photo(key: str, image: Image.Image | None = None, mask: np.ndarray | None = None, **row) -> Photo:
    files = {"image": png(image or Image.new("RGB", (64, 64)))}
    if mask is not None:
        files["mask"] = png(Image.fromarray(mask))
    return Photo({"key": key, "person": "p", "shard": 0, **row}, files)


class FakeDetector:
    """As many faces as the first pixel's red says; face k is `sides[k]` pixels wide."""

    def __init__(self, sides=(30, 20, 10)):
        self.sides = sides

    def detect(self, image):
        count = image.getpixel((0, 0))[0]
        return [Face((k, 0, k + side, side + 4), 0.9, POINTS) for k, side in enumerate(self.sides[:count])]


class FakeRecogniser:
    """The embedding tells the picture's blue and the face's side."""

    def __init__(self):
        self.batches = []

    def embed_batch(self, images, faces):
        self.batches.append(len(images))
        found = [
            (image.getpixel((0, 0))[2], face.box[2] - face.box[0])
            for image, face in zip(images, faces, strict=True)
        ]
        return np.array(found, np.float32).reshape(-1, 2)


class FakeSegmenter:
    """Marks the given part of every picture: x0, y0, x1, y1 in shares of its sides."""

    def __init__(self, part):
        self.part, self.seen = part, []

    def person_mask(self, image, face):
        self.seen.append((image.size, face))
        mask = np.zeros((image.height, image.width), np.uint8)
        x0, y0, x1, y1 = np.array(self.part) * image.width
        mask[int(y0) : int(y1), int(x0) : int(x1)] = 255
        return mask


class FakeCaptioner:
    """The likely caption of each picture by its blue; drawn ones hold a class word once in three seeds."""

    def __init__(self, likely):
        self.likely, self.drawn = likely, []

    def caption_batch(self, images, seeds=None):
        if seeds is None:
            return [self.likely[image.getpixel((0, 0))[2]] for image in images]
        self.drawn += seeds
        return [f"a man {seed}" if seed % 3 == 0 else f"a face {seed}" for seed in seeds]


class FakeScorer:
    """Longer texts score higher."""

    def __init__(self):
        self.calls = []

    def score(self, image, texts):
        self.calls.append((image, texts))
        return [len(text) / 100 for text in texts]
