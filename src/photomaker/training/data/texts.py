"""Text embeddings of captions before anything is fused in, computed each time or once and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from photomaker.prompts.encoding import Copies, EncodedPrompts, encode
from photomaker.prompts.expand import expand
from photomaker.prompts.trigger import ParsedPrompt
from photomaker.training.recipes.base import BaseParts
from photomaker.training.losses.diffusion import use_plain_attention
from photomaker.training.data.latents import fingerprint
from photomaker.training.data.array_cache import ALONE, Share, computed

Caption = str | ParsedPrompt


class Texts:
    """Captions through the frozen text encoders.

    Args:
        parts: The base.
    """

    def __init__(self, parts: BaseParts) -> None:
        """Keep the base."""
        use_plain_attention(*parts.text_encoders)
        self.parts = parts

    def prepare(self, device: torch.device) -> None:
        """Move what is needed to `device`."""
        for encoder in self.parts.text_encoders:
            encoder.to(device)

    @torch.no_grad()
    def __call__(
        self, captions: Sequence[Caption], copies: Sequence[Copies], device: torch.device
    ) -> EncodedPrompts:
        """Encode captions whose class token, or that of each of several people, is repeated `copies` times."""
        return encode(captions, copies, self.parts.tokenizers, self.parts.text_encoders, device=device)


class KeptTexts(Texts):
    """The same from disk, for captions that are known beforehand; what is missing is computed at the start.

    The class token is repeated before the text encoders run, so that a caption is kept once for each number of copies:
    for SDXL in bfloat16 that is 0.32 MB each. Encoded one by one, the numbers are those of `Texts` bit for bit with
    slices of one row; with larger ones the order of sums may differ.

    Args:
        parts: The base.
        captions: All captions that will be asked for.
        copies: All numbers of copies.
        folder: Where the caches are kept.
        share: Which part of the work is this process's.
        precision: Autocast precision while encoding, as in training.

    Raises:
        OutputError: The folder cannot be written.
    """

    def __init__(
        self,
        parts: BaseParts,
        captions: Sequence[Caption],
        copies: Sequence[int],
        folder: Path,
        share: Share = ALONE,
        precision: str = "fp32",
    ) -> None:
        """Compute what is missing."""
        super().__init__(parts)
        self.entries = {caption: place for place, caption in enumerate(dict.fromkeys(captions))}
        self.copies = {count: place for place, count in enumerate(copies)}
        first, second = parts.text_encoders
        width, each = first.config.hidden_size + second.config.hidden_size, len(copies)
        length, count = parts.tokenizers[0].model_max_length, len(self.entries)
        known = list(self.entries)

        def one(caption: Caption, number: int) -> EncodedPrompts:
            with torch.autocast(first.device.type, torch.bfloat16, enabled=precision == "bf16"):
                return Texts.__call__(self, [caption], [number], first.device)

        self.dtype = one(known[0], copies[0]).embeds.dtype

        def compute(rows: np.ndarray) -> dict[str, np.ndarray]:
            found = [one(known[int(row)], number) for row in rows for number in copies]
            embeds, pooled = (
                _bits(torch.cat(parts).to(self.dtype).cpu())
                for parts in ([text.embeds for text in found], [text.pooled for text in found])
            )
            return {
                "embeds": embeds.reshape(len(rows), each, length, width),
                "pooled": pooled.reshape(len(rows), each, -1),
            }

        names = hashlib.sha256(repr([(known, list(copies), precision)]).encode()).hexdigest()[:16]
        prints = hashlib.sha256("".join(map(fingerprint, parts.text_encoders)).encode()).hexdigest()[:16]
        self.arrays = computed(
            folder / f"texts_{prints}_{names}",
            {
                "embeds": (count, each, length, width),
                "pooled": (count, each, second.config.projection_dim),
            },
            compute,
            share,
            np.uint16 if self.dtype == torch.bfloat16 else np.float32,
        )

    def prepare(self, device: torch.device) -> None:
        """Leave the text encoders where they are; they are not needed."""

    def __call__(
        self, captions: Sequence[Caption], copies: Sequence[Copies], device: torch.device
    ) -> EncodedPrompts:
        """Look up; kept captions are of one person."""
        counts = [count if isinstance(count, int) else count[0] for count in copies]
        places = [
            (self.entries[caption], self.copies[count])
            for caption, count in zip(captions, counts, strict=True)
        ]
        embeds, pooled = (
            torch.stack([_numbers(self.arrays[name][place], self.dtype) for place in places]).to(device)
            for name in ("embeds", "pooled")
        )
        masks = [
            torch.tensor(
                [
                    expand(caption, tokenizer, count).class_tokens
                    for caption, count in zip(captions, counts, strict=True)
                ],
                device=device,
            )
            for tokenizer in self.parts.tokenizers
        ]
        return EncodedPrompts(embeds, pooled, masks[0], masks[1])


def _bits(values: torch.Tensor) -> np.ndarray:
    """Numbers as numpy can hold them; it knows no bfloat16."""
    return (values.view(torch.uint16) if values.dtype == torch.bfloat16 else values).numpy()


def _numbers(values: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    copied = torch.from_numpy(np.array(values))
    return copied.view(torch.bfloat16) if dtype == torch.bfloat16 else copied
