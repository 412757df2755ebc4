"""DreamArtist: a person from one photo as two new words, one for the prompt and one for the negative prompt.

Both are learned together through classifier-free guidance: the positive word says what the person is, the negative one
what has to be taken away. The model itself stays as it is.

Source: arXiv 2211.11337. For SDXL each word has rows in both encoders' tables.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from photomaker.checks import number
from photomaker.errors import IdentityError, SettingsError
from photomaker.methods.tuned import TunedMethod, must_exist
from photomaker.training.recipes.contrast import ContrastRecipe
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
from photomaker.weights import read_pickle

TEMPLATES = ("a photo of {}", "a picture of {}", "a portrait of {}", "{} in the picture")
NEGATIVE = "negative_"
"""Before the names of the negative word's rows."""
_SUFFIX = "-neg"


@dataclass(frozen=True)
class ArtistSettings:
    """How the two words are learned; the defaults are those that the authors name for most of their words.

    Attributes:
        rows: Rows of the positive word in each encoder.
        negative_rows: Rows of the negative word.
        token: What the positive word is called; the negative one is called the same with `-neg` behind.
        scale: Guidance scale that is learned with.
        reconstruction: Weight of the loss in pixels; 0 leaves it out, as the authors' code does unless told otherwise.
        negative_rate: Learning rate of the negative word over that of the positive one.
        spread: Noise on further rows at the start, as a share of the table's standard deviation.
        tuning: The shared recipe.

    Raises:
        SettingsError: A value is outside its range.
    """

    rows: int = 3
    negative_rows: int = 6
    token: str = "<id>"
    scale: float = 3.0
    reconstruction: float = 0.0
    negative_rate: float = 1.0
    spread: float = 0.1
    tuning: TuningSettings = field(
        default_factory=lambda: TuningSettings(steps=8000, lr=2.5e-3, batch_size=1, templates=TEMPLATES)
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("rows", "negative_rows"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; give a whole number from 1 up")
        check_word(self.token)
        number("scale", self.scale, 1, 30)
        number("reconstruction", self.reconstruction, 0, 2)
        number("negative_rate", self.negative_rate, 0, 10)


class DreamArtist(TunedMethod[ArtistSettings]):
    """DreamArtist on a diffusers SDXL pipeline; of several photos it learns one person too."""

    name: ClassVar[str] = "dreamartist"
    has_weight: ClassVar[bool] = False
    published: ClassVar[ArtistSettings] = ArtistSettings()
    small: ClassVar[ArtistSettings] = ArtistSettings(
        tuning=TuningSettings(steps=300, lr=3e-2, batch_size=4, templates=TEMPLATES)
    )

    def words(self, notes: Mapping[str, Any], class_word: str) -> str:
        """The positive word alone: the class is in it."""
        del class_word
        return str(notes["token"])

    def tune(
        self, examples: Examples, class_phrase: str, progress: Progress | None
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Learn the rows of both words; see `TunedMethod.tune`."""
        settings, notes = self.settings, {"token": self.settings.token}
        generator = torch.Generator().manual_seed(settings.tuning.seed)
        word, device = class_phrase.rsplit(maxsplit=1)[-1], self.pipeline.unet.device
        words = [
            nn.ParameterList(
                [one.to(device) for one in first_rows(self.pipeline, word, count, settings.spread, generator)]
            )
            for count in (settings.rows, settings.negative_rows)
        ]
        with torch.no_grad():  # the two start apart, or the guided prediction is the plain one
            for row in words[1]:
                row.add_(1e-3 * torch.randn(row.shape, generator=generator).to(device))
        captions = self.captions(notes, class_phrase)
        recipe = ContrastRecipe(
            self.pipeline,
            {"positive": words[0], "negative": words[1]},
            examples,
            condition=caption_condition(self.pipeline, captions, settings.token, words[0]),
            settings=self.tuning,
            rates={"negative": settings.tuning.lr * settings.negative_rate},
            negative=caption_condition(self.pipeline, captions, settings.token, words[1]),
            scale=settings.scale,
            reconstruction=settings.reconstruction,
        )
        told = tune(recipe, progress)
        tensors = dict(zip(NAMES, words[0], strict=True))
        tensors |= {f"{NEGATIVE}{name}": one for name, one in zip(NAMES, words[1], strict=True)}
        return tensors, notes | told

    def prompted(self, identity: Identity, prompts: Sequence[str]) -> dict[str, Any]:
        """Encode with the positive rows in place."""
        return prompt_arguments(self.pipeline, prompts, str(identity.notes["token"]), identity.tensors)

    def negated(self, identity: Identity, negatives: Sequence[str]) -> dict[str, Any]:
        """Encode the negative prompts with the negative word before them."""
        token = f"{identity.notes['token']}{_SUFFIX}"
        texts = [f"{token}, {text}" if text else token for text in negatives]
        found = prompt_arguments(self.pipeline, texts, token, _negative(identity.tensors))
        return {f"{NEGATIVE}{name}": one for name, one in found.items()}

    def check_identity(self, identity: Identity) -> None:
        """See `TunedMethod.check_identity`; words depend on the text encoders' widths."""
        super().check_identity(identity)
        check_rows(self.pipeline, identity.tensors)
        check_rows(self.pipeline, _negative(identity.tensors))

    # ---- the checkpoints of its makers

    def load_published(self, path: str | os.PathLike[str], token: str = "<id>") -> Identity:
        """Read the two words in the form that SDXL's have: `name.safetensors` and `name-neg.safetensors` beside it.

        Args:
            path: The positive word's file, with `clip_l` and `clip_g`.
            token: What to call it.

        Raises:
            IdentityError: A file is missing, or its word is for one text encoder, as the published ones for Stable
                Diffusion 1.5 are.
            WeightsError: A file is damaged or holds more than tensors.
        """
        place = must_exist(path)
        beside = must_exist(place.with_name(f"{place.stem}{_SUFFIX}{place.suffix}"))
        positive, negative = _word(place), _word(beside)
        tensors = positive | {f"{NEGATIVE}{name}": one for name, one in negative.items()}
        identity = self.identity(tensors, {"token": token, "published": place.name})
        self.check_identity(identity)
        return identity

    def export(self, identity: Identity, path: str | os.PathLike[str]) -> Path:
        """Write two safetensors files with `clip_l` and `clip_g`, which A1111 and ComfyUI read; see `load_published`.

        Returns:
            The positive word's file.

        Raises:
            IdentityError: The identity is of another method or base.
        """
        self.check_identity(identity)
        place = Path(path)
        beside = place.with_name(f"{place.stem}{_SUFFIX}{place.suffix}")
        # the negative word first: whoever sees the positive one finds both
        for file, rows in ((beside, _negative(identity.tensors)), (place, identity.tensors)):
            write_word(rows, file)
        return place


def _negative(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The negative word's rows, by the names of the encoders."""
    return {name.removeprefix(NEGATIVE): one for name, one in tensors.items() if name.startswith(NEGATIVE)}


def _word(place: Path) -> dict[str, Tensor]:
    """The rows of one word for both encoders."""
    if place.suffix != ".safetensors" and "string_to_param" in read_pickle(place):
        raise IdentityError(
            f"{place} is a word for one text encoder, such as Stable Diffusion 1.5's, but SDXL has two; give a word "
            "with clip_l and clip_g"
        )
    return read_word(place)
