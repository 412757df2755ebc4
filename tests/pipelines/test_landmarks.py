"""Five landmarks drawn as the published IdentityNet knows them, and where a photo's are in another picture."""

import numpy as np
import pytest
import torch
from PIL import Image

from photomaker.errors import PhotoError, SettingsError
from photomaker.pipelines.structures.identity_nets import Structured
from photomaker.pipelines.structures.landmarks import (
    COLOURS,
    Pencil,
    check_inside,
    check_pose,
    draw_landmarks,
    landmarks_at,
)
from photomaker.types import Pose

POINTS = np.array([[400, 400], [620, 400], [510, 520], [430, 640], [590, 640]], dtype=np.float32)


def test_discs_are_bright_and_limbs_dim_in_the_published_colours():
    pixels = np.asarray(draw_landmarks(POINTS, (1024, 1024)))
    assert pixels.shape == (1024, 1024, 3)
    for (x, y), colour in zip(POINTS.astype(int), COLOURS, strict=True):
        assert tuple(pixels[y, x]) == colour
        assert tuple(pixels[y - 9, x]) == colour
        assert tuple(pixels[y + 12, x]) != colour
    # in the middle between each outer landmark and the nose: the outer one's colour at six tenths
    for place in (0, 1, 3, 4):
        x, y = ((POINTS[place] + POINTS[2]) / 2).astype(int)
        assert tuple(pixels[y, x]) == tuple(int(value * 0.6) for value in COLOURS[place])
    found = {tuple(one) for one in pixels.reshape(-1, 3)}
    dim = {tuple(int(value * 0.6) for value in COLOURS[place]) for place in (0, 1, 3, 4)}
    assert found == {(0, 0, 0), *COLOURS, *dim}
    # the thickest part of a limb, 4 pixels to each side of its middle
    across = pixels[:520, int((POINTS[0, 0] + POINTS[2, 0]) / 2)]
    assert 8 <= (across.max(1) > 0).sum() <= 14


def test_small_pictures_are_drawn_with_soft_edges():
    pixels = np.asarray(draw_landmarks(POINTS / 8, (128, 128), Pencil(2.5, 1.0)))
    assert pixels.shape == (128, 128, 3)
    assert tuple(pixels[50, 50]) == COLOURS[0]
    assert len({tuple(one) for one in pixels.reshape(-1, 3)}) > 12
    away = draw_landmarks(np.full((5, 2), -1e4), (64, 64))
    assert not np.asarray(away).any()


def test_a_photo_s_landmarks_lie_where_its_face_is_in_another_shape():
    same = landmarks_at(POINTS, (1024, 1024), (128, 128))
    np.testing.assert_allclose(same, POINTS / 8, rtol=1e-6)
    # a tall photo in a square: its width fits, and it is cut so that the face is in the middle
    tall = landmarks_at(POINTS, (1024, 2048), (512, 512))
    np.testing.assert_allclose(tall[:, 0], POINTS[:, 0] / 2)
    assert tall[:, 1].mean() == pytest.approx(256, abs=1e-3)
    # as far as the photo reaches
    high = landmarks_at(POINTS - (0, 390), (1024, 2048), (512, 512))
    np.testing.assert_allclose(high, (POINTS - (0, 390)) / 2)
    aside = np.array([1000, 0])
    wide = landmarks_at(POINTS + aside, (1700, 1024), (512, 512))
    np.testing.assert_allclose(wide[:, 0], (POINTS[:, 0] + 1000) / 2 - (850 - 512))


def test_a_pose_of_another_shape_is_refused():
    check_pose(Pose("photo"), (512, 512))
    check_pose(Pose(Image.new("RGB", (641, 481))), (1024, 768))
    with pytest.raises(
        SettingsError, match=r"the pose is 640 x 480, but the pictures are 512 x 512; crop it"
    ):
        check_pose(Pose(Image.new("RGB", (640, 480))), (512, 512))
    check_inside(POINTS, (410, 410), "it")
    with pytest.raises(PhotoError, match="is outside its picture of 300 x 300"):
        check_inside(POINTS, (300, 300), "it")
    with pytest.raises(PhotoError, match="five finite points"):
        check_inside(POINTS * np.nan, (300, 300), "it")


class Net(torch.nn.Module):
    def forward(self, sample, timestep, **given):
        self.given = {"sample": sample, "timestep": timestep, **given}
        return [sample * 2], sample * 3


class Unet(torch.nn.Module):
    def forward(self, sample, timestep, added_cond_kwargs=None, **more):
        return sample, more


def test_an_identity_net_is_asked_for_the_rows_of_the_step_and_taken_out():
    net, unet = Net(), Unet()
    tokens, pictures = torch.arange(4.0).view(4, 1, 1), torch.arange(4.0).view(4, 1, 1, 1)
    added = {"text_embeds": 1, "time_ids": 2, "image_embeds": 3}
    structured = Structured(net, tokens, pictures, 0.5)
    with structured.attached(unet):
        _, more = unet(torch.ones(4, 1), 9, added_cond_kwargs=added)
        assert more["down_block_additional_residuals"][0].eq(2).all()
        assert more["mid_block_additional_residual"].eq(3).all()
        assert net.given["conditioning_scale"] == 0.5
        assert net.given["added_cond_kwargs"] == {"text_embeds": 1, "time_ids": 2}
        unet(torch.ones(2, 1), 9, added_cond_kwargs=added)
        assert net.given["encoder_hidden_states"].flatten().tolist() == [2, 3]
        assert net.given["controlnet_cond"].flatten().tolist() == [2, 3]
        structured.on = False
        assert unet(torch.ones(2, 1), 9, added_cond_kwargs=added)[1] == {}
    assert "forward" not in vars(unet)
    with pytest.raises(ZeroDivisionError), structured.attached(unet):
        raise ZeroDivisionError
    assert "forward" not in vars(unet)
    own = unet.forward
    unet.forward = own  # as offloading puts its own there
    with structured.attached(unet):
        assert unet.forward is not own
    assert unet.forward is own
