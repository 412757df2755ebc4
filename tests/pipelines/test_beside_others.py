"""PhotoMaker beside other LoRAs, fused, with an IP-Adapter, and under few-step samplers."""

import pytest
import torch
from diffusers import (
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    TCDScheduler,
)
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import CLIPTokenizer, CLIPVisionConfig, CLIPVisionModelWithProjection

from photomaker.errors import WeightsError
from photomaker.pipelines import PhotoMakerStableDiffusionXLPipeline as Pipeline

MAN = "a photo of a man img on the beach"
CLOSE = {"atol": 5e-3, "rtol": 0}


@pytest.fixture
def fresh(tiny_base):
    pipeline = Pipeline.from_pretrained(tiny_base, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def style(tiny_base, tmp_path_factory):
    """A LoRA as the community shares them."""
    pipeline = Pipeline.from_pretrained(tiny_base, add_watermarker=False)
    torch.manual_seed(3)
    config = LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False)
    pipeline.unet.add_adapter(config, adapter_name="style")
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipeline.unet, adapter_name="style"))
    folder = tmp_path_factory.mktemp("style")
    Pipeline.save_lora_weights(folder, unet_lora_layers=layers)
    return folder


def picture(pipeline, photos, **arguments):
    settings = {"num_inference_steps": 3, "start_merge_step": 0, "output_type": "latent"} | arguments
    generator = torch.Generator().manual_seed(0)
    return pipeline(MAN, input_id_images=photos[:2], generator=generator, **settings).images


def text_lora(pipeline, folder):
    """A LoRA of UNet and first text encoder."""
    torch.manual_seed(5)
    parts = {}
    for part, targets in (("unet", ["to_q", "ff.net.2"]), ("text_encoder", ["q_proj", "v_proj"])):
        model = getattr(pipeline, part)
        model.add_adapter(
            LoraConfig(r=2, target_modules=targets, init_lora_weights=False), adapter_name="made"
        )
        parts[part] = convert_state_dict_to_diffusers(get_peft_model_state_dict(model, adapter_name="made"))
    Pipeline.save_lora_weights(folder, parts["unet"], parts["text_encoder"])
    return folder


def test_unloading_other_lora_leaves_photomakers(
    fresh, photos, tiny_adapter_file, style, tiny_base, tmp_path
):
    other = text_lora(Pipeline.from_pretrained(tiny_base, add_watermarker=False), tmp_path / "other")
    fresh.load_photomaker_adapter(tiny_adapter_file)
    fresh.set_adapters(["photomaker"], [0.7])
    alone = picture(fresh, photos)
    fresh.load_lora_weights(style, adapter_name="style")
    fresh.load_lora_weights(other, adapter_name="other")
    assert (picture(fresh, photos) - alone).abs().max() > 0.05
    fresh.unload_lora_weights()
    assert fresh.get_list_adapters() == {"unet": ["photomaker"]}
    assert fresh.get_active_adapters() == ["photomaker"]
    assert torch.equal(picture(fresh, photos), alone)
    assert not any("lora" in name for name in fresh.text_encoder.state_dict())
    fresh.load_lora_weights(style, adapter_name="style")  # and again
    fresh.unload_lora_weights()
    assert torch.equal(picture(fresh, photos), alone)


def test_unloading_where_only_photomakers_lora_is_says_that_it_stays(fresh, photos, tiny_adapter_file, style):
    fresh.load_photomaker_adapter(tiny_adapter_file)
    alone = picture(fresh, photos)
    with pytest.warns(
        UserWarning, match="PhotoMaker's own, which stays; unload_photomaker_adapter removes it"
    ):
        fresh.unload_lora_weights()
    assert torch.equal(picture(fresh, photos), alone)
    fresh.unload_photomaker_adapter()
    assert not fresh.get_list_adapters()
    fresh.load_lora_weights(style, adapter_name="style")
    fresh.unload_lora_weights()
    assert not any("lora" in name for name in fresh.unet.state_dict())


def test_what_was_fused_stays_when_lora_is_unloaded(fresh, photos, tiny_adapter_file, style):
    """As with the stock method."""
    fresh.load_photomaker_adapter(tiny_adapter_file)
    fresh.load_lora_weights(style, adapter_name="style")
    fresh.fuse_lora()
    wanted = picture(fresh, photos)
    fresh.unload_lora_weights()
    torch.testing.assert_close(picture(fresh, photos), wanted, **CLOSE)


def test_photomakers_lora_alone_goes_from_the_layers_when_it_is_fused(fresh, photos, tiny_adapter_file):
    fresh.load_photomaker_adapter(tiny_adapter_file)
    fresh.fuse_lora()
    wanted = picture(fresh, photos)
    fresh.unload_lora_weights()
    assert not fresh.get_list_adapters()
    assert not any("lora" in name for name in fresh.unet.state_dict())
    torch.testing.assert_close(picture(fresh, photos), wanted, **CLOSE)


def test_a_lora_loaded_before_or_after_is_the_same_picture(
    fresh, photos, tiny_adapter_file, style, tiny_base
):
    fresh.load_photomaker_adapter(tiny_adapter_file)
    alone = picture(fresh, photos)
    fresh.load_lora_weights(style, adapter_name="style")
    assert set(fresh.get_active_adapters()) == {"photomaker", "style"}
    after = picture(fresh, photos)
    assert (after - alone).abs().max() > 0.05
    other = Pipeline.from_pretrained(tiny_base, add_watermarker=False)
    other.set_progress_bar_config(disable=True)
    other.load_lora_weights(style, adapter_name="style")
    other.load_photomaker_adapter(tiny_adapter_file)
    torch.testing.assert_close(picture(other, photos), after, **CLOSE)
    explicit = picture(_weights(fresh, [1.0, 1.0]), photos)
    torch.testing.assert_close(explicit, after, **CLOSE)


def _weights(pipeline, weights):
    pipeline.set_adapters(["photomaker", "style"], adapter_weights=weights)
    return pipeline


def test_set_adapters_weighs_and_other_strengths_stay(fresh, photos, tiny_adapter_file, style):
    fresh.load_photomaker_adapter(tiny_adapter_file)
    alone = picture(fresh, photos)
    fresh.load_lora_weights(style, adapter_name="style")
    torch.testing.assert_close(picture(_weights(fresh, [1.0, 0.0]), photos), alone, **CLOSE)
    half = picture(_weights(fresh, [1.0, 0.5]), photos)
    fresh.load_photomaker_adapter(tiny_adapter_file)  # loaded again, the other one stays at its strength
    torch.testing.assert_close(picture(fresh, photos), half, **CLOSE)
    fresh.unload_photomaker_adapter()
    assert fresh.get_active_adapters() == ["style"]


def test_fused_is_the_same_picture_and_can_be_taken_out(fresh, photos, tiny_adapter_file):
    before = {name: tensor.clone() for name, tensor in fresh.unet.state_dict().items()}
    fresh.load_photomaker_adapter(tiny_adapter_file)
    wanted = picture(fresh, photos)
    fresh.fuse_lora()
    torch.testing.assert_close(picture(fresh, photos), wanted, **CLOSE)
    fresh.load_photomaker_adapter(tiny_adapter_file)
    torch.testing.assert_close(picture(fresh, photos), wanted, **CLOSE)
    fresh.fuse_lora()
    fresh.unload_photomaker_adapter()
    after = fresh.unet.state_dict()
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fused", [False, True])
def test_saved_and_loaded_again_it_is_the_same(fresh, photos, tiny_adapter_file, tiny_base, tmp_path, fused):
    fresh.load_photomaker_adapter(tiny_adapter_file, trigger_word="img")
    if fused:
        fresh.fuse_lora()
    wanted = picture(fresh, photos)
    fresh.save_pretrained(tmp_path / "saved")
    assert torch.equal(picture(fresh, photos), wanted)
    assert len(fresh.tokenizer) == len(CLIPTokenizer.from_pretrained(tmp_path / "saved/tokenizer"))
    if not fused:
        before = load_file(tiny_base / "unet/diffusion_pytorch_model.safetensors")
        after = load_file(tmp_path / "saved/unet/diffusion_pytorch_model.safetensors")
        assert before.keys() == after.keys()
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    again = Pipeline.from_pretrained(tmp_path / "saved", add_watermarker=False)
    again.set_progress_bar_config(disable=True)
    torch.testing.assert_close(picture(again, photos), wanted, **CLOSE)
    again.unload_photomaker_adapter()
    assert again.id_encoder is None


def test_a_saved_lora_that_is_gone_is_told(fresh, tiny_adapter_file, tmp_path):
    fresh.load_photomaker_adapter(tiny_adapter_file)
    fresh.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved/id_encoder/photomaker_lora.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"photomaker_lora\.safetensors"):
        Pipeline.from_pretrained(tmp_path / "saved")


def test_other_loras_are_not_saved_and_told(fresh, tiny_adapter_file, style, tmp_path, told):
    fresh.load_photomaker_adapter(tiny_adapter_file)
    fresh.load_lora_weights(style, adapter_name="style")
    with told("the LoRA style is not saved"):
        fresh.save_pretrained(tmp_path / "saved")
    assert set(fresh.get_active_adapters()) == {"photomaker", "style"}
    assert Pipeline.from_pretrained(tmp_path / "saved").get_list_adapters() == {"unet": ["photomaker"]}


def _ip_adapter(unet):
    """Random weights of an IP-Adapter in its published layout."""
    torch.manual_seed(5)
    width, clip, tokens = unet.config.cross_attention_dim, 24, 4
    layers = {}
    for number, (name, processor) in enumerate(unet.attn_processors.items()):
        if name.endswith("attn2.processor"):
            channels = unet.get_submodule(name.removesuffix(".processor")).to_k.weight.shape[0]
            layers[f"{number}.to_k_ip.weight"] = torch.randn(channels, width) / width**0.5
            layers[f"{number}.to_v_ip.weight"] = torch.randn(channels, width) / width**0.5
        del processor
    projection = {
        "proj.weight": torch.randn(tokens * width, clip) / clip**0.5,
        "proj.bias": torch.zeros(tokens * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    return {"image_proj": projection, "ip_adapter": layers}


def test_an_ip_adapter_on_top(fresh, photos, tiny_adapter_file):
    fresh.load_photomaker_adapter(tiny_adapter_file)
    plain = picture(fresh, photos)
    torch.manual_seed(4)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, patch_size=8,
        image_size=32, projection_dim=24,
    )  # fmt: skip
    fresh.register_modules(image_encoder=CLIPVisionModelWithProjection(vision).eval())
    fresh.load_ip_adapter(_ip_adapter(fresh.unet), subfolder="", weight_name="", image_encoder_folder=None)
    assert fresh.get_active_adapters() == ["photomaker"]
    processor = _processor()
    fresh.register_modules(feature_extractor=processor)
    fresh.set_ip_adapter_scale(0.0)
    torch.testing.assert_close(picture(fresh, photos, ip_adapter_image=photos[3]), plain, **CLOSE)
    fresh.set_ip_adapter_scale(0.8)
    both = picture(fresh, photos, ip_adapter_image=photos[3])
    assert (both - plain).abs().max() > 0.05
    other = fresh(
        MAN, input_id_images=photos[2:4], generator=torch.Generator().manual_seed(0), num_inference_steps=3,
        start_merge_step=0, output_type="latent", ip_adapter_image=photos[3],
    ).images  # fmt: skip
    assert (both - other).abs().max() > 0.05


def test_the_lora_of_a_face_id_ip_adapter_stays_beside_ours(fresh, tiny_adapter_file):
    fresh.load_photomaker_adapter(tiny_adapter_file)
    state = _ip_adapter(fresh.unet)
    for number, name in enumerate(fresh.unet.attn_processors):
        attention = fresh.unet.get_submodule(name.removesuffix(".processor"))
        layers = {"q": attention.to_q, "k": attention.to_k, "v": attention.to_v, "out": attention.to_out[0]}
        for part, layer in layers.items():
            lora = f"{number}.to_{part}_lora"
            state["ip_adapter"][f"{lora}.down.weight"] = torch.randn(2, layer.in_features)
            state["ip_adapter"][f"{lora}.up.weight"] = torch.randn(layer.out_features, 2)
    fresh.load_ip_adapter(state, subfolder="", weight_name="", image_encoder_folder=None)
    assert set(fresh.get_active_adapters()) == {"photomaker", "faceid_0"}


def _processor():
    from photomaker.encoders import image_processor

    return image_processor(32)


LIGHTNING = (EulerDiscreteScheduler, {"timestep_spacing": "trailing"})
TURBO = (EulerAncestralDiscreteScheduler, {"timestep_spacing": "trailing"})


@pytest.mark.parametrize("kind", [(LCMScheduler, {}), (TCDScheduler, {}), LIGHTNING, TURBO])
@pytest.mark.parametrize("merge", [0.25, 0])
def test_few_steps_without_guidance(fresh, photos, tiny_adapter_file, kind, merge):
    fresh.load_photomaker_adapter(tiny_adapter_file)
    fresh.scheduler = kind[0].from_config(fresh.scheduler.config, **kind[1])
    settings = {"num_inference_steps": 4, "guidance_scale": 0.0, "start_merge_step": merge}
    got = picture(fresh, photos, **settings)
    assert bool(torch.isfinite(got).all())
    assert (got - picture(fresh, photos[2:], **settings)).abs().max() > 0.01
