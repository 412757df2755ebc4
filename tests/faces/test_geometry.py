"""Boxes, masks, letterboxes and crops: plain geometry, checked against drawings with known answers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from photomaker.errors import PhotoError
from photomaker.faces.base import component_of, largest, nearest_face, overlaps, square_around, suppress
from photomaker.faces.bundled import Letterbox
from photomaker.faces.crops import SIDE, face_crop, tensor_crops, to_tensor
from photomaker.types import Face


def face(*box: float, score: float = 1.0) -> Face:
    return Face((box[0], box[1], box[2], box[3]), score, np.zeros((5, 2), np.float32))


def test_the_largest_face_is_taken_and_no_face_is_none():
    faces = [face(0, 0, 10, 10), face(5, 5, 40, 30), face(0, 0, 20, 2)]
    assert largest(faces) is faces[1]
    assert largest([]) is None


def test_overlaps_of_known_boxes():
    shared = overlaps(
        np.array([[0, 0, 10, 10]]), np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [3, 3, 3, 3]])
    )
    assert shared[0] == pytest.approx([1.0, 1 / 3, 0.0, 0.0])
    assert overlaps(np.zeros((0, 4)), np.zeros((3, 4))).shape == (0, 3)


def test_suppression_keeps_the_best_of_each_heap():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [30, 0, 40, 10], [30, 1, 40, 11]])
    kept = suppress(boxes, np.array([0.5, 0.9, 0.8, 0.7]), 0.4)
    assert kept.tolist() == [1, 2]
    assert suppress(np.zeros((0, 4)), np.zeros(0), 0.4).tolist() == []


def test_square_has_the_longer_side_and_the_same_centre():
    assert square_around((10, 20, 30, 60), 1.5) == (-10, 10, 50, 70)


def test_component_stays_inside_its_part():
    mask = np.zeros((6, 9), bool)
    mask[1:4, 1:4] = mask[1:4, 5:8] = True
    mask[4, 3] = mask[5, 3] = True
    seed = np.zeros_like(mask)
    seed[2, :4] = True
    part = component_of(mask, seed)
    assert part[1:4, 1:4].all() and part[5, 3] and not part[:, 5:].any()
    assert not component_of(mask, np.zeros_like(mask)).any()


def test_nearest_face_goes_by_widths_of_the_face():
    owner = nearest_face([face(0, 0, 10, 10), face(20, 0, 60, 40)], (3, 60))
    assert owner.shape == (3, 60)
    assert owner[0, 5] == 0 and owner[0, 40] == 1
    assert (
        owner[0, 15] == 1
    )  # 10 pixels are a whole width of the small face, 25 are little more than half of the large one


@settings(max_examples=30, deadline=None)
@given(width=st.integers(1, 3000), height=st.integers(1, 3000), x=st.floats(0, 1), y=st.floats(0, 1))
def test_letterbox_round_trip(width, height, x, y):
    fitted = Letterbox.fit(width, height, 160)
    point = np.array([x * width, y * height])
    inside = fitted.to_square(point)
    assert (inside >= -1e-6).all() and (inside <= 160 + 1e-6).all()
    assert fitted.to_picture(inside) == pytest.approx(point, abs=1e-6 * max(width, height))


@pytest.mark.parametrize("size", [(300, 100), (100, 300), (160, 160), (3, 400), (1, 1)])
def test_letterbox_puts_the_picture_where_it_says(size):
    fitted = Letterbox.fit(*size, 160)
    square = np.asarray(fitted.apply(Image.new("RGB", size, (255, 0, 0))))
    assert square.shape == (160, 160, 3)
    red = np.argwhere(square[..., 0] > 200)
    corner, far = fitted.to_square(np.array([[0, 0], size]))
    assert np.abs(red.min(0)[::-1] - corner).max() <= 1
    assert np.abs(red.max(0)[::-1] + 1 - far).max() <= 1


def gradient(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 / width, y * 255 / height, 255 * ((x // 8 + y // 8) % 2)], -1)
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize(
    "box", [(40, 40, 88, 100), (2, 5, 70, 71.5), (80, 90, 127, 127), (31.3, 20.2, 90.9, 88.8)]
)
def test_crops_of_photos_and_of_training_batches_agree(box):
    image = gradient(128, 128)
    crop = to_tensor([face_crop(image, face(*box), 96)])
    squares = torch.tensor([square_around(box, SIDE)])
    other = tensor_crops(to_tensor([image]), squares, 96)
    assert crop.shape == other.shape == (1, 3, 96, 96)
    assert float((crop - other).abs().mean()) < 0.012


def test_crop_lands_on_the_face():
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[80:120, 200:230] = 255
    crop = np.asarray(face_crop(Image.fromarray(pixels), face(200, 80, 230, 120), 96))
    rows, columns = np.where(crop[..., 0] > 127)
    assert (rows.min(), rows.max() + 1) == pytest.approx((16, 80), abs=1)
    assert (columns.min(), columns.max() + 1) == pytest.approx((24, 72), abs=1)


def test_outside_the_picture_its_edge_is_repeated():
    image = Image.new("RGB", (50, 50), (10, 200, 30))
    crop = np.asarray(face_crop(image, face(-20, -20, 40, 40), 96))
    assert (crop == (10, 200, 30)).all()


def test_crop_takes_any_mode():
    assert face_crop(Image.new("RGBA", (60, 60)), face(10, 10, 50, 50), 32).mode == "RGB"
    assert face_crop(Image.new("L", (60, 60)), face(10, 10, 50, 50), 32).size == (32, 32)


@pytest.mark.parametrize("box", [(70, 10, 90, 30), (10, 10, 10, 40), (-30, -30, -1, -1)])
def test_face_that_is_not_in_the_photo_is_refused(box):
    with pytest.raises(PhotoError, match="60 x 60"):
        face_crop(Image.new("RGB", (60, 60)), face(*box), 32)
