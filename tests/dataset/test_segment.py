"""The square around a face, and the mask of the person in it."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.dataset.model_fakes import FakeSegmenter, photo

from photomaker.dataset.base import Dropped
from photomaker.dataset.segment import Segment, largest_square
from photomaker.errors import SettingsError
from photomaker.faces.plugins import PlugIn

BOX, POINTS = [60.0, 40.0, 80.0, 60.0], [65, 45, 75, 45, 70, 50, 66, 55, 74, 55]


def run(monkeypatch, step, part, size=(200, 100), box=BOX):
    segmenter = FakeSegmenter(part)
    monkeypatch.setattr(PlugIn, "open", lambda *_: segmenter)
    pixels = np.arange(size[0] * size[1] * 3).reshape(size[1], size[0], 3) % 251
    given = photo(
        "a", Image.fromarray(pixels.astype(np.uint8)), box=box, landmarks=POINTS, width=size[0], kept=1
    )
    (result,) = step.open()([given])
    return result, segmenter, pixels


def test_crop_mask_and_columns_are_in_pixels_of_the_crop(monkeypatch):
    result, segmenter, pixels = run(monkeypatch, Segment(format="png"), (0.25, 0.25, 0.75, 1))
    row = result.row
    # a tenth of 63 x 63 is just below the 20 x 20 of the face
    assert (row["width"], row["height"], row["kept"]) == (63, 63, 1)
    x, y = row["crop"][:2]
    assert row["box"] == [60 - x, 40 - y, 80 - x, 60 - y]
    assert row["landmarks"][:2] == [65 - x, 45 - y]
    assert row["face_share"] == pytest.approx(400 / 63**2) and row["face_share"] >= 0.1
    assert abs((row["box"][0] + row["box"][2]) / 2 - 31.5) <= 0.5
    ((size, face),) = segmenter.seen
    assert size == (63, 63) and list(face.box) == row["box"]
    crop = np.asarray(Image.open(io.BytesIO(result.files["image"])))
    assert np.array_equal(crop, pixels[int(y) : int(y) + 63, int(x) : int(x) + 63])
    mask = np.asarray(Image.open(io.BytesIO(result.files["mask"])))
    assert row["person_share"] == pytest.approx((mask == 255).mean()) and 0.3 < row["person_share"] < 0.45


def test_a_large_crop_is_brought_to_the_largest_side(monkeypatch):
    result, segmenter, _ = run(monkeypatch, Segment(largest_side=32), (0, 0, 1, 1))
    assert segmenter.seen[0][0] == (32, 32)
    picture = Image.open(io.BytesIO(result.files["image"]))
    assert (picture.format, picture.size) == ("JPEG", (32, 32))
    scale = 32 / 63
    assert result.row["crop"][2] - result.row["crop"][0] == 63
    assert result.row["box"][2] - result.row["box"][0] == pytest.approx(20 * scale)
    assert result.row["face_share"] == pytest.approx(400 / 63**2)


def test_photos_without_a_person_on_the_face_go(monkeypatch):
    nothing, _, _ = run(monkeypatch, Segment(), (0, 0, 0, 0))
    assert isinstance(nothing, Dropped) and nothing.reason == "no person mask" and nothing.image
    beside, _, _ = run(monkeypatch, Segment(), (0, 0, 0.2, 1))
    assert isinstance(beside, Dropped) and beside.reason == "mask misses the face"
    half, _, _ = run(monkeypatch, Segment(covered=0.6), (0, 0, 0.5, 1))
    assert isinstance(half, Dropped) and half.detail == "it covers 45% of the box"
    assert not isinstance(run(monkeypatch, Segment(covered=0.4), (0, 0, 0.5, 1))[0], Dropped)


def test_a_face_larger_than_the_picture_is_cut(monkeypatch):
    result, _, _ = run(monkeypatch, Segment(), (0, 0, 1, 1), size=(200, 100), box=[20.0, 0.0, 170.0, 100.0])
    assert (result.row["width"], result.row["height"]) == (100, 100)
    assert result.row["box"] == [0, 0, 100, 100]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_largest_square(data):
    width, height = data.draw(st.integers(20, 400)), data.draw(st.integers(20, 400))
    x0, y0 = data.draw(st.floats(0, width - 6)), data.draw(st.floats(0, height - 6))
    x1, y1 = data.draw(st.floats(x0 + 5, width)), data.draw(st.floats(y0 + 5, height))
    share = data.draw(st.floats(0.02, 0.5))
    left, top, right, bottom = largest_square((x0, y0, x1, y1), (width, height), share)
    side = right - left
    assert side == bottom - top and left >= 0 and right <= width and top >= 0 and bottom <= height
    area = (x1 - x0) * (y1 - y0)
    assert side == 1 or area / side**2 >= share
    assert side == min(width, height) or area / (side + 1) ** 2 < share
    if max(x1 - x0, y1 - y0) <= side - 1:  # whole pixels may cost a part of one
        assert left <= x0 + 1 and right >= x1 - 1 and top <= y0 + 1 and bottom >= y1 - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"face_share": 0}, "face_share is 0"),
        ({"covered": 1}, "covered is 1"),
        ({"largest_side": 0}, "largest_side is 0"),
    ],
)
def test_settings_out_of_range(change, message):
    with pytest.raises(SettingsError, match=message):
        Segment(**change)
