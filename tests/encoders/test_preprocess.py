"""Photos to pixels: as CLIP does it, from every kind of photo."""

import numpy as np
import pytest
import torch
from PIL import Image
from tests.profiles import P3, display

from photomaker.encoders import as_picture, cut_out, preprocess
from photomaker.errors import PhotoError
from photomaker.images import open_photo


def test_size_centre_and_normalisation():
    photo = Image.new("RGB", (60, 30), (0, 0, 0))
    photo.paste((255, 255, 255), (15, 0, 45, 30))  # the centre square is white
    pixels = preprocess([photo], 30)
    white = (1 - torch.tensor([0.48145466, 0.4578275, 0.40821073])) / torch.tensor(
        [0.26862954, 0.26130258, 0.27577711]
    )
    assert pixels.shape == (1, 3, 30, 30)
    torch.testing.assert_close(pixels, white.view(1, 3, 1, 1).expand(1, 3, 30, 30), atol=1e-5, rtol=1e-5)


def test_pictures_arrays_and_tensors_are_the_same_photo(photos):
    picture = photos[0]
    array = np.array(picture)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    wanted = preprocess([picture], 32)
    for same in (array, array / 255.0, tensor, tensor / 255.0):
        assert torch.equal(preprocess([same], 32), wanted)


def test_other_modes_are_read_as_from_a_file(tmp_path, photos):
    """Transparent on white, deep grey scaled, colours by their profile: a picture in memory and its file are one."""
    layer = photos[0].convert("RGBA")
    layer.putalpha(Image.linear_gradient("L").resize(layer.size))
    deep = Image.fromarray((np.array(photos[0].convert("L")) * 257.0).astype(np.uint16))
    profiled = photos[0].copy()
    profiled.info["icc_profile"] = display(P3)
    for place, picture in enumerate((layer, deep, profiled)):
        path = tmp_path / f"{place}.png"
        picture.save(path, icc_profile=picture.info.get("icc_profile"))
        assert np.array_equal(np.array(as_picture(picture)), np.array(open_photo(path).image))
    assert not np.array_equal(np.array(as_picture(profiled)), np.array(photos[0]))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int16, np.int64, np.uint16])
def test_numbers_in_0_to_255_are_taken_as_such(photos, kind):
    array = np.array(photos[0]).astype(kind)
    for same in (array, torch.from_numpy(array).permute(2, 0, 1)):
        assert np.array_equal(np.array(as_picture(same)), np.array(photos[0]))


def test_what_resampling_overshoots_is_clipped(photos):
    array = np.array(photos[0]) / 255.0
    over = array.copy()
    over[0, 0], over[1, 1] = -0.04, 1.06
    wanted = np.array(photos[0])
    wanted[0, 0], wanted[1, 1] = 0, 255
    assert np.array_equal(np.array(as_picture(over)), wanted)
    assert np.array_equal(np.array(as_picture(over * 255)), wanted)


def noise(low, high, kind=np.float32):
    values = np.random.default_rng(0).uniform(low, high, (20, 20, 3))
    values[0, 0], values[1, 1] = low, high
    return values.astype(kind)


@pytest.mark.parametrize(
    "unclear",
    [
        noise(-1, 1), noise(0, 2), noise(0, 12), noise(-2.1, 2.6), noise(0, 65535), noise(0, 65535, np.uint16),
        noise(0, 1, np.int64), noise(-200, 255, np.int32),
    ],
)  # fmt: skip
def test_numbers_of_an_unclear_range_are_refused(unclear):
    for photo in (unclear, torch.from_numpy(unclear).permute(2, 0, 1)):
        with pytest.raises(
            PhotoError, match=r"photo 1 run from .* ambiguous range; give uint8, floats in 0\.\.1"
        ):
            preprocess([photo], 32)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(value):
    photo = noise(0, 1)
    photo[3, 4, 1] = value
    for same in (photo, torch.from_numpy(photo).permute(2, 0, 1), photo * 255):
        with pytest.raises(PhotoError, match="photo 1 has values that are not finite"):
            preprocess([same], 32)


@pytest.mark.parametrize("size", [(1, 1), (3000, 1), (1, 3000), (15, 40), (0, 20)])
def test_photos_below_the_least_size_are_refused(size):
    width, height = size
    array = np.zeros((height, width, 3), np.uint8)
    kinds = [array, array / 255.0, torch.from_numpy(array).permute(2, 0, 1), Image.new("RGB", size)]
    for photo in kinds:
        with pytest.raises(PhotoError, match=f"photo 1 is only {width} x {height} pixels; give .* 16 x 16"):
            preprocess([photo], 32)
    assert as_picture(np.zeros((16, 16, 3), np.uint8)).size == (16, 16)


def test_paths_are_opened(tmp_path, photos):
    path = tmp_path / "ada.png"
    photos[0].save(path)
    for given in (path, str(path)):
        assert np.array_equal(np.array(as_picture(given)), np.array(photos[0]))
    with pytest.raises(PhotoError, match=r"there is no photo .*ben\.png"):
        as_picture(tmp_path / "ben.png")


def test_a_remark_on_the_reading_is_a_warning(photos):
    picture = photos[0].copy()
    picture.info["icc_profile"] = b"none"
    with pytest.warns(UserWarning, match="colour profile of photo 1 is damaged"):
        preprocess([picture], 32)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((3, 4)), torch.zeros(4, 5, 6), np.zeros((20, 20, 4)), None, 3, {"a": 1},
        np.zeros((3, 20, 20), np.uint8),
    ],
)  # fmt: skip
def test_what_is_no_photo_is_refused(wrong):
    with pytest.raises(PhotoError, match="must be a path, a PIL picture"):
        as_picture(wrong)


@pytest.mark.parametrize("kind", [bool, complex, object])
def test_what_is_no_number_is_refused(kind):
    with pytest.raises(PhotoError, match=f"a photo has the type {kind.__name__}"):
        as_picture(np.ones((20, 20, 3), kind))


def test_no_photo_is_refused():
    with pytest.raises(PhotoError, match="at least one photo"):
        preprocess([], 32)


def test_cut_out_leaves_the_person_on_grey(photos):
    mask = np.zeros((photos[0].height, photos[0].width), dtype=np.uint8)
    mask[10:20, 10:20] = 255
    result = np.array(cut_out(photos[0], mask))
    assert np.array_equal(result[10:20, 10:20], np.array(photos[0])[10:20, 10:20])
    assert (result[mask == 0] == 128).all()
    with pytest.raises(PhotoError, match="same size"):
        cut_out(photos[0], mask[1:])
