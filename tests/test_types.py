"""The value types: where their ranges end, and the very words that tell so."""

import io
import re
from dataclasses import fields

import numpy as np
import pytest
import torch
from PIL import Image

from photomaker import checks
from photomaker.errors import IdentityError, PromptError, SettingsError
from photomaker.types import (
    EXTRAS,
    MOST_SEED,
    MOST_SIDE,
    Extras,
    Face,
    Identity,
    Lora,
    Request,
    Sample,
    Sampling,
    Start,
    Structure,
    StylePicture,
)

GREY = Image.new("RGB", (16, 8), "grey")
WHITE, BLACK = (Image.new("L", (16, 8), shade) for shade in ("white", "black"))
PICTURE = "a str; give a PIL picture; photomaker.images.open_photo reads a file"
BROKEN = [
    (lambda: Sampling(steps=0), "steps is 0; give a whole number from 1 to 1000"),
    (lambda: Sampling(steps=1001), "steps is 1001; give a whole number from 1 to 1000"),
    (lambda: Sampling(steps="x"), "steps is 'x'; give a whole number from 1 to 1000"),
    (lambda: Sampling(steps=True), "steps is True; give a whole number from 1 to 1000"),
    (lambda: Sampling(guidance=-0.1), "guidance is -0.1; give a number from 0 up, 1 switches guidance off"),
    (lambda: Sampling(guidance=float("nan")), "guidance is nan; give a number from 0 up, 1 switches guidance off"),
    (lambda: Sampling(merge=1.01), "merge is 1.01; give a share of the steps from 0 to 1"),
    (lambda: Sampling(merge=-0.01), "merge is -0.01; give a share of the steps from 0 to 1"),
    (lambda: Sampling(seed=-1), f"seed is -1; give a whole number from 0 to {MOST_SEED}"),
    (lambda: Sampling(seed=2**63), f"seed is {2**63}; give a whole number from 0 to {MOST_SEED}"),
    (lambda: Sampling(width=7), "width is 7; give a whole number from 8 to 16384"),
    (lambda: Sampling(height=16392), "height is 16392; give a whole number from 8 to 16384"),
    (lambda: Sampling(height=12), "height is 12; give a multiple of 8"),
    (lambda: Sampling(scheduler=5), "scheduler is 5, a int; give the name of a scheduler, such as euler"),
    (lambda: Sampling(guidance_start=-0.1), "guidance_start is -0.1; give a share of the steps from 0 to 1"),
    (lambda: Sampling(guidance_stop=1.1), "guidance_stop is 1.1; give a share of the steps from 0 to 1"),
    (
        lambda: Sampling(guidance_start=0.6, guidance_stop=0.5),
        "guidance_start is 0.6, but guidance_stop 0.5; let it start first",
    ),
    (lambda: Lora(5), "the LoRA is 5, a int; give a file or hub id"),
    (lambda: Lora(" "), "the LoRA's name is empty; give a file or hub id"),
    (lambda: Lora("x", 10.1), "the LoRA's weight is 10.1; give a number from -10 to 10"),
    (lambda: Lora("x", -10.1), "the LoRA's weight is -10.1; give a number from -10 to 10"),
    (lambda: Structure(5, GREY), "the structure model is 5, a int; give a folder or hub id"),
    (lambda: Structure("x", "y"), f"the structure picture is 'y', {PICTURE}"),
    (lambda: Structure("x", GREY, -1), "the structure's scale is -1; give a number from 0 to 10"),
    (lambda: Structure("x", GREY, 10.1), "the structure's scale is 10.1; give a number from 0 to 10"),
    (lambda: Structure("x", GREY, start=-0.1), "the structure's start is -0.1; give a number from 0 to 1"),
    (lambda: Structure("x", GREY, start=1.1), "the structure's start is 1.1; give a number from 0 to 1"),
    (lambda: Structure("x", GREY, stop=-0.1), "the structure's stop is -0.1; give a number from 0 to 1"),
    (lambda: Structure("x", GREY, stop=1.1), "the structure's stop is 1.1; give a number from 0 to 1"),
    (
        lambda: Structure("x", GREY, start=0.5, stop=0.5),
        "the structure starts at 0.5 and stops at 0.5; let it start first",
    ),
    (lambda: Start("y"), f"the start picture is 'y', {PICTURE}"),
    (lambda: Start(GREY, -0.1), "strength is -0.1; give a number above 0, up to 1"),
    (lambda: Start(GREY, 1.1), "strength is 1.1; give a number above 0, up to 1"),
    (lambda: Start(GREY, 0), "strength is 0, which redraws nothing; give a number above 0, up to 1"),
    (lambda: Start(GREY, mask="y"), f"the mask is 'y', {PICTURE}"),
    (lambda: Start(GREY, mask=BLACK), "the mask is black all over; paint white what should be redrawn"),
    (lambda: StylePicture("y"), f"the style picture is 'y', {PICTURE}"),
    (lambda: StylePicture(GREY, scale=-1), "the style picture's scale is -1; give a number from 0 to 10"),
    (lambda: StylePicture(GREY, scale=10.1), "the style picture's scale is 10.1; give a number from 0 to 10"),
    (
        lambda: Extras(t2i=Structure("x", GREY), start=Start(GREY)),
        "a T2I-Adapter cannot be combined with a ControlNet or a start picture; leave one out",
    ),
    (
        lambda: Extras(t2i=Structure("x", GREY), controls=(Structure("x", GREY),)),
        "a T2I-Adapter cannot be combined with a ControlNet or a start picture; leave one out",
    ),
    (lambda: Request("x", 5), "sampling is 5, a int; give a Sampling"),
    (lambda: Request("x", extras=5), "extras is 5, a int; give an Extras"),
    (lambda: checks.whole("n", 0, 1), "n is 0; give 1 or more"),
    (lambda: checks.whole("n", 1.0, 1), "n is 1.0; give 1 or more"),
    (lambda: checks.number("x", "1", 2), "x is '1'; give a number from 2 up"),
    (lambda: checks.number("x", True, 0), "x is True; give a number from 0 up"),
    (lambda: checks.number("x", float("inf"), 0), "x is inf; give a number from 0 up"),
    (lambda: checks.text("x", None), "x is None, a NoneType; give a text"),
    (lambda: checks.one_of("x", "c", ("a", "b")), "x is 'c'; choose a, b"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "words"), BROKEN, ids=[words[:40] for _, words in BROKEN])
def test_what_lies_outside_is_refused_in_these_words(make, words):
    with pytest.raises(SettingsError, match=f"^{re.escape(words)}$"):
        make()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Request(5), "the prompt is 5, a int; write a text"),
        (lambda: Request("x", negative_prompt=5), "the negative prompt is 5, a int; write a text"),
    ],
)
def test_a_prompt_is_a_text(make, words):
    with pytest.raises(PromptError, match=f"^{words}$"):
        make()


def test_the_ends_of_the_ranges_belong_to_them():
    Sampling(steps=1), Sampling(steps=np.int64(1000)), Sampling(guidance=0), Sampling(guidance=1e6)
    Sampling(merge=0), Sampling(merge=1), Sampling(seed=0), Sampling(seed=MOST_SEED)
    Sampling(width=8, height=MOST_SIDE), Sampling(guidance_start=0.5, guidance_stop=0.5)
    Lora("x", 10), Lora("x", -10), Structure("x", GREY, 0, 0.0, 1.0), Structure("x", GREY, 10)
    Start(GREY, 1), Start(GREY, 0.001, WHITE), StylePicture(GREY, scale=0), StylePicture(GREY, scale=10)
    assert checks.whole("n", np.int32(5), 5, 5) == 5
    assert checks.number("x", np.float32(0.5), 0, 0.5) == 0.5
    assert checks.one_of("x", "a", ("a", "b")) == "a"


def test_what_nobody_asked_for():
    assert Sampling() == Sampling(20, None, None, 0, None, None, None, 0.0, 1.0)
    assert Lora("x").weight == 1.0
    assert Structure("x", GREY).scale == 1.0
    assert Start(GREY).strength == 0.6
    assert StylePicture(GREY).scale == 0.6
    assert all(not getattr(Extras(), one.name) for one in fields(Extras))


@pytest.mark.parametrize(
    ("extras", "asked"),
    [
        (Extras(), set()),
        (Extras(start=Start(GREY)), {"start picture"}),
        (Extras(start=Start(GREY, mask=WHITE)), {"start picture", "mask"}),
        (Extras(loras=(Lora("x"),)), {"LoRA"}),
        (Extras(controls=(Structure("x", GREY),), start=Start(GREY)), {"ControlNet", "start picture"}),
        (Extras(t2i=Structure("x", GREY)), {"T2I-Adapter"}),
        (Extras(style_picture=StylePicture(GREY)), {"style picture"}),
    ],
)
def test_extras_say_what_is_asked_for(extras, asked):
    assert extras.asked == asked
    assert asked <= EXTRAS


def test_extras_without_pictures_are_alike_where_their_values_are():
    assert Extras().alike == Extras().alike
    assert (
        Extras(loras=(Lora("x"),), layout=("left",)).alike
        == Extras(loras=(Lora("x"),), layout=("left",)).alike
    )
    assert Extras(loras=(Lora("x"),)).alike != Extras(loras=(Lora("x", 0.5),)).alike
    start = Extras(start=Start(GREY))
    assert start.alike == start.alike != Extras(start=Start(GREY)).alike
    assert Extras(layout=(WHITE,)).alike != Extras(layout=(WHITE,)).alike


def test_a_long_value_is_shortened_and_kept_on_one_line():
    assert checks.shown("a\nb") == r"'a\nb'"
    assert checks.shown(np.arange(4).reshape(2, 2)) == "array([[0, 1], [2, 3]])"
    assert len(checks.shown("x" * 10_000)) < 100


@pytest.mark.parametrize(("box", "area"), [((1, 2, 4, 6), 12), ((4, 2, 1, 6), 0), ((1, 6, 4, 2), 0)])
def test_a_face_has_an_area(box, area):
    assert Face(box, 0.5, np.zeros((5, 2))).area == area


def test_an_identity_in_one_line():
    tensors = {"a": torch.zeros(256), "b": torch.zeros(128, dtype=torch.float64)}
    assert repr(Identity("m", tensors)) == "Identity(m, 2.0 KiB)"
    assert repr(Identity("m", tensors, {"photos": ["x", "y"]})) == "Identity(m, 2 photos, 2.0 KiB)"
    assert repr(Identity("m", {}, {"photos": 5})) == "Identity(m, 0.0 KiB)"


def test_an_identity_that_cannot_be_written_leaves_nothing(tmp_path):
    place = tmp_path / "not there" / "a.safetensors"
    words = f"cannot write the identity to {place}: No such file or directory; choose another place"
    with pytest.raises(IdentityError, match=f"^{re.escape(words)}$"):
        Identity("m", {"a": torch.zeros(1)}).save(place)
    assert not list(tmp_path.iterdir())


def test_saving_replaces_the_file_and_leaves_no_other(tmp_path):
    identity = Identity("m", {"a": torch.arange(6).reshape(2, 3).T}, {"b": 1, "a": [2]})
    place = tmp_path / "1.safetensors"
    Identity("other", {}).save(place)
    assert identity.save(str(place)) == place
    assert list(tmp_path.iterdir()) == [place]
    again = Identity.load(str(place))
    assert (again.method, again.notes) == ("m", {"a": [2], "b": 1})
    assert torch.equal(again.tensors["a"], identity.tensors["a"])


def test_a_sample_shows_itself():
    sample = Sample(GREY, Request("a <b> img", Sampling(seed=5)), 0.456)
    assert sample.line == "a <b> img (seed 5, likeness 0.46)"
    assert repr(sample) == "Sample(16 x 8, a <b> img (seed 5, likeness 0.46))"
    assert Sample(GREY, sample.request).line == "a <b> img (seed 5)"
    shown = Image.open(io.BytesIO(sample._repr_png_()))
    assert shown.format == "PNG"
    assert np.array_equal(np.asarray(shown), np.asarray(GREY))
    page = sample._repr_html_()
    assert page.startswith('<figure><img src="data:image/png;base64,iVBOR')
    assert page.endswith(
        'alt="a &lt;b&gt; img (seed 5, likeness 0.46)" style="min-width: 256px">'
        "<figcaption>a &lt;b&gt; img (seed 5, likeness 0.46)</figcaption></figure>"
    )
