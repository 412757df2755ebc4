"""A CLIP-style tokenizer with a small vocabulary, trained on captions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

from photomaker.errors import SettingsError

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
SUFFIX = "</w>"
LENGTH = 77
_WORDS = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def _splitter() -> Tokenizer:
    """An untrained tokenizer that normalises and splits as CLIP's does."""
    tokenizer = Tokenizer(BPE(end_of_word_suffix=SUFFIX, continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer


def _byte_order() -> list[str]:
    """CLIP's order of the 256 byte symbols: printable ones first, so that "!", SDXL's second padding, has number 0."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) for byte in visible] + [chr(256 + place) for place in range(len(hidden))]


def train_merges(captions: Iterable[str], limit: int = 1536) -> list[tuple[str, str]]:
    """Learn byte-pair merges until every word is one token or the vocabulary is full.

    Args:
        captions: Texts without the trigger word.
        limit: Largest vocabulary: 512 byte symbols, the merges and 2 marks.

    Returns:
        The merges, most frequent first.

    Raises:
        SettingsError: `limit` leaves no room for merges.
    """
    room = limit - 2 * 256 - 2
    if room < 1:
        raise SettingsError(f"a vocabulary of {limit} has no room for words; give at least 515")
    tokenizer = _splitter()
    trainer = BpeTrainer(
        vocab_size=256 + room + 100,
        end_of_word_suffix=SUFFIX,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(left, right) for left, right in merges][:room]


def vocabulary(merges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Number the tokens as CLIP does: bytes, bytes that end a word, merges, the two marks."""
    symbols = _byte_order()
    tokens = [*symbols, *(symbol + SUFFIX for symbol in symbols), *(a + b for a, b in merges), BOS, EOS]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}


def build_tokenizers(captions: Iterable[str], limit: int = 1536) -> tuple[CLIPTokenizer, CLIPTokenizer]:
    """Make SDXL's two tokenizers: the first pads with the end mark, the second with "!" (number 0).

    Raises:
        SettingsError: The vocabulary has no room, or the trigger word "img" became a token because captions hold it.
    """
    merges = train_merges(captions, limit)
    numbers = vocabulary(merges)
    if "img" + SUFFIX in numbers:
        raise SettingsError(
            "the captions contain the trigger word 'img'; train the tokenizer on captions without it"
        )

    def build(pad: str) -> CLIPTokenizer:
        return CLIPTokenizer(
            vocab=dict(numbers),
            merges=[*merges],
            unk_token=EOS,
            bos_token=BOS,
            eos_token=EOS,
            pad_token=pad,
            model_max_length=LENGTH,
        )

    return build(EOS), build("!")


def save_tokenizers(tokenizers: tuple[CLIPTokenizer, CLIPTokenizer], folder: Path) -> None:
    """Write `tokenizer` and `tokenizer_2` as a diffusers folder has them."""
    for tokenizer, name in zip(tokenizers, ("tokenizer", "tokenizer_2"), strict=True):
        tokenizer.save_pretrained(folder / name)


def load_tokenizers(folder: Path) -> tuple[CLIPTokenizer, CLIPTokenizer]:
    """Read what `save_tokenizers` wrote."""
    return CLIPTokenizer.from_pretrained(folder / "tokenizer"), CLIPTokenizer.from_pretrained(
        folder / "tokenizer_2"
    )
