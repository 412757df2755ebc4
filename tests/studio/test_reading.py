"""What is typed becomes extras, word by word."""

import re

import pytest
from PIL import Image

from photomaker.errors import PhotoError, SettingsError
from photomaker.studio.orders.extras import extras_of, structure, weighed
from photomaker.types import PLAIN


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, colour in {"a.png": "red", "b=c.png": "blue", "mask.png": "white"}.items():
        Image.new("RGB", (32, 32), colour).save(name)


@pytest.mark.parametrize(
    ("text", "name", "weight"),
    [
        ("x.safetensors", "x.safetensors", 1.0), ("x.safetensors:0.5", "x.safetensors", 0.5),
        ("x:-1", "x", -1.0), ("C:/x", "C:/x", 1.0), ("x:2:3", "x:2", 3.0), (":5", ":5", 1.0), ("x:", "x:", 1.0),
        ("x:nan", "x:nan", 1.0),
    ],
)  # fmt: skip
def test_a_weight_stands_behind_the_last_colon(text, name, weight):
    assert weighed(text) == (name, weight)


def test_a_structure_is_model_picture_and_scale(files):
    one = structure("own/canny=a.png:0.7")
    assert (one.model, one.scale, one.image.getpixel((0, 0))) == ("own/canny", 0.7, (255, 0, 0))
    assert structure("x=y=a.png").model == "x=y"
    assert structure("m=a.png").scale == 1.0
    for text in ("=a.png", "m=", "m", ""):
        words = f"{text!r} is not MODEL=PICTURE; write for example canny-sdxl=edges.png:0.7"
        with pytest.raises(SettingsError, match=f"^{re.escape(words)}$"):
            structure(text)


def test_everything_at_once(files):
    made = extras_of(
        ["l1:0.5", "l2"],
        "a.png",
        0.4,
        "mask.png",
        ["m=a.png:2", "n=a.png"],
        None,
        "a.png:0.3",
        "own.safetensors",
    )
    assert [(one.source, one.weight) for one in made.loras] == [("l1", 0.5), ("l2", 1.0)]
    assert (made.start.strength, made.start.image.size, made.start.mask.getpixel((0, 0))) == (
        0.4,
        (32, 32),
        (255,) * 3,
    )
    assert [(one.model, one.scale) for one in made.controls] == [("m", 2.0), ("n", 1.0)]
    assert (made.style_picture.scale, made.style_picture.adapter) == (0.3, "own.safetensors")
    assert made.t2i is None


def test_one_of_each_may_be_a_text_and_nothing_is_plain(files):
    made = extras_of("l1:0.5", controls="m=a.png")
    assert (len(made.loras), len(made.controls), made.start) == (1, 1, None)
    assert extras_of(t2i="t=a.png:0.2").t2i.scale == 0.2
    plain = extras_of()
    assert plain.asked == PLAIN.asked == frozenset()
    assert extras_of(start="a.png").start.strength == 0.6
    assert extras_of(style_picture="a.png").style_picture.scale == 0.6
    assert extras_of(style_picture="a.png").style_picture.adapter is None
    pose = extras_of(pose="a.png:0.7").pose
    assert (pose.source.size, pose.scale) == ((32, 32), 0.7)
    for text, wanted in (("draft", ("draft", None)), ("photo:1.5", ("photo", 1.5)), ("none", ("none", None))):
        pose = extras_of(pose=text).pose
        assert (pose.source, pose.scale) == wanted
    with pytest.raises(SettingsError, match="the pose's scale is 3"):
        extras_of(pose="photo:3")
    with pytest.raises(PhotoError):
        extras_of(pose="none.png")


def test_what_lacks_its_companion_is_told(files):
    with pytest.raises(
        SettingsError, match=r"^there is a mask \(mask.png\) but no start picture; give the picture"
    ):
        extras_of(mask="mask.png")
    with pytest.raises(
        SettingsError, match=r"^there is a style adapter \(x\) but no style picture; give one$"
    ):
        extras_of(style_adapter="x")
    with pytest.raises(PhotoError, match=r"none\.png"):
        extras_of(start="none.png")
