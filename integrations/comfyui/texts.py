"""ComfyUI's CLIP as the two text encoders that a PhotoMaker adapter asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from photomaker import PromptError, WeightsError

_EMBEDDING = re.compile(r"(?:(?<=^)|(?<=[\s,(]))embedding:([^\s,:()]+)")
_FIRST_OWN = 10_000_000
"""Tokens of textual inversions have numbers from here on; vocabularies are smaller."""


class ComfyTokenizer:
    """One of the tokenizers behind a CLIP.

    Args:
        own: ComfyUI's `SDTokenizer`.
        learned: Textual inversions that were met: number of the token to its vector.
    """

    def __init__(self, own: Any, learned: dict[int, Tensor]) -> None:  # noqa: ANN401 - ComfyUI's
        """Read off its marks."""
        self._own = own
        self._learned = learned
        self.model_max_length = int(own.max_length)
        self.bos_token_id = int(own.start_token)
        self.eos_token_id = int(own.end_token)
        self.pad_token_id = int(own.pad_token)

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        """Token ids of a text; `embedding:name` stands for a textual inversion.

        Raises:
            PromptError: There is no such textual inversion.
        """
        assert not add_special_tokens
        ids: list[int] = []
        parts = _EMBEDDING.split(text)
        for place, part in enumerate(parts):
            ids += self._vectors(part) if place % 2 else self._words(part)
        return {"input_ids": ids}

    def decode(self, ids: list[int]) -> str:
        """Text of token ids; textual inversions are left out."""
        return str(self._own.tokenizer.decode([one for one in ids if one < _FIRST_OWN]))

    def _words(self, text: str) -> list[int]:
        return list(self._own.tokenizer(text, add_special_tokens=False)["input_ids"]) if text.strip() else []

    def _vectors(self, name: str) -> list[int]:
        found = None
        if self._own.embedding_directory is not None:
            found, _ = self._own._try_get_embedding(name)
        if found is None:
            raise PromptError(
                f"there is no textual inversion {name!r} in models/embeddings; put its file there, or take "
                f"'embedding:{name}' out of the prompt"
            )
        ids = []
        for vector in found.reshape(-1, found.shape[-1]):
            ids.append(_FIRST_OWN + len(self._learned))
            self._learned[ids[-1]] = vector
        return ids


class ComfyTexts:
    """Both text encoders behind a CLIP of SDXL.

    Args:
        clip: ComfyUI's CLIP.

    Raises:
        WeightsError: It is that of a different kind of model.
    """

    def __init__(self, clip: Any) -> None:  # noqa: ANN401 - ComfyUI's CLIP
        """Look whether it has both."""
        both = [getattr(getattr(clip, "tokenizer", None), name, None) for name in ("clip_l", "clip_g")]
        if None in both or not hasattr(getattr(clip, "cond_stage_model", None), "clip_l"):
            raise WeightsError(
                "the CLIP does not have SDXL's two text encoders; connect the CLIP of an SDXL checkpoint"
            )
        self._clip = clip
        self._learned: dict[int, Tensor] = {}
        first, second = (ComfyTokenizer(one, self._learned) for one in both)
        self.tokenizers = (first, second)

    def encode(self, ids: Sequence[int], ids_2: Sequence[int]) -> tuple[Tensor, Tensor]:
        """See `photomaker.TextEncoders`; a CLIP skip and LoRA of the CLIP take part."""
        chunks = {
            name: self._chunks(own, tokenizer.model_max_length)
            for name, own, tokenizer in zip("lg", (ids, ids_2), self.tokenizers, strict=True)
        }
        embeds, pooled = self._clip.encode_from_tokens(chunks, return_pooled=True)
        return embeds, pooled

    def options(self) -> dict[str, Any]:
        """What ComfyUI adds to a CONDITIONING of this CLIP, such as hooks."""
        added: dict[str, Any] = self._clip.add_hooks_to_dict({})
        return added

    def _chunks(self, ids: Sequence[int], length: int) -> list[list[tuple[Any, float]]]:
        tokens = [(self._learned.get(one, one), 1.0) for one in ids]
        return [tokens[start : start + length] for start in range(0, len(tokens), length)]
