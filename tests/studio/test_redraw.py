"""Small faces drawn again: which, from what, and that nothing else changes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from photomaker.encoders import together
from photomaker.errors import SettingsError
from photomaker.faces import Detector, Recogniser
from photomaker.methods.base import Method
from photomaker.studio.engine import Backends, Engine
from photomaker.studio.opening import Profile
from photomaker.studio.orders.order import Order, Someone
from photomaker.studio.pictures.redraw import (
    checked,
    faces_of,
    longer,
    matched,
    request_for,
    small_face,
    threshold,
    whose,
)
from photomaker.types import EXTRAS, Extras, Face, Identity, Lora, Request, Sampling, Start, Structure

SIDE = 128
PROMPT = "a photo of a woman img in the snow"


def face(left, top, right, bottom):
    return Face((left, top, right, bottom), 0.9, np.zeros((5, 2), np.float32))


SMALL = face(90.0, 40.0, 110.0, 64.0)


class OneFace(Detector):
    """A face in every picture, small in those that were not started from."""

    found = (SMALL,)

    def detect(self, image):
        return list(self.found)


class Bright(Recogniser):
    """The left face is somebody else's."""

    def embed_batch(self, images, faces):
        return np.array([[1.0, 0.0] if one.box[0] > 50 else [0.0, 1.0] for one in faces], np.float32)


class Painter(Method):
    """Grey pictures; light ones where there is a picture to start from."""

    name = "painter"
    takes = EXTRAS

    def __init__(self):
        self.asked = []

    def fit(self, references, *, notes=None):
        return Identity("painter", {"w": torch.ones(1)})

    def generate(self, identity, requests, *, watch=None):
        self.asked.append(list(requests))
        made = []
        for request in requests:
            start = request.extras.start
            size = (request.sampling.width or 192, request.sampling.height or SIDE)
            grey = np.random.default_rng(request.sampling.seed).integers(80, 120, (size[1], size[0], 3))
            made.append(Image.fromarray((grey + 60 * (start is not None)).astype(np.uint8)))
        return made


@pytest.fixture
def base(tmp_path):
    for name, values in {
        "unet": {"sample_size": SIDE // 8},
        "vae": {"block_out_channels": [1, 2, 3, 4]},
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(values))
    return tmp_path


def opened(base, detector=OneFace, kind=Painter):
    method = kind()
    backends = Backends(detector() if detector else None, Bright() if detector else None)
    return Engine(lambda: method, backends, profile=Profile(kind=kind, base=base)), method


@pytest.fixture
def ada():
    return Identity("painter", {"w": torch.ones(1), "face_embeddings": torch.tensor([[1.0, 0.0]])})


def test_a_small_face_is_drawn_again_from_what_is_there(base, ada):
    engine, method = opened(base)
    asked = {"sampling": Sampling(seed=7, width=152, height=SIDE, steps=12)}
    (plain,) = engine.generate(ada, PROMPT, **asked)
    (sample,) = engine.generate(ada, PROMPT, redraw="auto", **asked)
    assert len(method.asked) == 3 and "redrawn" not in plain.notes
    (again,) = method.asked[-1]
    assert again.prompt == method.asked[0][0].prompt
    assert (again.sampling.seed, again.sampling.steps) == (7, 12)
    assert (again.sampling.width, again.sampling.height) == (SIDE, SIDE) == again.extras.start.image.size
    assert sample.notes["redrawn"] == "a face of 24 pixels"
    assert sample.request.extras.start is None
    changed = (np.asarray(sample.image) != np.asarray(plain.image)).any(-1)
    rows, columns = np.nonzero(changed)
    assert changed[52, 100]
    centre, reach = (52, 100), 1.35 / 2 * 24 + 3 * 24 * 0.08
    assert np.hypot(rows - centre[0], columns - centre[1]).max() <= reach + 1


def test_lora_are_drawn_with_again_and_structure_is_not():
    picture, lora = Image.new("RGB", (192, SIDE)), Lora("ink.safetensors", 0.5)
    small = small_face(0, picture, SMALL, 40, SIDE)
    extras = Extras(Start(picture), (lora,), (Structure("net", picture),))
    again = request_for(small, picture, Request(PROMPT, Sampling(), "blurred", extras), SIDE)
    assert again.extras.loras == (lora,) and not again.extras.controls
    assert again.negative_prompt == "blurred"


def test_large_faces_and_pictures_without_are_left_alone(base, ada):
    engine, method = opened(base)
    engine.generate(ada, PROMPT, redraw="20px")
    assert len(method.asked) == 1
    engine.generate(ada, PROMPT, redraw=25)
    assert len(method.asked) == 3
    engine.detector.found = ()
    (sample,) = engine.generate(ada, PROMPT, redraw="auto")
    assert len(method.asked) == 4 and "redrawn" not in sample.notes


def test_several_small_faces_are_drawn_in_one_batch(base, ada):
    engine, method = opened(base)
    samples = engine.generate(ada, PROMPT, n=3, redraw="auto")
    assert [len(requests) for requests in method.asked] == [3, 3]
    assert [request.sampling.seed for request in method.asked[1]] == [0, 1, 2]
    assert all("redrawn" in sample.notes for sample in samples)
    method.asked.clear()
    engine.draw(ada, [sample.request for sample in samples], redraw="auto")
    assert [len(requests) for requests in method.asked] == [3, 3]


def test_of_several_faces_the_persons_is_drawn_again(base, ada):
    engine, _ = opened(base)
    engine.detector.found = (face(10.0, 40.0, 36.0, 66.0), SMALL)
    (sample,) = engine.generate(ada, PROMPT, redraw="auto")
    assert sample.notes["redrawn"] == "a face of 24 pixels"
    known = (face(0, 0, 9, 9), face(0, 0, 20, 20))
    assert faces_of([known, known, ()], [None, [0.9, 0.1], None]) == [known[1], known[0], None]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("some", "redraw is 'some'; give auto, off, or a number of pixels"),
        (0, "redraw is 0; give"),
        (-3, "redraw is -3; give"),
        (5000, "redraw is 5000; give"),
        (True, "redraw is True; give"),
        (None, "redraw is None; give"),
        ("12.5", "redraw is '12.5'; give"),
    ],
)
def test_what_is_no_size_is_refused(ada, asked, message):
    with pytest.raises(SettingsError, match=message):
        Order((Someone(ada),), (PROMPT,), redraw=asked)


def test_sizes_are_read_as_people_write_them():
    assert [checked(one) for one in ("auto", " OFF ", "40", "40 px", "40px", 7)] == [
        "auto",
        "off",
        40,
        40,
        40,
        7,
    ]
    assert [threshold(one, 1024) for one in ("auto", "off", 300)] == [256, 0, 300]


class Plain(Painter):
    name = "plain"
    takes = frozenset()


@pytest.mark.filterwarnings("ignore:no likeness is measured")
@pytest.mark.parametrize(
    ("detector", "kind", "message"),
    [(None, Painter, "there is no face backend"), (OneFace, Plain, "plain takes no start picture")],
)
def test_where_it_cannot_be_auto_leaves_it_and_a_number_is_refused(base, ada, detector, kind, message):
    engine, method = opened(base, detector, kind)
    engine.generate(ada, PROMPT, redraw="auto")
    assert len(method.asked) == 1
    with pytest.raises(SettingsError, match=f"redraw is 30, but {message}"):
        engine.generate(ada, PROMPT, redraw=30)


@pytest.mark.parametrize("box", [(0, 0, 20, 24), (180, 110, 191, 127), (90, 40, 110, 64)])
def test_the_face_is_in_the_middle_of_what_is_cut_out_even_at_the_edge(box):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (128, 192, 3), np.uint8))
    small = small_face(0, picture, face(*box), 40, SIDE)
    left, top = small.corner
    assert small.side == round(2.4 * longer(small.face))
    assert left + small.side / 2 == pytest.approx((box[0] + box[2]) / 2, abs=1)
    assert top + small.side / 2 == pytest.approx((box[1] + box[3]) / 2, abs=1)
    cut = small.cut(picture)
    assert cut.size == (small.side, small.side)
    inside = [max(0, left), max(0, top), min(192, left + small.side), min(128, top + small.side)]
    there = cut.crop((inside[0] - left, inside[1] - top, inside[2] - left, inside[3] - top))
    assert np.array_equal(np.asarray(there), np.asarray(picture.crop(tuple(inside))))
    made = small.put_back(picture, cut)
    assert made.size == picture.size and np.array_equal(np.asarray(made), np.asarray(picture))


def test_what_is_as_large_as_the_base_draws_gains_nothing():
    picture = Image.new("RGB", (1024, 1024))
    assert small_face(0, picture, face(100, 100, 160, 160), 100, SIDE) is None
    assert small_face(0, picture, face(100, 100, 150, 150), 100, SIDE) is not None
    assert small_face(0, picture, None, 100, SIDE) is None


def test_colours_are_matched_and_contrast_is_never_lowered():
    rng = np.random.default_rng(0)
    old, flat, strong = (
        Image.fromarray(rng.normal(mean, spread, (40, 40, 3)).clip(0, 255).astype(np.uint8))
        for mean, spread in ((120, 20), (90, 18), (150, 30))
    )
    for new, spread in ((flat, np.asarray(old).std()), (strong, np.asarray(strong).std())):
        made = np.asarray(matched(new, old)).astype(float)
        assert made.mean((0, 1)) == pytest.approx(np.asarray(old).mean((0, 1)), abs=1)
        assert made.std() == pytest.approx(spread, rel=0.05)


def test_a_start_picture_that_was_asked_for_is_not_started_from_again(base, ada):
    engine, method = opened(base)
    start = Start(Image.new("RGB", (64, 64)), 0.8, Image.new("L", (64, 64), 255))
    engine.generate(ada, PROMPT, redraw="auto", extras=Extras(start=start))
    again = method.asked[1][0].extras.start
    assert again.mask is None and again.image.size == (SIDE, SIDE) and again.strength != start.strength


# ---- several people

BOTH = "a photo of a woman img in a hat on the left and a man img in a suit on the right"
LEFT, RIGHT = face(30.0, 40.0, 50.0, 64.0), face(140.0, 40.0, 160.0, 64.0)


class Crowd(OneFace):
    found = (RIGHT, LEFT)


class Unsure(Recogniser):
    """Every face is as like everybody."""

    def embed_batch(self, images, faces):
        return np.full((len(faces), 2), 0.5**0.5, np.float32)


class Pairs(Painter):
    """Grey pictures; of one person alone red for Ada and blue for Ben, by their features."""

    name = "pairs"

    def __init__(self):
        super().__init__()
        self.of = []

    def together(self, identities):
        return together(identities)

    def generate(self, identity, requests, *, watch=None):
        self.of.append(identity)
        pictures = super().generate(identity, requests, watch=watch)
        if "subjects" in identity.tensors:
            return pictures
        mark = (250, 0, 0) if float(identity.tensors["id_features"][0, 0]) == 1 else (0, 0, 250)
        # only the middle is marked, for colours as a whole are matched to what was there
        for one in pictures:
            one.paste(
                mark, (one.width // 2 - 12, one.height // 2 - 12, one.width // 2 + 12, one.height // 2 + 12)
            )
        return pictures


def one_of_two(number, angle):
    tensors = {
        "id_features": torch.full((1, 3), float(number)),
        "weights": torch.ones(1),
        "face_embeddings": torch.tensor([[np.cos(angle), np.sin(angle)]], dtype=torch.float32),
    }
    return Identity("pairs", tensors)


ADA, BEN = one_of_two(1, np.pi / 2), one_of_two(2, 0.0)


def for_two(prompt=BOTH, **more):
    people = Someone(ADA, "ada"), Someone(BEN, "ben")
    return Order(people, (prompt,), together=True, sampling=Sampling(seed=3), **more)


def drawn_for_two(base, order, recogniser=Bright, found=(RIGHT, LEFT)):
    method, detector = Pairs(), Crowd()
    detector.found = found
    engine = Engine(lambda: method, Backends(detector, recogniser()), profile=Profile(kind=Pairs, base=base))
    (sample,) = engine.generate(order)
    return sample, method


def reddest(picture):
    """How much redder than blue the middle of the left and of the right face is."""
    pixels = np.asarray(picture).astype(int)
    return [
        int((pixels[50:54, x - 2 : x + 2, 0] - pixels[50:54, x - 2 : x + 2, 2]).mean()) for x in (40, 150)
    ]


@pytest.mark.parametrize("recogniser", [Bright, Unsure])
def test_each_face_is_drawn_again_with_its_own_person_alone(base, recogniser):
    plain, _ = drawn_for_two(base, for_two(), recogniser)
    sample, method = drawn_for_two(base, for_two(redraw="auto"), recogniser)
    assert ["subjects" in one.tensors for one in method.of] == [True, False, False]
    assert [float(one.tensors["id_features"][0, 0]) for one in method.of[1:]] == [1, 2]
    assert [requests[0].prompt for requests in method.asked[1:]] == [
        "a photo of a woman img in a hat",
        "a photo of a man img in a suit",
    ]
    left, right = reddest(sample.image)
    assert left > 60 and right < -60
    assert sample.notes["redrawn"] == "faces of 24 and 24 pixels"
    changed = (np.asarray(sample.image) != np.asarray(plain.image)).any(-1)
    rows, columns = np.nonzero(changed)
    reach = 1.35 / 2 * 24 + 3 * 24 * 0.08 + 1
    away = np.minimum(*(np.hypot(rows - 52, columns - x) for x in (40, 150)))
    assert changed[52, 40] and changed[52, 150] and away.max() <= reach


def test_a_layout_says_whose_face_is_whose_against_the_looks(base):
    sample, _ = drawn_for_two(base, for_two(redraw="auto", extras=Extras(layout=("right", "left"))))
    left, right = reddest(sample.image)
    assert left < -60 and right > 60


def test_without_places_the_looks_say_whose_face_is_whose(base):
    prompt = "a photo of a woman img and a man img"
    left, right = reddest(drawn_for_two(base, for_two(prompt, redraw="auto"))[0].image)
    assert left > 60 and right < -60
    bare = [replace_faces(one) for one in (ADA, BEN)]
    order = for_two(prompt, redraw="auto")
    order = replace(order, people=tuple(Someone(one) for one in bare))
    sample, method = drawn_for_two(base, order)
    assert len(method.asked) == 1 and "redrawn" not in sample.notes


def replace_faces(one):
    return replace(one, tensors={name: t for name, t in one.tensors.items() if name != "face_embeddings"})


def test_of_several_people_only_small_faces_are_drawn_again(base):
    large = face(15.0, 30.0, 55.0, 75.0)
    sample, method = drawn_for_two(base, for_two(redraw="auto"), found=(large, RIGHT))
    assert [float(one.tensors["id_features"][0, 0]) for one in method.of[1:]] == [2]
    assert sample.notes["redrawn"] == "a face of 24 pixels"
    alone, _ = drawn_for_two(base, for_two(redraw=70), found=(large, RIGHT))
    assert alone.notes["redrawn"] == "faces of 45 and 24 pixels"


def test_nobody_gets_a_face_in_somebody_elses_place():
    size = (192, 128)
    assert whose([RIGHT], size, ("left", "right"), np.array([[0.9], [0.1]])) == [None, RIGHT]
    assert whose([RIGHT], size, None, np.array([[0.9], [0.1]])) == [RIGHT, None]
    assert whose([RIGHT, LEFT], size, None, None) == []
    assert whose([], size, ("left", "right"), None) == [None, None]
    middle = face(86, 40, 106, 64)
    three = whose([RIGHT, middle, LEFT], size, ("left", "middle", "right"), None)
    assert three == [LEFT, middle, RIGHT]
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    assert whose([RIGHT, LEFT], size, (mask, (0.5, 0.0, 1.0, 1.0)), None) == [LEFT, RIGHT]
