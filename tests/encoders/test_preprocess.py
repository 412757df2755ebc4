"""Photos to pixels: as CLIP does it, from every kind of photo."""

import numpy as np
import pytest
import torch
from PIL import Image

from photomaker.encoders import as_picture, cut_out, preprocess
from photomaker.errors import PhotoError


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


def test_other_modes_become_rgb():
    assert as_picture(Image.new("RGBA", (4, 4), (10, 20, 30, 40))).getpixel((0, 0)) == (10, 20, 30)


@pytest.mark.parametrize("wrong", [np.zeros((3, 4)), torch.zeros(4, 5, 6), "photo.png", np.zeros((4, 5, 4))])
def test_what_is_no_photo_is_refused(wrong):
    with pytest.raises(PhotoError, match="must be a PIL picture"):
        as_picture(wrong)


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
