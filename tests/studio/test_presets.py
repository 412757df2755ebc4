"""Styles, sizes and the words that the bundled model knows."""

import numpy as np
import pytest

from photomaker.errors import SettingsError, WeightsError
from photomaker.studio.orders.sizes import BaseSize, base_size, resolve, size_note
from photomaker.studio.orders.styles import Preset, Style, find_style, styles
from photomaker.studio.orders.vocabulary import unknown_note, unknown_words
from photomaker.synthetic import distributions
from photomaker.synthetic.captions import caption, vocabulary

SDXL, SMALL = BaseSize(1024), BaseSize(128, 8, square_only=True)
PROMPT = "a photo of a (woman:1.2) img in the [snow]"


def test_there_are_enough_styles_and_the_bundled_model_has_some_for_itself():
    known = styles()
    assert len(known) >= 12
    assert sum(one.preset.bundled is not None for one in known.values()) >= 5
    words = vocabulary()
    for one in known.values():
        if one.preset.bundled is not None:
            assert set(one.preset.bundled.replace("{subject}", "").split()) - {"of", "a", "an"} <= words


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        (PROMPT, "a (woman:1.2) img in the [snow]"),
        ("portrait photo of an old man img", "an old man img"),
        ("An oil painting of a man img", "a man img"),
        ("a watercolour portrait of a boy img", "a boy img"),
        ("a man img holding a photo of a dog", "a man img holding a photo of a dog"),
        ("a woman img", "a woman img"),
    ],
)
def test_the_medium_makes_room_for_the_style(prompt, subject):
    drawn, negative = find_style("Comic", styles()).applied(prompt, "hats")
    assert drawn == f"a comic book panel of {subject}, bold ink outlines, flat colours, halftone dots"
    assert negative == "hats, photograph, realistic, blurry"


def test_the_bundled_model_has_forms_of_its_own():
    known = styles()
    assert find_style("sketch", known).applied(PROMPT, None, bundled=True) == (
        "a pencil sketch of a (woman:1.2) img in the [snow]",
        None,
    )
    with pytest.raises(SettingsError, match="the bundled model cannot draw the style 'anime'"):
        find_style("anime", known).applied(PROMPT, None, bundled=True)


def test_none_is_no_style_and_unknown_ones_get_a_hint():
    assert find_style(" None ", styles()) is None
    with pytest.raises(SettingsError, match="did you mean 'oil painting'"):
        find_style("oil paintings", styles())
    with pytest.raises(SettingsError, match="known are photographic"):
        find_style("qqq", styles())


def test_a_users_file_adds_and_replaces(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "Crayon:\n  prompt: 'crayon drawing of {subject}'\ncomic:\n  prompt: 'my comic of {subject}'\n"
    )
    known = styles(file)
    assert known["crayon"] == Style("crayon", Preset("crayon drawing of {subject}"))
    assert known["comic"].preset.prompt == "my comic of {subject}"
    assert "anime" in known


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crayon: a drawing", "write `prompt: ...` below its name"),
        ("crayon: {promt: x}", "did you mean prompt"),
        ("crayon: {negative: x}", "lacks prompt"),
        ("crayon: {prompt: x}", "write {subject} once"),
        ("crayon: {prompt: '{subject}', bundled: x}", "write {subject} once"),
        ("crayon: {prompt: 7}", "is 7"),
        ("- a", "holds a list"),
    ],
)
def test_a_users_file_that_cannot_be_meant_is_refused(tmp_path, text, message):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        styles(file)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "base", "size"),
    [
        ("portrait", SDXL, (896, 1152)),
        ("Landscape", SDXL, (1152, 896)),
        ("square", SDXL, (1024, 1024)),
        ("640x480", SDXL, (640, 480)),
        ("640 X 480", SDXL, (640, 480)),
        ("portrait", SMALL, (112, 144)),
        ("landscape", SMALL, (144, 112)),
        ("square", SMALL, (128, 128)),
        ("8x16384", SDXL, (8, 16384)),
        ("16384*8", SDXL, (16384, 8)),
    ],
)
def test_sizes_by_name(text, base, size):
    assert resolve(text, base) == size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("huge", "give portrait, square, landscape, or width and height"),
        ("", "give portrait"),
        ("100x100", "give multiples of 8, such as 96x96"),
        ("0x64", "such as 8x64"),
        ("999999x64", "such as 16384x64"),
        ("64x", "give portrait"),
        ("64x60", "such as 64x64"),
        ("60x64", "such as 64x64"),
        ("64x0", "such as 64x8"),
        ("64x16392", "such as 64x16384"),
    ],
)
def test_bad_sizes_are_refused(text, message):
    with pytest.raises(SettingsError) as caught:
        resolve(text, SDXL)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("size", "base", "told"),
    [
        ((1024, 1024), SDXL, False),
        ((896, 1152), SDXL, False),
        ((1536, 640), SDXL, False),
        ((512, 512), SDXL, True),
        ((2048, 2048), SDXL, True),
        ((2048, 512), SDXL, True),
        ((128, 128), SMALL, False),
        ((112, 144), SMALL, True),
    ],
)
def test_a_size_far_from_what_the_base_knows_is_told(size, base, told):
    note = size_note(*size, base)
    assert (note is not None) == told
    if told:
        assert f"{size[0]} x {size[1]}" in note


def test_the_ends_of_what_is_near_are_near():
    base = BaseSize(1000, 8)
    assert size_note(1350, 1000, base) is None and size_note(1360, 1000, base)
    assert size_note(1000, 744, base) is None and size_note(1000, 736, base)
    assert size_note(1600, 640, base) is None and size_note(1608, 640, base)


def test_a_bases_size_is_read_from_its_settings(tmp_path):
    for part, text in (("unet", '{"sample_size": 128}'), ("vae", '{"block_out_channels": [1, 2, 3, 4]}')):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(text)
    assert base_size(tmp_path, bundled=False) == SDXL
    assert base_size(tmp_path, bundled=True) == BaseSize(1024, 8, True)
    for latent, step in ((64, 64), (63, 8), (16, 8)):
        (tmp_path / "unet" / "config.json").write_text(f'{{"sample_size": {latent}}}')
        assert base_size(tmp_path, bundled=False) == BaseSize(latent * 8, step, False)
    (tmp_path / "vae" / "config.json").write_text("[]")
    with pytest.raises(WeightsError, match="cannot be read"):
        base_size(tmp_path, bundled=False)


def test_no_caption_holds_a_word_that_is_not_known():
    rng, known = np.random.default_rng(0), vocabulary()
    for seed in range(300):
        person = distributions.person(seed)
        text = caption(person, view_words(distributions.view(person, seed)), rng, describe=0.7)
        assert {word for word in text.replace("-", " ").replace(",", " ").split() if word.isalpha()} <= known


def view_words(view):
    names = ("style", "scene", "clothing", "clothing_colour", "hat", "hat_colour", "eyewear")
    return {name: getattr(view, name) for name in names}


def test_words_that_the_bundled_model_has_never_seen_are_named():
    prompt = "a photo of a (woman:1.3) img riding a [dragon] over a volcano, wearing a red cap"
    assert unknown_words(prompt) == ("riding", "dragon", "volcano")
    note = unknown_note([prompt, "a sketch of a man img with a dragon and a trumpet"])
    assert note.startswith("the bundled model has never seen: riding, dragon, volcano, trumpet;")
    assert unknown_note(["a photo of an old man img in the snow wearing sunglasses"]) is None
