"""InstantID: the published layout draws what stock diffusers draws with it, poses are followed, strangers refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tiny import FACE, FakeFaces, open_tiny_instantid, tiny_adapter, tiny_instantid, tiny_ip_adapter

from photomaker.encoders import mix
from photomaker.encoders.instantid import instantid_file, scaled
from photomaker.errors import IdentityError, PhotoError, PhotoMakerError, SettingsError, WeightsError
from photomaker.methods.instantid import InstantID
from photomaker.pipelines.structures.landmarks import draw_landmarks, landmarks_at
from photomaker.registry import find
from photomaker.types import Extras, Face, Identity, Pose, Reference, Request, Sampling

ROOT = Path(__file__).parents[2]
REQUEST = Request("a photo of a man img on the beach", Sampling(steps=2, seed=7))


@pytest.fixture(scope="module")
def references(photos):
    return [Reference(photo, name=f"photo {number}") for number, photo in enumerate(photos)]


@pytest.fixture(scope="module")
def made(tiny_base, tiny_folder):
    def make(**settings):
        return open_tiny_instantid(tiny_base, tiny_folder, **settings)

    return make


@pytest.fixture(scope="module")
def method(made):
    return made()


@pytest.fixture
def copied(tiny_folder, tmp_path):
    """A checkpoint of this test's own, to spoil."""
    return shutil.copytree(tiny_instantid(tiny_folder).parent, tmp_path / "InstantID")


def drawn(method, identity, request=REQUEST):
    return np.array(method.generate(identity, [request])[0]).astype(int)


def posed(source, scale=None, **more):
    return replace(REQUEST, extras=Extras(pose=Pose(source, scale, **more)))


def difference(one, other):
    return np.abs(one - other).mean()


def stock_picture(base, file, embedding, landmarks):
    """InstantID put together of diffusers' own parts: a ControlNet that is handed the tokens for the text."""
    from diffusers import ControlNetModel, StableDiffusionXLControlNetPipeline

    net = ControlNetModel.from_pretrained(file.parent / "ControlNetModel")
    pipe = StableDiffusionXLControlNetPipeline.from_pretrained(base, controlnet=net, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    sections = torch.load(file, weights_only=True)
    pipe.feature_extractor = object()  # so that none is made
    pipe.load_ip_adapter(sections, None, None, image_encoder_folder=None)
    pipe.set_ip_adapter_scale(0.8)
    pipe.register_modules(feature_extractor=None)
    person = embedding[None, None]
    layer = pipe.unet.encoder_hid_proj.image_projection_layers[0]
    with torch.no_grad():
        tokens = torch.cat([layer(torch.zeros_like(person)), layer(person)])
    inner = net.forward
    net.forward = lambda *args, **kwargs: inner(*args, **kwargs | {"encoder_hidden_states": tokens})
    both = torch.cat([torch.zeros_like(person), person])[:, None]
    picture = pipe(
        "a photo of a man on the beach",
        image=draw_landmarks(landmarks, (64, 64)),
        ip_adapter_image_embeds=[both],
        controlnet_conditioning_scale=0.8,
        num_inference_steps=2,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(7),
    ).images[0]
    return np.array(picture).astype(int)


def test_the_published_layout_draws_what_stock_diffusers_draws_with_it(
    method, references, tiny_base, tiny_folder
):
    identity = method.fit(references[:1])
    landmarks = landmarks_at(identity.tensors["landmarks"][0].numpy(), (40, 40), (64, 64))
    wanted = stock_picture(
        tiny_base, tiny_instantid(tiny_folder), identity.tensors["id_features"][0], landmarks
    )
    found = drawn(method, identity)
    assert np.abs(found - wanted).max() <= 1
    assert difference(found, drawn(method, identity, posed("none"))) > 1


def test_embeddings_of_several_photos_are_averaged_as_they_are(method, references, tmp_path):
    several = method.fit(references[:3], weights=[1, 2, 1])
    features = several.tensors["id_features"]
    assert features.shape == (3, FACE) and several.notes["face_models"] == "fake"
    assert float(features.norm(dim=1).max()) != pytest.approx(1.0)
    share = torch.tensor([0.25, 0.5, 0.25])[:, None]
    one = {
        "id_features": (features * share).sum(0, keepdim=True),
        "weights": torch.ones(1),
        "landmarks": several.tensors["landmarks"][1:2],
        "sizes": several.tensors["sizes"][1:2],
    }
    wanted = drawn(method, replace(several, tensors=one))
    assert np.abs(drawn(method, several) - wanted).max() <= 1
    loaded = Identity.load(several.save(tmp_path / "one.safetensors"))
    assert np.array_equal(drawn(method, loaded), drawn(method, several))


def test_both_strengths_weigh_and_nothing_is_left_behind(method, made, references):
    unet = method.pipeline.unet
    kinds = {name: type(one) for name, one in unet.attn_processors.items()}
    identity = method.fit(references[:1])
    off = drawn(method, method.fit(references[:1], weights=[0]))
    full = drawn(method, identity)
    nowhere = drawn(method, identity, posed("none"))
    by_pose = [difference(drawn(method, identity, posed("photo", scale)), nowhere) for scale in (0.1, 0.8)]
    assert 0 < by_pose[0] < by_pose[1]
    assert np.array_equal(drawn(method, identity, posed("photo", 0.8)), full)
    attention, structure = made(scale=0.0), made(structure_scale=0.0)
    assert difference(drawn(attention, identity), full) > 0.1
    assert np.array_equal(drawn(structure, identity), drawn(method, identity, posed("none")))
    assert np.array_equal(drawn(made(scale=0.0, structure_scale=0.0), identity), off)
    late = replace(REQUEST, sampling=replace(REQUEST.sampling, merge=0.5))
    assert 0 < difference(drawn(method, identity, late), off) < difference(full, off)
    assert kinds == {name: type(one) for name, one in unet.attn_processors.items()}
    assert unet.encoder_hid_proj is None and "forward" not in vars(unet)


def test_a_pose_is_taken_from_a_picture_the_photo_or_a_draft(method, made, references, photos):
    identity = method.fit(references[:1])
    photo, draft = drawn(method, identity), drawn(method, identity, posed("draft"))
    assert np.array_equal(drawn(made(structure="draft"), identity), draft)
    moved = Pose(photos[0].resize((128, 128)), landmarks=np.full((5, 2), 20.0) + np.arange(10).reshape(5, 2))
    turned = drawn(method, identity, replace(REQUEST, extras=Extras(pose=moved)))
    assert difference(turned, photo) > 0.1
    # a picture of the photo's own shape and the same face in it: nothing changes
    assert np.array_equal(drawn(method, identity, posed(photos[0])), photo)
    # the draft's face, by hand
    seed = method.fit(references[:1], weights=[0])
    text = method.generate(seed, [REQUEST])[0]
    (seen,) = FakeFaces().see([text], [None])
    by_hand = drawn(method, identity, posed(text, landmarks=seen.face.landmarks))
    assert np.array_equal(draft, by_hand)


def test_a_draft_without_a_face_gives_way_to_the_photo(method, references, monkeypatch):
    identity = method.fit(references[:1])
    photo = drawn(method, identity)
    monkeypatch.setattr(method.faces, "see", lambda pictures, faces: [None] * len(pictures))
    assert np.array_equal(drawn(method, identity, posed("draft")), photo)


def test_pictures_with_different_poses_are_drawn_each_with_its_own(method, references):
    identity = method.fit(references[:1])
    other = replace(REQUEST, sampling=replace(REQUEST.sampling, seed=8))
    asked = [posed("draft"), replace(other, extras=Extras(pose=Pose("draft"))), REQUEST, other, posed("none")]
    together = [np.array(one).astype(int) for one in method.generate(identity, asked)]
    for found, request in zip(together, asked, strict=True):
        assert np.abs(found - drawn(method, identity, request)).max() <= 2


def test_a_mixed_person_has_no_photo_and_takes_the_draft_s_pose(method, references):
    parts = [(method.fit(references[:1]), 0.5), (method.fit(references[1:2]), 0.5)]
    mixed = mix(parts)
    assert np.array_equal(drawn(method, mixed), drawn(method, mixed, posed("draft")))


def test_the_steps_of_drafts_are_told_too(method, references):
    told = []
    identity = method.fit(references[:1])
    method.generate(identity, [posed("draft")], watch=lambda step: told.append(step.number))
    assert told == [1, 2, 1, 2]


def test_what_was_trained_here_says_how_it_is_drawn_with(made, copied, references):
    from safetensors.torch import save_file

    sections = torch.load(copied / "ip-adapter.bin", weights_only=True)
    (copied / "ip-adapter.bin").unlink()
    flat = {f"{name}.{key}": one.contiguous() for name, part in sections.items() for key, one in part.items()}
    notes = {"scaled": True, "recogniser": "fake", "pencil": {"radius": 3.0, "stick": 1.0}}
    save_file(flat, copied / "ip-adapter.safetensors", metadata={"config": json.dumps(notes)})
    method = made(adapter=copied)
    assert (method.pencil.radius, method.pencil.stick) == (3.0, 1.0)
    identity = method.fit(references[:2])
    plain = made().fit(references[:2])
    assert torch.equal(identity.tensors["id_features"], scaled(plain.tensors["id_features"]))
    assert float(identity.tensors["id_features"].square().mean()) == pytest.approx(1.0)
    # another recogniser than that of its training is told apart
    assert "face_models_of_adapter" not in identity.notes
    assert plain.notes["face_models_of_adapter"] == "antelopev2"


def test_the_face_that_was_chosen_is_embedded(method, photos):
    face = Face((1.0, 2.0, 30.0, 30.0), 1.0, np.arange(10, dtype=np.float32).reshape(5, 2))
    identity = method.fit([Reference(photos[0], name="photo", face=face)])
    assert np.array_equal(identity.tensors["landmarks"][0].numpy(), face.landmarks)
    assert identity.tensors["sizes"].tolist() == [list(photos[0].size)]


# ---- what is refused


class NoModels:
    """Fails where a model would be loaded."""

    def __init__(self, patched):
        from photomaker.methods import instantid

        for name in ("open_pipeline", "open_identity_net"):
            patched.setattr(instantid, name, self.fail)

    def fail(self, *_args, **_more):
        raise AssertionError("a model was loaded")


def refused(call, match, kind=WeightsError):
    with pytest.raises(kind, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("form", ["base", "plus", "faceid", "faceid-plus"])
def test_an_ip_adapter_is_no_instantid(form, made, tiny_folder, monkeypatch):
    NoModels(monkeypatch)
    match = f"an IP-Adapter of the {form} form|no ControlNetModel/config.json beside"
    refused(lambda: made(adapter=tiny_ip_adapter(tiny_folder, form)), match)


def test_checkpoints_of_other_methods_and_bases_are_refused(
    made, copied, tiny_folder, tiny_base, tmp_path, monkeypatch
):
    NoModels(monkeypatch)
    refused(
        lambda: made(adapter=tiny_adapter(tiny_folder)),
        "not an InstantID adapter: it holds id_encoder, lora_weights",
    )
    sections = torch.load(copied / "ip-adapter.bin", weights_only=True)
    plus = {"image_proj": {**sections["image_proj"], "proj_in.weight": torch.zeros(64, 1280)}}
    torch.save({**sections, **plus}, copied / "ip-adapter.bin")
    refused(
        lambda: made(adapter=copied / "ip-adapter.bin"), "an IP-Adapter of the plus form, not InstantID's"
    )
    wide = {"image_proj": {**sections["image_proj"], "proj_in.weight": torch.zeros(64, 512)}}
    torch.save({**sections, **wide}, copied / "ip-adapter.bin")
    refused(lambda: made(adapter=copied), "face embeddings of width 512, but the recogniser gives 16")
    torch.save(sections, copied / "ip-adapter.bin")
    config = json.loads((copied / "ControlNetModel/config.json").read_text())
    for change, match in (
        ({"cross_attention_dim": 768}, "has cross_attention_dim 768, but the base 80"),
        ({"_class_name": "T2IAdapter"}, "has a T2IAdapter, not a ControlNetModel"),
    ):
        (copied / "ControlNetModel/config.json").write_text(json.dumps(config | change))
        refused(lambda: made(adapter=copied), match)
    (copied / "ControlNetModel/config.json").unlink()
    refused(lambda: instantid_file(copied), "no ControlNetModel/config.json beside")
    refused(lambda: instantid_file(tmp_path), "has no ip-adapter.bin")
    refused(lambda: instantid_file(tmp_path / "nothing.bin"), "there is no adapter file")
    (copied / "ip-adapter.bin").write_bytes(b"nothing")
    refused(lambda: instantid_file(copied), "damaged")
    refused(lambda: InstantID.open(tiny_base), "no bundled weights of instantid")


def test_a_damaged_identity_net_is_refused_in_one_sentence(made, copied):
    weights = copied / "ControlNetModel/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    refused(lambda: made(adapter=copied), "the IdentityNet .* cannot be loaded")


@pytest.mark.parametrize(
    "settings", [{"scale": -0.1}, {"scale": float("nan")}, {"structure_scale": 2.5}, {"structure": "pose"}]
)
def test_settings_out_of_range_are_refused_before_a_file_is_read(settings, tiny_base):
    refused(lambda: InstantID.open(tiny_base, "/no/such/file", **settings), "give", SettingsError)


def test_poses_that_cannot_be_followed_are_refused_before_a_model_runs(method, references, photos):
    identity = method.fit(references[:1])

    def fail(module, *_):
        raise AssertionError(f"{type(module).__name__} ran")

    models = [method.pipeline.unet, method.pipeline.text_encoder, method.pipeline.vae, method.net]
    hooks = [one.register_forward_pre_hook(fail) for one in models]
    black, wide = Image.new("RGB", (64, 64)), photos[0].resize((96, 64))
    outside = Pose(photos[0], landmarks=np.full((5, 2), 400.0))
    try:
        for request, match in (
            (posed(black), "no face was found in the pose picture"),
            (posed(wide), "the pose is 96 x 64, but the pictures are 64 x 64"),
            (replace(REQUEST, extras=Extras(pose=outside)), "the face of the pose is outside"),
            (posed(photos[0], landmarks=np.zeros((4, 2))), r"have shape \(4, 2\)"),
        ):
            refused(
                lambda request=request: method.generate(identity, [REQUEST, request]), match, PhotoMakerError
            )
    finally:
        for hook in hooks:
            hook.remove()
    for wrong in ({"source": "sideways"}, {"source": 3}, {"source": "photo", "scale": 3.0}):
        with pytest.raises(SettingsError):
            Pose(**wrong)


def test_people_of_others_and_photos_without_a_face_are_refused(method, references, photos):
    identity = method.fit(references[:1])
    dark = Reference(photos[0].point(lambda _: 0), name="dark")
    refused(lambda: method.fit([references[0], dark]), "no face was found in photo 2", PhotoError)
    other = replace(identity, method="ip_adapter-faceid")
    refused(lambda: method.generate(other, [REQUEST]), "made by ip_adapter-faceid", IdentityError)
    strange = replace(identity, notes={**identity.notes, "encoder_sha256": "other"})
    refused(lambda: method.generate(strange, [REQUEST]), "another InstantID file", IdentityError)
    wide = {**identity.tensors, "id_features": torch.zeros(1, 512)}
    refused(
        lambda: method.generate(replace(identity, tensors=wide), [REQUEST]),
        "another InstantID",
        IdentityError,
    )


def test_the_bundled_networks_see_drawn_faces():
    photo = Image.open(ROOT / "examples/ada/1.png").convert("RGB")
    faces = find("face embedder", "bundled").open()
    plain = Image.new("RGB", (64, 64), "grey")
    seen, nothing = faces.see([photo, plain], [None, None])
    assert nothing is None and seen.embedding.shape == (faces.width,)
    assert np.linalg.norm(seen.embedding) == pytest.approx(1.0, abs=1e-3)
    (again,) = faces.see([photo], [seen.face])
    assert np.array_equal(again.embedding, seen.embedding) and again.face is seen.face
