"""What files say of themselves, in PNG, JPEG and WebP."""

import io

import numpy as np
import pytest
from PIL import Image

from photomaker.metadata import BY_CODE, BY_MODEL, KINDS, MOST_EXIF, encoded, kind_of, mark_of, text_of

TEXT = {"Software": "photomaker 1", "prompt": 'a "wömän" img\n在雪中', "seed": "7"}


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


@pytest.mark.parametrize("kind", KINDS)
def test_text_and_mark_come_back(kind):
    picture = opened(encoded(Image.new("RGB", (16, 16), "red"), kind, TEXT, BY_CODE))
    assert picture.format == kind.upper()
    assert text_of(picture) == TEXT
    assert mark_of(picture) == BY_CODE


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_mark_and_without_text(kind):
    picture = opened(encoded(Image.new("RGB", (16, 16)), kind, None, None))
    assert (text_of(picture), mark_of(picture)) == ({}, None)


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_text_too_long_for_exif_is_shortened(kind):
    long = {"prompt": "在雪中" * 10_000, "seed": "7"}
    text = text_of(opened(encoded(Image.new("RGB", (16, 16)), kind, long)))
    assert text["seed"] == "7"
    assert long["prompt"].startswith(text["prompt"].rstrip("…"))
    assert 1000 < len(text["prompt"]) < MOST_EXIF


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_quality_is_high(kind):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((96, 96), 3)
    again = opened(encoded(picture, kind)).convert("RGB")
    assert np.abs(np.asarray(picture).astype(float) - np.asarray(again)).mean() < 4


def test_pictures_with_transparency_become_jpeg_too():
    assert opened(encoded(Image.new("RGBA", (16, 16)), "jpeg")).mode == "RGB"


@pytest.mark.parametrize(
    "xmp",
    [
        f'<r xmlns:I="x" I:DigitalSourceType="{BY_MODEL}"/>',
        f"<I:DigitalSourceType>{BY_MODEL}</I:DigitalSourceType>",
        f'<I:DigitalSourceType rdf:resource="{BY_MODEL}"/>',
    ],
)
def test_marks_as_other_programs_write_them(xmp):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG", xmp=xmp.encode())
    assert mark_of(opened(buffer.getvalue())) == BY_MODEL


@pytest.mark.parametrize("comment", [b"ASCII\0\0\0{", b"UNICODE\0x", b"", b"ASCII\0\0\0[1]"])
def test_a_comment_of_somebody_elses_is_no_text_of_ours(comment):
    exif = Image.Exif()
    exif[0x8769] = {0x9286: comment}
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG", exif=exif)
    assert text_of(opened(buffer.getvalue())) == {}


def test_names_and_kinds():
    assert [kind_of(name) for name in ("a.PNG", "a.jpg", "a.jpeg", "a.webp", "a.gif", "a")] == [
        "png", "jpeg", "jpeg", "webp", None, None,
    ]  # fmt: skip
