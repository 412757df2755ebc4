"""One contract for every personalisation method (tiny random weights)."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tiny import (
    open_tiny_instantid,
    open_tiny_pulid,
    tiny_adapter,
    tiny_anydoor,
    tiny_dino,
    tiny_fastcomposer,
    tiny_flashface,
    tiny_ip_adapter,
    tiny_photoverse,
)

from photomaker.errors import PhotoError, PhotoMakerError, SettingsError
from photomaker.methods.base import Method, Need
from photomaker.registry import find, names
from photomaker.types import (
    EXTRAS,
    Extras,
    Identity,
    Lora,
    Pose,
    Reference,
    Request,
    Sampling,
    Shortcuts,
    Start,
    Structure,
    StylePicture,
)

WHITE = Image.new("L", (64, 64), "white")
SCENE = Extras(start=Start(Image.effect_noise((64, 64), 90).convert("RGB"), mask=WHITE))
REQUEST = Request("a photo of a man img on the beach", Sampling(steps=3, seed=7))
OTHER = Request("a sketch of an old woman wearing a red hat", Sampling(steps=3, seed=8))


def open_photomaker(base, folder):
    return find("method", "photomaker").open(base, tiny_adapter(folder), device="cpu")


def open_ip_adapter(base, folder):
    file = tiny_ip_adapter(folder)
    return find("method", "ip_adapter").open(base, file, device="cpu", image_encoder=tiny_adapter(folder))


def open_fastcomposer(base, folder):
    return find("method", "fastcomposer").open(base, tiny_fastcomposer(folder), device="cpu")


def open_photoverse(base, folder):
    file = tiny_photoverse(folder)
    return find("method", "photoverse").open(base, file, device="cpu", image_encoder=tiny_adapter(folder))


def open_instantid(base, folder):
    return open_tiny_instantid(base, folder)


def open_flashface(base, folder):
    file = tiny_flashface(folder, {"crop": 0, "side": 32})
    return find("method", "flashface").open(base, file, device="cpu")


def open_anydoor(base, folder):
    file = tiny_anydoor(folder, {"zoom": 0.0})
    return find("method", "anydoor").open(base, file, device="cpu", image_encoder=tiny_dino(folder))


def tuned(name, **more):
    """Opens a method that is tuned per person, for a few steps that change much."""

    def opener(base, _folder):
        from photomaker.training.recipes.tuning import TuningSettings

        method = find("method", name)
        tuning = TuningSettings(steps=3, lr=1e-2, batch_size=2)
        return method.open(base, device="cpu", settings=replace(method.small, tuning=tuning, **more))

    return opener


def with_prior(name, **more):
    def opener(base, folder):
        from photomaker.training.recipes.tuning import PriorSettings

        return tuned(name, prior=PriorSettings(pictures=2, steps=1), **more)(base, folder)

    return opener


# name in the registry, and a variant behind a blank -> how it is opened on the tiny model
OPENERS = {
    "photomaker": open_photomaker,
    "ip_adapter": open_ip_adapter,
    "fastcomposer": open_fastcomposer,
    "photoverse": open_photoverse,
    "instantid": open_instantid,
    "pulid": open_tiny_pulid,
    "flashface": open_flashface,
    "anydoor": open_anydoor,
    "dreambooth": with_prior("dreambooth", kind="full"),
    "dreambooth lora": with_prior("dreambooth", kind="lora"),
    "lora": tuned("lora"),
    "textual_inversion": tuned("textual_inversion"),
    "dreamartist": tuned("dreamartist"),
    "hypernetwork": tuned("hypernetwork"),
    "custom_diffusion": with_prior("custom_diffusion"),
}


def test_every_registered_method_is_under_contract():
    assert {name.partition(" ")[0] for name in OPENERS} == set(names("method"))


@pytest.fixture(scope="module", params=sorted(OPENERS))
def method(request, tiny_base, tiny_folder):
    return OPENERS[request.param](tiny_base, tiny_folder)


@pytest.fixture(scope="module")
def references(photos):
    return [Reference(photo, name=f"photo {number}") for number, photo in enumerate(photos)]


def checksum(method):
    """Hash of the base model's weights, whatever is wrapped around them."""
    digest = hashlib.sha256()
    for model in ("unet", "vae", "text_encoder", "text_encoder_2"):
        state = getattr(method.pipeline, model).state_dict()
        plain = {
            name.replace(".base_layer.", "."): tensor for name, tensor in state.items() if "lora_" not in name
        }
        for name in sorted(plain):
            digest.update(f"{model}.{name}".encode() + plain[name].numpy().tobytes())
    return digest.hexdigest()


def asked(method, *requests):
    """The requests with the scene that some methods need: a picture whose hole is most of it."""
    return [
        replace(one, extras=SCENE) if Need.SCENE in method.needs else one for one in requests or [REQUEST]
    ]


def drawn(method, identity, *requests):
    pictures = method.generate(identity, asked(method, *requests))
    return [np.array(picture).astype(int) for picture in pictures]


def test_base_weights_are_the_same_before_and_after(method, references, tiny_base):
    from diffusers import StableDiffusionXLPipeline

    untouched = type("Untouched", (), {"pipeline": StableDiffusionXLPipeline.from_pretrained(tiny_base)})
    drawn(method, method.fit(references[:2]))
    assert checksum(method) == checksum(untouched)


def test_base_is_the_same_after_an_error_in_the_middle(method, references, monkeypatch):
    before = checksum(method)
    identity = method.fit(references[:1])
    kept = drawn(method, identity)[0]

    def fail(*_args, **_kwargs):
        raise RuntimeError("in the middle")

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="in the middle"):
        patched.setattr(method.pipeline.vae, "decode", fail)
        method.generate(identity, asked(method))
    assert checksum(method) == before
    assert np.array_equal(drawn(method, identity)[0], kept)


def test_what_is_told_about_a_person_is_in_the_notes(method, references):
    identity = method.fit(references[:1], notes={"class_word": "woman", "licence": "own photos"})
    assert (identity.notes["class_word"], identity.notes["licence"]) == ("woman", "own photos")


def test_the_same_photos_give_the_same_identity(method, references):
    one, other = (method.fit(references[:2]) for _ in range(2))
    assert dict(one.notes) == dict(other.notes)
    assert one.tensors.keys() == other.tensors.keys()
    assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)


def test_same_seed_same_picture(method, references):
    identity = method.fit(references[:2])
    assert np.array_equal(drawn(method, identity)[0], drawn(method, identity)[0])
    other_seed = replace(REQUEST, sampling=replace(REQUEST.sampling, seed=9))
    assert not np.array_equal(drawn(method, identity)[0], drawn(method, identity, other_seed)[0])


def test_an_identity_survives_disk(method, references, tmp_path):
    identity = method.fit(references[:2])
    again = Identity.load(identity.save(tmp_path / "one.safetensors"))
    assert again.method == identity.method
    assert dict(again.notes) == dict(identity.notes)
    assert np.array_equal(drawn(method, again)[0], drawn(method, identity)[0])


@pytest.mark.parametrize("count", [1, 4])
def test_one_and_four_references(method, references, count):
    picture = drawn(method, method.fit(references[:count]))[0]
    assert picture.shape == (64, 64, 3)
    assert picture.std() > 1


def test_a_batch_of_two_is_two_batches_of_one(method, references):
    identity = method.fit(references[:3])
    together = drawn(method, identity, REQUEST, OTHER)
    alone = [drawn(method, identity, request)[0] for request in (REQUEST, OTHER)]
    assert all(np.abs(one - other).max() <= 2 for one, other in zip(together, alone, strict=True))
    assert np.abs(alone[0] - alone[1]).max() > 10


def test_weight_nothing_is_the_feature_off_bit_for_bit(method, references):
    """Of no weight: the picture does not depend on the photos, and is that of the base for the same words."""
    if Need.TUNING not in method.needs:
        return weight_nothing_of_photos(method, references)
    if not method.has_weight:
        pytest.skip("the person is a word of the prompt, which is there or not: it has no weight")
    one, two = (method.fit(chosen) for chosen in (references[:1], references[1:4]))
    off, same = (np.array(method.generate(identity, [REQUEST], weight=0.0)[0]) for identity in (one, two))
    assert np.array_equal(off, same)
    prompt = f"a photo of a {method.words(one.notes, 'man')} on the beach"
    base = method.pipeline(
        prompt, num_inference_steps=3, guidance_scale=5.0, generator=torch.Generator().manual_seed(7)
    )
    assert np.array_equal(off, np.array(base.images[0]))
    assert not np.array_equal(off, drawn(method, one)[0])
    return None


def weight_nothing_of_photos(method, references):
    one, two = (method.fit(chosen, weights=[0] * len(chosen)) for chosen in (references[:1], references[1:4]))
    off = drawn(method, one)[0]
    assert np.array_equal(off, drawn(method, two)[0])
    late = replace(REQUEST, sampling=replace(REQUEST.sampling, merge=0.0))
    assert np.array_equal(off, drawn(method, one, late)[0])
    assert not np.array_equal(off, drawn(method, method.fit(references[:1]))[0])


class _NeedsFace(Method):
    name = "needs a face"
    needs = frozenset({Need.FACE})

    def fit(self, references, *, notes=None):
        self.check(references)
        raise AssertionError("a model ran")

    def generate(self, identity, requests, *, watch=None):
        raise AssertionError("a model ran")


def test_guidance_in_a_part_of_the_steps_spares_the_negative_rows(method, references):
    identity, rows = method.fit(references[:2]), []
    hook = method.pipeline.unet.conv_in.register_forward_pre_hook(
        lambda _, args: rows.append(args[0].shape[0])
    )
    part, off = (replace(REQUEST.sampling, guidance=3.0, guidance_stop=stop) for stop in (0.34, 0.0))
    try:
        first = drawn(method, identity, replace(REQUEST, sampling=part))[0]
    finally:
        hook.remove()
    assert [rows[0] - later for later in rows[1:]] == [1, 1]  # FlashFace has one more row for its references
    without = drawn(method, identity, replace(REQUEST, sampling=off))[0]
    plain = drawn(method, identity, replace(REQUEST, sampling=replace(REQUEST.sampling, guidance=1.0)))[0]
    np.testing.assert_allclose(without, plain, atol=1)
    assert np.abs(first - without).max() > 1


def test_work_that_is_left_out_leaves_the_base_as_it_was(method, references):
    identity, before = method.fit(references[:2]), checksum(method)
    whole = drawn(method, identity)[0]
    layers = [(name, "forward" in vars(layer)) for name, layer in method.pipeline.unet.named_modules()]
    # of the steps after the person has joined, every second one computes the outer layers alone
    less = Sampling(steps=6, seed=7, merge=0.0, shortcuts=Shortcuts(2, words_after=0.5))
    sped = drawn(method, identity, replace(REQUEST, sampling=less))[0]
    full = drawn(method, identity, replace(REQUEST, sampling=replace(less, shortcuts=Shortcuts())))[0]
    assert not np.array_equal(sped, full)
    assert checksum(method) == before
    assert [
        (name, "forward" in vars(layer)) for name, layer in method.pipeline.unet.named_modules()
    ] == layers
    assert np.array_equal(drawn(method, identity)[0], whole)


PICTURE = Image.new("RGB", (32, 32), "white")
EXTRA_OF = {
    "LoRA": Extras(loras=(Lora("style.safetensors"),)),
    "ControlNet": Extras(controls=(Structure("canny", PICTURE),)),
    "T2I-Adapter": Extras(t2i=Structure("canny", PICTURE)),
    "start picture": Extras(start=Start(PICTURE)),
    "mask": Extras(start=Start(PICTURE, mask=PICTURE)),
    "style picture": Extras(style_picture=StylePicture(PICTURE)),
    "layout": Extras(layout=("left", "right")),
    "pose": Extras(pose=Pose(PICTURE)),
}


@pytest.mark.parametrize("name", sorted(EXTRAS))
def test_what_a_method_cannot_draw_with_is_refused_before_anything_is_loaded(method, name):
    request = replace(REQUEST, extras=EXTRA_OF[name])
    assert name in request.extras.asked
    if request.extras.asked <= method.takes:
        method.check_requests([request])
        return
    able = "instantid" if name == "pose" else "photomaker"
    with pytest.raises(SettingsError, match=f"the method {method.name} cannot draw with a .*use {able}"):
        method.check_requests([request])


def test_an_unmet_need_raises_before_any_model_runs(method, references):
    with pytest.raises(PhotoError, match="needs a face in every photo, but photo photo 0 has none"):
        _NeedsFace().fit(references)

    def fail(module, *_):
        raise AssertionError(f"{type(module).__name__} ran")

    identity = method.fit(references[:1])
    modules = [one for one in method.pipeline.components.values() if isinstance(one, torch.nn.Module)]
    hooks = [part.register_forward_pre_hook(fail) for one in modules for part in one.modules()]
    try:
        for attempt in (
            lambda: method.fit([]),
            lambda: method.generate(identity, asked(method, REQUEST, replace(REQUEST, prompt="a castle"))),
            lambda: method.generate(replace(identity, method="another"), asked(method)),
        ):
            with pytest.raises(PhotoMakerError) as caught:
                attempt()
            assert "\n" not in str(caught.value)
    finally:
        for hook in hooks:
            hook.remove()
