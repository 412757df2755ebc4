"""A few crude people in memory, with everything that the recipes of the small networks read."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

WORDS = {
    "style": ("photo", "sketch"),
    "hat": ("none", "cap"),
    "hat_colour": ("red", "blue"),
    "eyewear": ("none", "glasses"),
}


@dataclass
class FakeWorld:
    images: np.ndarray
    masks: np.ndarray
    person: np.ndarray
    boxes: np.ndarray
    landmarks: np.ndarray
    attributes: dict[str, np.ndarray]
    factors: np.ndarray
    is_photo: np.ndarray
    attribute_names: dict[str, tuple[str, ...]] = field(default_factory=lambda: dict(WORDS))


def fake_world(people: int = 12, views: int = 6, size: int = 128, seed: int = 0) -> FakeWorld:
    """An oval of the person's colour with eyes and a mouth above a rectangle, on a plain background."""
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((people, 30)).astype(np.float32)
    person = np.repeat(np.arange(people), views)
    count = len(person)
    hat = rng.integers(0, 2, count)
    attributes = {
        "style": (np.arange(count) % views == views - 1).astype(np.int64),
        "hat": hat,
        "hat_colour": np.where(hat > 0, rng.integers(0, 2, count), -1),
        "eyewear": rng.integers(0, 2, count),
    }
    drawn = [_draw(factors[who], rng, size) for who in person]
    images, masks, boxes, landmarks = (np.stack(part) for part in zip(*drawn, strict=True))
    return FakeWorld(images, masks, person, boxes, landmarks, attributes, factors, attributes["style"] == 0)


def _draw(factors: np.ndarray, rng: np.random.Generator, size: int) -> tuple[np.ndarray, ...]:
    y, x = np.mgrid[:size, :size] + 0.5
    middle = np.array([size / 2, size * 0.45]) + rng.normal(0, 3, 2)
    half = np.array([size * 0.23, size * 0.28])
    face = ((x - middle[0]) / half[0]) ** 2 + ((y - middle[1]) / half[1]) ** 2 < 1
    body = (np.abs(x - middle[0]) < size * 0.35) & (y > middle[1] + half[1] * 0.9)
    image = np.empty((size, size, 3), np.uint8)
    image[:] = rng.integers(0, 255, 3)
    image[body] = rng.integers(0, 255, 3)
    image[face] = 128 + 40 * np.tanh(factors[:3])
    points = middle + half * np.array([[-0.4, -0.2], [0.4, -0.2], [0, 0.15], [-0.3, 0.5], [0.3, 0.5]])
    for px, py in points:
        image[(np.abs(x - px) < 3) & (np.abs(y - py) < 3)] = 20
    box = np.concatenate([middle - half, middle + half]).astype(np.float32)
    return image, np.where(face | body, 255, 0).astype(np.uint8), box, points.astype(np.float32)
