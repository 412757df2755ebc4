"""ControlNets beside IP-Adapter, FastComposer and PuLID: as stock diffusers draws, and gone again."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionXLControlNetPipeline, StableDiffusionXLPipeline
from PIL import Image
from tests import tiny

from photomaker.errors import SettingsError
from photomaker.registry import find
from photomaker.types import Extras, Reference, Request, Sampling, Structure

SIDE = tiny.IMAGE_SIZE
SAMPLING = Sampling(steps=3, seed=7, guidance=3.0)
PROMPT = "a photo of a man img on the beach"


def noise(seed, size=(SIDE, SIDE)):
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("controls")


@pytest.fixture(scope="module")
def base(folder):
    return tiny.tiny_pipeline(folder)


@pytest.fixture(scope="module", params=["ip_adapter", "fastcomposer", "pulid"])
def method(request, base, folder):
    if request.param == "pulid":
        return tiny.open_tiny_pulid(base, folder)
    if request.param == "fastcomposer":
        return find("method", "fastcomposer").open(base, tiny.tiny_fastcomposer(folder), device="cpu")
    tower, file = tiny.tiny_adapter(folder), tiny.tiny_ip_adapter(folder)
    return find("method", "ip_adapter").open(base, file, device="cpu", image_encoder=tower)


@pytest.fixture(scope="module")
def person(method):
    return method.fit([Reference(noise(1, (48, 48)))])


def drawn(method, person, controls=(), **changes):
    request = Request(PROMPT, replace(SAMPLING, **changes), extras=Extras(controls=controls))
    return np.asarray(method.generate(person, [request])[0]).astype(int)


def test_without_the_person_it_is_the_stock_controlnet_pipeline(method, person, base, folder):
    net = tiny.tiny_controlnet(folder)
    stock = StableDiffusionXLControlNetPipeline.from_pretrained(
        base, controlnet=ControlNetModel.from_pretrained(net), add_watermarker=False
    )
    stock.set_progress_bar_config(disable=True)
    wanted = stock(
        "a photo of a man on the beach", image=noise(3), controlnet_conditioning_scale=0.6, num_inference_steps=3,
        guidance_scale=3.0, generator=torch.Generator().manual_seed(7),
    ).images[0]  # fmt: skip
    found = drawn(method, person, (Structure(str(net), noise(3), 0.6),), merge=1.0)
    assert np.abs(found - np.asarray(wanted)).max() <= 1


def test_it_counts_beside_the_person_and_leaves_nothing_behind(method, person, folder):
    net = str(tiny.tiny_controlnet(folder))
    before = drawn(method, person)
    one, other = (drawn(method, person, (Structure(net, noise(seed), 0.5),)) for seed in (3, 4))
    quiet = (Structure(net, noise(3), 0.02),)
    with_person, alone = (drawn(method, person, quiet, merge=merge) for merge in (0.0, 1.0))
    assert np.abs(one - before).mean() > 1
    assert np.abs(one - other).max() > 1
    assert np.abs(with_person - alone).max() > 2
    assert np.abs(drawn(method, person, (Structure(net, noise(3), 0.0),)) - before).max() <= 1
    assert np.array_equal(drawn(method, person), before)
    assert type(method.pipeline) is StableDiffusionXLPipeline


def test_guidance_in_a_part_of_the_steps_goes_with_it(method, person, folder):
    controls = (Structure(str(tiny.tiny_controlnet(folder)), noise(3), 0.5),)
    drawn(method, person, steps=5)  # another number of steps before
    without = drawn(method, person, controls, guidance_stop=0.0)
    assert np.abs(without - drawn(method, person, controls, guidance=1.0)).max() <= 1


def test_a_picture_of_another_shape_is_refused(method, person, folder):
    wide = Structure(str(tiny.tiny_controlnet(folder)), noise(3, (SIDE, SIDE // 2)))
    with pytest.raises(SettingsError, match="the structure picture is 64 x 32, but the pictures are 64 x 64"):
        drawn(method, person, (wide,))
