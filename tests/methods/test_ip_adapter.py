"""IP-Adapter: every form of the published layout loads, draws, and is taken out again; what does not fit is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers.models.embeddings import IPAdapterPlusImageProjection
from safetensors.torch import load_file, save_file
from tests.tiny import FACE, VISION, WIDTH, tiny_ip_adapter

from photomaker.encoders.ip_adapter import (
    ImageResampler,
    check_fit,
    export_ip_adapter,
    form_of,
    read_ip_adapter,
)
from photomaker.encoders.tower import ImageTower
from photomaker.errors import IdentityError, PhotoError, SettingsError, WeightsError
from photomaker.methods.ip_adapter import IPAdapter
from photomaker.types import Identity, Reference, Request, Sampling

REQUEST = Request("a photo of a man img on the beach", Sampling(steps=2, seed=7))
FORMS = ("base", "plus", "faceid", "faceid-plus")


class Faces:
    """Gives a face embedding that depends on the picture; none of a picture that is all black."""

    def embed(self, photos):
        return [
            None if not np.asarray(photo).any() else np.resize(np.asarray(photo).mean((0, 1)) - 100, FACE)
            for photo in photos
        ]


@pytest.fixture(scope="module")
def references(photos):
    return [Reference(photo, name=f"photo {number}") for number, photo in enumerate(photos)]


@pytest.fixture(scope="module")
def made(tiny_base, tiny_folder, tiny_adapter_file):
    from photomaker.pipelines.drawing.opening import open_pipeline

    def make(form, **settings):
        from diffusers import StableDiffusionXLPipeline

        file = read_ip_adapter(tiny_ip_adapter(tiny_folder, form))
        if form == "faceid-plus":
            file = replace(file, config={"shortcut": settings.pop("shortcut", True)})
        pipeline = open_pipeline(StableDiffusionXLPipeline, tiny_base, torch.float32)
        return IPAdapter(
            pipeline, file, ImageTower.open(tiny_adapter_file) if file.sees else None, Faces(), **settings
        )

    return make


def drawn(method, identity, request=REQUEST):
    return np.array(method.generate(identity, [request])[0]).astype(int)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_draws_the_person_and_leaves_nothing_behind(form, made, references, tmp_path):
    method = made(form)
    unet = method.pipeline.unet
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    kinds = {name: type(one) for name, one in unet.attn_processors.items()}
    one, two = method.fit(references[:1]), method.fit(references[1:4])
    pictures = [drawn(method, one), drawn(method, two)]
    assert np.abs(pictures[0] - pictures[1]).max() > 5
    loaded = Identity.load(two.save(tmp_path / "two.safetensors"))
    assert np.array_equal(drawn(method, loaded), pictures[1])
    off = drawn(method, method.fit(references[:2], weights=[0, 0]))
    assert np.array_equal(off, drawn(made(form, scale=0.0), one))
    late = replace(REQUEST, sampling=replace(REQUEST.sampling, merge=1.0))
    assert np.array_equal(off, drawn(method, one, late))
    assert not np.array_equal(off, pictures[0])
    after = unet.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert kinds == {name: type(one) for name, one in unet.attn_processors.items()}
    assert unet.encoder_hid_proj is None and unet.config.encoder_hid_dim_type is None
    weights = {name: one for name, one in method.processors.items()}
    with pytest.raises(RuntimeError, match="in the middle"):
        hook = unet.mid_block.register_forward_pre_hook(_fail)
        try:
            drawn(method, one)
        finally:
            hook.remove()
    assert unet.encoder_hid_proj is None and not set(weights.values()) & set(unet.attn_processors.values())
    assert np.array_equal(drawn(method, one), pictures[0])
    assert np.array_equal(off, drawn(method, two, late))


def _fail(*_):
    raise RuntimeError("in the middle")


def test_the_scale_and_the_merge_step_weigh_the_photos(made, references):
    full, half = made("base"), made("base", scale=0.5)
    identity = full.fit(references[:1])
    off = drawn(full, full.fit(references[:1], weights=[0]))
    strong, weak = (np.abs(drawn(one, identity) - off).mean() for one in (full, half))
    assert strong > weak > 0
    late = replace(REQUEST, sampling=replace(REQUEST.sampling, merge=0.5))
    assert 0 < np.abs(drawn(full, identity, late) - off).mean() < strong


def test_several_photos_are_a_mean_or_tokens_side_by_side(made, references):
    mean, tokens = made("base"), made("base", combine="tokens")
    alike = mean.fit([references[0]] * 3)
    single = mean.fit(references[:1])
    assert np.abs(drawn(mean, alike) - drawn(mean, single)).max() <= 1
    several = mean.fit(references[:3])
    assert not np.array_equal(drawn(mean, several), drawn(tokens, several))
    weighed = mean.fit(references[:2], weights=[1, 0])
    assert np.abs(drawn(mean, weighed) - drawn(mean, single)).max() <= 1


def test_version_two_of_faceid_plus_takes_the_shortcut(made, references):
    first, second = made("faceid-plus", shortcut=False), made("faceid-plus")
    identity = first.fit(references[:2])
    assert not np.array_equal(drawn(first, identity), drawn(second, identity))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_draws_with_guidance_in_a_part_of_the_steps(made, references, form):
    method = made(form)
    identity = method.fit(references[:2])
    first, second, third = (
        drawn(method, identity, replace(REQUEST, sampling=Sampling(steps=3, seed=5, **one)))
        for one in ({"guidance": 1.0}, {"guidance": 4.0, "guidance_stop": 0.0}, {"guidance": 4.0, "guidance_stop": 0.5})
    )  # fmt: skip
    np.testing.assert_allclose(first, second, atol=1)
    assert not np.array_equal(second, third)


def test_the_resampler_here_and_that_of_diffusers_are_the_same(tiny_folder):
    file = read_ip_adapter(tiny_ip_adapter(tiny_folder, "plus"))
    own = ImageResampler(VISION["hidden_size"], WIDTH, 3, 64)
    own.load_state_dict(dict(file.image_proj))
    from diffusers.loaders.unet import UNet2DConditionLoadersMixin

    convert = UNet2DConditionLoadersMixin._convert_ip_adapter_image_proj_to_diffusers
    other = convert(None, dict(file.image_proj), low_cpu_mem_usage=False)
    assert isinstance(other, IPAdapterPlusImageProjection)
    tokens = torch.randn(2, 5, VISION["hidden_size"], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(own(tokens), other(tokens), atol=1e-4, rtol=1e-4)


def test_an_export_is_read_back_and_a_bin_is_read(tiny_folder, tmp_path):
    file = read_ip_adapter(tiny_ip_adapter(tiny_folder, "plus"))
    own = ImageResampler(VISION["hidden_size"], WIDTH, 3, 64)
    own.load_state_dict(dict(file.image_proj))
    numbers = sorted({int(name.split(".")[0]) for name in file.ip_adapter})
    weights = {
        number: tuple(file.ip_adapter[f"{number}.to_{part}_ip.weight"] for part in "kv") for number in numbers
    }
    again = read_ip_adapter(
        export_ip_adapter(tmp_path / "one.safetensors", own, weights, {"crop": 0.0}, None)
    )
    assert again.form == "plus" and again.config == {"crop": 0.0, "form": "plus"}
    assert again.ip_adapter.keys() == file.ip_adapter.keys()
    assert all(torch.equal(again.image_proj[name], file.image_proj[name]) for name in file.image_proj)
    torch.save(file.sections(), tmp_path / "ip-adapter.bin")
    assert read_ip_adapter(tmp_path / "ip-adapter.bin").form == "plus"


def test_what_does_not_fit_is_refused_in_one_sentence(made, references, tiny_folder, tmp_path, photos):
    base = tiny_ip_adapter(tiny_folder)
    tensors = load_file(base)
    other = {name: tensor for name, tensor in tensors.items() if not name.startswith("ip_adapter.1.")}
    save_file(other, tmp_path / "holes.safetensors")
    unet = made("base").pipeline.unet
    with pytest.raises(WeightsError, match="is missing, but the base model's layer is"):
        check_fit(read_ip_adapter(tmp_path / "holes.safetensors"), unet)
    save_file({"image_proj.proj.weight": torch.ones(2, 2)}, tmp_path / "half.safetensors")
    with pytest.raises(WeightsError, match="no `ip_adapter` weights"):
        read_ip_adapter(tmp_path / "half.safetensors")
    with pytest.raises(WeightsError, match="no known IP-Adapter form"):
        form_of({"something": torch.ones(1)})
    method = made("base")
    with pytest.raises(IdentityError, match="made by photomaker-v1"):
        method.generate(replace(method.fit(references[:1]), method="photomaker-v1"), [REQUEST])
    for wrong in ({"scale": -1.0}, {"combine": "sum"}, {"batch_size": 0}):
        with pytest.raises(SettingsError):
            made("base", **wrong)
    with pytest.raises(SettingsError, match="give tokens for the plus form"):
        made("plus", combine="mean")
    dark = Reference(photos[0].point(lambda _: 0), name="dark")
    with pytest.raises(PhotoError, match="no face was found in photo 2"):
        made("faceid").fit([references[0], dark])
    bundled = made("faceid")
    bundled.faces = "bundled"
    with pytest.raises(PhotoError, match="needs a face in every photo, but photo photo 0 has none"):
        bundled.fit(references[:1])
