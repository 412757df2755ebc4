"""New words as rows of the text encoders' input embeddings, without touching tokenizers or encoders.

A text with the new word is tokenised around it; at its places any known token stands in, whose embedding a hook
replaces. So nothing has to be added to a vocabulary and taken out again, and the pooled embedding, which some encoders
take at the largest token id, is still taken at the end mark.

Source: Textual Inversion, arXiv 2208.01618.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTokenizer, PreTrainedModel

from photomaker.errors import IdentityError, SettingsError
from photomaker.training.losses.diffusion import encode_ids
from photomaker.weights import read_tensors

Rows = tuple[Tensor, Tensor]
"""Embeddings of a new word for both encoders: [n, D1] and [n, D2]."""

NAMES = ("clip_l", "clip_g")
"""What they are called in files and identities."""


def numbers(tokenizer: CLIPTokenizer, text: str, word: str, count: int) -> tuple[list[int], list[int]]:
    """Token ids [77] of a text, and at each which row of the new word stands there, -1 if none does.

    Args:
        tokenizer: It is not changed.
        text: The word may stand in it several times.
        word: The new word.
        count: Its rows.
    """
    ids, rows = [tokenizer.bos_token_id], [-1]
    stand_in = tokenizer("a", add_special_tokens=False)["input_ids"][0]
    for place, part in enumerate(text.split(word)):
        if place:
            ids += [stand_in] * count
            rows += range(count)
        own = tokenizer(part, add_special_tokens=False)["input_ids"] if part.strip() else []
        ids += own
        rows += [-1] * len(own)
    length = tokenizer.model_max_length
    ids, rows = [*ids[: length - 1], tokenizer.eos_token_id], [*rows[: length - 1], -1]
    return ids + [tokenizer.pad_token_id] * (length - len(ids)), rows + [-1] * (length - len(rows))


@contextmanager
def _rows_in(encoder: PreTrainedModel, rows: Tensor, places: Tensor) -> Iterator[None]:
    """Have the embeddings at `places` [batch, 77] replaced by `rows` [n, D]."""

    def after(_module: nn.Module, _args: Any, given: Tensor) -> Tensor:  # noqa: ANN401 - a hook
        chosen = rows[places.clamp(min=0)].to(given.dtype)
        return torch.where((places >= 0)[..., None], chosen, given)

    hook = encoder.get_input_embeddings().register_forward_hook(after)
    try:
        yield
    finally:
        hook.remove()


def encode(
    pipeline: StableDiffusionXLPipeline, texts: Sequence[str], word: str, rows: Rows
) -> tuple[Tensor, Tensor]:
    """Texts with a new word as prompt embeddings [n, 77, D] and pooled ones [n, P]; gradients reach the rows."""
    device = pipeline.unet.device
    encoders = (pipeline.text_encoder, pipeline.text_encoder_2)
    ids: list[Tensor] = []
    with ExitStack() as stack:
        for tokenizer, encoder, own in zip(
            (pipeline.tokenizer, pipeline.tokenizer_2), encoders, rows, strict=True
        ):
            found = torch.tensor([numbers(tokenizer, text, word, len(own)) for text in texts], device=device)
            stack.enter_context(_rows_in(encoder, own.to(device), found[:, 1]))
            ids.append(found[:, 0])
        return encode_ids(encoders, (ids[0], ids[1]))


def caption_condition(
    pipeline: StableDiffusionXLPipeline, captions: Sequence[str], word: str, rows: nn.ParameterList
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Numbers of captions to their embeddings, for `PersonRecipe`; gradients reach the rows of the new word."""

    def condition(places: Tensor) -> tuple[Tensor, Tensor]:
        texts = [captions[place] for place in places.tolist()]
        return encode(pipeline, texts, word, (rows[0], rows[1]))

    return condition


def prompt_arguments(
    pipeline: StableDiffusionXLPipeline, prompts: Sequence[str], word: str, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """A pipeline's arguments for prompts with a new word, whose rows an identity holds by `NAMES`."""
    embeds, pooled = encode(pipeline, prompts, word, (tensors[NAMES[0]], tensors[NAMES[1]]))
    return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}


def check_word(word: str) -> None:
    """Refuse a name that no prompt can have in it.

    Raises:
        SettingsError: It is empty or has spaces.
    """
    if not word or word != "".join(word.split()):
        raise SettingsError(f"the new word is {word!r}; give one without spaces, such as '<id>'")


def read_word(place: Path) -> dict[str, Tensor]:
    """The rows of a word that has them for both encoders, by `NAMES`, from one file.

    Raises:
        IdentityError: The file holds something else.
        WeightsError: It is damaged or holds more than tensors.
    """
    found = read_tensors(place)
    if set(found) != set(NAMES):
        raise IdentityError(
            f"{place} holds {', '.join(sorted(found)[:5]) or 'nothing'} and not clip_l and clip_g; give a word for SDXL"
        )
    return {name: torch.atleast_2d(rows).float() for name, rows in found.items()}


def write_word(tensors: Mapping[str, Tensor], place: Path) -> None:
    """Write the rows of a word, named by `NAMES` among other tensors, as one safetensors file."""
    part = place.with_name(place.name + ".part")
    save_file({name: tensors[name].contiguous() for name in NAMES}, part)
    part.replace(place)


def check_rows(pipeline: StableDiffusionXLPipeline, tensors: Mapping[str, Tensor]) -> None:
    """Compare a word's rows with the widths of the text encoders.

    Raises:
        IdentityError: Rows are missing or of a different width.
    """
    encoders = (pipeline.text_encoder, pipeline.text_encoder_2)
    for name, encoder in zip(NAMES, encoders, strict=True):
        width, rows = int(encoder.config.hidden_size), tensors.get(name)
        if rows is None or rows.dim() != 2 or rows.shape[1] != width:  # noqa: PLR2004 - rows and widths
            got = "nothing" if rows is None else f"shape {tuple(rows.shape)}"
            raise IdentityError(
                f"the word has {got} for {name} and the base's text encoder is of width {width}; give one for this base"
            )


def first_rows(
    pipeline: StableDiffusionXLPipeline, word: str, count: int, spread: float, generator: torch.Generator
) -> Rows:
    """Rows to begin with: the mean of a known word's tokens, and for further ones a little noise on it.

    Args:
        pipeline: Whose encoders.
        word: A known word, such as the class word.
        count: Rows.
        spread: Size of the noise as a share of the embeddings' standard deviation.
        generator: Randomness, on the CPU.
    """
    both = []
    for tokenizer, encoder in (
        (pipeline.tokenizer, pipeline.text_encoder),
        (pipeline.tokenizer_2, pipeline.text_encoder_2),
    ):
        table = encoder.get_input_embeddings().weight.detach().float().cpu()
        start = table[tokenizer(word, add_special_tokens=False)["input_ids"]].mean(0)
        noise = torch.randn(count, table.shape[1], generator=generator) * table.std() * spread
        noise[0] = 0
        both.append(start + noise)
    return both[0], both[1]
