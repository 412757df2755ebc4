"""AnyDoor: the published layout draws what stock diffusers draws with it, the scene stays, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tiny import (
    WIDTH,
    tiny_adapter,
    tiny_anydoor,
    tiny_dino,
    tiny_flashface,
    tiny_pipeline,
    tiny_unet,
)

from photomaker.encoders import mix
from photomaker.encoders.anydoor import detail_net, export_anydoor, read_anydoor, unet_weights
from photomaker.encoders.subject_tower import SubjectTower
from photomaker.encoders.unet_names import LDM, names_of
from photomaker.errors import IdentityError, PhotoError, SettingsError, WeightsError
from photomaker.methods.anydoor import AnyDoor
from photomaker.pipelines.structures.collage import Hole, box_of, cut_subject, grown, high_frequency
from photomaker.types import Extras, Reference, Request, Sampling, Start

REQUEST = Request("a photo of a man img on the beach", Sampling(steps=2, seed=7))
SCENE = Image.effect_noise((64, 64), 90).convert("RGB")


def hole(box=(20, 16, 52, 60), size=(64, 64)):
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


def into(mask=None, scene=SCENE, **more):
    return replace(REQUEST, extras=Extras(start=Start(scene, mask=mask), **more))


@pytest.fixture(scope="module")
def references(photos):
    return [Reference(photo, name=f"photo {number}") for number, photo in enumerate(photos)]


@pytest.fixture(scope="module")
def method(tiny_base, tiny_folder):
    file = tiny_anydoor(tiny_folder, {"zoom": 0.0})
    return AnyDoor.open(tiny_base, file, device="cpu", image_encoder=tiny_dino(tiny_folder))


def drawn(method, identity, request):
    return np.array(method.generate(identity, [request])[0]).astype(int)


# ---- the layout


def test_diffusers_own_converters_read_what_is_written(tiny_folder, tmp_path):
    """Both halves under latent diffusion's names, told apart by somebody else's code."""
    from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint, convert_ldm_unet_checkpoint
    from safetensors.torch import load_file

    unet, file = tiny_unet(), read_anydoor(tiny_anydoor(tiny_folder))
    net, own = detail_net(file, unet), unet_weights(file, unet)
    unet.load_state_dict({**unet.state_dict(), **own})
    path = export_anydoor(tmp_path / "made.safetensors", unet, net, file.projector(), dtype=None)
    made = load_file(path)
    control = convert_controlnet_checkpoint(made, dict(net.config))
    for name, tensor in net.state_dict().items():
        # diffusers knows no ControlNet of SDXL under these names, and leaves the embedding of sizes out
        assert name.startswith("add_embedding.") or torch.equal(control[name], tensor), name
    every = {
        f"model.diffusion_model.{names_of(unet, LDM)[name]}": one for name, one in unet.state_dict().items()
    }
    config = dict(unet.config) | {"class_embed_type": None}
    back = convert_ldm_unet_checkpoint(every, config)
    for name, tensor in unet.state_dict().items():
        assert torch.equal(back[name], tensor), name
    assert {name for name in made if name.startswith("model.")} == {
        name
        for name in every
        if name.startswith(("model.diffusion_model.output_blocks", "model.diffusion_model.out."))
    }
    assert made["cond_stage_model.projector.weight"].shape == (WIDTH, 32)


def test_the_published_file_draws_what_stock_diffusers_draws_with_it(tiny_base, tiny_folder, references):
    from diffusers import StableDiffusionXLControlNetPipeline
    from transformers import Dinov2Model

    method = AnyDoor.open(
        tiny_base, tiny_anydoor(tiny_folder), device="cpu", image_encoder=tiny_dino(tiny_folder)
    )
    assert method.zoom == 2.0  # published files note nothing
    method.zoom = 0.0
    identity = method.fit(references[:1])
    request = into(hole((0, 0, 64, 64)))
    found = drawn(method, identity, request)

    state = torch.load(tiny_anydoor(tiny_folder), weights_only=True)["state_dict"]
    weight, bias = (state[f"cond_stage_model.projector.{part}"] for part in ("weight", "bias"))
    dino = Dinov2Model.from_pretrained(tiny_dino(tiny_folder)).eval()
    cut, inside = cut_subject(references[0].image, None)
    seen = np.stack([np.zeros((32, 32, 3)), np.asarray(cut.resize((32, 32), Image.Resampling.BICUBIC)) / 255])
    normal = (seen - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.no_grad():
        states = dino(torch.from_numpy(normal).permute(0, 3, 1, 2).float()).last_hidden_state
    nothing, subject = (states @ weight.T + bias).chunk(2)
    hint = Hole(SCENE, np.asarray(hole((0, 0, 64, 64)))).hint(high_frequency(cut, inside), (64, 64))
    pipe = StableDiffusionXLControlNetPipeline.from_pretrained(
        tiny_base, controlnet=method.net, add_watermarker=False
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.unet.load_state_dict({**pipe.unet.state_dict(), **method.unet})
    empty = torch.zeros(1, 48)
    wanted = pipe(
        prompt_embeds=subject,
        negative_prompt_embeds=nothing,
        pooled_prompt_embeds=empty,
        negative_pooled_prompt_embeds=empty,
        image=hint[None],
        num_inference_steps=2,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(7),
    ).images[0]
    middle = (slice(8, 56), slice(8, 56))  # the seam is the scene's
    assert np.abs(found[middle] - np.array(wanted).astype(int)[middle]).max() <= 1


# ---- the scene


@pytest.mark.parametrize("zoom", [0.0, 2.0])
def test_outside_the_region_the_scene_stays(method, references, zoom, monkeypatch):
    monkeypatch.setattr(method, "zoom", zoom)
    identity, mask = method.fit(references[:1]), hole()
    found = drawn(method, identity, into(mask))
    difference = np.abs(found - np.array(SCENE).astype(int))
    outside = np.asarray(mask) == 0
    assert difference[outside].mean() < 1  # of 255
    assert difference[~outside].mean() > 10
    other = drawn(method, method.fit(references[1:2]), into(mask))
    assert np.abs(found - other)[~outside].max() > 0 and np.array_equal(found[outside], other[outside])


def test_a_box_and_a_mask_of_that_box_are_the_same_hole(method, references):
    identity = method.fit(references[:1])
    by_box = drawn(method, identity, into(layout=((0.25, 0.25, 0.75, 0.75),)))
    assert np.array_equal(by_box, drawn(method, identity, into(hole((16, 16, 48, 48)))))


def test_several_scenes_are_drawn_each_in_its_own(method, references):
    identity = method.fit(references[:1])
    grey = Image.new("RGB", (64, 64), "grey")
    asked = [into(hole()), into(hole((8, 8, 40, 40)), grey)]
    both = [np.array(one).astype(int) for one in method.generate(identity, asked)]
    for one, request in zip(both, asked, strict=True):
        assert np.abs(one - drawn(method, identity, request)).max() <= 2


def test_only_what_the_mask_shows_is_put_into_the_scene(method, photos):
    picture = photos[3]
    mask = np.zeros(picture.size[::-1], np.uint8)
    mask[5:30, 10:40] = 255
    whole, part = (method.fit([Reference(picture, mask=one)]) for one in (None, mask))
    assert not torch.equal(whole.tensors["id_features"], part.tensors["id_features"])
    elsewhere = np.array(picture)
    elsewhere[mask == 0] = 7
    same = method.fit([Reference(Image.fromarray(elsewhere), mask=mask)])
    assert all(torch.equal(same.tensors[name], part.tensors[name]) for name in part.tensors)


def test_the_photo_of_largest_weight_is_drawn_and_scale_weighs_the_details(
    method, references, tiny_base, tiny_folder
):
    several = method.fit(references[:3], weights=[1, 2, 1])
    assert np.array_equal(
        drawn(method, several, into(hole())), drawn(method, method.fit(references[1:2]), into(hole()))
    )
    file = tiny_anydoor(tiny_folder, {"zoom": 0.0})
    less = AnyDoor.open(tiny_base, file, device="cpu", image_encoder=tiny_dino(tiny_folder), scale=0.2)
    assert np.abs(drawn(less, several, into(hole())) - drawn(method, several, into(hole()))).max() > 0
    mixed = mix([(method.fit(references[:1]), 0.5), (method.fit(references[1:2]), 0.5)])
    assert "details" not in mixed.tensors and drawn(method, mixed, into(hole())).std() > 1
    unet = method.pipeline.unet
    assert "forward" not in vars(unet)


def test_the_high_frequency_map_by_hand():
    pixels = np.zeros((256, 256, 3), np.uint8)
    pixels[:, 128:] = (200, 100, 40)
    pixels[:10] = 255  # an edge that the mask's border hides
    mask = np.zeros((256, 256), np.uint8)
    mask[6:250, 20:250] = 255
    found = np.asarray(high_frequency(Image.fromarray(pixels), mask)).astype(int)
    # a step of 200 is 4 * 200 by Sobel, which is cut at 255; half of it, for there is no edge the other way
    assert found[100, 128].tolist() == [int(200 * 127.5 / 255), int(100 * 127.5 / 255), int(40 * 127.5 / 255)]
    assert not found[100, :127].any() and not found[100, 129:].any() and not found[:8].any()
    assert not high_frequency(Image.fromarray(pixels), np.zeros_like(mask)).getbbox()


def test_a_hole_is_looked_at_with_its_surroundings():
    region = np.zeros((40, 60), np.uint8)
    region[10:20, 50:60] = 255
    assert box_of(region) == (50, 10, 60, 20) and box_of(region * 0) is None
    assert grown((50, 10, 60, 20), (60, 40), 1.2) == (49, 9, 60, 21)
    scene = Image.new("RGB", (60, 40), "white")
    found = Hole.of(scene, region, 2.0)
    assert found.square == (40, 5, 70, 25)  # of the scene's shape, and beyond it
    hint = found.hint(None, (60, 40))
    assert (
        (hint[3, :, 41:] == -1).all() and (hint[3, 12:28, 24:38] == 1).all() and (hint[3, :, :18] == 0).all()
    )
    assert (hint[:3, 12:28, 24:38] == -1).all() and (hint[:3, :, :18] == 1).all()
    back = np.asarray(found.put_back(Image.new("RGB", (60, 40), "black")))
    assert not back[5:25, 40:].any() and back[:, :40].all() and back[26:].all()
    assert Hole.of(scene, region, 0).square is None


# ---- what is refused


def refused(call, match, kind=WeightsError):
    with pytest.raises(kind, match=match) as caught:
        call()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_scenes_without_a_hole_and_wrong_regions_are_refused_before_a_model_runs(method, references):
    identity = method.fit(references[:1])
    hook = method.pipeline.text_encoder.register_forward_pre_hook(lambda *_: pytest.fail("a model ran"))
    try:
        for request, match in (
            (REQUEST, "draws into a scene; give a start picture"),
            (into(), "the scene has no hole"),
            (into(hole(size=(32, 32))), "the mask is 32 x 32, but the scene is 64 x 64"),
            (into(layout=((0.5, 0.5, 1.5, 1.0),)), "shares from 0 to 1"),
            (into(layout=((-0.2, 0.0, 0.5, 1.0),)), "shares from 0 to 1"),
            (into(layout=("left", "right")), "one subject; give one"),
            (into(hole(), layout=("left",)), "a mask and a layout"),
            (into(hole((1, 1, 3, 3))), "smaller than 4 pixels"),
        ):
            refused(
                lambda request=request: method.generate(identity, [into(hole()), request]),
                match,
                SettingsError,
            )
    finally:
        hook.remove()
    refused(lambda: into(Image.new("L", (64, 64))), "black all over", SettingsError)


def test_photos_and_people_that_cannot_serve_are_refused(method, references, photos):
    wrong = Reference(photos[0], name="one", mask=np.full((5, 5), 255, np.uint8))
    refused(
        lambda: method.fit([wrong]), "the mask of photo one is 5 x 5, but the photo is 40 x 40", PhotoError
    )
    empty = Reference(photos[0], name="one", mask=np.zeros((40, 40), np.uint8))
    refused(lambda: method.fit([empty]), "the mask of photo one is empty", PhotoError)
    identity = method.fit(references[:1])
    other = replace(identity, notes={**identity.notes, "encoder_sha256": "other"})
    refused(lambda: method.generate(other, [into(hole())]), "another AnyDoor checkpoint", IdentityError)


def test_checkpoints_of_others_are_refused_before_a_model_is_loaded(
    tiny_base, tiny_folder, tmp_path, monkeypatch
):
    from photomaker.methods import anydoor

    def fail(*_args, **_more):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(anydoor, "open_pipeline", fail)
    dino = tiny_dino(tiny_folder)
    for other in (tiny_adapter(tiny_folder), tiny_flashface(tiny_folder)):
        refused(
            lambda other=other: AnyDoor.open(tiny_base, other, image_encoder=dino),
            "is not an AnyDoor checkpoint",
        )
    state = torch.load(tiny_anydoor(tiny_folder), weights_only=True)["state_dict"]
    wide = "control_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    hint, tokens = "control_model.input_hint_block.0.weight", "cond_stage_model.projector.weight"
    for name, shape, match in (
        (wide, (32, 1024), "is for Stable Diffusion 2.1, but the base"),
        (wide, (32, 768), "is for a base of width 768"),
        (hint, (4, 3, 3, 3), "reads pictures of 3 channels"),
        (tokens, (64, 32), "does not give the width 80"),
        (tokens, (WIDTH, 1536), "reads tokens of width 1536, but the image encoder's have 32"),
    ):
        torch.save({"state_dict": state | {name: torch.zeros(shape)}}, tmp_path / "other.ckpt")
        refused(lambda: AnyDoor.open(tiny_base, tmp_path / "other.ckpt", image_encoder=dino), match)
    refused(
        lambda: AnyDoor.open(tiny_base, tiny_anydoor(tiny_folder), image_encoder=tiny_base / "unet"),
        "not a DINOv2",
    )
    refused(lambda: AnyDoor.open(tiny_base), "no bundled weights of anydoor")
    refused(lambda: AnyDoor.open(tiny_base, "/nothing", scale=3.0), "give", SettingsError)


def test_a_file_that_lacks_a_weight_is_refused(tiny_folder, tmp_path):
    state = torch.load(tiny_anydoor(tiny_folder), weights_only=True)["state_dict"]
    base, dino = tiny_pipeline(tiny_folder), tiny_dino(tiny_folder)
    for name in ("control_model.zero_convs.1.0.bias", "model.diffusion_model.output_blocks.1.2.conv.weight"):
        less = {key: one for key, one in state.items() if key != name}
        torch.save({"state_dict": less}, tmp_path / "less.ckpt")
        refused(lambda: AnyDoor.open(base, tmp_path / "less.ckpt", device="cpu", image_encoder=dino), name)


def test_the_bundled_tower_reads_subjects_too():
    tower = SubjectTower.open()
    assert tower.clip and tower(torch.rand(1, 3, tower.size, tower.size)).shape[-1] == tower.width
