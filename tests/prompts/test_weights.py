"""Prompt weights: what is read, what is left as text, and what they do to token ids and embeddings."""

import time

import pytest
import torch

from photomaker.errors import PromptError
from photomaker.prompts import expand, expand_plain, parse, read_weights, weighed


@pytest.fixture(scope="module")
def tokenizer(tiny_base):
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(tiny_base / "tokenizer")


@pytest.mark.parametrize(
    ("prompt", "runs"),
    [
        ("a red hat", [("a red hat", 1)]),
        ("a (red:1.5) hat", [("a ", 1), ("red", 1.5), (" hat", 1)]),
        ("(a (red:2) hat:.5)", [("a ", 0.5), ("red", 1.0), (" hat", 0.5)]),
        ("a hat (red)", [("a hat (red)", 1)]),
        (r"a hat \(red:1.5\)", [("a hat (red:1.5)", 1)]),
        ("a hat :1.5) and (", [("a hat :1.5) and (", 1)]),
        ("((red) hat: 0)", [("(red) hat", 0)]),
    ],
)
def test_marks_are_read(prompt, runs):
    read = read_weights(prompt)
    assert read.runs() == runs
    assert len(read.weights) == len(read.text)


@pytest.mark.parametrize(
    ("prompt", "weight"),
    [
        ("a (man) img in snow", 1.1),
        ("a ((man)) img in snow", 1.21),
        ("a [man] img in snow", 1 / 1.1),
        ("a [[man]] img in snow", 1 / 1.21),
        ("a ([man]) img in snow", 1),
        ("a (man:1.2) img in snow", 1.2),
        ("a ((man:1.2)) img in snow", 1.32),
        ("a [(man:1.2)] img in snow", 1.2 / 1.1),
        ("a ((man)) in snow", 1.21),
        ("a ((man) img) in snow", 1.21),
        ("a (man (img)) in snow", 1.1),
        ("a man (img) in snow", 1),
        ("a man [[img]] in snow", 1),
        ("a (man)img in snow", 1.1),
        ("a ( man ) img in snow", 1.1),
    ],
)
def test_emphasis_of_the_class_word(tokenizer, prompt, weight):
    mine = expand(prompt, tokenizer, 3)
    plain = expand("a man img in snow", tokenizer, 3)
    assert (mine.ids, mine.class_tokens, mine.text_only) == (plain.ids, plain.class_tokens, plain.text_only)
    wanted = [weight if is_class else 1 for is_class in plain.class_tokens]
    assert mine.weights == pytest.approx(wanted, abs=1e-12)


def test_emphasis_of_the_class_word_makes_all_brackets_emphasis():
    read = parse("(best photo) of an [old (man)] img in (heavy [snow:x] (rain:1.5))")
    runs = [
        (text.strip(), round(weight, 4))
        for part in read.weighted
        for text, weight in part.runs()
        if text.strip()
    ]
    assert runs == [
        ("best photo", 1.1), ("of an", 1), ("old", 0.9091), ("man", 1), ("in", 1), ("heavy", 1.1), ("snow:x", 1),
        ("rain", 1.65),
    ]  # fmt: skip


def test_escaped_brackets_and_those_without_a_partner_stay_text():
    assert parse(r"a \(nice\) (man) img \[in snow\]").weighted[1].text == " [in snow]"
    read = parse("a ((man) img in ] snow")
    assert (read.before, read.after, read.class_word) == ("a (man", " in ] snow", "man")


@pytest.mark.parametrize(
    "prompt", ["a (man img) in (snow)", "((man img)) in [snow]", "a man img in ((snow))", "a man (old)"]
)
def test_brackets_that_do_not_part_class_word_and_trigger_stay_text(prompt):
    """As in the official code, which draws of them."""
    parsed = parse(prompt)
    assert parsed.weights is None
    assert (parsed.before + parsed.after).replace(" ", "") == prompt.replace("img", "").replace(" ", "")
    assert parsed.class_word == "man"


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (r"a man\) img", r"bracket '\)' parts the class word from the trigger 'img'"),
        ("a man) img", r"bracket '\)' parts"),
        ("{man} img", "bracket '}' parts"),
        ("a man ((img in snow", r"bracket '\(' parts"),
        ("[man:0.8] img", "in square brackets"),
        ("(" * 20 + "man" + ")" * 20 + " img", "the weight 6.7275 in .* is not from 0 to 5"),
        ("((img)) smiling", "no class word before"),
    ],
)
def test_brackets_that_are_no_emphasis_are_told_apart(prompt, words):
    with pytest.raises(PromptError, match=words):
        parse(prompt)


def test_thousands_of_marks_are_read_at_once():
    begin = time.perf_counter()
    deep = parse("(man) img " + "[" * 5000 + "x" + "]" * 5000)
    assert deep.after.strip() == "x"
    parse("a man img :" + "1" * 50_000)
    assert time.perf_counter() - begin < 3


@pytest.mark.parametrize("weight", ["-1", "5.1", "9"])
def test_weights_out_of_range_are_told(weight):
    with pytest.raises(PromptError, match=f"the weight {weight} "):
        parse(f"a (man:{weight}) img")


@pytest.mark.parametrize(
    "prompt", ["a photo of a (man:1.2) img in (heavy snow:1.5)", "a photo of (a man img in:1.2) heavy snow"]
)
def test_marks_do_not_change_the_ids(tokenizer, prompt):
    plain = expand("a photo of a man img in heavy snow", tokenizer, 3)
    mine = expand(prompt, tokenizer, 3)
    assert (mine.ids, mine.class_tokens, mine.text_only) == (plain.ids, plain.class_tokens, plain.text_only)
    classes = {weight for weight, is_class in zip(mine.weights, mine.class_tokens, strict=True) if is_class}
    assert classes == {1.2}
    assert (mine.is_weighted, plain.is_weighted) == (True, False)


def test_weights_are_kept_where_the_trigger_is_put_in(tokenizer):
    with_trigger = expand("a (man:1.2) img in (snow:0.5)", tokenizer, 2)
    assert expand("a (man:1.2) in (snow:0.5)", tokenizer, 2) == with_trigger


def test_embeddings_move_along_the_line_from_the_empty_prompt():
    torch.manual_seed(0)
    embeds, empty = torch.randn(2, 6, 4), torch.randn(1, 3, 4)
    weights = torch.ones(2, 6, 4)
    weights[0, 4], weights[1, 2] = 0.0, 2.0
    got = weighed(embeds, weights, empty)
    torch.testing.assert_close(got[0, 4], empty[0, 1])
    torch.testing.assert_close(got[1, 2] - empty[0, 2], 2 * (embeds[1, 2] - empty[0, 2]))
    same = weights == 1
    assert torch.equal(got[same], embeds[same])


def test_a_long_text_goes_on_in_chunks(tokenizer):
    words = " ".join(["red cat"] * 90)
    long = expand(f"a man img {words}", tokenizer, 4, long=True)
    assert len(long.ids) % 77 == 0
    assert len(long.ids) > 77
    short = expand("a man img", tokenizer, 4, long=True)
    assert short.ids == expand("a man img", tokenizer, 4).ids
    marks = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    kept = [token for token in long.ids if token not in marks]
    said = tokenizer(f"a man man man man {words}", add_special_tokens=False).input_ids
    assert kept == said
    starts = [long.ids[place] for place in range(0, len(long.ids), 77)]
    assert starts == [tokenizer.bos_token_id] * len(starts)
    assert not long.lost


def test_copies_of_the_class_token_stay_in_one_chunk(tokenizer):
    long = expand("red " * 72 + "man img in the snow", tokenizer, 9, long=True)
    places = [place for place, is_class in enumerate(long.class_tokens) if is_class]
    assert places == list(range(78, 87))


def test_more_copies_than_a_chunk_holds_go_on(tokenizer):
    long = expand("a man img", tokenizer, 80, long=True)
    assert long.slots == 80
    assert len(long.ids) == 2 * 77


def test_what_is_lost_is_told(tokenizer):
    assert expand("a man img " + "red " * 80 + "hat", tokenizer, 1).lost.split()[-1] == "hat"
    assert not expand("a man img in the snow", tokenizer, 4).lost
    assert expand_plain("red " * 80 + "hat", tokenizer).lost.split() == ["red"] * 5 + ["hat"]
