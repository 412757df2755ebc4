"""Ids with the class token repeated, compared with a tokenizer that holds the trigger as the official code has it."""

import copy
import pickle

import pytest
import torch
from tests.tiny import WIDTH, WIDTH_2

from photomaker.errors import PromptError
from photomaker.prompts import encode, expand


@pytest.fixture(scope="module")
def load(tiny_base):
    from transformers import CLIPTokenizer

    return lambda name="tokenizer": CLIPTokenizer.from_pretrained(tiny_base / name)


@pytest.fixture(scope="module")
def tokenizer(load):
    return load()


def official(tokenizer, prompt, copies):
    """The procedure of the first release, on a tokenizer that is changed for it."""
    tokenizer.add_tokens(["img"], special_tokens=True)
    ids = tokenizer(prompt).input_ids
    place = ids.index(tokenizer.convert_tokens_to_ids("img"))
    ids = [*ids[: place - 1], *[ids[place - 1]] * copies, *ids[place + 1 :]]
    limit = tokenizer.model_max_length
    return (ids + [tokenizer.pad_token_id] * limit)[:limit], place - 1


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_2"])
@pytest.mark.parametrize(
    "prompt",
    [
        "a photo of a man img wearing a red hat",
        "A Photo of an OLD WOMAN img, smiling",
        "an astronaut img",
        "a manimg in the park",
        "a girl imgs",
        "a man img " + "red cat " * 60,
    ],
)
@pytest.mark.parametrize("copies", [1, 4])
def test_ids_are_the_official_ones(load, name, prompt, copies):
    mine = expand(prompt, load(name), copies)
    ids, place = official(load(name), prompt, copies)
    assert list(mine.ids) == ids
    assert [at for at, is_class in enumerate(mine.class_tokens) if is_class] == list(
        range(place, place + copies)
    )


def test_the_tokenizer_is_not_changed(load):
    tokenizer = load()
    before = (len(tokenizer), tokenizer("a man img").input_ids)
    expand("a man img", tokenizer, 3)
    assert (len(tokenizer), tokenizer("a man img").input_ids) == before


def test_the_last_part_of_a_class_word_is_repeated(tokenizer):
    parts = tokenizer("astronaut", add_special_tokens=False).input_ids
    assert len(parts) > 1
    mine = expand("an astronaut img smiling", tokenizer, 3)
    start = mine.class_tokens.index(True)
    assert mine.ids[start - len(parts) + 1 : start + 3] == (*parts[:-1], *[parts[-1]] * 3)


def test_the_text_only_prompt_has_no_trigger(tokenizer):
    assert expand("A photo of a Man img, smiling", tokenizer, 2).text_only.split() == [
        "a", "photo", "of", "a", "man", ",", "smiling",
    ]  # fmt: skip


def test_cutting_first_ends_a_long_text_before_the_copies_push_it_out(tokenizer):
    prompt = "a man img " + "red " * 90
    second, first = expand(prompt, tokenizer, 1, cut_first=True), expand(prompt, tokenizer, 1)
    assert tokenizer.eos_token_id in second.ids
    assert tokenizer.eos_token_id not in first.ids
    assert second.ids[:75] == first.ids[:75]


def test_a_class_word_past_the_limit_is_refused(tokenizer):
    with pytest.raises(PromptError, match="'man' is token 81"):
        expand("red " * 80 + "man img", tokenizer, 1)


def test_slots_past_the_limit_are_counted(tokenizer):
    assert expand("red " * 72 + "man img", tokenizer, 9).slots == 4


def test_a_batch_of_different_photo_counts_is_each_row_alone(tiny_base, load):
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    encoders = (
        CLIPTextModel.from_pretrained(tiny_base / "text_encoder"),
        CLIPTextModelWithProjection.from_pretrained(tiny_base / "text_encoder_2"),
    )
    tokenizers = (load(), load("tokenizer_2"))
    prompts, copies = ["a man img in the snow", "a sketch of an old woman img"], [1, 4]
    with torch.no_grad():
        both = encode(prompts, copies, tokenizers, encoders)
        alone = [
            encode([one], [count], tokenizers, encoders) for one, count in zip(prompts, copies, strict=True)
        ]
    assert both.embeds.shape == (2, 77, WIDTH)
    assert both.pooled.shape == (2, WIDTH_2)
    assert both.class_tokens.sum(dim=1).tolist() == copies
    torch.testing.assert_close(both.embeds, torch.cat([one.embeds for one in alone]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(both.pooled, torch.cat([one.pooled for one in alone]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["deepcopy", "pickle"]
)
def test_a_copied_tokenizer_reads_the_same_text_back(tokenizer, copied):
    prompt = "A Photo of a MAN img, smiling; the man's (old) book!"
    mine, other = expand(prompt, tokenizer, 2), expand(prompt, copied(tokenizer), 2)
    assert other == mine
    assert mine.text_only == "a photo of a man , smiling ; the man 's ( old ) book !"
