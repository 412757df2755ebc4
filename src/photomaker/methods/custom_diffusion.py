"""Custom Diffusion: keys and values of the text are tuned, and a new word before the class word.

Source: arXiv 2212.04488. Written from the formulas; the official code's licence is non-commercial. The gradient of the
begin mark's keys and values, which the official code leaves out, is kept.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from photomaker.errors import WeightsError
from photomaker.methods.tuned import TunedMethod, must_exist
from photomaker.pipelines.drawing.changes import check_difference, difference_in, learning
from photomaker.training.recipes.token_rows import (
    NAMES,
    caption_condition,
    check_rows,
    first_rows,
    prompt_arguments,
)
from photomaker.training.recipes.tuning import Examples, PriorSettings, Progress, TuningSettings, tune
from photomaker.types import Identity
from photomaker.weights import read_pickle

_TUNED = ("attn2.to_k.weight", "attn2.to_v.weight")


@dataclass(frozen=True)
class CustomDiffusionSettings:
    """How keys, values and the word are tuned; the defaults are the paper's for people.

    Attributes:
        token: What the new word is called.
        start: A rare word whose row it starts from.
        prior: The base's own pictures of the class, in place of photos from the web.
        tuning: The shared recipe.
    """

    token: str = "<new1>"
    start: str = "ktn"
    prior: PriorSettings = field(default_factory=lambda: PriorSettings(pictures=200))
    tuning: TuningSettings = field(default_factory=lambda: TuningSettings(steps=1000, lr=5e-6, batch_size=2))


class CustomDiffusion(TunedMethod[CustomDiffusionSettings]):
    """Custom Diffusion on a diffusers SDXL pipeline."""

    name: ClassVar[str] = "custom_diffusion"
    has_weight: ClassVar[bool] = False  # the word and what it meets there were learned together
    published: ClassVar[CustomDiffusionSettings] = CustomDiffusionSettings()
    small: ClassVar[CustomDiffusionSettings] = CustomDiffusionSettings(
        prior=PriorSettings(pictures=16, steps=20), tuning=TuningSettings(steps=200, lr=1e-3, batch_size=4)
    )

    def tune(
        self, examples: Examples, class_phrase: str, progress: Progress | None
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tune keys, values and the word; see `TunedMethod.tune`."""
        settings, unet = self.settings, self.pipeline.unet
        notes, seed = {"token": settings.token}, settings.tuning.seed
        prior = self.prior(class_phrase, settings.prior)
        generator = torch.Generator().manual_seed(seed)
        start = first_rows(self.pipeline, settings.start, 1, 0.0, generator)
        rows = nn.ParameterList([one.to(unet.device) for one in start])
        captions = self.captions(notes, class_phrase)
        condition = caption_condition(self.pipeline, captions, settings.token, rows)
        names = [name for name, _ in unet.named_parameters() if name.endswith(_TUNED)]
        with learning(unet, names) as difference:
            trained = {
                "unet": nn.ParameterList(dict(unet.named_parameters())[name] for name in names),
                "rows": rows,
            }
            told = tune(self.recipe(trained, examples, condition=condition, prior=prior), progress)
            tensors = {f"unet.{name}": one for name, one in difference().items()}
        return tensors | dict(zip(NAMES, rows, strict=True)), notes | told

    def put_in(self, identity: Identity, weight: float) -> AbstractContextManager[None]:
        """Add the difference of keys and values, and take it out."""
        return difference_in(self.pipeline.unet, _of_unet(identity.tensors), weight)

    def prompted(self, identity: Identity, prompts: Sequence[str]) -> dict[str, Any]:
        """Encode with the word in place."""
        return prompt_arguments(self.pipeline, prompts, str(identity.notes["token"]), identity.tensors)

    def check_identity(self, identity: Identity) -> None:
        """See `TunedMethod.check_identity`; the word depends on the text encoders' widths."""
        super().check_identity(identity)
        check_rows(self.pipeline, identity.tensors)

    def load_published(self, path: str | os.PathLike[str]) -> Identity:
        """Read a `delta.bin` of the official layout for SDXL.

        It holds `unet`, the tuned weights by their names in diffusers, and `modifier_token`, the word with a row for
        each text encoder.

        Raises:
            IdentityError: There is no such file, or the word is not for this base.
            WeightsError: It is damaged, of another layout, or of a different base.
        """
        place = must_exist(path)
        content = read_pickle(place)
        try:
            (token, (first, second)), weights = next(iter(content["modifier_token"].items())), content["unet"]
            weights = {name: one.float() for name, one in weights.items() if name.endswith(_TUNED)}
        except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
            raise WeightsError(
                f"{place} has no unet and modifier_token with rows for two text encoders; give a delta.bin for SDXL"
            ) from error
        own = dict(self.pipeline.unet.named_parameters())
        check_difference(own, weights)
        tensors = {f"unet.{name}": one - own[name].detach().float().cpu() for name, one in weights.items()}
        rows = dict(zip(NAMES, (torch.atleast_2d(one).float() for one in (first, second)), strict=True))
        identity = self.identity(tensors | rows, {"token": str(token), "published": place.name})
        self.check_identity(identity)
        return identity

    def export(self, identity: Identity, path: str | os.PathLike[str]) -> Path:
        """Write a `delta.bin` in the official layout.

        Raises:
            IdentityError: The identity is of another method or base.
        """
        self.check_identity(identity)
        own, place = dict(self.pipeline.unet.named_parameters()), Path(path)
        weights = {
            name: own[name].detach().float().cpu() + one for name, one in _of_unet(identity.tensors).items()
        }
        rows = [identity.tensors[name][0] for name in NAMES]
        part = place.with_name(place.name + ".part")
        torch.save({"unet": weights, "modifier_token": {str(identity.notes["token"]): rows}}, part)
        part.replace(place)
        return place


def _of_unet(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("unet."): one for name, one in tensors.items() if name.startswith("unet.")}
