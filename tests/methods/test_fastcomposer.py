"""FastComposer: the published layout loads, two people share a prompt, and what does not fit is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.tiny import WIDTH, tiny_fastcomposer

from photomaker.encoders.fastcomposer import check_fit, export_fastcomposer, read_fastcomposer
from photomaker.errors import IdentityError, PromptError, WeightsError
from photomaker.methods.fastcomposer import FastComposer
from photomaker.prompts import expand, expand_subjects
from photomaker.types import Identity, Reference, Request, Sampling

ONE = Request("a photo of a man img on the beach", Sampling(steps=2, seed=7, merge=0.0))
TWO = replace(ONE, prompt="a photo of a man img and a woman img on the beach")


@pytest.fixture(scope="module")
def method(tiny_base, tiny_folder):
    return FastComposer.open(tiny_base, tiny_fastcomposer(tiny_folder), device="cpu")


@pytest.fixture(scope="module")
def people(method, photos):
    references = [Reference(photo, name=f"photo {number}") for number, photo in enumerate(photos)]
    return [method.fit(references[:1]), method.fit(references[1:3])]


def drawn(method, identity, request=ONE):
    return np.array(method.generate(identity, [request])[0]).astype(int)


def test_two_people_in_one_prompt_are_each_in_their_place(method, people, tmp_path):
    both = method.together(people)
    assert torch.equal(both.tensors["subjects"], torch.tensor([0, 1, 1]))
    picture = drawn(method, both, TWO)
    turned = drawn(method, method.together(people[::-1]), TWO)
    assert np.abs(picture - turned).max() > 0
    again = Identity.load(both.save(tmp_path / "both.safetensors"))
    assert np.array_equal(drawn(method, again, TWO), picture)
    alone = method.together([people[0], _without(people[1])])
    assert np.abs(drawn(method, alone, TWO) - picture).max() > 0
    nobody = method.together([_without(one) for one in people])
    text = replace(TWO, sampling=replace(TWO.sampling, merge=1.0))
    assert np.array_equal(drawn(method, nobody, TWO), drawn(method, both, text))


def _without(identity):
    return replace(identity, tensors={**identity.tensors, "weights": identity.tensors["weights"] * 0})


def test_the_number_of_triggers_is_that_of_the_people(method, people):
    both = method.together(people)
    with pytest.raises(PromptError, match="1 times, but there are 2 people"):
        method.generate(both, [ONE])
    with pytest.raises(PromptError, match="2 times"):
        method.generate(people[0], [TWO])
    with pytest.raises(PromptError, match="no class word before each trigger"):
        method.generate(both, [replace(TWO, prompt="a man img and, img on the beach")])
    with pytest.raises(IdentityError, match="to combine is 1"):
        method.together(people[:1])
    with pytest.raises(IdentityError, match="another FastComposer checkpoint"):
        method.together([people[0], replace(people[1], notes={"encoder_sha256": "other"})])


def test_class_tokens_of_several_people_are_marked_once_each(method):
    tokenizer = method.pipeline.tokenizer
    row = expand_subjects("a man img and an (old woman img:1.3) on the beach", tokenizer, [1, 1])
    words = [
        tokenizer.decode([token]) for token, marked in zip(row.ids, row.class_tokens, strict=True) if marked
    ]
    assert [word.strip() for word in words] == ["man", "woman"]
    assert row.is_weighted and row.text_only == "a man and an old woman on the beach"
    one = expand_subjects("a photo of a man img in the snow", tokenizer, [1])
    other = expand("a photo of a man img in the snow", tokenizer, 1)
    assert (one.ids, one.class_tokens) == (other.ids, other.class_tokens)


def test_the_unet_is_given_back_also_after_an_error(method, people):
    unet = method.pipeline.unet
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    seen = []
    hook = unet.mid_block.register_forward_pre_hook(
        lambda module, _: seen.append(module.resnets[0].conv1.weight.clone())
    )
    first = drawn(method, people[0])
    hook.remove()
    wanted = method.file.unet["mid_block.resnets.0.conv1.weight"]
    assert torch.equal(seen[0], wanted) and not torch.equal(
        before["mid_block.resnets.0.conv1.weight"], wanted
    )

    def fail(*_):
        raise RuntimeError("in the middle")

    hook = unet.mid_block.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        drawn(method, people[0])
    hook.remove()
    assert all(torch.equal(before[name], tensor) for name, tensor in unet.state_dict().items())
    assert np.array_equal(drawn(method, people[0]), first)


def test_the_published_layout_of_another_width_is_read_and_says_what_base_it_needs(
    method, tiny_folder, tmp_path
):
    file = read_fastcomposer(tiny_fastcomposer(tiny_folder, 768))
    assert file.build_encoder().width == 768
    with pytest.raises(WeightsError, match=rf"for Stable Diffusion 1\.5, but the base has width {WIDTH}"):
        check_fit(file, method.pipeline.unet)
    wrong = replace(method.file, unet={"conv_in.weight": torch.ones(2)})
    with pytest.raises(WeightsError, match=r"unet\.conv_in\.weight"):
        check_fit(wrong, method.pipeline.unet)
    torch.save({"unet": {"a": torch.ones(1)}}, tmp_path / "half.bin")
    with pytest.raises(WeightsError, match="no `image_encoder` weights"):
        read_fastcomposer(tmp_path / "half.bin")


def test_an_export_is_read_back(method, tmp_path):
    some = {"conv_in.weight": method.file.unet["conv_in.weight"]}
    path = export_fastcomposer(tmp_path / "one.safetensors", method.encoder, some, {"crop": 0.0}, None)
    again = read_fastcomposer(path)
    assert again.unet.keys() == some.keys() and again.config["crop"] == 0.0
    state = again.build_encoder().state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in method.encoder.state_dict().items())
