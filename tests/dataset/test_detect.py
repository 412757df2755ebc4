"""Faces of photos: which are kept, which photos go, and that batches change nothing."""

import numpy as np
import pytest
from PIL import Image
from tests.dataset.model_fakes import FakeDetector, FakeRecogniser, photo

from photomaker.dataset.base import Dropped, Photo
from photomaker.dataset.detect import Detect
from photomaker.errors import SettingsError
from photomaker.faces.plugins import PlugIn


@pytest.fixture
def plugged(monkeypatch):
    parts = {"detector": FakeDetector(), "recogniser": FakeRecogniser()}
    monkeypatch.setattr(PlugIn, "open", lambda _, kind: parts[kind])
    return parts


def photos(*counts):
    return [
        photo(f"{place:03d}", Image.new("RGB", (64, 64), (count, 0, place)), source="x")
        for place, count in enumerate(counts)
    ]


@pytest.mark.usefixtures("plugged")
def test_faces_that_are_large_enough_stay_and_photos_without_one_go():
    results = list(Detect(smallest=20).open()(photos(1, 0, 3, 2)))
    assert [type(one) for one in results] == [Photo, Dropped, Photo, Photo]
    first, none, third, _ = results
    assert first.row["key"] == "000" and first.row["source"] == "x"
    assert first.row["faces"] == [
        {"box": [0, 0, 30, 34], "score": 0.9, "landmarks": list(range(10)), "embedding": [0, 30]}
    ]
    assert (none.reason, none.row["key"]) == ("no face", "001")
    assert [face["embedding"] for face in third.row["faces"]] == [[2, 30], [2, 20]]
    (small,) = Detect(smallest=31).open()(photos(3))
    assert (small.reason, small.detail) == ("small face", "30 x 34 pixels")


def test_batches_change_nothing(plugged):
    given = photos(1, 0, 3, 2, 0, 1, 1)
    one = list(Detect(smallest=15).open()(given))
    assert max(plugged["recogniser"].batches) == 2
    assert one == list(Detect(smallest=15, batch=4).open()(given))
    assert max(plugged["recogniser"].batches) > 2
    assert list(Detect(smallest=15).open()([])) == []


@pytest.mark.parametrize(
    ("change", "message"), [({"batch": 0}, "batch is 0"), ({"smallest": -1}, "smallest is -1")]
)
def test_settings_out_of_range(change, message):
    with pytest.raises(SettingsError, match=message):
        Detect(**change)


def test_the_columns_and_licences_are_told():
    assert Detect().columns.names == ["faces"]
    assert Detect().licences == dict.fromkeys(("detector", "recogniser"), "non-commercial research only")


@pytest.mark.bundled
def test_the_bundled_plug_ins_give_the_same_bits_however_photos_are_cut():
    from photomaker.synthetic import TEST, person, render, view

    given = []
    for place in range(3):
        someone = person(TEST + 500 + place // 2)
        picture = render(someone, view(someone, place, style="photo"), 128)
        given.append(photo(str(place), Image.fromarray(picture.image)))
    step = Detect(PlugIn(), PlugIn(), smallest=20).open()
    together = list(step(given))
    assert together == [result for one in given for result in step([one])]
    vectors = np.array([one.row["faces"][0]["embedding"] for one in together])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
