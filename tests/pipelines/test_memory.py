"""Memory plans: what is chosen for which device and room, and that a plan changes no picture."""

import warnings

import pytest
import torch

from photomaker.errors import SettingsError
from photomaker.pipelines.drawing.memory import GIB, apply_memory, plan_memory, weight_bytes


@pytest.fixture
def full_size(pipe, monkeypatch):
    """The tiny pipeline, said to be SDXL in half precision at 1024 x 1024."""
    sizes = {"unet": 5 * GIB, "text_encoder_2": int(1.3 * GIB), "vae": int(0.2 * GIB)}
    monkeypatch.setattr("photomaker.pipelines.drawing.memory.weight_bytes", lambda _: sizes)
    monkeypatch.setattr(pipe, "default_sample_size", 128)
    return pipe


@pytest.mark.parametrize(
    ("device", "free", "name", "offload"),
    [
        ("cuda", 24, "max-speed", "none"),
        ("cuda", 10, "balanced", "model"),
        ("cuda", 6, "lowest", "sequential"),
        ("mps", 16, "max-speed", "none"),
        ("mps", 8, "balanced", "none"),
    ],
)
def test_the_fastest_plan_that_fits(full_size, device, free, name, offload):
    plan = plan_memory(full_size, device, free=free * GIB)
    assert (plan.name, plan.offload, plan.device) == (name, offload, device)
    assert plan.tiled == (name != "max-speed")
    assert f"memory plan {name}: " in plan.line() and f"{free}.0 GiB free" in plan.line()


def test_a_small_model_on_a_cpu_needs_no_plan(pipe):
    assert plan_memory(pipe, "cpu").name == "max-speed"
    sizes = weight_bytes(pipe)
    assert set(sizes) == {"unet", "vae", "text_encoder", "text_encoder_2", "id_encoder"}
    assert sizes["unet"] == 4 * sum(parameter.numel() for parameter in pipe.unet.parameters())


def test_what_is_asked_for_is_done(full_size):
    assert plan_memory(full_size, "cuda", "lowest").offload == "sequential"
    assert plan_memory(full_size, "mps", "lowest").sliced
    with pytest.raises(SettingsError, match="memory is 'tiny'; choose auto, max-speed"):
        plan_memory(full_size, "cpu", "tiny")


def test_no_plan_changes_the_picture(pipe, draw, photos):
    wanted = draw(input_id_images=photos[:1])
    for memory in ("lowest", "max-speed"):
        apply_memory(pipe, plan_memory(pipe, "cpu", memory))
        assert torch.equal(draw(input_id_images=photos[:1]), wanted)


@pytest.mark.parametrize("plan", ["max-speed", "lowest"])
def test_an_autoencoder_that_overflows_in_fp16_gives_no_black_picture(
    tiny_base, tiny_adapter_file, photos, plan
):
    """As SDXL's own does: its activations go beyond what fp16 can hold, and its configuration says so."""
    from photomaker.pipelines import PhotoMakerStableDiffusionXLPipeline

    pipeline = PhotoMakerStableDiffusionXLPipeline.from_pretrained(tiny_base, dtype=torch.float16)
    pipeline.load_photomaker_adapter(tiny_adapter_file)
    pipeline.set_progress_bar_config(disable=True)
    with torch.no_grad():
        pipeline.vae.decoder.conv_in.weight.mul_(3e4)  # the norms behind it take the size away again
    apply_memory(pipeline, plan_memory(pipeline, "cpu", plan))

    def picture():
        return pipeline(
            "a photo of a man img", input_id_images=photos[:1], num_inference_steps=2, output_type="np",
            generator=torch.Generator().manual_seed(0),
        ).images[0]  # fmt: skip

    assert picture().std() > 0.05
    pipeline.vae.register_to_config(force_upcast=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        broken = picture()
    assert not broken.std() > 0.05, "the autoencoder does not overflow, so the test shows nothing"
