"""FlashFace: the published layout to the last name, its attention and guidance by hand, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.tiny import tiny_adapter, tiny_fastcomposer, tiny_flashface, tiny_unet
from torch.nn import functional

from photomaker.encoders import mix
from photomaker.encoders.flashface import read_flashface, weights_for
from photomaker.encoders.unet_names import FLASHFACE, names_of
from photomaker.errors import IdentityError, PhotoError, PhotoMakerError, SettingsError, WeightsError
from photomaker.methods.flashface import FlashFace, FlashFaceSettings
from photomaker.pipelines.attention.references import Bank, Guidance, ReadingProcessor, Referenced, square_map
from photomaker.types import Extras, Face, Reference, Request, Sampling

REQUEST = Request("a photo of a man img on the beach", Sampling(steps=2, seed=7))
NOTES = {"crop": 0, "side": 32}


@pytest.fixture(scope="module")
def references(photos):
    return [Reference(photo, name=f"photo {number}") for number, photo in enumerate(photos)]


@pytest.fixture(scope="module")
def method(tiny_base, tiny_folder):
    return FlashFace.open(tiny_base, tiny_flashface(tiny_folder, NOTES), device="cpu")


def drawn(method, identity, request=REQUEST):
    return np.array(method.generate(identity, [request])[0]).astype(int)


def at(place):
    return replace(REQUEST, extras=Extras(layout=(place,)))


# ---- the layout


def test_the_published_file_has_as_many_tensors_and_weights_as_the_layout_says():
    """SD1.5's UNet by its own sizes: 2142 tensors, 1,749,348,484 weights, as counted in the released file."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280, 1280), layers_per_block=2, cross_attention_dim=768,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        )  # fmt: skip
    names = names_of(unet, FLASHFACE)
    own = dict(unet.named_parameters())
    assert len(names) == len(own) == 686 and len(set(names.values())) == 686
    coders = [name for name, theirs in names.items() if theirs.startswith(("encoder", "middle", "decoder"))]
    further = [
        name
        for name, theirs in names.items()
        if ".self_attn." in theirs and not theirs.startswith("encoder.")
    ]
    # once, twice as ori_*, the reading UNet's, and the further attention, which is there twice too
    assert len(names) + 2 * len(coders) + 2 * len(further) == 2142
    sizes = {name: one.numel() for name, one in own.items()}
    place = 320 * 9
    weights = sum(sizes.values()) + place + sum(sizes[name] for name in (*coders, *further))
    assert weights == 1_749_348_484
    assert names["up_blocks.3.attentions.2.transformer_blocks.0.attn1.to_out.0.bias"] == (
        "decoder.11.1.blocks.0.self_attn.o.bias"
    )
    assert names["up_blocks.0.upsamplers.0.conv.weight"] == "decoder.2.1.1.weight"
    assert names["down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"] == (
        "encoder.1.1.blocks.0.cross_attn.k.weight"
    )


def test_every_weight_of_the_published_file_comes_to_its_place(tiny_folder):
    path = tiny_flashface(tiny_folder)
    file, unet = read_flashface(path), tiny_unet()
    raw = torch.load(path, weights_only=True)
    weights = weights_for(file, unet)
    own = unet.state_dict()
    assert weights.unet.keys() == own.keys()
    assert torch.equal(weights.unet["conv_in.weight"], raw["encoder.0.weight"][:, :4])
    assert torch.equal(weights.place, raw["encoder.0.weight"][:, 4:])
    layer = "up_blocks.0.attentions.1.transformer_blocks.0.attn1"
    prefix = "decoder.1.1.blocks.0.self_attn"
    assert torch.equal(weights.unet[f"{layer}.to_out.0.bias"], raw[f"{prefix}.o.bias"])
    assert torch.equal(weights.second[layer]["k.weight"], raw[f"{prefix}.self_attn_first.k.weight"])
    assert torch.equal(weights.reference[f"{layer}.to_q.weight"], raw[f"ref_{prefix}.q.weight"])
    # the published code reads photos with `middle`, and never uses `ref_middle`
    middle = "mid_block.resnets.0.conv1.weight"
    assert torch.equal(weights.reference[middle], raw["middle.0.layer1.2.weight"])
    ours = replace(file, config={"ref_middle": True})
    assert torch.equal(weights_for(ours, unet).reference[middle], raw["ref_middle.0.layer1.2.weight"])


def test_the_published_file_draws(tiny_base, tiny_folder, photos):
    method = FlashFace.open(tiny_base, tiny_flashface(tiny_folder), device="cpu")
    assert (method.own_notes["crop"], method.side) == (1.5, 224)
    face = Face((4.0, 4.0, 30.0, 30.0), 1.0, np.zeros((5, 2), np.float32))
    identity = method.fit([Reference(photos[0], face=face)])
    assert identity.tensors["id_features"].shape == (1, 4, 28, 28)
    assert drawn(method, identity).std() > 1
    with pytest.raises(PhotoError, match="photo plain has none"):
        method.fit([Reference(photos[0], name="plain")])


# ---- the attention and the guidance


def test_the_further_attention_is_the_papers():
    unet, bank = tiny_unet(), Bank()
    layer = unet.mid_block.attentions[0].transformer_blocks[0].attn1
    processor = ReadingProcessor(layer, "here", bank)
    with torch.no_grad():
        processor.self_attn_first.k.weight.mul_(1.3)
    generator = torch.Generator().manual_seed(0)
    hidden, seen = torch.randn(2, 5, 32, generator=generator), torch.randn(3, 4, 32, generator=generator)
    bank.features["here"] = seen
    bank.index, bank.bias = torch.tensor([[0, 1], [2, 2]]), torch.tensor([[0.0, 0.0], [0.0, -torch.inf]])
    bank.strength = torch.tensor([0.3, 1.2])

    def attention(part, context):
        query, key, value = (
            one.unflatten(-1, (layer.heads, -1)).transpose(1, 2)
            for one in (part.q(hidden), part.k(context), part.v(context))
        )
        looks = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
        return part.o((looks @ value).transpose(1, 2).flatten(2))

    with torch.no_grad():
        further = processor.self_attn_first
        plain = attention(further, hidden)
        first = attention(further, torch.cat([hidden, seen[[0, 2]], seen[[1, 2]]], 1))
        # the second row reads one photo: twice the same places are once the places
        second = attention(further, torch.cat([hidden, seen[[0, 2]]], 1))
        share = bank.strength[:, None, None]
        wanted = share * torch.stack([first[0], second[1]]) + (1 - share) * plain
        found = processor(layer, hidden) - layer(hidden)
        torch.testing.assert_close(found, wanted)
        bank.strength = torch.zeros(2)
        torch.testing.assert_close(processor(layer, hidden) - layer(hidden), plain)


def test_text_and_references_are_guided_apart():
    guidance = Guidance(text=7.5, reference=2.0)
    referenced = Referenced(
        None, Bank(), torch.zeros(1, 4, 2, 2), torch.ones(1), (torch.zeros(1, 1, 1),) * 2, [0, 0], guidance
    )
    rows = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    nothing, text, seen = rows.chunk(3)
    given = referenced.combined(rows, 4)
    by_pipeline = given[:2] + 7.5 * (given[2:] - given[:2])
    wanted = nothing + 7.5 * (text - nothing) + 2 * (seen - text)
    spread = text.std((1, 2, 3), keepdim=True) / wanted.std((1, 2, 3), keepdim=True)
    torch.testing.assert_close(by_pipeline, wanted * (0.5 * spread + 0.5), atol=1e-4, rtol=1e-4)
    alone = referenced.combined(rows[2:], 2)
    assert functional.cosine_similarity(alone.flatten(1), (text + 2 * (seen - text)).flatten(1)).min() > 0.999


def test_before_the_launch_both_halves_see_the_references(method, references):
    identity, seen = method.fit(references[:1]), []
    processor = next(iter(method.processors.values()))
    hook = processor.register_forward_pre_hook(lambda *_: seen.append(method.bank.strength.tolist()))
    early = FlashFace(method.pipeline, method.file, replace(method.own, launch=0.0))
    other = next(iter(early.processors.values())).register_forward_pre_hook(
        lambda *_: seen.append(early.bank.strength.tolist())
    )
    try:
        drawn(method, identity)
        assert seen == [pytest.approx([0, 0, 0.85])] * 2
        seen.clear()
        early.sha256 = method.sha256
        drawn(early, identity)
        assert seen == [pytest.approx([0.85, 0.85])] * 2
    finally:
        hook.remove()
        other.remove()


def test_strength_and_launch_change_the_picture_and_nothing_is_left_behind(method, references):
    unet = method.pipeline.unet
    kinds = {name: type(one) for name, one in unet.attn_processors.items()}
    identity = method.fit(references[:2])
    found = drawn(method, identity)
    before = method.own
    try:
        for other in (
            FlashFaceSettings(strength=0.2),
            FlashFaceSettings(reference=0.0),
            FlashFaceSettings(launch=100),
        ):
            method.own = other
            assert np.abs(drawn(method, identity) - found).max() > 0
    finally:
        method.own = before
    assert kinds == {name: type(one) for name, one in unet.attn_processors.items()}
    assert "forward" not in vars(unet) and not unet.conv_in._forward_hooks and not method.bank.features
    negative = replace(REQUEST, negative_prompt="a red hat")
    both = [np.array(one).astype(int) for one in method.generate(identity, [negative, REQUEST, negative])]
    assert np.abs(both[0] - both[2]).max() <= 2 and np.abs(both[1] - found).max() <= 2
    assert np.abs(both[0] - found).max() > 0


def test_the_face_is_told_its_place(method, references):
    identity = method.fit(references[:1])
    free, left, right = (
        drawn(method, identity),
        drawn(method, identity, at("left")),
        drawn(method, identity, at("right")),
    )
    assert np.abs(left - right).max() > 0 and np.abs(left - free).max() > 0
    box = square_map((1.0, 2.0, 3.0, 6.0), 8, 8)
    assert box[0, 2:6, 0:4].all() and int(box.sum()) == 16
    # the square may leave the picture
    assert int(square_map((0.0, 0.0, 1.0, 6.0), 8, 8).sum()) == 24


def test_photos_count_by_their_weights_and_people_mix(method, references):
    weighed = method.fit(references[:2], weights=[3, 1])
    assert np.abs(drawn(method, weighed) - drawn(method, method.fit(references[:2]))).max() > 0
    assert np.array_equal(
        drawn(method, method.fit(references[:2], weights=[2, 2])), drawn(method, method.fit(references[:2]))
    )
    mixed = mix([(method.fit(references[:1]), 0.5), (method.fit(references[1:2]), 0.5)])
    assert drawn(method, mixed).std() > 1


# ---- what is refused


def refused(call, match, kind=WeightsError):
    with pytest.raises(kind, match=match) as caught:
        call()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_checkpoints_of_others_are_refused_before_a_model_is_loaded(
    tiny_base, tiny_folder, tmp_path, monkeypatch
):
    from photomaker.methods import flashface

    def fail(*_args, **_more):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(flashface, "open_pipeline", fail)
    for other in (tiny_adapter(tiny_folder), tiny_fastcomposer(tiny_folder)):
        refused(
            lambda other=other: FlashFace.open(tiny_base, other),
            "is no FlashFace checkpoint: it has no encoder",
        )
    state = torch.load(tiny_flashface(tiny_folder), weights_only=True)
    name = "middle.1.blocks.0.cross_attn.k.weight"
    torch.save(state | {name: torch.zeros(32, 768)}, tmp_path / "sd15.ckpt")
    refused(
        lambda: FlashFace.open(tiny_base, tmp_path / "sd15.ckpt"),
        "is for Stable Diffusion 1.5, but the base has",
    )
    torch.save(state | {"encoder.0.weight": torch.zeros(16, 4, 3, 3)}, tmp_path / "four.ckpt")
    refused(lambda: FlashFace.open(tiny_base, tmp_path / "four.ckpt"), "reads 4 channels")
    (tmp_path / "broken.ckpt").write_bytes(b"nothing")
    refused(lambda: FlashFace.open(tiny_base, tmp_path / "broken.ckpt"), "damaged")
    refused(lambda: FlashFace.open(tiny_base), "no bundled weights of flashface")


def test_a_file_that_lacks_a_weight_is_refused(tiny_base, tiny_folder, tmp_path):
    state = torch.load(tiny_flashface(tiny_folder), weights_only=True)
    for name in ("decoder.0.1.blocks.0.self_attn.self_attn_first.o.bias", "ref_decoder.1.0.layer1.2.weight"):
        torch.save({key: one for key, one in state.items() if key != name}, tmp_path / "less.ckpt")
        refused(lambda: FlashFace.open(tiny_base, tmp_path / "less.ckpt", device="cpu"), name)
        torch.save(state | {name: torch.zeros(3, 3)}, tmp_path / "other.ckpt")
        refused(lambda: FlashFace.open(tiny_base, tmp_path / "other.ckpt", device="cpu"), name)


def test_requests_and_people_that_cannot_be_drawn_are_refused(method, references, tiny_folder):
    identity = method.fit(references[:1])
    hook = method.pipeline.text_encoder.register_forward_pre_hook(lambda *_: pytest.fail("a model ran"))
    try:
        for place, match in (
            ((0.5, 0.5, 1.5, 1.0), "shares from 0 to 1"),
            ((0.5, 0.5, 0.2, 1.0), "shares from 0 to 1"),
            ((0.501, 0.501, 0.502, 0.502), "smaller than a latent cell"),
            ("above", "a region is 'above'"),
        ):
            refused(lambda place=place: method.generate(identity, [at(place)]), match, SettingsError)
        two = replace(REQUEST, extras=Extras(layout=("left", "right")))
        refused(lambda: method.generate(identity, [two]), "one person; give one", SettingsError)
        other = replace(identity, notes={**identity.notes, "encoder_sha256": "other"})
        refused(lambda: method.generate(other, [REQUEST]), "another FlashFace checkpoint", IdentityError)
    finally:
        hook.remove()
    refused(lambda: method.fit(references), "reads 1 to 4 photos, got 5", PhotoMakerError)
    for wrong in ({"strength": -1}, {"reference": 9}, {"launch": 2000}):
        refused(lambda wrong=wrong: FlashFaceSettings(**wrong), "give", SettingsError)


def test_what_was_trained_here_says_how_it_is_drawn_with(tiny_base, tiny_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    notes = NOTES | {"flashface": {"strength": 1.0, "reference": 1.5, "launch": 900.0}, "ref_middle": True}
    path = tmp_path / "own.safetensors"
    save_file(load_file(tiny_flashface(tiny_folder, NOTES)), path, metadata={"config": json.dumps(notes)})
    method = FlashFace.open(tiny_base, path, device="cpu")
    assert method.own == FlashFaceSettings(1.0, 1.5, 900.0)
