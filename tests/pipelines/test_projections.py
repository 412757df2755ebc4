"""Keys and values of the prompt are computed once for a phase, and pictures are the same bit for bit."""

import pytest
import torch

from photomaker.pipelines.attention.projections import kept_projections
from photomaker.pipelines.drop_in import mixin

MAN = "a photo of a man img on the beach"


@pytest.fixture
def runs(pipe):
    """How often the first cross-attention's keys are computed."""
    name, layer = next(
        (name, module)
        for name, module in pipe.unet.named_modules()
        if name.endswith("attn2.to_k.base_layer") or name.endswith("attn2.to_k")
    )
    inner = getattr(layer, "base_layer", layer)
    counted = []
    hook = inner.register_forward_hook(lambda *_: counted.append(name))
    yield counted
    hook.remove()


def test_once_for_each_phase(pipe, draw, photos, runs):
    draw(MAN, input_id_images=photos[:2], num_inference_steps=6, start_merge_step=1)
    assert len(runs) == 2


def test_the_picture_is_the_same_bit_for_bit(draw, photos, monkeypatch):
    settings = {"input_id_images": photos[:2], "num_inference_steps": 4, "start_merge_step": 1}
    kept = draw(MAN, **settings)
    monkeypatch.setattr(mixin, "kept_projections", lambda _unet: torch.no_grad())
    assert torch.equal(draw(MAN, **settings), kept)


def test_a_program_may_call_under_inference_mode(draw, photos):
    settings = {"input_id_images": photos[:2], "num_inference_steps": 4, "start_merge_step": 1}
    wanted = draw(MAN, **settings)
    with torch.inference_mode():
        got = draw(MAN, **settings)
    assert torch.equal(got, wanted)


def test_a_changed_strength_or_input_is_computed_again(pipe, runs):
    layer = next(module for name, module in pipe.unet.named_modules() if name.endswith("attn2.to_k"))
    tokens = torch.randn(1, 5, layer.in_features)
    with torch.no_grad(), kept_projections(pipe.unet):
        first = layer(tokens)
        assert layer(tokens) is first
        layer.scaling["photomaker"] *= 2
        try:
            second = layer(tokens)
        finally:
            layer.scaling["photomaker"] /= 2
        assert not torch.equal(first, second)
        tokens.add_(1)
        assert not torch.equal(layer(tokens), second)
    assert len(runs) == 3
    with torch.enable_grad(), kept_projections(pipe.unet):
        assert layer(tokens) is not layer(tokens)
    assert "forward" not in vars(layer)
