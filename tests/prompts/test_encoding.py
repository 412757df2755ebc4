"""What goes into the text encoders, id by id, with a tokenizer of twelve places in which every word is a token."""

import pytest
import torch
from torch import nn

from photomaker.prompts import (
    encode,
    encode_rows,
    expand,
    expand_plain,
    expand_rows,
    expand_subjects,
    lengthened,
    weighed,
)

BOS, EOS, PAD = 1, 2, 3


class Words:
    """Numbers words from 10 on as they come."""

    model_max_length, bos_token_id, eos_token_id, pad_token_id = 12, BOS, EOS, PAD

    def __init__(self, first=10):
        self.known, self.first = {}, first

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        return {
            "input_ids": [self.known.setdefault(word, self.first + len(self.known)) for word in text.split()]
        }

    def decode(self, ids):
        names = {number: word for word, number in self.known.items()}
        return " ".join(names[one] for one in ids)

    def said(self, expanded):
        names = {number: word for word, number in self.known.items()} | {BOS: "<", EOS: ">", PAD: "."}
        return " ".join(names[one] for one in expanded.ids)


@pytest.fixture
def words():
    return Words()


def marked(expanded):
    return [place for place, one in enumerate(expanded.class_tokens) if one]


def test_the_class_token_is_repeated_in_its_place(words):
    made = expand("a tall man img in snow", words, 3)
    assert words.said(made) == "< a tall man man man in snow > . . ."
    assert marked(made) == [3, 4, 5]
    assert made.text_only == "a tall man in snow"
    assert (made.slots, made.lost, made.chunk) == (3, "", 12)
    assert made.weights == (1.0,) * 12 and not made.is_weighted


def test_weights_stand_at_their_words(words):
    made = expand("a (man:1.5) img in (deep snow:0.5)", words, 2)
    assert words.said(made) == "< a man man in deep snow > . . . ."
    assert made.weights == (1, 1, 1.5, 1.5, 1, 0.5, 0.5, 1, 1, 1, 1, 1)
    assert made.is_weighted


def test_what_does_not_fit_falls_off_and_is_told(words):
    made = expand("a man img b c d e f g h i j k", words, 2)
    assert words.said(made) == "< a man man b c d e f g h i"
    assert made.lost == "j k"
    cut = expand("a man img b c d e f g h i j k", words, 2, cut_first=True)
    assert words.said(cut) == "< a man man b c d e f g h >"
    assert cut.lost == "i j k"


def test_a_long_text_goes_on_in_further_chunks(words):
    made = expand("a man img b c d e f g h i j k", words, 2, long=True)
    assert words.said(made) == "< a man man b c d e f g h > < i j k > . . . . . . ."
    assert marked(made) == [2, 3]
    assert (made.lost, made.chunk, made.text_only) == ("", 12, "a man b c d e f g h i j k")
    weighted = expand("a man img b c d e f g h (i:2) j", words, 2, long=True)
    assert weighted.weights == (1.0,) * 13 + (2.0,) + (1.0,) * 10


@pytest.mark.parametrize(("copies", "begin"), [(4, 9), (5, 13)])
def test_copies_that_do_not_fit_in_a_chunk_go_to_the_next_together(words, copies, begin):
    made = expand("a b c d e f man img z", words, copies, long=True)
    assert marked(made) == list(range(7 if copies == 4 else begin, (7 if copies == 4 else begin) + copies))
    assert words.said(made).startswith(
        "< a b c d e f man man man man >" if copies == 4 else "< a b c d e f > . . . . <"
    )


def test_as_many_copies_as_a_chunk_has_room_for_stay_together_and_more_are_cut_up(words):
    ten = expand("a man img", words, 10, long=True)
    assert marked(ten) == list(range(13, 23))
    eleven = expand("a man img", words, 11, long=True)
    assert marked(eleven) == [*range(2, 11), 13, 14]


def test_a_text_without_a_person(words):
    made = expand_plain("a (b:1.5) c d e f g h i j k l", words)
    assert words.said(made) == "< a b c d e f g h i j >"
    assert (made.lost, made.text_only, made.slots) == ("k l", "a b c d e f g h i j k l", 0)
    assert made.weights == (1, 1, 1.5) + (1,) * 9
    long = expand_plain("a (b:1.5) c d e f g h i j k l", words, long=True)
    assert words.said(long) == "< a b c d e f g h i j > < k l > . . . . . . . ."
    assert long.lost == ""


def test_several_people_are_marked_once_each(words):
    made = expand_subjects("a man img and a woman img", words, [1, 1])
    assert words.said(made) == "< a man and a woman > . . . . ."
    assert marked(made) == [2, 5]
    assert made.text_only == "a man and a woman"


def test_names_are_converted(words):
    def convert(text):
        return text.replace("sks", "s1 s2")

    assert words.said(expand("a sks man img", words, 1, convert=convert)) == "< a s1 s2 man > . . . . . ."
    assert words.said(expand_plain("sks", words, convert)) == "< s1 s2 > . . . . . . . ."
    assert expand("a man them", words, 1, "them").text_only == "a man"


def test_rows_for_both_encoders(words):
    second = Words(100)
    seen = []

    def convert(text, tokenizer):
        seen.append(tokenizer)
        return text.replace("sks", "s1 s2")

    rows = expand_rows(
        ["a sks man img", "a boy img"],
        [2, 1],
        (words, second),
        ["the man img", "the boy img"],
        convert=convert,
    )
    assert [words.said(row) for row in rows[0]] == [
        "< a s1 s2 man man > . . . . .",
        "< a boy > . . . . . . . .",
    ]
    assert [second.said(row) for row in rows[1]] == [
        "< the man man > . . . . . . .",
        "< the boy > . . . . . . . .",
    ]
    assert set(map(id, seen)) == {id(words), id(second)}
    same = expand_rows(["a man img"], [1], (words, second))
    assert second.said(same[1][0]) == "< a man > . . . . . . . ."
    assert seen[-1] is not None


def test_rows_pass_on_what_is_asked_for(words):
    tokenizers, text = (words, Words(100)), "a man them b c d e f g h i j k"
    (row,), _ = expand_rows([text], [2], tokenizers, trigger="them")
    assert words.said(row) == "< a man man b c d e f g h i"
    (row,), _ = expand_rows([text], [2], tokenizers, trigger="them", cut_first=True)
    assert words.said(row) == "< a man man b c d e f g h >"
    (row, other), _ = expand_rows([text, "a man them"], [2, 1], tokenizers, trigger="them", long=True)
    assert len(row.ids) == len(other.ids) == len(other.class_tokens) == len(other.weights) == 24
    assert words.said(other) == "< a man > . . . . . . . . < > . . . . . . . . . ."
    assert marked(other) == [2] and not other.is_weighted
    (row,), _ = expand_rows(["b c d e f g h i j k l m"], None, tokenizers)
    assert (len(row.ids), row.lost) == (12, "l m")
    (row,), _ = expand_rows(
        ["b c d e f g h i j k l sks"],
        None,
        tokenizers,
        convert=lambda text, _: text.replace("sks", "s1 s2"),
        long=True,
    )
    assert words.said(row) == "< b c d e f g h i j k > < l s1 s2 > . . . . . . ."
    with pytest.raises(ValueError, match="zip"):
        expand_rows(["a man img"], [1, 2], tokenizers)
    with pytest.raises(ValueError, match="zip"):
        expand_rows(["a man img"], [1], (words,))


def test_rows_are_lengthened_to_the_longest_or_further(words):
    rows = expand_rows(["a man img"], [1], (words, Words(100)))
    assert lengthened(rows, (words, words)) == rows
    longer = lengthened(rows, (words, words), 36)
    assert {len(row.ids) for own in longer for row in own} == {36}
    assert longer[0][0].weights == (1.0,) * 36
    with pytest.raises(ValueError, match="zip"):
        lengthened(rows, (words,))


class Encoder(nn.Module):
    """Hidden states are the ids times the layer's number; pooled features are the sum of a row's ids."""

    def __init__(self, width):
        super().__init__()
        self.width, self.device, self.given = width, torch.device("cpu"), []

    def forward(self, ids, output_hidden_states):
        assert output_hidden_states
        self.given.append(ids)
        hidden = [ids[..., None].expand(*ids.shape, self.width).float() * layer for layer in range(5)]
        return type(
            "Output",
            (),
            {"hidden_states": hidden, "__getitem__": lambda _, at: [ids.sum(1, keepdim=True).float()][at]},
        )()


def test_the_layer_before_the_last_of_both_encoders_side_by_side(words):
    encoders, second = (Encoder(2), Encoder(3)), Words(100)
    made = encode(["a man img", "a (boy:2) img in snow"], [2, 1], (words, second), encoders)
    assert made.embeds.shape == (2, 12, 5)
    first, other = encoders[0].given[0], encoders[1].given[0]
    assert torch.equal(made.embeds[..., 0], first * 3.0) and torch.equal(made.embeds[..., 4], other * 3.0)
    assert torch.equal(made.pooled[:, 0], other.sum(1).float())
    assert made.class_tokens.nonzero().tolist() == [[0, 2], [0, 3], [1, 2]]
    assert torch.equal(made.class_tokens, made.class_tokens_2)
    assert made.weights.shape == made.embeds.shape and made.weights[1, 2].tolist() == [2] * 5
    assert made.weights.sum() == 2 * 12 * 5 + 5
    skipped = encode(["a man img", "a boy img"], [2, 1], (words, second), encoders, 1)
    assert torch.equal(skipped.embeds[..., 0], encoders[0].given[-1] * 2.0)
    assert skipped.weights is None
    with pytest.raises(ValueError, match="zip"):
        encode(["a man img"], [1, 2], (words, second), encoders)
    elsewhere = encode(["a man img"], [1], (words, second), encoders, None, "meta")
    assert elsewhere.embeds.device.type == "meta"


def test_chunks_go_through_the_encoders_one_by_one_and_the_first_is_pooled(words):
    encoders = (Encoder(2), Encoder(3))
    rows = expand_rows(["a man img b c d e f g h i j k", "a man img"], [2, 1], (words, words), long=True)
    made = encode_rows(rows, encoders)
    assert [tuple(one.given[0].shape) for one in encoders] == [(4, 12), (4, 12)]
    assert made.embeds.shape == (2, 24, 5)
    assert made.pooled[:, 0].tolist() == [sum(row.ids[:12]) for row in rows[1]]
    assert encode_rows((rows[0][1:], rows[1][1:]), encoders).embeds.shape == (1, 24, 5)
    with pytest.raises(ValueError, match="zip"):
        encode_rows(rows, encoders[:1])


def test_weights_move_embeddings_away_from_the_empty_prompt():
    embeds, empty = torch.rand(2, 4, 3, dtype=torch.float64), torch.rand(1, 2, 3)
    assert weighed(embeds, None, empty) is embeds
    weights = torch.ones(2, 4, 3)
    weights[1, 3], weights[0, 0] = 2, 0
    moved = weighed(embeds, weights, empty)
    assert moved.dtype == embeds.dtype
    torch.testing.assert_close(moved[1, 3], 2 * embeds[1, 3] - empty[0, 1].double())
    torch.testing.assert_close(moved[0, 0], empty[0, 0].double())
    assert torch.equal(moved[1, :3], embeds[1, :3])
