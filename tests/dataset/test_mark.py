"""Which word of a caption stands for the person."""

import pytest

from photomaker.classes import class_words
from photomaker.dataset.base import Dropped
from photomaker.dataset.mark import Mark, most_frequent, singular
from photomaker.faces.plugins import PlugIn


def row(caption, *clip):
    words = class_words(caption)
    scores = clip or (None,) * len(words)
    candidates = [
        {"word": one.word, "start": one.start, "end": one.end, "segment": one.word, "clip": score}
        for one, score in zip(words, scores, strict=True)
    ]
    return {"key": caption, "person": "p", "caption": caption, "candidates": candidates}


def marked(*rows):
    results = list(Mark().open()(list(rows)))
    for one in results:
        if not isinstance(one, Dropped):
            assert one["caption"][one["class_start"] : one["class_end"]].lower() == one["class_word"]
    return results


def test_the_only_class_word_is_taken_whatever_the_group_says():
    results = marked(row("a man"), row("a man in a suit"), row("a guy by the sea"))
    assert [one["class_word"] for one in results] == ["man", "man", "guy"]
    assert results[2]["class_start"] == 2


def test_of_several_the_groups_word_is_taken():
    results = marked(row("a man"), row("a man with a hat"), row("a girl and a man", 0.9, 0.1))
    assert results[2]["class_word"] == "man" and results[2]["class_start"] == 13


def test_a_caption_without_the_groups_word_takes_the_largest_product():
    group = [row("a man")] * 3
    # a girl is less like "man" than a gentleman is, but may score so much higher that she wins
    assert marked(*group, row("a girl and a gentleman", 0.30, 0.28))[3]["class_word"] == "gentleman"
    assert marked(*group, row("a girl and a gentleman", 0.90, 0.10))[3]["class_word"] == "girl"


def test_of_the_same_word_twice_the_better_phrase_is_taken():
    group = [row("a man")] * 2
    assert marked(*group, row("a man and a man in red", 0.1, 0.2))[2]["class_start"] == 12


def test_plurals_are_brought_into_the_singular_and_the_span_moves_along():
    (one,) = marked(row("Women and children with one of the ladies here", 0.1, 0.1, 0.9))
    assert one["caption"] == "Woman and child with one of the lady here"
    assert (one["class_word"], one["class_start"], one["class_end"]) == ("child", 10, 15)
    caption, spans = singular("two men", row("two men")["candidates"])
    assert (caption, spans) == ("two man", [(4, 7)])


def test_a_caption_without_a_class_word_goes():
    good, bad = marked(row("a man"), row("a face"))
    assert isinstance(bad, Dropped) and (bad.reason, bad.detail) == ("no class word", "a face")
    assert good["class_word"] == "man"


@pytest.mark.parametrize(
    ("captions", "word"),
    [
        (["a man", "a boy", "a boy"], "boy"),
        (["a man and a person", "a person and a boy", "a man"], "man"),
        (["a man and a man and a man", "a boy", "a boy"], "boy"),
        (["a face"], ""),
        (["a woman and a girl"], "girl"),
    ],
)
def test_the_most_frequent_word(captions, word):
    assert most_frequent([row(caption) for caption in captions]) == word


def test_licences():
    assert Mark(PlugIn("rules")).licences == {"similarity": "Apache-2.0"}
