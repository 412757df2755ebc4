"""Photos as they come: hostile, damaged, turned, deep, transparent; and files that are written whole or not at all."""

import io
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photomaker import images
from photomaker.errors import OutputError, PhotoError, SettingsError


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG written by hand, so that the header may say anything."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def ramp(side: int = 32) -> np.ndarray:
    return np.linspace(0, 255, side * side).reshape(side, side)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_bomb_is_refused_by_its_header(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(20_000, 20_000, 8, 2, b"\0" * 100))  # nothing behind the header: decoding would fail
    with pytest.raises(PhotoError, match=r"bomb\.png .*134 million"):
        images.open_photo(path)


def test_a_picture_between_our_limit_and_pillows_is_refused_by_its_header():
    with pytest.raises(PhotoError, match=r"13000 x 12000 pixels"):
        images.read_photo(png(13_000, 12_000, 8, 2, b""), "big.png")


def test_a_picture_above_pillows_warning_is_only_judged_by_our_limit(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    assert images.read_photo(saved(Image.new("RGB", (32, 32)), "PNG"), "a.png").image.size == (32, 32)


@pytest.mark.parametrize("name", ["note.jpg", "note.png", "note.heic"])
def test_a_file_that_is_no_picture_is_named(tmp_path, name):
    path = tmp_path / name
    path.write_text("hello")
    with pytest.raises(PhotoError, match=name.replace(".", r"\.")):
        images.open_photo(path)


HEIC = Path(__file__).parent / "photos" / "portrait.heic"
"""The astronaut of scikit-image, in the public domain, written by pillow-heif."""


def test_a_photo_as_iphones_write_them_is_read(tmp_path):
    from skimage import data

    photo = images.open_photo(HEIC)
    expected = Image.fromarray(data.astronaut()).crop((120, 30, 320, 230)).resize((160, 160))
    assert photo.image.mode == "RGB" and photo.image.size == (160, 160)
    assert np.abs(np.asarray(photo.image, int) - np.asarray(expected, int)).mean() < 5
    (tmp_path / "IMG_1.HEIC").write_bytes(HEIC.read_bytes())
    assert images.list_photos([tmp_path]) == [tmp_path / "IMG_1.HEIC"]
    (tmp_path / "b.jpg").write_bytes(HEIC.read_bytes())  # whatever its name
    assert images.open_photo(tmp_path / "b.jpg").image.size == (160, 160)


@pytest.mark.parametrize("kept", [12, 40, 600, 3000])
def test_a_cut_heic_is_refused(kept):
    with pytest.raises(PhotoError, match=r"cut\.heic is not a picture or is damaged"):
        images.read_photo(HEIC.read_bytes()[:kept], "cut.heic")


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"%PDF-1.7\n", "a PDF"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "a video"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0", "a video"),
        (b"\x1aE\xdf\xa3webm", "a video"),
        (b"PK\x03\x04word", "an archive or a document"),
        (b"\n<!DOCTYPE html><p>", "a web page"),
    ],
)
def test_what_was_renamed_to_a_picture_is_told_for_what_it_is(start, kind):
    with pytest.raises(PhotoError, match=rf"holiday\.jpg is {kind}, not a picture"):
        images.read_photo(start + b"\0" * 400, "holiday.jpg")


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "nothing.jpg").touch()
    with pytest.raises(PhotoError, match=r"nothing\.jpg is an empty file"):
        images.open_photo(tmp_path / "nothing.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_a_truncated_picture_is_refused(kind):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = saved(Image.fromarray(noise), kind)
    with pytest.raises(PhotoError, match=r"cut\.x is not a picture or is damaged"):
        images.read_photo(data[: len(data) // 2], "cut.x")


def test_damaged_bytes_never_raise_anything_else():
    rng = np.random.default_rng(1)
    sources = [
        saved(Image.fromarray(ramp().astype(np.uint8)), kind)
        for kind in ("PNG", "JPEG", "TIFF", "GIF", "WEBP")
    ]
    for data in sources:
        for _ in range(60):
            damaged = bytearray(data)
            for place in rng.integers(0, len(damaged), 4):
                damaged[place] = rng.integers(256)
            try:
                image = images.read_photo(bytes(damaged), "x").image
            except PhotoError:
                continue
            assert image.mode == "RGB"


def test_postscript_is_never_run():
    with pytest.raises(PhotoError):
        images.read_photo(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\nshowpage\n", "a.eps"
        )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = Image.new("RGB", (40, 20), "black")
    upright.paste("red", (0, 0, 20, 10))
    undo = {
        2: 0,
        3: 3,
        4: 1,
        5: 5,
        6: 2,
        7: 6,
        8: 4,
    }  # Transpose that makes the stored picture of each orientation
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = images.read_photo(saved(stored, "PNG", exif=exif), "turned.png").image
    assert image.size == (40, 20)
    assert np.array_equal(np.asarray(image), np.asarray(upright))


def test_cmyk_keeps_its_colour():
    image = images.read_photo(
        saved(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG", quality=95), "c.jpg"
    ).image
    red, green, blue = np.asarray(image)[16, 16].astype(int)
    assert red > 240
    assert max(green, blue) < 15


def test_sixteen_bits_are_scaled_and_not_clipped():
    deep = (ramp() * 257).round().astype(np.uint16)
    image = images.read_photo(saved(Image.fromarray(deep), "PNG"), "deep.png").image
    assert np.abs(np.asarray(image)[..., 0] - ramp()).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_of_either_byte_order(kind):
    deep = (ramp() * 257).round().astype(np.uint16)
    image = images.read_photo(saved(Image.fromarray(deep), kind), "deep").image
    assert np.abs(np.asarray(image)[..., 1] - ramp()).max() <= 1


def test_sixteen_bit_colour():
    values = np.stack([ramp(), ramp()[::-1], np.full((32, 32), 128)], -1) * 257
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    image = images.read_photo(png(32, 32, 16, 2, rows), "deep.png").image
    assert np.abs(np.asarray(image) - values / 257).max() <= 1.5


@pytest.mark.parametrize(("top", "expected"), [(1.0, 255), (255.0, 255), (0.5, 128)])
def test_floating_point_pictures(top, expected):
    image = images.read_photo(
        saved(Image.fromarray(np.full((32, 32), top, np.float32)), "TIFF"), "f.tif"
    ).image
    assert abs(int(np.asarray(image)[0, 0, 0]) - expected) <= 1


def transparent(mode: str) -> Image.Image:
    layer = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    layer.paste((255, 0, 0, 255), (0, 0, 16, 32))
    return layer if mode == "RGBA" else layer.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_what_is_transparent_lies_on_white(mode):
    data = saved(transparent(mode), "TIFF" if mode == "PA" else "PNG") if mode != "PA" else None
    image = (
        images.read_photo(data, "t.png").image if data else images.to_rgb(transparent("RGBA").convert("PA"))
    )
    assert image.mode == "RGB"
    assert tuple(np.asarray(image)[5, 30]) == (255, 255, 255)


def test_palette_transparency_lies_on_white():
    palette = Image.new("P", (32, 32), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.paste(1, (0, 0, 16, 32))
    image = images.read_photo(saved(palette, "PNG", transparency=0), "p.png").image
    assert tuple(np.asarray(image)[5, 30]) == (255, 255, 255)
    assert tuple(np.asarray(image)[5, 5]) == (255, 0, 0)


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB", "HSV", "RGBA", "LA", "I;16", "I", "F"]
)
def test_any_mode_becomes_rgb(mode):
    source = Image.new(mode, (32, 24))
    assert images.to_rgb(source).mode == "RGB"
    assert images.to_rgb(source).size == (32, 24)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_gives_its_first_frame_and_a_note(kind):
    first, second = Image.new("RGB", (32, 32), "red"), Image.new("RGB", (32, 32), "blue")
    lossless = {"lossless": True} if kind == "WEBP" else {}
    photo = images.read_photo(
        saved(first, kind, save_all=True, append_images=[second], **lossless), "move.gif"
    )
    assert "move.gif has 2 frames; only the first is used" in photo.notes
    assert tuple(np.asarray(photo.image)[9, 9]) == pytest.approx((255, 0, 0), abs=3)


def test_a_tiny_picture_is_refused():
    with pytest.raises(PhotoError, match="only 4 x 4 pixels"):
        images.read_photo(saved(Image.new("RGB", (4, 4)), "PNG"), "dot.png")


def test_a_photo_knows_the_hash_of_its_bytes():
    import hashlib

    data = saved(Image.new("RGB", (32, 32)), "PNG")
    assert images.read_photo(data, "a.png").sha256 == hashlib.sha256(data).hexdigest()


def test_a_folder_is_listed_by_name_and_without_what_is_no_picture(tmp_path):
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.png", "c.webp"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in images.list_photos([tmp_path])] == ["a.png", "b.JPG", "c.webp"]


def test_files_keep_their_order(tmp_path):
    for name in ("b.png", "a.png"):
        (tmp_path / name).touch()
    assert [path.name for path in images.list_photos([tmp_path / "b.png", tmp_path / "a.png"])] == [
        "b.png",
        "a.png",
    ]


def test_nothing_missing_and_empty_are_told_apart(tmp_path):
    with pytest.raises(PhotoError, match="no photos were given"):
        images.list_photos([])
    with pytest.raises(PhotoError, match="there is no photo or folder"):
        images.list_photos([tmp_path / "missing"])
    with pytest.raises(PhotoError, match="has no pictures"):
        images.list_photos([tmp_path])


def test_tensors_and_pictures_are_inverse():
    pixels = np.random.default_rng(2).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    tensor = images.to_tensor(Image.fromarray(pixels))
    assert tuple(tensor.shape) == (3, 9, 7)
    assert float(tensor.max()) <= 1
    assert np.array_equal(np.asarray(images.to_image(tensor)), pixels)


def test_a_grid_holds_every_picture():
    colours = ["red", "green", "blue"]
    sheet = images.grid([Image.new("RGB", (10, 10), colour) for colour in colours], columns=2, gap=2)
    assert sheet.size == (26, 26)
    seen = {sheet.getpixel(place) for place in ((5, 5), (17, 5), (5, 17))}
    assert seen == {Image.new("RGB", (1, 1), colour).getpixel((0, 0)) for colour in colours}


def test_a_strip_wants_a_label_for_each():
    two = [Image.new("RGB", (20, 30))] * 2
    assert images.strip(two, ["a", "a very long label that does not fit beneath the picture"]).width > 2 * 128
    with pytest.raises(ValueError, match="zip"):
        images.strip(two, ["a"])


def test_metadata_survives_the_file(tmp_path):
    path = images.save_png(
        Image.new("RGB", (8, 8)), tmp_path / "a.png", {"prompt": "a wömän img", "seed": "7"}
    )
    with Image.open(path) as image:
        image.load()
        assert image.text["prompt"] == "a wömän img"
        assert image.text["seed"] == "7"
        assert image.text["DigitalSourceType"].endswith("trainedAlgorithmicMedia")
        assert "trainedAlgorithmicMedia" in image.text["XML:com.adobe.xmp"]


def test_a_file_is_never_replaced_unless_asked(tmp_path):
    path = images.save_png(Image.new("RGB", (8, 8), "red"), tmp_path / "a.png")
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        images.save_png(Image.new("RGB", (8, 8), "blue"), path, overwrite=False)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_missing_folder_is_a_clear_error(tmp_path):
    with pytest.raises(OutputError, match="choose another folder"):
        images.save_png(Image.new("RGB", (8, 8)), tmp_path / "none" / "a.png")


def test_opening_photos_needs_no_torch():
    import subprocess

    code = "import sys, photomaker.images; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_image_grid_has_no_gaps_and_wants_all_places_filled():
    colours = [Image.new("RGB", (8 + k, 8), (40 * k, 0, 0)) for k in range(6)]
    got = images.image_grid(colours, 2, 3, size_after_resize=10)
    assert got.size == (30, 20)
    assert [got.getpixel((x, y))[0] for y in (5, 15) for x in (5, 15, 25)] == [0, 40, 80, 120, 160, 200]
    assert images.image_grid(colours[:2], 1, 2).size == (16, 8)
    with pytest.raises(SettingsError, match="6 pictures for 2 rows of 2"):
        images.image_grid(colours, 2, 2)
