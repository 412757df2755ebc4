"""PuLID: the published layouts load, its attention is the published formula in each mode, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from PIL import Image
from safetensors.torch import load_file, save_file
from tests import tiny

from photomaker.encoders.pulid import FormerSizes, IDEncoder, IDFormer, read_pulid
from photomaker.errors import IdentityError, PhotoError, SettingsError, WeightsError
from photomaker.pipelines.attention.id_attention import MODES, IDAttention
from photomaker.types import Reference, Request, Sampling

REQUEST = Request("a photo of a man img on the beach", Sampling(steps=3, seed=7))
# of pulid_v1.1.safetensors and pulid_v1.bin: names of the ID encoder's tensors and their shapes


def mapped(prefix, first, second, third, last):
    shapes = {0: (second, first), 1: (second,), 3: (third, second), 4: (third,), 6: (last, third)}
    return {f"{prefix}.{at}.{part}": shape[:1] if part == "bias" else shape
            for at, shape in shapes.items() for part in ("weight", "bias")}  # fmt: skip


def published(version):
    if version == 1:
        names = mapped("body", 1280, 1024, 1024, 2048 * 5)
        for scale in range(5):
            names |= mapped(f"mapping_{scale}", 1024, 1024, 1024, 2048)
            names |= mapped(f"mapping_patch_{scale}", 1024, 1024, 1024, 2048)
        return names
    names = {"latents": (1, 32, 1024), "proj_out": (1024, 2048)}
    names |= mapped("id_embedding_mapping", 1280, 1024, 1024, 1024 * 5)
    for scale in range(5):
        names |= mapped(f"mapping_{scale}", 1024, 1024, 1024, 1024)
    for layer in range(10):
        both = (1024,)
        names |= {f"layers.{layer}.0.norm{n}.{part}": both for n in (1, 2) for part in ("weight", "bias")}
        names |= {f"layers.{layer}.0.to_{n}.weight": (1024, 1024) for n in ("q", "out")}
        names |= {f"layers.{layer}.0.to_kv.weight": (2048, 1024)}
        names |= {f"layers.{layer}.1.0.{part}": both for part in ("weight", "bias")}
        names |= {f"layers.{layer}.1.1.weight": (4096, 1024), f"layers.{layer}.1.3.weight": (1024, 4096)}
    return names


@pytest.mark.parametrize(("version", "kind"), [(1, IDEncoder), (2, lambda: IDFormer(FormerSizes()))])
def test_the_encoders_have_the_names_and_shapes_of_the_published_files(version, kind):
    with torch.device("meta"):
        made = {name: tuple(one.shape) for name, one in kind().state_dict().items()}
    assert made == published(version)


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_in_the_published_layout_is_built_from_its_shapes_alone(version, tmp_path):
    file = read_pulid(tiny.tiny_pulid(tmp_path, version))
    state = file.build_encoder().state_dict()
    assert state.keys() == file.id_adapter.keys()
    assert all(torch.equal(state[name], file.id_adapter[name]) for name in state)
    assert (file.embed_width, file.scales) == (tiny.FACE + tiny.VISION["hidden_size"], 2)


def test_the_former_by_hand():
    """One layer a scale: latents and the person's tokens ask what is seen and themselves."""
    sizes = FormerSizes(6, 5, 2, 64, 8, 2, 3, 2, 7)
    torch.manual_seed(0)
    former = IDFormer(sizes).eval()
    embeds, layers = torch.randn(2, 6), torch.randn(2, 2, 4, 5)
    person = former.id_embedding_mapping(embeds).reshape(2, 2, 64)
    rows = torch.cat([former.latents.repeat(2, 1, 1), person], 1)
    for scale in range(2):
        seen = torch.cat([person, getattr(former, f"mapping_{scale}")(layers[:, scale])], 1)
        attention, feed = former.layers[scale]
        asked, looked = attention.norm2(rows), attention.norm1(seen)
        key, value = attention.to_kv(torch.cat([looked, asked], 1)).chunk(2, -1)
        shares = (attention.to_q(asked) @ key.transpose(1, 2) / 64**0.5).softmax(-1)
        rows = attention.to_out(shares @ value) + rows
        rows = feed(rows) + rows
    torch.testing.assert_close(former(embeds, layers), rows[:, :3] @ former.proj_out, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", sorted(MODES))
def test_the_attention_by_hand(mode):
    torch.manual_seed(0)
    layer = Attention(query_dim=8, cross_attention_dim=6, heads=2, dim_head=4).eval()
    ours = IDAttention(6, 8)
    ours.mode, ours.scale, ours.tokens = MODES[mode], 0.7, torch.randn(3, 7, 6)
    places, words = torch.randn(2, 9, 8), torch.randn(2, 5, 6)

    def heads(rows):
        return rows.reshape(2, -1, 2, 4).permute(0, 2, 1, 3)

    def attend(query, key, value):
        return ((query @ key.mT / 2).softmax(-1) @ value).permute(0, 2, 1, 3).reshape(2, -1, 8)

    query = heads(layer.to_q(places))
    text = attend(query, heads(layer.to_k(words)), heads(layer.to_v(words)))
    tokens = torch.cat([ours.tokens[1:], torch.zeros(2, ours.mode.zeros, 6)], 1)
    key = heads(ours.id_to_k(tokens))
    person = attend(query, key, heads(ours.id_to_v(tokens)))
    along = (text * person).sum(-2, keepdim=True) / (text * text).sum(-2, keepdim=True) * text
    seen = (query @ key.mT).softmax(-1).mean(1)[:, :, :5].sum(-1, keepdim=True)
    more = {"plain": person, "style": person - along, "fidelity": person + (seen - 1) * along}[mode]
    wanted = layer.to_out[0](text + 0.7 * more)
    torch.testing.assert_close(ours(layer, places, words), wanted, atol=1e-5, rtol=1e-4)
    ours.scale = 0.0
    assert torch.equal(ours(layer, places, words), AttnProcessor2_0()(layer, places, words))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pulid")


@pytest.fixture(scope="module")
def base(folder):
    return tiny.tiny_pipeline(folder)


@pytest.fixture(scope="module")
def method(base, folder):
    return tiny.open_tiny_pulid(base, folder)


def reference(seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    return Reference(Image.fromarray(pixels))


def drawn(method, person, **changes):
    request = replace(REQUEST, sampling=replace(REQUEST.sampling, **changes))
    return np.asarray(method.generate(person, [request])[0]).astype(int)


@pytest.mark.parametrize("mode", sorted(MODES))
def test_every_mode_draws_and_a_scale_of_0_is_the_text_alone(base, folder, mode, method):
    person = method.fit([reference(1)])
    own = tiny.open_tiny_pulid(base, folder, mode=mode)
    off = tiny.open_tiny_pulid(base, folder, mode=mode, scale=0.0)
    text = drawn(off, person)
    assert np.array_equal(text, drawn(own, person, merge=1.0))
    assert np.abs(drawn(own, person) - text).max() > 2


def test_photos_are_averaged_by_their_weights(method):
    one, two = (method.fit([reference(seed)]).tensors["id_features"] for seed in (1, 2))
    both = method.fit([reference(1), reference(2)], weights=[3, 1])
    tokens = method._tokens(both, 2, True)
    torch.testing.assert_close(tokens[2:], (0.75 * one + 0.25 * two).repeat(2, 1, 1))
    assert torch.equal(tokens[0], tokens[1]) and not torch.equal(tokens[0], tokens[2])


def test_the_first_version_draws_too(base, folder):
    method = tiny.open_tiny_pulid(base, folder, adapter=tiny.tiny_pulid(folder, 1))
    person = method.fit([reference(1)])
    assert np.abs(drawn(method, person) - drawn(method, person, merge=1.0)).max() > 2
    assert person.notes["face_models"] == "fake"


def test_a_photo_without_a_face_and_a_person_of_another_file(method, base, folder):
    with pytest.raises(PhotoError, match="no face was found in photo 2"):
        method.fit([reference(1), Reference(Image.new("RGB", (32, 32)))])
    first = tiny.open_tiny_pulid(base, folder, adapter=tiny.tiny_pulid(folder, 1))
    with pytest.raises(IdentityError, match="another PuLID file"):
        first.generate(method.fit([reference(1)]), [REQUEST])


def changed(source, target, change, config=None):
    tensors = load_file(source)
    save_file(change(tensors), target, metadata={"config": json.dumps(config)} if config else None)
    return target


def test_files_that_are_not_it(base, folder, tmp_path):
    own = tiny.tiny_pulid(folder)
    cases = [
        (tiny.tiny_ip_adapter(folder), "is not a PuLID file: it holds image_proj, ip_adapter"),
        (tiny.tiny_adapter(folder), "is not a PuLID file"),
        (changed(own, tmp_path / "flux.safetensors", lambda _: {"pulid_ca.0.x": torch.ones(1)}), "is PuLID for FLUX"),
    ]  # fmt: skip
    for path, said in cases:
        with pytest.raises(WeightsError, match=said):
            read_pulid(path)

    def other_base(tensors):
        return {name: one[:, :8].clone() if "id_to_k" in name else one for name, one in tensors.items()}

    def cut(tensors):
        return {name: one for name, one in tensors.items() if "layers.1.1.3" not in name}

    config = {"layers": [-1, -2], "recogniser": "fake"}
    for change, said in ((other_base, "has shape .* but the base model's layer"), (cut, "cannot be built")):
        file = changed(own, tmp_path / "changed.safetensors", change, config)
        with pytest.raises(WeightsError, match=said):
            tiny.open_tiny_pulid(base, folder, adapter=file)
    plain = changed(own, tmp_path / "published.safetensors", dict)
    with pytest.raises(WeightsError, match="EVA02-CLIP-L-14-336, which this package does not have"):
        tiny.open_tiny_pulid(base, folder, adapter=plain, image_encoder=None)
    with pytest.raises(WeightsError, match="reads 2 layers of width"):
        tiny.open_tiny_pulid(base, folder, adapter=plain)
    with pytest.raises(SettingsError, match="'loud'"):
        tiny.open_tiny_pulid(base, folder, mode="loud")
    with pytest.raises(SettingsError, match="scale is 9"):
        tiny.open_tiny_pulid(base, folder, scale=9)
