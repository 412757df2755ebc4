"""A text-to-image pipeline with the tiny adapter, shared by a module's tests; none of them changes it."""

import warnings
from contextlib import contextmanager

import pytest
import torch


@pytest.fixture(scope="session")
def told():
    """Whether a warning of ours came; `pytest.warns` would pass on those of libraries as errors."""

    @contextmanager
    def told(words):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        messages = [str(one.message) for one in caught]
        assert any(words in message for message in messages), messages

    return told


@pytest.fixture(scope="module")
def pipe(tiny_base, tiny_adapter_file):
    from photomaker.pipelines import PhotoMakerStableDiffusionXLPipeline

    pipeline = PhotoMakerStableDiffusionXLPipeline.from_pretrained(tiny_base, add_watermarker=False)
    pipeline.load_photomaker_adapter(tiny_adapter_file)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def draw(pipe):
    def call(prompt="a photo of a man img on the beach", seeds=(0,), **arguments):
        settings = {"num_inference_steps": 3, "output_type": "latent", "start_merge_step": 0} | arguments
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return settings.pop("pipe", pipe)(prompt, generator=generators, **settings).images

    return call
