"""Photos whose numbers are of another colour profile than sRGB: what comes out is what the person looks like."""

import io
import threading
import warnings

import numpy as np
import pytest
from PIL import Image, ImageCms
from tests.profiles import ADOBE, P3, SRGB, colorants, display, grey, ink_lab, inks, srgb_of_lab, srgb_of_xyz

from photomaker import images
from photomaker.errors import PhotoError

SKIN = (230, 60, 50)


def read(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return images.read_photo(buffer.getvalue(), "a photo")


def plain(colour, mode="RGB"):
    return Image.new(mode, (32, 32), colour)


def middle(image):
    return tuple(int(value) for value in np.asarray(image)[16, 16])


WHITE = colorants(SRGB).sum(1)


def near(got, wanted, most=2):
    assert np.abs(np.subtract(got, wanted)).max() <= most, (got, wanted)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}), ("JPEG", {"quality": 100, "subsampling": 0}), ("TIFF", {}), ("WEBP", {"lossless": True}),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
    ],
)  # fmt: skip
def test_display_p3_becomes_srgb(kind, options):
    photo = read(plain(SKIN), kind, icc_profile=display(P3), **options)
    near(middle(photo.image), (250, 31, 34), most=3 if kind in {"JPEG", "AVIF"} else 1)
    assert photo.notes == ()
    assert "icc_profile" not in photo.image.info


def test_adobe_rgb_becomes_srgb():
    light = colorants(ADOBE) @ (np.array([200, 130, 110]) / 255) ** (563 / 256)
    photo = read(plain((200, 130, 110)), icc_profile=display(ADOBE, 563 / 256))
    near(middle(photo.image), srgb_of_xyz(light), most=1)


@pytest.mark.parametrize("inked", [(0, 0, 0, 0), (0, 1, 0, 0), (1, 0, 1, 0), (0, 0, 0, 1)])
def test_inks_become_srgb_by_their_profile(inked):
    photo = read(plain(tuple(255 * one for one in inked), "CMYK"), "TIFF", icc_profile=inks())
    near(middle(photo.image), srgb_of_lab(*ink_lab(*inked)), most=3)
    assert photo.notes == ()


@pytest.mark.parametrize("mode", ["L", "I;16", "LA"])
def test_grey_of_another_gamma(mode):
    picture = {
        "L": plain(128, "L"),
        "I;16": Image.fromarray(np.full((32, 32), 128 * 257, np.uint16)),
        "LA": plain((128, 255), "LA"),
    }[mode]
    photo = read(picture, icc_profile=grey(1.0))
    near(middle(photo.image), [srgb_of_xyz(128 / 255 * WHITE)[0]] * 3)
    assert photo.notes == ()


def test_grey_in_a_profile_for_colours():
    near(middle(read(plain(100, "L"), icc_profile=display(SRGB, 1.0)).image), [167] * 3)


def test_transparency_stays_beside_a_profile():
    layer = plain((*SKIN, 255), "RGBA")
    layer.paste((0, 0, 0, 0), (0, 0, 8, 32))
    image = read(layer, icc_profile=display(P3)).image
    assert np.asarray(image)[16, 2].tolist() == [255, 255, 255]
    near(middle(image), (250, 31, 34))


def test_palettes_have_profiles_too():
    image = read(plain(SKIN).quantize(4), icc_profile=display(P3)).image
    near(middle(image), (250, 31, 34))


@pytest.mark.parametrize("profile", ["ours", "Pillow's"])
def test_srgb_stays_bit_for_bit(profile):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    srgb = (
        display(SRGB)
        if profile == "ours"
        else ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    )
    assert np.array_equal(np.asarray(read(noise, icc_profile=srgb).image), np.asarray(noise))


@pytest.mark.parametrize(
    ("picture", "profile"),
    [
        (plain(SKIN), b"no profile at all"),
        (plain(SKIN), display(P3)[:200]),
        (plain(SKIN), grey(2.2)),
        (plain(SKIN), inks()),
        (plain((0, 255, 255, 0), "CMYK"), display(P3)),
    ],
)
def test_a_profile_that_cannot_be_used_is_left_aside_with_a_note(picture, profile):
    photo = read(picture, "TIFF", icc_profile=profile)
    assert middle(photo.image) == middle(picture.convert("RGB"))
    assert photo.notes == (
        "the colour profile of a photo is damaged or for another kind of picture; it is ignored",
    )


def test_a_damaged_profile_never_raises():
    rng, whole = np.random.default_rng(0), display(P3)
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(damaged), 6):
            damaged[place] = rng.integers(256)
        assert read(plain(SKIN), icc_profile=bytes(damaged)).image.mode == "RGB"


def test_a_picture_in_memory_follows_its_profile_once():
    picture = plain(SKIN)
    picture.info["icc_profile"] = display(P3)
    once = images.to_rgb(picture)
    near(middle(once), (250, 31, 34))
    assert middle(images.to_rgb(once)) == middle(once)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_floating_point_pictures_with_values_that_are_none(value):
    values = np.full((32, 32), 0.5, np.float32)
    values[3, 4] = value
    with pytest.raises(PhotoError, match="a photo has values that are not finite"):
        read(Image.fromarray(values), "TIFF")


def test_eight_threads_read_what_one_reads_and_leave_the_filters_alone():
    """Of photos that Pillow warns of, among them one with damaged EXIF; warnings are errors here."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8))
    files = []
    for options in (
        {"icc_profile": display(P3)},
        {"exif": b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\xff\xff"},
    ):
        buffer = io.BytesIO()
        noise.save(buffer, "JPEG", **options)
        files.append(buffer.getvalue())
    wanted = [np.asarray(images.read_photo(data, "x").image) for data in files]
    held, before = warnings.filters, list(warnings.filters)
    wrong: list[object] = []

    def work():
        try:
            for turn in range(40):
                got = images.read_photo(files[turn % 2], "x").image
                if not np.array_equal(np.asarray(got), wanted[turn % 2]):
                    wrong.append(turn)
        except BaseException as error:  # noqa: BLE001 - told below
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert warnings.filters is held
    assert warnings.filters == before


def test_somebody_elses_filters_stay_while_a_photo_is_read():
    before = list(warnings.filters)
    with images.quiet_pillow():
        inner = warnings.catch_warnings()
        inner.__enter__()
        warnings.simplefilter("always")
        chosen = warnings.filters[0]
    assert warnings.filters[0] is chosen
    assert len(warnings.filters) <= len(before) + 1
    inner.__exit__(None, None, None)
    assert warnings.filters == before
