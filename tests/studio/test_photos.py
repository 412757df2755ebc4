"""The photos of a sitting."""

import numpy as np
import pytest
from PIL import Image
from tests.studio.fakes import FakeDetector, save

from photomaker.errors import PhotoError
from photomaker.faces import Detector, Segmenter
from photomaker.images import Photo
from photomaker.studio.photos.coach import LYING, coached
from photomaker.studio.photos.sitting import choose_faces, read_photos
from photomaker.types import Face


def sitting(tmp_path, *counts, detector=None):
    for place, count in enumerate(counts):
        save(tmp_path / f"{place}.png", faces=count)
    return choose_faces(read_photos([tmp_path]), detector or FakeDetector())


def test_a_photo_without_a_face_is_left_out_with_a_note(tmp_path):
    found = sitting(tmp_path, 1, 0, 1)
    assert [one.name for one in found.references] == ["0.png", "2.png"]
    assert found.notes == ("no face was found in 1.png, which is left out",)


def test_all_without_a_face_is_an_error_that_names_them(tmp_path):
    with pytest.raises(PhotoError, match=r"no face was found in 0\.png, 1\.png"):
        sitting(tmp_path, 0, 0)


def test_of_several_faces_the_largest_is_used_with_a_note(tmp_path):
    found = sitting(tmp_path, 3)
    assert found.references[0].face.box == (0.0, 0.0, 12.0, 12.0)
    assert found.notes == ("0.png shows 3 faces; the largest is used",)


def test_without_a_detector_photos_are_used_as_they_are(tmp_path):
    save(tmp_path / "a.png", faces=0)
    found = choose_faces(read_photos([tmp_path]), None)
    assert found.references[0].face is None
    assert found.references[0].sha256


def test_a_backend_that_can_gives_the_mask_of_the_person(tmp_path):
    import numpy as np

    class Cutter(FakeDetector, Segmenter):
        def person_mask(self, image, face):
            return np.full((image.height, image.width), 255, np.uint8)

    assert sitting(tmp_path, 1, detector=Cutter()).references[0].mask.shape == (64, 64)
    assert sitting(tmp_path, 1).references[0].mask is None


def test_a_damaged_photo_is_named(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(PhotoError, match=r"b\.png"):
        read_photos([tmp_path])


class OnlyUpright(Detector):
    """Finds a face where the picture's first pixel is red; a bright one is a surer face."""

    def detect(self, image):
        red, green, _ = image.getpixel((0, 0))
        return [Face((0, 0, 20, 20), green / 255, np.zeros((5, 2), np.float32))] if red else []


def lying(degrees, green=200):
    picture = Image.new("RGB", (64, 40))
    picture.putpixel((0, 0), (255, green, 0))
    return Photo(picture.rotate(-degrees, expand=True), "a.png", "x")


@pytest.mark.parametrize(
    ("degrees", "said"), [(180, "upside down"), (90, "on its side"), (270, "on its side")]
)
def test_a_photo_that_lies_is_turned_until_a_face_is_found(degrees, said):
    sitting = choose_faces([lying(degrees)], OnlyUpright())
    assert sitting.references[0].image.size == (64, 40)
    assert sitting.notes == (f"a.png was {said} and has been rotated",)
    (judged,) = coached([lying(degrees)], OnlyUpright()).photos
    assert judged.photo.image.size == (64, 40) and LYING in {one.kind for one in judged.findings}
    assert LYING not in {one.kind for one in coached([lying(0)], OnlyUpright()).photos[0].findings}


def test_an_upright_photo_and_one_without_a_face_are_not_turned():
    sitting = choose_faces([lying(0), Photo(Image.new("RGB", (30, 20)), "b.png", "y")], OnlyUpright())
    assert [one.image.size for one in sitting.references] == [(64, 40)]
    assert sitting.notes == ("no face was found in b.png, which is left out",)


def test_of_several_turns_the_surest_is_taken():
    picture = Image.new("RGB", (64, 40))
    picture.putpixel((63, 39), (255, 90, 0))
    picture.putpixel((63, 0), (255, 200, 0))
    (reference,) = choose_faces([Photo(picture, "a.png", "x")], OnlyUpright()).references
    assert reference.image.size == (40, 64)


def test_of_very_many_photos_each_is_made_smaller(tmp_path, monkeypatch):
    monkeypatch.setattr("photomaker.studio.photos.sitting.MOST", 2)
    monkeypatch.setattr("photomaker.studio.photos.sitting.SIDE", 50)
    for name in "ab":
        Image.new("RGB", (100, 80)).save(tmp_path / f"{name}.png")
    assert [one.image.size for one in read_photos([tmp_path])] == [(100, 80)] * 2
    Image.new("RGB", (40, 45)).save(tmp_path / "c.png")
    assert [one.image.size for one in read_photos([tmp_path])] == [(50, 40), (50, 40), (40, 45)]
