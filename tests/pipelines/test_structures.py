"""Structures: what is drawn of a picture, what a ControlNet notes of it, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image
from tests import tiny

from photomaker.errors import PhotoError, SettingsError, WeightsError
from photomaker.pipelines.structures import structures
from photomaker.pipelines.structures.landmarks import Pencil, draw_landmarks
from photomaker.pipelines.structures.structures import (
    Content,
    Drawing,
    check_shape,
    drawing_of,
    drawn,
    edges_of,
    followed,
)

POINTS = np.array([[20, 24], [40, 24], [30, 34], [22, 44], [38, 44]], np.float32)
SQUARE = np.zeros((64, 64), np.uint8)
SQUARE[16:48, 16:48] = 255
PICTURE = Image.fromarray(SQUARE).convert("RGB")


def test_edges_lie_where_the_picture_changes_and_nowhere_else():
    edges = np.asarray(edges_of(PICTURE))
    assert edges.shape == (64, 64, 3) and set(np.unique(edges)) == {0, 255}
    rows, columns = np.nonzero(edges[..., 0])
    near = [np.minimum(np.abs(one - 15.5), np.abs(one - 47.5)) <= 1.5 for one in (rows, columns)]
    assert (near[0] | near[1]).all() and len(rows) > 80
    assert not np.asarray(edges_of(Image.new("RGB", (32, 32), "red"))).any()


def test_landmarks_mask_and_depth_are_drawn_as_they_are_known():
    pencil = Pencil(2.5, 1.0)
    content = Content(PICTURE, POINTS, SQUARE, SQUARE // 2)
    made = drawn(Drawing("landmarks", pencil), content)
    assert made.tobytes() == draw_landmarks(POINTS, (64, 64), pencil).tobytes()
    assert np.array_equal(np.asarray(drawn(Drawing("mask"), content))[..., 1], SQUARE)
    assert np.array_equal(np.asarray(drawn(Drawing("depth"), content))[..., 2], SQUARE // 2)


def test_what_is_not_known_is_not_drawn():
    for kind in ("landmarks", "mask", "depth"):
        with pytest.raises(PhotoError, match=f"the {kind} of a picture are unknown"):
            drawn(Drawing(kind), Content(PICTURE))
    with pytest.raises(PhotoError, match="outside its picture"):
        drawn(Drawing("landmarks"), Content(PICTURE, POINTS + 500))


def test_settings_out_of_range():
    for wrong, said in (({"structure": "pose"}, "'pose'"), ({"sigma": 0.0}, "sigma is 0.0")):
        with pytest.raises(SettingsError, match=said):
            Drawing(**wrong)


def test_another_shape_is_refused_and_another_size_is_not():
    check_shape(Image.new("RGB", (512, 512)), (128, 128))
    with pytest.raises(SettingsError, match="is 512 x 256, but the pictures are 128 x 128"):
        check_shape(Image.new("RGB", (512, 256)), (128, 128))


def test_a_controlnet_notes_what_it_follows(tmp_path):
    drawing = Drawing("edges", Pencil(3.0, 2.0), 1.5)
    structures.write_notes(tmp_path, drawing)
    assert drawing_of(tmp_path, "edges") == drawing
    with pytest.raises(WeightsError, match="follows edges, not landmarks"):
        drawing_of(tmp_path, "landmarks")
    (tmp_path / structures.NOTES).write_text(json.dumps({"structure": "edges", "pencil": 3}))
    with pytest.raises(WeightsError, match="damaged"):
        drawing_of(tmp_path, "edges")


def test_a_published_one_notes_nothing_and_is_drawn_for_in_the_published_way(tmp_path):
    net = tiny.tiny_controlnet(tmp_path)
    assert drawing_of(net, "edges") == Drawing("edges")
    made = followed(str(net), PICTURE, POINTS, 0.5)
    assert (made.kind, made.scale) == (None, 0.5)
    assert made.image.tobytes() == draw_landmarks(POINTS, (64, 64)).tobytes()


def test_a_bundled_one_that_is_not_there(monkeypatch):
    monkeypatch.setattr(structures, "is_bundled", lambda _part: False)
    with pytest.raises(WeightsError, match="no bundled ControlNet"):
        structures.control_folder("bundled")
