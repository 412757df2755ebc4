"""Previews: colours from latents by a linear map."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from tests.tiny import tiny_pipeline

from photomaker import weights
from photomaker.images import open_photo, square, to_tensor
from photomaker.pipelines.drawing.opening import open_pipeline
from photomaker.pipelines.steps.previews import ENLARGED, fitted_map, map_of, preview
from photomaker.pipelines.steps.watching import Step

needs_weights = pytest.mark.skipif(not (weights.SMALL / "base").is_dir(), reason="no bundled weights")


@needs_weights
def test_nine_tenths_of_the_colours_of_the_bundled_people_are_explained():
    pipeline = open_pipeline(StableDiffusionXLPipeline, None, torch.float32)
    photos = sorted((weights.ASSETS / "people").glob("*/*.png"))
    pictures = torch.stack([to_tensor(square(open_photo(path).image, 128)) for path in photos])
    with torch.no_grad():
        latents = pipeline.vae.encode(2 * pictures - 1).latent_dist.mode()
    shown = preview(Step(1, 1, latents, pipeline))
    assert len(shown) == len(photos) >= 6
    assert shown[0].size == (16 * ENLARGED, 16 * ENLARGED)
    small = torch.nn.functional.adaptive_avg_pool2d(pictures, (16, 16))
    colours = map_of(pipeline)
    found = torch.einsum("bchw,dc->bdhw", latents, colours[:, :-1]) + colours[:, -1].view(1, 3, 1, 1)
    explained = 1 - float(((found - small) ** 2).mean() / small.var())
    assert explained > 0.88  # measured 0.896


def test_any_autoencoder_will_do_and_the_map_is_fitted_once(tmp_path, monkeypatch):
    from photomaker.pipelines.steps import previews

    pipeline = open_pipeline(StableDiffusionXLPipeline, tiny_pipeline(tmp_path), torch.float32)
    first = map_of(pipeline)
    assert first.shape == (3, 5)
    torch.testing.assert_close(first, fitted_map(pipeline), rtol=0, atol=0)
    monkeypatch.setattr(previews, "fitted_map", lambda _: pytest.fail("fitted again"))
    (picture,) = preview(Step(1, 1, torch.zeros(1, 4, 3, 5), pipeline))
    assert picture.size == (5 * ENLARGED, 3 * ENLARGED)
    expected = (first[:, -1].clamp(0, 1) * 255).round().numpy()
    assert np.abs(np.asarray(picture)[0, 0] - expected).max() <= 1
