"""The tokenizers: words are one token, the trigger is none, and they survive the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from photomaker.errors import SettingsError
from photomaker.training.data.tokenizer import (
    EOS,
    build_tokenizers,
    load_tokenizers,
    save_tokenizers,
    train_merges,
)

CAPTIONS = [
    "a photo of a woman wearing sunglasses in the snow",
    "A sketch of an old man, with a red cap.",
] * 3


def test_words_are_single_tokens_and_the_rest_still_encodes() -> None:
    first, _ = build_tokenizers(CAPTIONS)
    words = first.tokenize("a photo of an old man wearing sunglasses, in the snow")
    assert words == [
        w + "</w>"
        for w in ["a", "photo", "of", "an", "old", "man", "wearing", "sunglasses", ",", "in", "the", "snow"]
    ]
    assert "img</w>" not in first.get_vocab() and len(first.tokenize("img")) > 1
    assert first.unk_token_id not in first("Zürich 1999 żółw 漢字 🙂", add_special_tokens=False).input_ids
    assert first.get_vocab()["!"] == 0


def test_padding_and_marks_survive_the_disk(tmp_path: Path) -> None:
    made = build_tokenizers(CAPTIONS)
    save_tokenizers(made, tmp_path)
    for before, after, pad in zip(made, load_tokenizers(tmp_path), (made[0].eos_token_id, 0), strict=True):
        ids = [
            t(
                "a woman in the snow", padding="max_length", max_length=t.model_max_length, truncation=True
            ).input_ids
            for t in (before, after)
        ]
        assert ids[0] == ids[1] and len(ids[1]) == 77
        assert ids[1][0] == after.bos_token_id and ids[1][6] == after.eos_token_id
        assert set(ids[1][7:]) == {pad}
        assert after.add_tokens(["img"]) == 1
        assert after.convert_tokens_to_ids("img") == len(before)
        assert "img" in after.tokenize("a woman img in the snow")


def test_long_text_is_cut_to_77_with_the_end_mark() -> None:
    tokenizer, _ = build_tokenizers(CAPTIONS)
    ids = tokenizer("a woman " * 100, truncation=True).input_ids
    assert len(ids) == 77 and ids[-1] == tokenizer.convert_tokens_to_ids(EOS)


def test_mistakes() -> None:
    with pytest.raises(SettingsError, match="514"):
        train_merges(CAPTIONS, limit=514)
    with pytest.raises(SettingsError, match="img"):
        build_tokenizers(["a woman img in the snow"] * 9)
