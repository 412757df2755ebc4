"""A stand-in for the synthetic people: coloured shapes whose colour is the person and whose ground is the scene."""

from __future__ import annotations

import numpy as np

SCENES = ("snow", "beach", "city", "desert")
CLASSES = ("man", "woman", "old man")


class FakeWorld:
    """The interface of `WorldDataset` over random simple pictures; see `photomaker.training.data.dataset.People`."""

    def __init__(self, people: int = 8, each: int = 6, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        count = people * each
        self.person = np.repeat(np.arange(people), each)
        scene = rng.integers(0, len(SCENES), count)
        colours = rng.integers(0, 255, (people, 3))
        grounds = rng.integers(0, 255, (len(SCENES), 3))
        self.images = np.broadcast_to(grounds[scene][:, None, None], (count, 128, 128, 3)).astype(np.uint8)
        self.masks = np.zeros((count, 128, 128), dtype=np.uint8)
        self.boxes = np.zeros((count, 4), dtype=np.float32)
        self.landmarks = np.zeros((count, 5, 2), dtype=np.float32)
        offsets = np.array([[-12, -8], [12, -8], [0, 2], [-8, 14], [8, 14]], dtype=np.float32)
        for row in range(count):
            x, y = (int(v) for v in rng.integers(48, 80, 2))
            self.images[row, y - 32 : y + 32, x - 28 : x + 28] = colours[self.person[row]]
            self.masks[row, y - 32 : y + 32, x - 28 : x + 28] = 255
            self.boxes[row] = (x - 28, y - 32, x + 28, y + 32)
            self.landmarks[row] = offsets + np.array([x, y])
        self.factors = ((colours - 127) / 74).astype(np.float32)
        classes = rng.integers(0, len(CLASSES), people)[self.person]
        self.attributes = {"scene": scene, "person_class": classes}
        self.attribute_names = {"scene": SCENES, "person_class": CLASSES}
        self.is_photo = rng.random(count) < 0.8

    def rows_of(self, person_row: int) -> np.ndarray:
        return np.flatnonzero(self.person == person_row)

    def caption(self, row: int, rng: np.random.Generator, describe: float, trigger: str | None = None) -> str:
        word = CLASSES[self.attributes["person_class"][row]]
        colour = " with coloured skin" if rng.random() < describe else ""
        scene = SCENES[self.attributes["scene"][row]]
        return f"a photo of a {word}{' ' + trigger if trigger else ''}{colour} in the {scene}"
