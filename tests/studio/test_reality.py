"""Photographs and drawn people are told apart, and who mixes them up is told so."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from photomaker import weights
from photomaker.faces.drawn import looks_drawn
from photomaker.studio.photos.reality import are_photographs, reality_notes
from photomaker.synthetic import distributions, renderer
from photomaker.types import Face, Reference

pytestmark = pytest.mark.skipif(not (weights.SMALL / "faces").is_dir(), reason="no bundled weights")


@pytest.fixture(scope="module")
def detector():
    from photomaker.faces import BundledFaces

    return BundledFaces.open()


def reference(detector, image):
    face = max(detector.detect(image), key=lambda one: one.area, default=None)
    return Reference(image, face=face)


def astronaut():
    from skimage import data

    return Image.fromarray(data.astronaut())


def taken():
    """Views of one photographed face: crops, a mirror image, light, blur, sizes."""
    whole = astronaut()
    yield from (whole, whole.crop((60, 0, 380, 320)), whole.crop((130, 0, 330, 200)))
    yield whole.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    yield ImageEnhance.Brightness(whole).enhance(0.7)
    yield whole.filter(ImageFilter.GaussianBlur(1.5))
    yield whole.resize((160, 160))


def test_photographs_are_seen_as_such(detector):
    references = [reference(detector, image) for image in taken()]
    assert are_photographs(references)
    found = [one for one in references if one.face is not None]
    assert len(found) >= 3
    assert np.mean([looks_drawn(one.image, one.face.score) for one in found]) < 0.35


def drawn(seed):
    person = distributions.person(2_000_000 + seed)
    return Image.fromarray(renderer.render(person, distributions.view(person, seed)).image)


def jpeg(image):
    data = io.BytesIO()
    image.save(data, "JPEG", quality=70)
    return Image.open(data).convert("RGB")


def test_drawn_people_are_not_taken_for_photographs(detector):
    images = [drawn(seed) for seed in range(40)]
    images = [jpeg(one) if place % 3 == 0 else one for place, one in enumerate(images)]
    references = [reference(detector, image) for image in images]
    assert not are_photographs(references)
    for start in range(0, 40, 4):  # as people give them: a few at a time
        assert not are_photographs(references[start : start + 4])


def test_one_colour_is_judged_by_the_face_alone():
    assert looks_drawn(Image.new("RGB", (64, 64)), 0.9)
    assert not looks_drawn(Image.new("RGB", (64, 64)), 0.2)


PHOTO = Reference(Image.new("RGB", (64, 64)), face=Face((0, 0, 9, 9), 0.2, np.zeros((5, 2))))
DRAWING = Reference(Image.new("RGB", (64, 64)), face=Face((0, 0, 9, 9), 0.9, np.zeros((5, 2))))


@pytest.mark.parametrize(
    ("references", "bundled", "faces", "finds", "told"),
    [
        ([PHOTO], True, "auto", "", "the bundled model knows only drawn people"),
        ([PHOTO, PHOTO, DRAWING], True, "auto", "", "for photographs give an SDXL model with --base"),
        ([DRAWING], True, "auto", "", None),
        ([], True, "auto", "", None),
        ([DRAWING], False, "bundled", "", None),
        ([PHOTO], False, "bundled", "", "their likeness means nothing"),
        ([PHOTO], False, "auto", None, "there is no face backend for photographs"),
        ([PHOTO], False, "auto", "dlib (Boost)", "faces are found and compared by dlib (Boost)"),
        ([PHOTO], False, "dlib", "dlib (Boost)", None),
        ([DRAWING], True, "dlib", "dlib (Boost)", "the bundled model knows only drawn people"),
        ([PHOTO], False, "none", None, "because of --faces none"),
    ],
)
def test_what_does_not_go_together_is_told(references, bundled, faces, finds, told):
    notes = reality_notes(references, bundled, faces, finds)
    assert (told in notes[0]) if told else notes == []
