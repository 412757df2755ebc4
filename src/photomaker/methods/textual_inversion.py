"""Textual Inversion: the person as a new word of both text encoders; the model itself stays as it is.

Source: arXiv 2208.01618. For SDXL the word has rows in both encoders' tables, as in diffusers and A1111.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from photomaker.errors import IdentityError, SettingsError
from photomaker.methods.tuned import TunedMethod, must_exist
from photomaker.training.recipes.token_rows import (
    NAMES,
    caption_condition,
    check_rows,
    check_word,
    first_rows,
    prompt_arguments,
    read_word,
    write_word,
)
from photomaker.training.recipes.tuning import Examples, Progress, TuningSettings, tune
from photomaker.types import Identity
from photomaker.weights import read_tensors

TEMPLATES = (
    "a photo of a {}", "a rendering of a {}", "a cropped photo of the {}", "the photo of a {}",
    "a close-up photo of a {}", "a bright photo of the {}", "a cropped photo of a {}", "a good photo of the {}",
    "a photo of one {}", "a close-up photo of the {}", "a rendition of the {}", "a nice photo of a {}",
)  # fmt: skip
"""Plain captions of the kind that the paper uses."""

PAIR = ("learned_embeds.safetensors", "learned_embeds_2.safetensors")


@dataclass(frozen=True)
class InversionSettings:
    """How a word is learned; the defaults are those of the diffusers script for SDXL.

    Attributes:
        rows: Rows of the word in each encoder; more give more likeness and obey prompts less.
        token: What the word is called.
        spread: Noise on the second and further rows at the start, as a share of the table's standard deviation.
        tuning: The shared recipe.

    Raises:
        SettingsError: There is no row, or the word is empty or has spaces.
    """

    rows: int = 1
    token: str = "<id>"
    spread: float = 0.1
    tuning: TuningSettings = field(
        default_factory=lambda: TuningSettings(steps=5000, lr=1e-4, batch_size=4, templates=TEMPLATES)
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.rows < 1:
            raise SettingsError(f"rows is {self.rows}; give a whole number from 1 up")
        check_word(self.token)


class TextualInversion(TunedMethod[InversionSettings]):
    """Textual Inversion on a diffusers SDXL pipeline."""

    name: ClassVar[str] = "textual_inversion"
    has_weight: ClassVar[bool] = False
    published: ClassVar[InversionSettings] = InversionSettings()
    small: ClassVar[InversionSettings] = InversionSettings(
        rows=4, tuning=TuningSettings(steps=300, lr=3e-2, batch_size=4)
    )

    def words(self, notes: Mapping[str, Any], class_word: str) -> str:
        """The new word alone: the class is in it."""
        del class_word
        return str(notes["token"])

    def tune(
        self, examples: Examples, class_phrase: str, progress: Progress | None
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Learn the word's rows; see `TunedMethod.tune`."""
        settings, notes = self.settings, {"token": self.settings.token}
        generator = torch.Generator().manual_seed(settings.tuning.seed)
        word = class_phrase.rsplit(maxsplit=1)[-1]
        start = first_rows(self.pipeline, word, settings.rows, settings.spread, generator)
        learned = nn.ParameterList([one.to(self.pipeline.unet.device) for one in start])
        captions = self.captions(notes, class_phrase)
        condition = caption_condition(self.pipeline, captions, settings.token, learned)
        told = tune(self.recipe({"rows": learned}, examples, condition=condition), progress)
        return dict(zip(NAMES, learned, strict=True)), notes | told

    def prompted(self, identity: Identity, prompts: Sequence[str]) -> dict[str, Any]:
        """Encode with the rows in place."""
        return prompt_arguments(self.pipeline, prompts, str(identity.notes["token"]), identity.tensors)

    def check_identity(self, identity: Identity) -> None:
        """See `TunedMethod.check_identity`; a word depends on the text encoders' widths."""
        super().check_identity(identity)
        check_rows(self.pipeline, identity.tensors)

    def load_published(self, path: str | os.PathLike[str], token: str = "<id>") -> Identity:
        """Read a word in the layouts of SDXL: one file with `clip_l` and `clip_g`, or diffusers' pair of files.

        Args:
            path: A `.safetensors` or `.bin` file with both, or a folder with `learned_embeds.safetensors` and
                `learned_embeds_2.safetensors`.
            token: What to call it; files of one encoder name it themselves.

        Raises:
            IdentityError: There is nothing, or no word for both encoders of this base.
            WeightsError: A file is damaged or holds more than tensors.
            SettingsError: The name is empty or has spaces.
        """
        place = must_exist(path)
        if place.is_dir():
            pair = [read_tensors(must_exist(place / name)) for name in PAIR]
            if any(len(own) != 1 for own in pair):
                raise IdentityError(f"the files in {place} have several words; give the files of one word")
            token = next(iter(pair[0]))
            rows = (torch.atleast_2d(next(iter(own.values()))).float() for own in pair)
            tensors = dict(zip(NAMES, rows, strict=True))
        else:
            tensors = read_word(place)
        check_word(token)
        identity = self.identity(tensors, {"token": token, "published": place.name})
        self.check_identity(identity)
        return identity

    def export(self, identity: Identity, path: str | os.PathLike[str]) -> Path:
        """Write one safetensors file with `clip_l` and `clip_g`, which diffusers, A1111 and ComfyUI read.

        Raises:
            IdentityError: The identity is of another method or base.
        """
        self.check_identity(identity)
        place = Path(path)
        write_word(identity.tensors, place)
        return place
