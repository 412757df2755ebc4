"""Structures that are read off pictures while an order is looked at, before a diffusion model is loaded."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photomaker.errors import PhotoError, SettingsError, WeightsError
from photomaker.methods.base import Method
from photomaker.pipelines.structures.landmarks import Pencil, draw_landmarks
from photomaker.pipelines.structures.structures import Drawing, write_notes
from photomaker.studio.opening import Profile
from photomaker.studio.orders.extras import structure
from photomaker.studio.orders.order import Order, Someone
from photomaker.studio.orders.planning import planned
from photomaker.studio.photos.sitting import Sitting
from photomaker.types import Extras, Face, Reference, Request, Structure

POINTS = np.array([[50, 50], [78, 50], [64, 66], [54, 80], [74, 80]], np.float32)
FACE = Face((40.0, 40.0, 88.0, 90.0), 0.9, POINTS)


class Follows(Method):
    name, takes = "follows", frozenset({"ControlNet"})

    def fit(self, references, *, notes=None): ...

    def generate(self, identity, requests, *, watch=None): ...


def base(folder):
    """What is looked at of a base that draws 128 pixels."""
    for part, config in (("unet", {"sample_size": 16}), ("vae", {"block_out_channels": [1] * 4})):
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def net(tmp_path):
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"_class_name": "ControlNetModel"}))
    write_notes(folder, Drawing("landmarks", Pencil(2.5, 1.0)))
    return folder


def looked(one, detect=lambda _: [FACE], cut=None):
    """The structure of an order for a base that draws 128 pixels."""
    profile = Profile(base=base(Path(one.model).parent / "base"), kind=Follows)
    ada = Someone(Sitting((Reference(Image.new("RGB", (64, 64))),), ()), "ada")
    given = Order(people=(ada,), prompts=("a photo of a woman img",), extras=Extras(controls=(one,)))
    plan = planned(given, profile, lambda _: pytest.fail("looked"), True, None, True, detect, cut)
    (made,) = plan.groups[0].requests[0].extras.controls
    return made


def test_landmarks_are_read_off_a_picture_at_the_size_that_is_drawn(net):
    seen = []

    def detect(picture):
        seen.append(picture.size)
        return [FACE]

    made = looked(Structure(str(net), Image.new("RGB", (512, 512)), 0.7, kind="landmarks"), detect)
    assert (made.kind, made.scale, seen) == (None, 0.7, [(128, 128)])
    assert made.image.tobytes() == draw_landmarks(POINTS, (128, 128), Pencil(2.5, 1.0)).tobytes()


def test_a_mask_is_cut_out_by_what_cuts(net):
    (net / "structure.json").unlink()
    given = Structure(str(net), Image.new("RGB", (128, 128)), kind="mask")
    mask = np.zeros((128, 128), np.uint8)
    mask[20:90] = 255
    made = looked(given, cut=lambda _picture, face: mask if face is FACE else None)
    assert np.array_equal(np.asarray(made.image)[..., 0], mask)
    with pytest.raises(PhotoError, match="no segmenter is available"):
        looked(given)


def test_a_picture_that_is_followed_as_it_is_stays(net):
    given = Structure(str(net), Image.new("RGB", (256, 256)))
    assert looked(given, lambda _: pytest.fail("looked")) is given


def test_what_cannot_be_followed_is_refused_before_a_model_is_loaded(net, tmp_path):
    square, wide = Image.new("RGB", (128, 128)), Image.new("RGB", (256, 128))
    with pytest.raises(PhotoError, match="the structure picture shows no face"):
        looked(Structure(str(net), square, kind="landmarks"), lambda _: [])
    with pytest.raises(PhotoError, match="without a face backend"):
        looked(Structure(str(net), square, kind="landmarks"), None)
    for kind in ("landmarks", None):
        with pytest.raises(SettingsError, match="is 256 x 128, but the pictures are 128 x 128"):
            looked(Structure(str(net), wide, kind=kind))
    with pytest.raises(WeightsError, match="follows landmarks, not edges"):
        looked(Structure(str(net), square, kind="edges"))
    with pytest.raises(SettingsError, match="'pose' cannot be extracted from a picture"):
        Structure(str(net), square, kind="pose")
    with pytest.raises(SettingsError, match="a T2I-Adapter uses its picture as it is"):
        Extras(t2i=Structure(str(net), square, kind="edges"))


def test_a_method_that_is_given_an_unread_structure_says_so(net):
    unread = Extras(controls=(Structure(str(net), Image.new("RGB", (8, 8)), kind="edges"),))
    with pytest.raises(SettingsError, match="edges must still be extracted"):
        Follows.check_requests([Request("a man img", extras=unread)])


def test_a_kind_is_written_before_the_picture(tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a@b.png")
    made = structure(f"net=landmarks@{tmp_path / 'a@b.png'}:0.5")
    assert (made.model, made.kind, made.scale) == ("net", "landmarks", 0.5)
    assert structure(f"net={tmp_path / 'a@b.png'}").kind is None
