"""Published checkpoints: files in exactly the layout of their makers load, and what is exported others load."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from photomaker.errors import IdentityError, PhotoMakerError, WeightsError
from photomaker.methods.custom_diffusion import CustomDiffusion
from photomaker.methods.dreambooth import DreamBooth
from photomaker.methods.hypernetwork import Hypernetwork, NetworkShape, TokenNetwork, context_widths
from photomaker.methods.lora import Lora
from photomaker.methods.textual_inversion import TextualInversion
from photomaker.training.recipes.tuning import PriorSettings, TuningSettings
from photomaker.types import Reference, Request, Sampling

REQUEST = Request("a photo of a man img on the beach", Sampling(steps=2, seed=7))
QUICK = TuningSettings(steps=2, lr=1e-2, batch_size=2)
NO_PRIOR = PriorSettings(pictures=0)


@pytest.fixture(scope="module")
def reference(photos):
    return [Reference(photos[0], name="photo")]


def opened(method, base, **settings):
    return method.open(base, device="cpu", settings=replace(method.small, tuning=QUICK, **settings))


def stock(base):
    pipe = StableDiffusionXLPipeline.from_pretrained(base, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def picture(method, identity, **more):
    return np.array(method.generate(identity, [REQUEST], **more)[0]).astype(int)


def stock_picture(pipe, prompt):
    drawn = pipe(
        prompt, num_inference_steps=2, guidance_scale=5.0, generator=torch.Generator().manual_seed(7)
    )
    return np.array(drawn.images[0]).astype(int)


# ---- LoRA


@pytest.fixture(scope="module")
def lora(tiny_base):
    return opened(Lora, tiny_base)


def lora_layers(pipe, rank=3, every="attn2.to_k"):
    """Random down and up matrices of some layers of the UNet and of both text encoders."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    text = ("q_proj", "out_proj")  # by the latter diffusers knows the layout of a text encoder's part
    for part, endings in (("unet", every), ("text_encoder", text), ("text_encoder_2", text)):
        for name, layer in getattr(pipe, part).named_modules():
            if name.endswith(endings):
                down = torch.randn(rank, layer.in_features, generator=generator)
                up = 0.3 * torch.randn(layer.out_features, rank, generator=generator)
                found[f"{part}.{name}"] = (down, up)
    return found


def test_a_lora_of_diffusers_layout_loads_and_draws_what_diffusers_draws(lora, tiny_base, tmp_path):
    layers = lora_layers(lora.pipeline)
    state = {f"{name}.lora_A.weight": down for name, (down, _) in layers.items()}
    state |= {f"{name}.lora_B.weight": up for name, (_, up) in layers.items()}
    save_file(state, tmp_path / "pytorch_lora_weights.safetensors", metadata={"format": "pt"})
    identity = lora.load_published(tmp_path / "pytorch_lora_weights.safetensors", token="ohwx")
    assert all(torch.equal(identity.tensors[name], one) for name, one in state.items())
    other = stock(tiny_base)
    other.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.safetensors")
    expected = stock_picture(other, "a photo of a ohwx man on the beach")
    assert np.abs(picture(lora, identity) - expected).max() <= 1


def test_a_lora_of_kohya_s_layout_loads_with_its_alpha(lora, tiny_base, tmp_path):
    state = {}
    for name, (down, up) in lora_layers(lora.pipeline).items():
        part, _, layer = name.partition(".")
        inside = "text_model." if part == "text_encoder" and not layer.startswith("text_model") else ""
        called = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}[part]
        key = f"{called}_{(inside + layer).replace('.', '_')}"
        state |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
        state[f"{key}.alpha"] = torch.tensor(1.5)
    path = tmp_path / "kohya.safetensors"
    save_file(state, path)
    identity = lora.load_published(path)
    for name, (down, up) in lora_layers(lora.pipeline).items():
        assert torch.allclose(identity.tensors[f"{name}.lora_A.weight"], down)
        assert torch.allclose(identity.tensors[f"{name}.lora_B.weight"], up * 0.5)  # alpha 1.5 at rank 3
    other = stock(tiny_base)
    other.load_lora_weights(path)
    assert np.abs(picture(lora, identity) - stock_picture(other, "a photo of a man on the beach")).max() <= 1


def test_an_exported_lora_is_read_by_diffusers(lora, reference, tiny_base, tmp_path):
    identity = lora.fit(reference)
    path = lora.export(identity, tmp_path)
    assert path.name == "pytorch_lora_weights.safetensors"
    assert all(name.startswith("unet.") and "lora_" in name for name in load_file(path))
    other = stock(tiny_base)
    other.load_lora_weights(path)
    drawn = stock_picture(other, "a photo of a sks man on the beach")
    assert np.abs(picture(lora, identity) - drawn).max() <= 1
    again = lora.load_published(path, token="sks")
    assert np.array_equal(picture(lora, again), picture(lora, identity))


# ---- DreamBooth


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_a_tuned_pipeline_s_folder_loads(tiny_base, tmp_path, precision):
    """What the diffusers script leaves: a whole pipeline, of which the UNet differs."""
    tuned = stock(tiny_base)
    with torch.no_grad():
        for number, parameter in enumerate(tuned.unet.parameters()):
            generator = torch.Generator().manual_seed(number)
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    tuned.save_pretrained(tmp_path / "tuned")
    method = opened(DreamBooth, tiny_base, precision=precision)
    pictures = [
        picture(method, method.load_published(place))
        for place in (
            tmp_path / "tuned",
            tmp_path / "tuned" / "unet",
            tmp_path / "tuned" / "unet" / "diffusion_pytorch_model.safetensors",
        )
    ]
    expected = stock_picture(tuned, "a photo of a sks man on the beach")
    allowed = {"fp32": 1, "fp16": 8}[precision]
    assert all(np.abs(one - expected).max() <= allowed for one in pictures)
    assert np.abs(expected - stock_picture(stock(tiny_base), "a photo of a sks man on the beach")).max() > 20


def test_an_exported_unet_is_read_by_diffusers(tiny_base, reference, tmp_path):
    from diffusers import UNet2DConditionModel

    method = opened(DreamBooth, tiny_base, prior=NO_PRIOR)
    identity = method.fit(reference)
    method.export(identity, tmp_path / "unet")
    other = stock(tiny_base)
    other.unet = UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    drawn = stock_picture(other, "a photo of a sks man on the beach")
    assert np.abs(picture(method, identity) - drawn).max() <= 1
    assert {one.dtype for one in identity.tensors.values()} == {torch.float16}


def test_dreambooth_as_lora_goes_out_and_in(tiny_base, reference, tmp_path):
    method = opened(DreamBooth, tiny_base, prior=NO_PRIOR, kind="lora")
    identity = method.fit(reference)
    method.export(identity, tmp_path)
    again = method.load_published(tmp_path)
    assert again.notes["kind"] == "lora"
    assert np.array_equal(picture(method, again), picture(method, identity))


def test_the_prior_changes_what_is_learned(tiny_base, reference):
    with_prior = opened(DreamBooth, tiny_base, prior=PriorSettings(pictures=2, steps=1), kind="lora")
    without = opened(DreamBooth, tiny_base, prior=NO_PRIOR, kind="lora")
    one, other = with_prior.fit(reference), without.fit(reference)
    assert any(not torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)


# ---- Textual Inversion


@pytest.fixture(scope="module")
def inversion(tiny_base):
    return opened(TextualInversion, tiny_base)


def words(rows=2):
    generator = torch.Generator().manual_seed(4)
    return {
        "clip_l": torch.randn(rows, 32, generator=generator),
        "clip_g": torch.randn(rows, 48, generator=generator),
    }


def test_a_word_in_one_file_loads(inversion, tmp_path):
    save_file(words(), tmp_path / "learned_embeds.safetensors")
    torch.save(words(), tmp_path / "learned_embeds.bin")
    for name in ("learned_embeds.safetensors", "learned_embeds.bin"):
        identity = inversion.load_published(tmp_path / name, token="<her>")
        assert identity.notes["token"] == "<her>"
        assert all(torch.equal(identity.tensors[key], one) for key, one in words().items())
    assert picture(inversion, identity).std() > 1


def test_the_pair_of_files_of_the_diffusers_script_loads(inversion, tmp_path):
    save_file({"<ada>": words(1)["clip_l"]}, tmp_path / "learned_embeds.safetensors")
    save_file({"<ada>": words(1)["clip_g"]}, tmp_path / "learned_embeds_2.safetensors")
    identity = inversion.load_published(tmp_path)
    assert identity.notes["token"] == "<ada>"
    assert torch.equal(identity.tensors["clip_g"], words(1)["clip_g"])


def test_prompts_are_encoded_as_diffusers_encodes_them(inversion, tiny_base, reference, tmp_path):
    """The exported file, put in by diffusers' own loader, gives the same prompt embeddings."""
    identity = inversion.fit(reference)
    state = load_file(inversion.export(identity, tmp_path / "ada.safetensors"))
    other = stock(tiny_base)
    for key, place in (("clip_l", ""), ("clip_g", "_2")):
        other.load_textual_inversion(
            state[key],
            token="<id>",
            text_encoder=getattr(other, f"text_encoder{place}"),
            tokenizer=getattr(other, f"tokenizer{place}"),
        )
    prompt = "a photo of a <id> on the beach"
    with torch.no_grad():
        expected = other.encode_prompt(prompt, device="cpu", do_classifier_free_guidance=False)[0]
    found = inversion.prompted(identity, [prompt])["prompt_embeds"]
    assert torch.allclose(found, expected, atol=1e-5)


def test_the_pooled_embedding_is_taken_at_the_end_mark(inversion, tiny_base):
    """Words behind the new one reach it, though an encoder may take it at the largest token id."""
    identity = inversion.identity(words(), {"token": "<id>"})
    one, other = inversion.prompted(identity, ["a <id> in the snow", "a <id> on the beach"])[
        "pooled_prompt_embeds"
    ]
    assert not torch.allclose(one, other)


def test_only_the_rows_are_learned_and_start_at_the_class_word(tiny_base, reference):
    method = opened(TextualInversion, tiny_base, rows=3, spread=0.0)
    method.settings = replace(method.settings, tuning=replace(QUICK, lr=1e-9, weight_decay=0.0))
    identity = method.fit(reference, notes={"class_word": "old woman"})
    table = method.pipeline.text_encoder.get_input_embeddings().weight
    number = method.pipeline.tokenizer("woman", add_special_tokens=False)["input_ids"]
    assert torch.allclose(identity.tensors["clip_l"], table[number].expand(3, -1), atol=1e-6)


# ---- Custom Diffusion


def test_a_delta_of_custom_diffusion_loads_and_goes_out_again(tiny_base, reference, tmp_path):
    method = opened(CustomDiffusion, tiny_base, prior=NO_PRIOR)
    changed = stock(tiny_base)
    with torch.no_grad():
        tuned = {
            name: one.add_(0.1 * torch.sin(torch.arange(one.numel()).view(one.shape))).clone()
            for name, one in changed.unet.named_parameters()
            if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
        }
    rows = [words(1)["clip_l"][0], words(1)["clip_g"][0]]
    torch.save({"unet": tuned, "modifier_token": {"<new1>": rows}}, tmp_path / "delta.bin")
    identity = method.load_published(tmp_path / "delta.bin")
    prompted = method.prompted(identity, ["a photo of a <new1> man on the beach"])
    drawn = changed(
        **prompted, num_inference_steps=2, guidance_scale=5.0, generator=torch.Generator().manual_seed(7)
    )
    assert np.abs(picture(method, identity) - np.array(drawn.images[0]).astype(int)).max() <= 1
    again = method.load_published(method.export(identity, tmp_path / "again.bin"))
    assert all(torch.allclose(again.tensors[name], identity.tensors[name]) for name in identity.tensors)
    fitted = method.fit(reference)
    assert {name.split(".")[-2] for name in fitted.tensors if name.startswith("unet.")} == {"to_k", "to_v"}


# ---- hypernetworks


@pytest.fixture(scope="module")
def hyper(tiny_base):
    return opened(Hypernetwork, tiny_base)


def hyper_file(path, width, shape, pair=tuple, **more):
    """A file as A1111 writes it, of two random networks."""
    torch.manual_seed(0)
    both = [TokenNetwork(width, shape) for _ in range(2)]
    for network in both:
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    content = {width: pair(network.state_dict() for network in both)}
    notes = {name: value for name, value in shape.notes().items() if name != "norm_last"}
    content |= notes | {"step": 10, "name": "ada", "sd_checkpoint": "abc", "optional_info": None} | more
    torch.save(content, path)
    return both


def test_a_file_of_a1111_loads_and_acts_on_keys_and_values(hyper, tiny_base, tmp_path):
    """Against the formula, by hand: the networks put into the layers' weights, for a linear one that is exact."""
    width = int(hyper.pipeline.unet.config.cross_attention_dim)
    both = hyper_file(tmp_path / "ada.pt", width, NetworkShape())
    identity = hyper.load_published(tmp_path / "ada.pt")
    assert identity.notes["published"] == "ada"
    other = stock(tiny_base)
    with torch.no_grad():
        for attention in other.unet.modules():
            if getattr(attention, "to_k", None) is None or attention.to_k.in_features != width:
                continue
            for layer, network in zip((attention.to_k, attention.to_v), both, strict=True):
                first, second = network.linear
                inner = torch.eye(width) + second.weight @ first.weight
                shift = second.weight @ first.bias + second.bias
                layer.bias = torch.nn.Parameter(layer.weight @ shift)
                layer.weight.copy_(layer.weight @ inner)
    expected = stock_picture(other, "a photo of a man on the beach")
    assert np.abs(picture(hyper, identity) - expected).max() <= 1
    assert np.abs(picture(hyper, identity, weight=0.0) - expected).max() > 20


@pytest.mark.parametrize(
    "shape",
    [
        NetworkShape((1, 2, 2, 1), "swish", True, False, (0.0, 0.1, 0.1, 0.0)),
        NetworkShape((1, 2, 1), "relu", True, True, norm_last=False),
        NetworkShape((1, 1.5, 1), "tanh"),
    ],
)
def test_files_of_other_structures_load(hyper, tmp_path, shape):
    hyper_file(tmp_path / "ada.pt", 32, shape)
    identity = hyper.load_published(tmp_path / "ada.pt")
    loaded = NetworkShape.noted(identity.notes)
    assert (loaded.layer_structure, loaded.activation_func) == (shape.layer_structure, shape.activation_func)
    assert np.array_equal(picture(hyper, identity), picture(hyper, identity))  # no dropout while drawing


def legacy(width):
    torch.manual_seed(1)
    return {
        "linear1.weight": 0.1 * torch.randn(2 * width, width), "linear1.bias": torch.zeros(2 * width),
        "linear2.weight": 0.1 * torch.randn(width, 2 * width), "linear2.bias": torch.ones(width) * 0.1,
    }  # fmt: skip


def test_the_first_files_load_which_say_nothing_of_their_structure(hyper, tmp_path):
    """NovelAI's pairs, and kohya's, which are lists; widths that the base has not are left unused."""
    torch.save({width: (legacy(width), legacy(width)) for width in (320, 80)}, tmp_path / "nai.pt")
    torch.save({width: [legacy(width), legacy(width)] for width in (320, 80)}, tmp_path / "kohya.pt")
    one, other = (hyper.load_published(tmp_path / name) for name in ("nai.pt", "kohya.pt"))
    assert torch.equal(one.tensors["80.v.linear.1.weight"], legacy(80)["linear2.weight"])
    assert np.array_equal(picture(hyper, one), picture(hyper, other))


def test_an_exported_hypernetwork_has_a1111_s_layout(hyper, reference, tmp_path):
    identity = hyper.fit(reference)
    content = torch.load(hyper.export(identity, tmp_path / "ada.pt"), weights_only=True)
    widths = [key for key in content if isinstance(key, int)]
    assert widths == context_widths(hyper.pipeline.unet)
    assert all(isinstance(content[width], tuple) and len(content[width]) == 2 for width in widths)
    assert sorted(content[widths[0]][0]) == [
        "linear.0.bias", "linear.0.weight", "linear.1.bias", "linear.1.weight",
    ]  # fmt: skip
    assert {"step", "name", "layer_structure", "activation_func", "is_layer_norm"} <= content.keys()
    again = hyper.load_published(tmp_path / "ada.pt")
    assert np.array_equal(picture(hyper, again), picture(hyper, identity))


# ---- what is no such file


def test_foreign_files_are_told_in_one_sentence(lora, inversion, hyper, tiny_base, tmp_path):
    booth = opened(DreamBooth, tiny_base)
    save_file({"a.weight": torch.zeros(2, 2)}, tmp_path / "foreign.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"nothing")
    torch.save({"a": 1}, tmp_path / "foreign.pt")
    torch.save({320: (legacy(320), legacy(320))}, tmp_path / "other.pt")
    torch.save({80: (legacy(80),)}, tmp_path / "half.pt")
    torch.save({80: ({"x.y": torch.zeros(1)}, {})}, tmp_path / "names.pt")
    save_file({"clip_l": torch.zeros(1, 768), "clip_g": torch.zeros(1, 1280)}, tmp_path / "wide.safetensors")
    (tmp_path / "empty").mkdir()
    cases = [
        (method, tmp_path / name)
        for method in (lora, booth, inversion)
        for name in ("missing.safetensors", "foreign.safetensors", "damaged.safetensors")
    ]
    cases += [
        (hyper, tmp_path / name) for name in ("missing.pt", "foreign.pt", "other.pt", "half.pt", "names.pt")
    ]
    cases += [(hyper, tmp_path / "damaged.safetensors"), (inversion, tmp_path / "wide.safetensors")]
    cases += [(booth, tmp_path / "empty"), (inversion, tmp_path / "empty")]
    for method, place in cases:
        with pytest.raises((IdentityError, WeightsError)) as caught:
            method.load_published(place)
        assert isinstance(caught.value, PhotoMakerError) and "\n" not in str(caught.value), place


def test_a_pickle_that_runs_code_is_not_run(hyper, tmp_path):
    class Bad:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({80: (Bad(), Bad())}, tmp_path / "bad.pt")
    with pytest.raises(WeightsError, match="holds more than tensors"):
        hyper.load_published(tmp_path / "bad.pt")
