"""Guidance in a part of the steps: the negative rows are spared, and nothing else changes."""

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tiny import tiny_adapter, tiny_pipeline

from photomaker.methods.photomaker import PhotoMaker
from photomaker.pipelines.steps.guidance import GuidanceInterval
from photomaker.types import Reference, Request, Sampling

PROMPT = "a photo of a man img"


@pytest.fixture(scope="module")
def method(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return PhotoMaker.open(tiny_pipeline(folder), tiny_adapter(folder))


@pytest.fixture(scope="module")
def person(method):
    noise = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    return method.fit([Reference(Image.fromarray(noise))])


def drawn(method, person, **settings):
    """Pixels, and the rows of the batch at each call of the UNet."""
    rows = []
    hook = method.pipeline.unet.conv_in.register_forward_pre_hook(
        lambda _, args: rows.append(args[0].shape[0])
    )
    try:
        pictures = method.generate(
            person, [Request(PROMPT, Sampling(steps=4, seed=seed, **settings)) for seed in (1, 2)]
        )
    finally:
        hook.remove()
    return np.stack([np.asarray(one, np.float64) for one in pictures]), rows


def test_outside_the_interval_the_negative_rows_are_spared(method, person):
    assert drawn(method, person)[1] == [4, 4, 4, 4]
    assert drawn(method, person, guidance_stop=0.5)[1] == [4, 4, 2, 2]
    assert drawn(method, person, guidance_start=0.25, guidance_stop=0.75)[1] == [2, 4, 4, 2]
    assert drawn(method, person, guidance=1.0, guidance_stop=0.5)[1] == [2, 2, 2, 2]


def test_an_empty_interval_is_guidance_off(method, person):
    without, rows = drawn(method, person, guidance_start=0.0, guidance_stop=0.0)
    assert rows == [2, 2, 2, 2]
    np.testing.assert_allclose(without, drawn(method, person, guidance=1.0)[0], atol=1)


def test_a_part_lies_between_all_and_nothing(method, person):
    full, half, none = (
        drawn(method, person, **one)[0] for one in ({}, {"guidance_stop": 0.5}, {"guidance": 1.0})
    )
    assert np.abs(full - half).mean() > 0.01
    assert np.abs(half - none).mean() > 0.01


def test_the_whole_interval_leaves_no_hook_and_changes_nothing(method, person):
    unet = method.pipeline.unet
    with GuidanceInterval(0.0, 1.0, lambda: 4).attached(unet):
        assert not unet._forward_hooks
    with GuidanceInterval(0.0, 0.5, lambda: 4).attached(unet):
        assert unet._forward_hooks
    assert not unet._forward_hooks
    assert not unet._forward_pre_hooks


def test_shares_are_shares_of_the_steps():
    interval = GuidanceInterval(0.2, 0.6, lambda: 10)
    assert [step for step in range(10) if interval.guides(step)] == [2, 3, 4, 5]


def test_deep_lists_are_halved_and_other_things_left():
    from photomaker.pipelines.steps.guidance import _half

    given = ({"a": [torch.arange(4)], "b": (torch.zeros(3), None, "x")}, torch.tensor(5))
    half, time = _half(given, 4)
    assert half["a"][0].tolist() == [2, 3]
    assert half["b"][0].shape == (3,)
    assert half["b"][1:] == (None, "x")
    assert int(time) == 5
