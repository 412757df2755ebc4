"""Shared by the tuned methods: photos and a class word to tensors, and drawing with them."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import torch
from diffusers import StableDiffusionXLPipeline
from PIL.Image import Image

from photomaker.errors import IdentityError, PromptError, SettingsError
from photomaker.methods.base import Method, Need
from photomaker.pipelines.drawing.batches import (
    GUIDANCE,
    Defaults,
    call_settings,
    in_batches,
    negatives_of,
    settled,
)
from photomaker.pipelines.drawing.opening import open_pipeline
from photomaker.pipelines.steps.watching import Watch
from photomaker.prompts import parse, with_person
from photomaker.training.data.latents import fingerprint
from photomaker.training.losses.diffusion import PREDICTIONS
from photomaker.training.recipes.tuning import (
    Examples,
    PersonRecipe,
    Prior,
    PriorSettings,
    Progress,
    TuningSettings,
    examples_of,
    filled,
    frozen,
    prior_of,
)
from photomaker.types import Identity, Reference, Request

BATCH_SIZE = 8
CLASS_WORD = "person"
SMALL_GUIDANCE = 2.0
"""Guidance scale of the bundled base; 5, which suits SDXL, cost LoRA and hypernetworks 10 points of likeness on
validation people."""
RARE = "sks"
"""The rare word for a person in captions, by convention."""


class HasTuning(Protocol):
    """Settings of a method, of which the shared recipe is one."""

    @property
    def tuning(self) -> TuningSettings:
        """How the shared recipe runs."""


Settings = TypeVar("Settings", bound=HasTuning)


class TunedMethod(Method, Generic[Settings]):
    """A method that tunes something on each person's photos, on a diffusers SDXL pipeline.

    Args:
        pipeline: A base of its own; what this class changes of it is undone at once.
        settings: How it is tuned; None takes the published defaults.
        batch_size: Most pictures drawn at once.
        guidance: Guidance scale of requests that leave it open.

    Attributes:
        has_weight: Whether the person can be put in by degrees.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.TUNING})
    has_weight: ClassVar[bool] = True
    published: ClassVar[Any]
    small: ClassVar[Any]

    def __init__(
        self,
        pipeline: StableDiffusionXLPipeline,
        settings: Settings | None = None,
        batch_size: int = BATCH_SIZE,
        guidance: float = GUIDANCE,
    ) -> None:
        """Wrap the pipeline."""
        if batch_size < 1:
            raise SettingsError(f"batch_size is {batch_size}; give 1 or more")
        self.pipeline = pipeline
        self.settings: Settings = self.published if settings is None else settings
        self.batch_size = batch_size
        self.guidance = guidance
        self.base = fingerprint(pipeline.unet)
        self._priors: dict[str, Prior | None] = {}

    @classmethod
    def open(
        cls,
        base: str | os.PathLike[str] | None = None,
        adapter: None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        settings: Settings | None = None,
        *,
        variant: str | None = None,
    ) -> Self:
        """Load the base model.

        Args:
            base: Diffusers folder or hub id of an SDXL model; None is the bundled small one.
            adapter: There is none; here so that every method is opened alike.
            device: Where to compute; None is CUDA if available, else the CPU.
            dtype: Precision of the base; what is tuned is always held in float32.
            settings: How to tune; None takes the published defaults, for the bundled base those found for it.
            variant: Which form of the base's weights to load, such as `fp16`; None is the plain one, or the only one.

        Raises:
            SettingsError: An adapter is given.
            WeightsError: The base is missing, altered, damaged, or no SDXL model.
        """
        if adapter is not None:
            raise SettingsError(
                f"{cls.name} is tuned for each person and takes no adapter ({adapter}); leave it out"
            )
        pipeline = open_pipeline(StableDiffusionXLPipeline, base, dtype, variant)
        pipeline.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if base is None:
            return cls(pipeline, settings or cls.small, guidance=SMALL_GUIDANCE)
        return cls(pipeline, settings or cls.published)

    # ---- what a method says

    @property
    def tuning(self) -> TuningSettings:
        """How its recipe runs."""
        return self.settings.tuning

    @abstractmethod
    def tune(
        self, examples: Examples, class_phrase: str, progress: Progress | None
    ) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tune on a person's photos, while the base is frozen.

        Args:
            examples: The photos.
            class_phrase: For example `old man`.
            progress: Told after every step.

        Returns:
            The identity's tensors and notes.
        """

    def put_in(self, identity: Identity, weight: float) -> AbstractContextManager[None]:
        """Have the person in the pipeline during the context; nothing, where only the prompt differs."""
        del identity, weight
        return nullcontext()

    def words(self, notes: Mapping[str, Any], class_word: str) -> str:
        """What stands for the person in a text: the rare word before the class word."""
        return f"{notes.get('token', '')} {class_word}".strip()

    def prompted(self, identity: Identity, prompts: Sequence[str]) -> dict[str, Any]:
        """The pipeline's arguments for prompts in which the person's words stand."""
        del identity
        return {"prompt": list(prompts)}

    def negated(self, identity: Identity, negatives: Sequence[str]) -> dict[str, Any]:
        """The pipeline's arguments for negative prompts that need more than their text; empty texts are none."""
        del identity, negatives
        return {}

    # ---- fitting

    def fit(
        self,
        references: Sequence[Reference],
        notes: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> Identity:
        """Tune on photos of one person; see `Method.fit`.

        Args:
            references: At least one photo.
            notes: Added to the identity's notes; `class_word`, such as `old man`, is what captions call the person,
                `person` where it is left out.
            progress: Told after every step.

        Raises:
            PhotoError: There is no photo, or a mask does not fit its photo.
            SettingsError: The base cannot be tuned in its precision, or the class word is not a word.
            WeightsError: The base's scheduler has no noise schedule that is known.
        """
        self.check(references)
        told = dict(notes or {})
        phrase = " ".join(str(told.setdefault("class_word", CLASS_WORD)).split())
        if not phrase:
            raise SettingsError("the class word is empty; give a noun for the person, such as man or woman")
        self._check_base()
        settings = self.tuning
        with frozen(self.pipeline, settings.gradient_checkpointing):
            examples = examples_of(self.pipeline, references, settings.background, settings.flip)
            tensors, own = self.tune(examples, phrase, progress)
        photos = [{"name": one.name, "sha256": one.sha256} for one in references]
        return self.identity(tensors, {"photos": photos} | own | told)

    def identity(self, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]) -> Identity:
        """An identity of this method on this base."""
        return Identity(
            self.name,
            {name: one.detach().cpu() for name, one in tensors.items()},
            {"base": self.base, **notes},
        )

    def captions(self, notes: Mapping[str, Any], class_phrase: str) -> list[str]:
        """The caption templates with the person's words in place; they take the place of the last word's."""
        before, _, word = class_phrase.rpartition(" ")
        phrase = f"{before} {self.words(notes, word)}".strip()
        return [filled(template, phrase) for template in self.tuning.templates]

    def recipe(
        self, trained: Mapping[str, torch.nn.Module], examples: Examples, **parts: Any
    ) -> PersonRecipe:
        """The shared recipe; `parts` are further arguments of `PersonRecipe`."""
        return PersonRecipe(self.pipeline, trained, examples, settings=self.tuning, **parts)

    def prior(self, class_phrase: str, settings: PriorSettings) -> Prior | None:
        """The base's own pictures of a class, drawn once while the method is open; None if none are asked for."""
        if class_phrase not in self._priors:
            seed = self.tuning.seed
            self._priors[class_phrase] = prior_of(
                self.pipeline, class_phrase, settings, seed, self.batch_size
            )
        return self._priors[class_phrase]

    def _check_base(self) -> None:
        if self.pipeline.unet.dtype == torch.float16:
            raise SettingsError(
                "the base is in float16, in which small gradients vanish; open it in bfloat16 or float32 to tune"
            )
        prediction = str(getattr(self.pipeline.scheduler.config, "prediction_type", ""))
        if prediction not in PREDICTIONS:
            raise SettingsError(
                f"the base's scheduler predicts {prediction or 'nothing known'}; give a base that predicts epsilon or v"
            )

    # ---- drawing

    def generate(
        self,
        identity: Identity,
        requests: Sequence[Request],
        weight: float = 1.0,
        *,
        watch: Watch | None = None,
    ) -> list[Image]:
        """Draw the person; requests alike in steps, guidance and size are drawn together.

        The share of text-only steps (`Sampling.merge`) is PhotoMaker's and has no meaning here; prompt weights are left
        out.

        Args:
            identity: Made by `fit`, `load_published`, or loaded.
            requests: One for each picture.
            weight: How much of the person is put in: 1 is what was tuned, 0 the base alone.
            watch: Called with every step.

        Returns:
            RGB pictures in the order of the requests.

        Raises:
            IdentityError: The identity is of another method or another base.
            PromptError: A prompt has no class word, several triggers, or the class word too far back.
            SettingsError: The method has no weight and another than 1 is given.
        """
        self.check_requests(requests)
        self.check_identity(identity)
        if weight != 1 and not self.has_weight:
            raise SettingsError(f"{self.name} takes no weight, but {weight} is given; leave it out")
        defaults = Defaults(guidance=self.guidance)
        asked = [
            replace(
                request,
                prompt=self._prompt(request.prompt, identity),
                sampling=settled(replace(request.sampling, merge=0.0), defaults, self.pipeline),
            )
            for request in requests
        ]
        with self.put_in(identity, weight):
            return in_batches(
                self.pipeline, asked, self.batch_size, lambda some: self._draw(identity, some), watch
            )

    def check_identity(self, identity: Identity) -> None:
        """Refuse an identity of another method or base.

        Raises:
            IdentityError: It is of one.
        """
        if identity.method != self.name:
            raise IdentityError(
                f"the identity was made by {identity.method}; make one with {self.name}, or use {identity.method}"
            )
        if identity.notes.get("base", self.base) != self.base:
            raise IdentityError(
                "the identity was tuned on another base model; open that one, or fit it again"
            )

    def _prompt(self, prompt: str, identity: Identity) -> str:
        """The prompt with the person's words in place of the class word and trigger."""
        text = with_person(prompt, lambda word: self.words(identity.notes, word))
        head = parse(prompt).before
        limit = int(self.pipeline.tokenizer.model_max_length)
        for tokenizer in (self.pipeline.tokenizer, self.pipeline.tokenizer_2):
            own = self.words(identity.notes, "")
            count = len(tokenizer(f"{head} {own}", add_special_tokens=False)["input_ids"])
            if count > limit - 2:
                raise PromptError(
                    f"the class word is token {count} of the prompt, but only {limit - 2} can be read; move it forward "
                    "or shorten the prompt"
                )
        return text

    def _draw(self, identity: Identity, requests: Sequence[Request]) -> list[Image]:
        with torch.no_grad():
            prompted = self.prompted(identity, [request.prompt for request in requests])
            negated = self.negated(identity, [request.negative_prompt or "" for request in requests])
        result = self.pipeline(
            **prompted,
            **(negated or {"negative_prompt": negatives_of(requests)}),
            **call_settings(requests),
        )
        return list(result.images)


def must_exist(path: str | os.PathLike[str]) -> Path:
    """The path of a published file or folder.

    Raises:
        IdentityError: There is none.
    """
    place = Path(path)
    if not place.exists():
        raise IdentityError(f"there is no file or folder {place}; check the path")
    return place
