"""Loading, replacing, unloading and saving an adapter; bases that do not fit."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from photomaker.encoders import export_adapter, read_adapter
from photomaker.errors import SettingsError, WeightsError
from photomaker.pipelines import PhotoMakerStableDiffusionXLPipeline

PROMPT = "a photo of a man img on the beach"


@pytest.fixture
def fresh(tiny_base):
    pipeline = PhotoMakerStableDiffusionXLPipeline.from_pretrained(tiny_base, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def picture(pipeline, photos, **arguments):
    generator = torch.Generator().manual_seed(0)
    return pipeline(
        PROMPT,
        input_id_images=photos[:1],
        num_inference_steps=2,
        generator=generator,
        output_type="latent",
        **arguments,
    ).images


def test_forms_of_the_source_are_the_same(fresh, photos, tiny_adapter_file, tmp_path):
    fresh.load_photomaker_adapter(tiny_adapter_file)
    wanted = picture(fresh, photos)
    sections = {"lora_weights": {}, "id_encoder": {}}
    for name, tensor in load_file(tiny_adapter_file).items():
        section, _, rest = name.partition(".")
        sections[section][rest] = tensor
    (tmp_path / "sub").mkdir()
    torch.save(sections, tmp_path / "sub" / "photomaker-v1.bin")
    for source, options in (
        (tmp_path, {"subfolder": "sub", "weight_name": "photomaker-v1.bin", "pm_version": "v1"}),
        (sections, {"weight_name": "unused.bin"}),
    ):
        fresh.load_photomaker_adapter(source, **options)  # again and again: it is replaced
        assert torch.equal(picture(fresh, photos), wanted)
    assert fresh.get_list_adapters() == {"unet": ["photomaker"]}


def test_unloading_gives_the_base_back(fresh, tiny_adapter_file):
    before = {name: tensor.clone() for name, tensor in fresh.unet.state_dict().items()}
    fresh.load_photomaker_adapter(tiny_adapter_file)
    assert fresh.unet.state_dict().keys() != before.keys()
    fresh.unload_photomaker_adapter()
    after = fresh.unet.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert fresh.id_encoder is None


def test_a_failed_load_leaves_the_working_adapter(fresh, photos, tiny_adapter_file, tmp_path):
    fresh.load_photomaker_adapter(tiny_adapter_file)
    wanted = picture(fresh, photos)
    broken = {
        name: tensor for name, tensor in load_file(tiny_adapter_file).items() if "layer_norm.bias" not in name
    }
    save_file(broken, tmp_path / "broken.safetensors")
    with pytest.raises(WeightsError, match=r"layer_norm\.bias"):
        fresh.load_photomaker_adapter(tmp_path / "broken.safetensors", trigger_word="sks")
    assert torch.equal(picture(fresh, photos), wanted)


def test_without_an_adapter_the_call_says_so(fresh, photos):
    with pytest.raises(WeightsError, match="load_photomaker_adapter"):
        picture(fresh, photos)


def test_a_base_of_another_width_is_named(fresh, tiny_adapter_file):
    fresh.unet.register_to_config(cross_attention_dim=768)
    with pytest.raises(WeightsError, match=r"Stable Diffusion 1\.x model of width 768, but .* for width 80"):
        fresh.load_photomaker_adapter(tiny_adapter_file)


def test_a_base_without_the_first_text_encoder_is_named(fresh, tiny_adapter_file):
    fresh.register_modules(text_encoder=None, tokenizer=None)
    with pytest.raises(WeightsError, match="without tokenizer, text_encoder"):
        fresh.load_photomaker_adapter(tiny_adapter_file)


def _stable_diffusion_1(stock, folder):
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    unet = UNet2DConditionModel(
        sample_size=8, layers_per_block=1, block_out_channels=(16, 32), cross_attention_dim=32, norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    StableDiffusionPipeline(
        vae=stock.vae, text_encoder=CLIPTextModel(stock.text_encoder.config), tokenizer=stock.tokenizer, unet=unet,
        scheduler=stock.scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip


def _refiner(stock, folder):
    from diffusers import StableDiffusionXLImg2ImgPipeline

    StableDiffusionXLImg2ImgPipeline(
        vae=stock.vae, text_encoder=None, tokenizer=None, text_encoder_2=stock.text_encoder_2,
        tokenizer_2=stock.tokenizer_2, unet=stock.unet, scheduler=stock.scheduler, add_watermarker=False,
    ).save_pretrained(folder)  # fmt: skip


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_stable_diffusion_1, "width 32 without tokenizer_2, text_encoder_2, but .* for width 80"),
        (_refiner, "width 80 without tokenizer, text_encoder, but"),
    ],
)
def test_a_folder_of_another_kind_of_model_is_told(tiny_base, tiny_adapter_file, tmp_path, make, words):
    from diffusers import StableDiffusionXLPipeline

    from photomaker.methods.photomaker import PhotoMaker

    make(StableDiffusionXLPipeline.from_pretrained(tiny_base, add_watermarker=False), tmp_path / "other")
    with pytest.raises(WeightsError, match=words):
        PhotoMaker.open(tmp_path / "other", tiny_adapter_file)


@pytest.mark.parametrize("change", ["layer", "width"])
def test_a_lora_for_another_unet_is_named(fresh, tiny_adapter_file, tmp_path, change):
    tensors = load_file(tiny_adapter_file)
    name = next(name for name in tensors if name.endswith("attn2.processor.to_k_lora.down.weight"))
    if change == "layer":
        tensors[name.replace("transformer_blocks.0", "transformer_blocks.9")] = tensors.pop(name)
    else:
        tensors[name] = torch.ones(4, 2048)
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="base model"):
        fresh.load_photomaker_adapter(tmp_path / "other.safetensors")
    assert fresh.id_encoder is None


@pytest.mark.parametrize("word", ["", "two words", " img"])
def test_a_trigger_must_be_one_word(fresh, tiny_adapter_file, word):
    with pytest.raises(SettingsError, match="trigger word"):
        fresh.load_photomaker_adapter(tiny_adapter_file, trigger_word=word)


def test_places_that_do_not_exist_are_named(fresh, tmp_path):
    for source, options, words in (
        (tmp_path / "none.safetensors", {}, "none.safetensors"),
        (tmp_path, {}, "weight_name"),
        (tmp_path, {"weight_name": "a.bin"}, "a.bin"),
        (tmp_path / "none", {"weight_name": "a.bin"}, "no folder"),
        ("someone/something", {"weight_name": "a.bin"}, "cannot be downloaded"),
    ):
        with pytest.raises(WeightsError, match=words):
            fresh.load_photomaker_adapter(source, **options)


def test_options_that_the_hub_does_not_know_are_refused(fresh, tiny_adapter_file):
    """Also beside a local file, where none is used."""
    for name, words in (
        ("triger_word", "did you mean 'trigger_word'"),
        ("revison", "did you mean 'revision'"),
    ):
        with pytest.raises(SettingsError, match=f"has no argument '{name}'; {words}"):
            fresh.load_photomaker_adapter(tiny_adapter_file, **{name: "sks"})
    assert fresh.id_encoder is None
    fresh.load_photomaker_adapter(tiny_adapter_file, revision="main", local_files_only=True, token=None)
    assert fresh.id_encoder is not None


def test_another_trigger_word(fresh, photos, tiny_adapter_file):
    fresh.load_photomaker_adapter(tiny_adapter_file)
    wanted = picture(fresh, photos)
    fresh.load_photomaker_adapter(tiny_adapter_file, trigger_word="sks")
    generator = torch.Generator().manual_seed(0)
    got = fresh(
        PROMPT.replace("img", "sks"), input_id_images=photos[:1], num_inference_steps=2, generator=generator,
        output_type="latent",
    ).images  # fmt: skip
    assert torch.equal(got, wanted)


def test_the_id_encoder_is_a_component(fresh, tiny_adapter_file, tmp_path):
    """Moved, listed, handed on, saved and loaded with the pipeline; the tokenizer is saved as it was."""
    size = len(fresh.tokenizer)
    fresh.load_photomaker_adapter(tiny_adapter_file, trigger_word="sks")
    assert fresh.components["id_encoder"] is fresh.id_encoder
    fresh.save_pretrained(tmp_path / "saved")
    again = PhotoMakerStableDiffusionXLPipeline.from_pretrained(tmp_path / "saved", dtype=torch.float64)
    assert again.id_encoder.dtype == torch.float64
    assert (again.trigger_word, again.encoder_sha256) == ("sks", fresh.encoder_sha256)
    assert len(again.tokenizer) == size
    pixels = torch.randn(1, 1, 3, 32, 32)
    torch.testing.assert_close(
        again.id_encoder.float().encode_photos(pixels), fresh.id_encoder.encode_photos(pixels)
    )
    fresh.to(torch.float64)
    assert fresh.id_encoder.dtype == torch.float64


def test_an_adapter_of_one_embedding_makes_identities_of_one_feature(
    fresh, photos, tiny_adapter_file, tmp_path
):
    file = read_adapter(tiny_adapter_file)
    fresh.load_photomaker_adapter(tiny_adapter_file)
    stacked = fresh.encode_identity(photos[:3], weights=[1, 3, 0])
    encoder = file.build_encoder()
    encoder.arrange("average", class_word=False)
    path = export_adapter(tmp_path / "average.safetensors", encoder, file.lora, dtype=None)
    fresh.load_photomaker_adapter(path)
    assert not fresh.id_encoder.stacks and not fresh.id_encoder.fuse_module.class_word
    one = fresh.encode_identity(photos[:3], weights=[1, 3, 0])
    assert one.tensors["weights"].tolist() == [1]
    features = stacked.tensors["id_features"]
    wanted = 0.25 * features[0] + 0.75 * features[1]
    torch.testing.assert_close(one.tensors["id_features"][0], wanted, rtol=1e-4, atol=1e-5)
    arguments = {"num_inference_steps": 1, "output_type": "latent", "start_merge_step": -1}
    drawn = [
        fresh(PROMPT, identity=one, generator=torch.Generator().manual_seed(0), **arguments).images,
        picture(fresh, photos, start_merge_step=-1),
    ]
    assert all(torch.isfinite(latents).all() for latents in drawn)
