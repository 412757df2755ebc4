"""Start pictures, masks, LoRA, ControlNets, T2I-Adapters, style pictures on tiny models: what they do, and undo."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tests import tiny

from photomaker.errors import SettingsError, WeightsError
from photomaker.methods.photomaker import PhotoMaker
from photomaker.pipelines.drawing.extra_checks import check_extras
from photomaker.pipelines.steps.inpainting import latent_mask, pasted
from photomaker.types import Extras, Lora, Reference, Request, Sampling, Start, Structure, StylePicture

PROMPT = "a photo of a man img in the snow"
SIDE = tiny.IMAGE_SIZE


def noise(seed, size=(48, 48)):
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


PICTURE = noise(1, (SIDE, SIDE))
HALF = Image.fromarray(np.repeat(np.uint8([[0] * (SIDE // 2) + [255] * (SIDE // 2)]), SIDE, axis=0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module", params=[False, True], ids=["lora apart", "lora fused"])
def method(request, folder):
    return PhotoMaker.open(tiny.tiny_pipeline(folder), tiny.tiny_adapter(folder), fuse_lora=request.param)


@pytest.fixture(scope="module")
def person(method):
    return method.fit([Reference(noise(2)), Reference(noise(3))])


@pytest.fixture
def draw(method, person):
    """Draws, and looks afterwards whether the base is as it was."""
    before = {name: tensor.clone() for name, tensor in method.pipeline.unet.state_dict().items()}

    def drawn(extras, seeds=(5,), **settings):
        sampling = Sampling(**{"steps": 4, **settings})
        requests = [Request(PROMPT, replace(sampling, seed=seed), None, extras) for seed in seeds]
        return np.stack([np.asarray(one, np.float64) for one in method.generate(person, requests)])

    yield drawn
    after = method.pipeline.unet.state_dict()
    assert before.keys() <= after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not [
        name for names in method.pipeline.get_list_adapters().values() for name in names if "extra" in name
    ]


def loras(*pairs):
    return Extras(loras=tuple(Lora(str(path), weight) for path, weight in pairs))


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
def test_a_lora_counts_by_its_weight_beside_photomakers(draw, folder, layout):
    plain, path = draw(Extras()), tiny.tiny_style_lora(folder, layout)
    whole = draw(loras((path, 1.0)))
    np.testing.assert_array_equal(draw(loras((path, 0.0))), plain)
    assert np.abs(whole - plain).mean() > 1
    np.testing.assert_allclose(draw(loras((path, 0.4), (path, 0.6))), whole, atol=3)
    np.testing.assert_array_equal(draw(Extras()), plain)


def test_with_a_lora_the_person_still_counts(method, draw, person, folder, monkeypatch):
    extras = loras((tiny.tiny_style_lora(folder), 0.3))
    assert np.abs(draw(extras) - draw(extras, merge=1.0)).mean() > 0.5


def test_a_start_picture_is_kept_by_what_its_strength_leaves(draw):
    near, far = (np.abs(draw(Extras(Start(PICTURE, s)))[0] - np.asarray(PICTURE)).mean() for s in (0.25, 1.0))
    assert near < far


def test_a_start_picture_is_brought_to_the_size_that_is_asked_for(draw):
    assert draw(Extras(Start(noise(4, (200, 100)))), width=64, height=48).shape == (1, 48, 64, 3)


def test_outside_a_mask_the_picture_stays_and_inside_it_is_drawn(draw):
    out = draw(Extras(Start(PICTURE, 1.0, HALF)), seeds=(1, 2))
    given = np.asarray(PICTURE, np.float64)
    np.testing.assert_array_equal(out[:, :, : SIDE // 2], np.stack([given[:, : SIDE // 2]] * 2))
    assert np.abs(out[:, :, SIDE // 2 + 8 :] - given[:, SIDE // 2 + 8 :]).mean() > 10
    assert np.abs(out[0] - out[1])[:, SIDE // 2 + 8 :].mean() > 1


def test_a_mask_of_another_size_is_refused(draw):
    with pytest.raises(SettingsError, match="the mask is 8 x 8, but the start picture is 64 x 64"):
        draw(Extras(Start(PICTURE, 1.0, Image.new("L", (8, 8), 255))))


def test_a_controlnet_counts_by_its_scale_and_in_its_part_of_the_steps(draw, folder):
    net = str(tiny.tiny_controlnet(folder))
    plain = draw(Extras())
    np.testing.assert_allclose(draw(Extras(controls=(Structure(net, PICTURE, 0.0),))), plain, atol=1)
    full, other, part = (
        draw(Extras(controls=(one,)))
        for one in (
            Structure(net, PICTURE),
            Structure(net, noise(9, (SIDE, SIDE))),
            Structure(net, PICTURE, start=0.5),
        )
    )
    assert np.abs(full - plain).mean() > 1
    assert np.abs(full - other).mean() > 0.05  # it looks at its picture
    assert np.abs(full - part).mean() > 0.5


def test_several_controlnets_and_a_start_picture_go_together(draw, folder):
    first, second = (str(tiny.tiny_controlnet(folder, seed)) for seed in (7, 8))
    one = (Structure(first, PICTURE, 0.5),)
    both = (*one, Structure(second, PICTURE, 0.5))
    alone, together = draw(Extras(controls=one)), draw(Extras(controls=both))
    assert np.abs(alone - together).mean() > 0.5
    started = draw(Extras(Start(PICTURE, 0.5), controls=both))
    assert np.abs(started - together).mean() > 1
    masked = draw(Extras(Start(PICTURE, 0.5, HALF), controls=both))
    np.testing.assert_array_equal(masked[0, :, :8], np.asarray(PICTURE)[:, :8])


def test_a_t2i_adapter_counts_by_its_scale(draw, folder):
    adapter = str(tiny.tiny_t2i_adapter(folder))
    plain = draw(Extras())
    np.testing.assert_allclose(draw(Extras(t2i=Structure(adapter, PICTURE, 0.0))), plain, atol=1)
    assert np.abs(draw(Extras(t2i=Structure(adapter, PICTURE))) - plain).mean() > 1


def test_a_style_picture_counts_by_its_scale(draw, folder):
    style = StylePicture(PICTURE, str(tiny.tiny_ip_adapter(folder)), 0.0, str(tiny.tiny_adapter(folder)))
    plain = draw(Extras())
    np.testing.assert_array_equal(draw(Extras(style_picture=style)), plain)
    styled = draw(Extras(style_picture=replace(style, scale=1.0)))
    assert np.abs(styled - plain).mean() > 0.5
    other = draw(Extras(style_picture=replace(style, scale=1.0, image=noise(9))))
    assert np.abs(styled - other).mean() > 0.01


@pytest.mark.parametrize("kind", ["start", "mask", "control", "t2i", "style", "lora"])
def test_a_batch_of_two_is_two_batches_of_one(draw, folder, kind):
    net, t2i = str(tiny.tiny_controlnet(folder)), str(tiny.tiny_t2i_adapter(folder))
    extras = {
        "start": Extras(Start(PICTURE)),
        "mask": Extras(Start(PICTURE, 1.0, HALF)),
        "control": Extras(controls=(Structure(net, PICTURE),)),
        "t2i": Extras(t2i=Structure(t2i, PICTURE)),
        "style": Extras(
            style_picture=StylePicture(
                PICTURE, str(tiny.tiny_ip_adapter(folder)), 1.0, str(tiny.tiny_adapter(folder))
            )
        ),
        "lora": loras((tiny.tiny_style_lora(folder), 0.5)),
    }[kind]
    both = draw(extras, seeds=(1, 2), guidance_stop=0.5)
    one_by_one = np.concatenate([draw(extras, seeds=(seed,), guidance_stop=0.5) for seed in (1, 2)])
    np.testing.assert_allclose(both, one_by_one, atol=2)


def test_an_error_while_drawing_undoes_everything(method, person, draw, folder):
    extras = replace(loras((tiny.tiny_style_lora(folder), 1.0)), start=Start(PICTURE, 1.0, HALF))

    def stop(_):
        raise KeyError("enough")

    plain = draw(Extras())
    with pytest.raises(KeyError):
        method.generate(person, [Request(PROMPT, Sampling(steps=3), None, extras)], watch=stop)
    np.testing.assert_array_equal(draw(Extras()), plain)


def test_models_are_kept_while_the_same_are_asked_for_and_dropped_after(method, draw, folder):
    extras = Extras(controls=(Structure(str(tiny.tiny_controlnet(folder)), PICTURE),))
    draw(extras)
    (first,) = method.kit._models.values()
    draw(extras)
    assert list(method.kit._models.values()) == [first]
    draw(Extras())
    assert not method.kit._models


# ---- what is told before a model is loaded


@pytest.fixture
def base(folder):
    return tiny.tiny_pipeline(folder)


def refused(base, extras, message, error=WeightsError):
    with pytest.raises(error) as caught:
        check_extras(base, extras, Sampling(steps=4))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_good_extras_pass(base, folder):
    check_extras(
        base,
        Extras(
            Start(PICTURE, 0.5),
            (Lora(str(tiny.tiny_style_lora(folder))), Lora(str(tiny.tiny_style_lora(folder, "kohya")))),
            (Structure(str(tiny.tiny_controlnet(folder)), PICTURE),),
        ),
        Sampling(steps=4),
    )
    check_extras(base, Extras(t2i=Structure(str(tiny.tiny_t2i_adapter(folder)), PICTURE)), Sampling())


def test_a_lora_that_cannot_serve(base, folder, tmp_path):
    refused(base, loras((tmp_path / "none.safetensors", 1)), "there is no LoRA file")
    (tmp_path / "old.bin").write_bytes(b"x")
    refused(base, loras((tmp_path / "old.bin", 1)), "is not a safetensors file")
    (tmp_path / "bad.safetensors").write_bytes(b"x" * 100)
    refused(base, loras((tmp_path / "bad.safetensors", 1)), "is damaged")
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    refused(base, loras((tmp_path / "other.safetensors", 1)), "has no LoRA")
    foreign = tiny.tiny_style_lora(folder, width=24)
    refused(base, loras((foreign, 1)), "is for a base of width 24, but this one has")


def test_a_structure_model_that_cannot_serve(base, folder, tmp_path):
    net, t2i = str(tiny.tiny_controlnet(folder)), str(tiny.tiny_t2i_adapter(folder))
    refused(base, Extras(controls=(Structure(str(tmp_path), PICTURE),)), "is not a model folder")
    refused(base, Extras(controls=(Structure(t2i, PICTURE),)), "is a T2IAdapter, not a ControlNet")
    refused(base, Extras(t2i=Structure(net, PICTURE)), "is a ControlNetModel, not a T2I-Adapter")
    (tmp_path / "config.json").write_text('{"_class_name": "ControlNetModel", "cross_attention_dim": 768}')
    refused(
        base,
        Extras(controls=(Structure(str(tmp_path), PICTURE),)),
        "has cross_attention_dim 768, but the base",
    )
    (tmp_path / "config.json").write_text('{"_class_name": "T2IAdapter", "channels": [1]}')
    refused(base, Extras(t2i=Structure(str(tmp_path), PICTURE)), "has channels [1], but the base")
    (tmp_path / "config.json").write_text("[" * 100_000)
    refused(base, Extras(controls=(Structure(str(tmp_path), PICTURE),)), "cannot be read")


def test_a_strength_that_leaves_no_step_is_refused(base):
    refused(base, Extras(Start(PICTURE, 0.2)), "strength 0.2 of 4 steps is less than one", SettingsError)


def test_a_style_adapter_that_is_not_there_is_refused(base):
    refused(
        base, Extras(style_picture=StylePicture(PICTURE, "none.bin")), "there is no IP-Adapter file none.bin"
    )


# ---- inpainting's pieces


def test_a_latent_that_the_mask_touches_is_drawn_anew():
    mask = Image.new("L", (32, 16))
    mask.putpixel((9, 0), 255)
    assert latent_mask(mask, 2, 4).tolist() == [[[[0, 1, 0, 0], [0, 0, 0, 0]]]]


def test_the_seam_lies_inside_the_mask_and_is_soft():
    black, white = Image.new("RGB", (SIDE, SIDE)), Image.new("RGB", (SIDE, SIDE), "white")
    row = np.asarray(pasted([white], black, HALF)[0])[SIDE // 2, :, 0].astype(int)
    assert not row[: SIDE // 2].any()
    assert row[SIDE // 2 + 8 : SIDE - 8].min() == 255
    assert len(set(row[SIDE // 2 : SIDE // 2 + 8])) > 2
