"""PhotoVerse: two branches that are weighed and taken out again, and files that do not fit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import WIDTH, tiny_photoverse

from photomaker.encoders.photoverse import check_fit, export_photoverse, read_photoverse
from photomaker.errors import IdentityError, SettingsError, WeightsError
from photomaker.methods.photoverse import PhotoVerse
from photomaker.pipelines.attention.dual import word_places, words_in
from photomaker.prompts import encode_rows, expand_rows
from photomaker.types import Reference, Request, Sampling

REQUEST = Request("a photo of a man img on the beach", Sampling(steps=2, seed=7))


@pytest.fixture(scope="module")
def method(tiny_base, tiny_folder, tiny_adapter_file):
    return PhotoVerse.open(tiny_base, tiny_photoverse(tiny_folder), "cpu", image_encoder=tiny_adapter_file)


@pytest.fixture(scope="module")
def references(photos):
    return [Reference(photo, name=f"photo {number}") for number, photo in enumerate(photos)]


def drawn(method, identity, request=REQUEST):
    return np.array(method.generate(identity, [request])[0]).astype(int)


def test_both_branches_change_the_picture(method, references, monkeypatch):
    one, two = method.fit(references[:1]), method.fit(references[1:3])
    off = drawn(method, method.fit(references[:1], weights=[0]))
    whole = drawn(method, one)
    assert np.abs(whole - drawn(method, two)).max() > 5
    monkeypatch.setattr(method, "scale", 0.0)
    words = [drawn(method, identity) for identity in (one, two)]
    assert np.abs(words[0] - words[1]).max() > 2
    assert not np.array_equal(words[0], whole) and not np.array_equal(words[0], off)


def test_what_is_off_is_the_base_bit_for_bit(method, references):
    identity = method.fit(references[:2])
    plain = method.fit(references[:2], weights=[0, 0])
    half = replace(REQUEST, sampling=replace(REQUEST.sampling, merge=1.0))
    assert np.array_equal(drawn(method, identity, half), drawn(method, plain))
    unet = method.pipeline.unet
    noise, text = torch.randn(1, 4, 8, 8), torch.randn(1, 77, WIDTH)
    added = {"text_embeds": torch.randn(1, 48), "time_ids": torch.ones(1, 6)}
    with torch.no_grad():
        before = unet(noise, 5, text, added_cond_kwargs=added)[0]
        kinds = {name: type(one) for name, one in unet.attn_processors.items()}
        from photomaker.pipelines.drawing.changes import processors_in

        with processors_in(unet, method.processors):
            assert not method.processors[next(iter(method.processors))].on
            inside = unet(noise, 5, text, added_cond_kwargs=added)[0]
    assert torch.equal(before, inside)
    assert kinds == {name: type(one) for name, one in unet.attn_processors.items()}


def test_nothing_is_left_behind_after_an_error(method, references):
    unet = method.pipeline.unet
    names = set(unet.state_dict())

    def fail(*_):
        raise RuntimeError("in the middle")

    hook = unet.mid_block.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        drawn(method, method.fit(references[:1]))
    hook.remove()
    assert set(unet.state_dict()) == names
    assert all(processor.tokens is None and not processor.on for processor in method.processors.values())
    assert not method.pipeline.text_encoder.get_input_embeddings()._forward_hooks


def test_words_stand_behind_the_class_word_and_nowhere_else(method):
    pipeline = method.pipeline
    encoders, tokenizers = (
        (pipeline.text_encoder, pipeline.text_encoder_2),
        (pipeline.tokenizer, pipeline.tokenizer_2),
    )
    rows = expand_rows(["a photo of a man img on the beach", "a woman img"], [3, 3], tokenizers, long=True)
    assert [places.nonzero()[:, 0].tolist() for places in word_places(rows[0])] == [[6, 7], [3, 4]]
    words = torch.randn(2, 2, WIDTH, requires_grad=True)
    with torch.no_grad():
        plain = encode_rows(rows, encoders)
    with words_in(encoders, rows, words):
        changed = encode_rows(rows, encoders)
    before = (changed.embeds - plain.embeds).abs().amax(-1)
    assert not before[0, :6].any() and (before[0, 6:8] > 1e-3).all()  # the encoders look back only
    changed.embeds.sum().backward()
    assert (words.grad.abs().amax(-1) > 0).all()


def test_what_does_not_fit_is_refused_in_one_sentence(method, references, tiny_folder, tmp_path):
    tensors = load_file(tiny_photoverse(tiny_folder))
    save_file(
        {name: one for name, one in tensors.items() if "to_v_s" not in name}, tmp_path / "half.safetensors"
    )
    with pytest.raises(WeightsError, match="not a whole PhotoVerse file"):
        read_photoverse(tmp_path / "half.safetensors")
    some = dict(list(method.file.attention.items())[:1])
    with pytest.raises(WeightsError, match="for 1 cross-attention layers"):
        check_fit(replace(method.file, attention=some), method.pipeline.unet)
    with pytest.raises(WeightsError, match="reads layers"):
        PhotoVerse(method.pipeline, replace(method.file, config={"layers": [9, 8]}), method.tower)
    with pytest.raises(SettingsError, match="scale is -1"):
        PhotoVerse(method.pipeline, method.file, method.tower, scale=-1)
    identity = method.fit(references[:1])
    with pytest.raises(IdentityError, match="another PhotoVerse file"):
        method.generate(replace(identity, notes={"encoder_sha256": "other"}), [REQUEST])


def test_an_export_is_read_back(method, tmp_path):
    file = method.file
    path = export_photoverse(
        tmp_path / "one.safetensors", method.adapters, file.attention, {"layers": [-1, -2]}, None
    )
    again = read_photoverse(path)
    assert again.layers == (-1, -2) and again.rank == file.rank
    assert all(torch.equal(again.adapters[name], one) for name, one in file.adapters.items())
