"""Adapter files: both forms, sizes from shapes, names of LoRA, and every way in which a file can be wrong."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import LORA_RANK, VISION, tiny_unet

from photomaker.encoders import export_adapter, infer_sizes, official_lora, read_adapter
from photomaker.errors import WeightsError


@pytest.fixture(scope="module")
def adapter(tiny_adapter_file):
    return read_adapter(tiny_adapter_file)


def test_sizes_are_read_off_the_shapes_where_a_file_does_not_state_them(tiny_adapter_file, adapter, tmp_path):
    save_file(load_file(tiny_adapter_file), tmp_path / "bare.safetensors")
    bare = read_adapter(tmp_path / "bare.safetensors")
    assert {name: bare.config[name] for name in VISION} == VISION
    pixels = torch.randn(1, 2, 3, 32, 32)
    assert torch.equal(
        bare.build_encoder().encode_photos(pixels), adapter.build_encoder().encode_photos(pixels)
    )


def test_the_official_pickle_reads_alike_in_any_order(adapter, tmp_path):
    torch.save(
        {"lora_weights": adapter.lora, "id_encoder": adapter.id_encoder}, tmp_path / "photomaker-v1.bin"
    )
    other = read_adapter(tmp_path / "photomaker-v1.bin")
    assert other.version == "v1"
    assert other.encoder_sha256() == adapter.encoder_sha256()
    assert other.lora.keys() == adapter.lora.keys()


def test_the_version_is_told_by_the_keys(adapter, tiny_adapter_v2_file):
    second = read_adapter(tiny_adapter_v2_file)
    sections = {"id_encoder": second.id_encoder, "lora_weights": second.lora}
    assert (adapter.version, second.version, read_adapter(sections).version) == ("v1", "v2", "v2")
    part = {**adapter.id_encoder, "qformer_perceiver.token_norm.weight": torch.ones(8)}
    with pytest.raises(WeightsError, match=r"lacks 'qformer_perceiver.token_proj.0.weight'"):
        read_adapter({"id_encoder": part, "lora_weights": adapter.lora})


def test_a_v2_adapter_is_exported_and_read_again(tiny_adapter_v2_file, tmp_path):
    first = read_adapter(tiny_adapter_v2_file)
    path = export_adapter(tmp_path / "v2.safetensors", first.build_encoder(), first.lora, dtype=None)
    again = read_adapter(path)
    assert (again.version, again.encoder_sha256()) == ("v2", first.encoder_sha256())
    assert again.build_encoder().num_tokens == 2
    assert again.config["resampler_head"] == first.config["resampler_head"]


def test_export_and_read_keep_every_number_and_note(adapter, tmp_path):
    path = export_adapter(
        tmp_path / "out.safetensors",
        adapter.build_encoder(),
        adapter.lora,
        {"defaults": {"merge": 0.1}},
        None,
    )
    again = read_adapter(path)
    assert again.encoder_sha256() == adapter.encoder_sha256()
    assert all(torch.equal(again.lora[name], tensor) for name, tensor in adapter.lora.items())
    assert again.config["defaults"] == {"merge": 0.1}
    assert again.config["num_attention_heads"] == VISION["num_attention_heads"]
    assert [file.name for file in tmp_path.iterdir()] == ["out.safetensors"]


def test_peft_names_become_official_ones_and_alpha_is_folded_in(adapter, tiny_base, tmp_path):
    """A peft LoRA, exported and loaded by stock diffusers, gives the same UNet."""
    from diffusers import StableDiffusionXLPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    unet = tiny_unet().eval()
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    unet.add_adapter(LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules=targets))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in unet.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    inputs = {
        "sample": torch.randn(1, 4, 8, 8, generator=generator),
        "timestep": 500,
        "encoder_hidden_states": torch.randn(1, 77, 80, generator=generator),
        "added_cond_kwargs": {"text_embeds": torch.randn(1, 48), "time_ids": torch.ones(1, 6)},
    }
    path = export_adapter(
        tmp_path / "a.safetensors",
        adapter.id_encoder,
        get_peft_model_state_dict(unet),
        dtype=None,
        lora_scale=2.0,
    )
    lora = read_adapter(path).lora
    assert lora.keys() == adapter.lora.keys()
    stock = StableDiffusionXLPipeline.from_pretrained(tiny_base)
    stock.load_lora_weights(dict(lora), adapter_name="photomaker")
    with torch.no_grad():
        wanted, got = unet(**inputs).sample, stock.unet(**inputs).sample
        stock.disable_lora()
        plain = stock.unet(**inputs).sample
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    assert (plain - wanted).abs().max() > 0.1


def test_a_lora_of_other_layers_is_refused():
    with pytest.raises(WeightsError, match="conv1"):
        official_lora({"down_blocks.0.resnets.0.conv1.lora_A.weight": torch.ones(2, 2)})


def damaged(tensors, kind):
    if kind == "no lora":
        return {name: tensor for name, tensor in tensors.items() if name.startswith("id_encoder.")}
    if kind == "foreign":
        return {"model.weight": torch.ones(3)}
    if kind == "missing tensor":
        return {name: tensor for name, tensor in tensors.items() if not name.endswith("mlp2.fc1.weight")}
    if kind == "no patches":
        return {name: tensor for name, tensor in tensors.items() if "patch_embedding" not in name}
    name = "id_encoder.fuse_module.mlp1.fc1.bias"
    return tensors | {name: torch.full_like(tensors[name], float("nan"))}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("no lora", "no `lora_weights`"),
        ("foreign", "not a PhotoMaker adapter"),
        ("missing tensor", "mlp2.fc1.weight"),
        ("no patches", "patch_embedding"),
        ("nan", "not finite"),
    ],
)
def test_unusable_content_is_one_clear_sentence(tiny_adapter_file, tmp_path, kind, words):
    save_file(damaged(load_file(tiny_adapter_file), kind), tmp_path / "bad.safetensors")
    with pytest.raises(WeightsError, match=words) as caught:
        read_adapter(tmp_path / "bad.safetensors").build_encoder()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.bin", "text.bin", "absent.bin"])
def test_unreadable_files_are_one_clear_sentence(tiny_adapter_file, adapter, tmp_path, name):
    path = tmp_path / name
    if name == "cut.safetensors":
        path.write_bytes(tiny_adapter_file.read_bytes()[:5000])
    elif name == "cut.bin":
        torch.save({"id_encoder": adapter.id_encoder, "lora_weights": adapter.lora}, path)
        path.write_bytes(path.read_bytes()[:5000])
    elif name == "text.bin":
        path.write_text("<html>not found</html>")
    with pytest.raises(WeightsError, match=name):
        read_adapter(path)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"id_encoder": Evil(), "lora_weights": {}}, tmp_path / "evil.bin")
    with pytest.raises(WeightsError, match=r"evil\.bin"):
        read_adapter(tmp_path / "evil.bin")
    assert not (tmp_path / "ran").exists()


def test_config_that_is_no_json_is_refused(tiny_adapter_file, tmp_path):
    save_file(load_file(tiny_adapter_file), tmp_path / "odd.safetensors", metadata={"config": "{"})
    with pytest.raises(WeightsError, match="not JSON"):
        read_adapter(tmp_path / "odd.safetensors")


def test_full_size_has_the_official_tensors():
    """Names, shapes and number of parameters of the released file, without allocating it."""
    from photomaker.encoders import FULL_SIZE, PhotoMakerIDEncoder

    with torch.device("meta"):
        state = PhotoMakerIDEncoder().state_dict()
    assert len(state) == 407
    assert sum(tensor.numel() for tensor in state.values()) == 326_273_024
    assert state["visual_projection_2.weight"].shape == (1280, 1024)
    assert state["fuse_module.mlp1.fc1.weight"].shape == (2048, 4096)
    assert infer_sizes(state) == FULL_SIZE


def test_config_is_noted_as_json(tiny_adapter_file):
    from safetensors import safe_open

    with safe_open(tiny_adapter_file, "pt") as file:
        assert json.loads(file.metadata()["config"])["version"] == "v1"
