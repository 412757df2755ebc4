"""Tuning on photos of one person: the recipe that every method shares which trains something for each person.

Photos become latents, captions come from templates in which the person's own words stand, and what is tuned learns to
predict the noise (or v) of the base's own schedule. A method says what is tuned and what its captions call the person.

Sources: DreamBooth, arXiv 2208.12242 (captions, prior preservation); Textual Inversion, arXiv 2208.01618 (templates).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image
from torch import Tensor, nn

from photomaker.errors import PhotoError, SettingsError
from photomaker.training.data.latents import encoded
from photomaker.training.data.row_order import RowOrder
from photomaker.training.losses.diffusion import (
    LossSettings,
    Noising,
    encode_ids,
    null_rows,
    time_ids,
    weighted_error,
)
from photomaker.training.recipes.base import token_ids
from photomaker.training.recipes.people import PLAIN_TOKENS
from photomaker.training.running.recipe import Recipe
from photomaker.training.running.settings import TrainSettings, rate_factor
from photomaker.types import Reference

Progress = Callable[[int, int, float], None]
"""Called with the steps taken, all steps, and the loss of the last one."""

Condition = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Numbers of captions [batch] to prompt embeddings [batch, 77, D] and pooled ones [batch, P]."""

PHOTO_OF = ("a photo of a {}",)
PLAIN = LossSettings(null_text=0.0, stratified=False)
"""The loss of the published scripts: every timestep alike, always with the caption."""


@dataclass(frozen=True)
class TuningSettings:
    """Settings of tuning on one person's photos.

    Attributes:
        steps: Optimiser steps, 1 or more.
        lr: Peak learning rate, above 0.
        batch_size: Photos of a step, 1 or more; a photo comes again as soon as all have been seen.
        warmup: Steps over which the learning rate rises from 0.
        schedule: Shape of the learning rate after that; see `TrainSettings`.
        weight_decay: AdamW's.
        clip: Largest gradient norm; 0 switches clipping off.
        seed: Seed of everything random; the same seed gives the same identity.
        flip: Whether half of the photos are seen mirrored. Faces are not symmetric.
        background: Weight in 0..1 of what is outside the person, where a photo comes with a mask; 1 is the published
            loss, which knows no masks.
        templates: Captions; `{}` is where the person's words go.
        gradient_checkpointing: Whether activations are computed again in the backward pass instead of kept.
        noise: Timesteps and loss weights.

    Raises:
        SettingsError: A value is outside its range.
    """

    steps: int = 500
    lr: float = 1e-4
    batch_size: int = 1
    warmup: int = 0
    schedule: Literal["cosine", "constant", "linear_decay"] = "constant"
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0
    flip: bool = False
    background: float = 1.0
    templates: tuple[str, ...] = PHOTO_OF
    gradient_checkpointing: bool = False
    noise: LossSettings = PLAIN

    def __post_init__(self) -> None:
        """Check the ranges."""
        self.rates  # noqa: B018 - the settings of the loop check themselves
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise SettingsError(f"lr is {self.lr}; give a number above 0")
        if not 0 <= self.background <= 1:
            raise SettingsError(f"background is {self.background}; give a share from 0 to 1")
        bad = [template for template in self.templates if template.count("{}") != 1]
        if bad or not self.templates:
            raise SettingsError(
                f"the caption templates are {list(self.templates)}; give one or more with one {{}} for the person"
            )

    @property
    def rates(self) -> TrainSettings:
        """What the training loop's schedule needs to know."""
        return TrainSettings(
            steps=self.steps,
            batch_size=self.batch_size,
            seed=self.seed,
            warmup=self.warmup,
            clip=self.clip,
            schedule=self.schedule,
        )


@dataclass(frozen=True)
class PriorSettings:
    """Prior preservation: pictures of the class that the base itself made, learned again beside the person.

    Attributes:
        pictures: How many; 0 switches it off.
        weight: Weight of their loss beside the person's (lambda in the paper).
        steps: Denoising steps of each.
        guidance: Guidance scale of each.

    Raises:
        SettingsError: A value is outside its range.
    """

    pictures: int = 100
    weight: float = 1.0
    steps: int = 50
    guidance: float = 5.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.pictures < 0 or self.steps < 1:
            raise SettingsError(
                f"the prior has {self.pictures} pictures of {self.steps} steps; give pictures from 0, steps from 1 up"
            )
        if self.weight < 0:
            raise SettingsError(f"the prior's weight is {self.weight}; give a number from 0 up")


@dataclass(frozen=True)
class Examples:
    """What is learned from.

    Attributes:
        latents: float32 [n, channels, h, w], at the scale that the UNet sees.
        cells: Weight of each latent cell [n, 1, h, w].
    """

    latents: Tensor
    cells: Tensor


@dataclass(frozen=True)
class Prior:
    """Latents of the base's own pictures [n, channels, h, w], their one caption's condition, and their weight."""

    latents: Tensor
    condition: tuple[Tensor, Tensor]
    weight: float


def picture_size(pipeline: StableDiffusionXLPipeline) -> int:
    """Side in pixels of the square pictures that a pipeline draws by default."""
    return int(pipeline.default_sample_size * pipeline.vae_scale_factor)


def _square(picture: Image.Image, size: int) -> Image.Image:
    """The middle of a picture as a square."""
    side = min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    return picture.resize((size, size), Image.Resampling.LANCZOS, (left, top, left + side, top + side))


def examples_of(
    pipeline: StableDiffusionXLPipeline,
    references: Sequence[Reference],
    background: float = 1.0,
    flip: bool = False,
) -> Examples:
    """Photos as the middle squares that are learned from.

    Args:
        pipeline: Its autoencoder encodes them, in float32.
        references: Photos, with or without masks.
        background: Weight of cells outside the person, where there is a mask.
        flip: Whether each photo is there a second time, mirrored.

    Raises:
        PhotoError: A mask is not of its photo's size.
    """
    size = picture_size(pipeline)
    pixels = np.stack([np.asarray(_square(one.image.convert("RGB"), size)) for one in references])
    cells = torch.cat([_cells(one, size // pipeline.vae_scale_factor, background) for one in references])
    if flip:
        pixels = np.concatenate([pixels, pixels[:, :, ::-1]])
        cells = torch.cat([cells, cells.flip(-1)])
    vae = pipeline.vae
    if vae.dtype != torch.float32:  # SDXL's overflows in half precision
        vae = copy.deepcopy(vae).float()
    latents = encoded(vae, torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1)
    return Examples(torch.from_numpy(latents).float(), cells)


def _cells(reference: Reference, side: int, background: float) -> Tensor:
    if reference.mask is None:
        return torch.ones(1, 1, side, side)
    if reference.mask.shape != reference.image.size[::-1]:
        raise PhotoError(
            f"the mask of photo {reference.name or '(unnamed)'} is {reference.mask.shape[::-1]} and the photo "
            f"{reference.image.size}; give a mask of the photo's size"
        )
    square = _square(Image.fromarray(reference.mask).convert("L"), side)
    inside = torch.from_numpy(np.asarray(square).copy()).float() / 255
    return (background + (1 - background) * inside)[None, None]


def filled(template: str, phrase: str) -> str:
    """A caption: the template with the person's words in place, and `an` where the words want it."""
    if phrase[:1].lower() in "aeiou":
        template = template.replace("a {}", "an {}")
    return template.format(phrase)


@torch.no_grad()
def conditions(pipeline: StableDiffusionXLPipeline, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Captions through the frozen text encoders: embeddings [n, 77, D] and pooled ones [n, P]."""
    ids = token_ids((pipeline.tokenizer, pipeline.tokenizer_2), captions)
    device = pipeline.unet.device
    return encode_ids(
        (pipeline.text_encoder, pipeline.text_encoder_2), (ids[0].to(device), ids[1].to(device))
    )


def fixed(pipeline: StableDiffusionXLPipeline, captions: Sequence[str]) -> Condition:
    """The condition of captions that nothing tuned changes."""
    embeds, pooled = conditions(pipeline, captions)
    return lambda places: (embeds[places], pooled[places])


@torch.no_grad()
def prior_of(
    pipeline: StableDiffusionXLPipeline,
    class_phrase: str,
    settings: PriorSettings,
    seed: int = 0,
    batch_size: int = 8,
) -> Prior | None:
    """Pictures of a class by the base as it is, as latents, so that they need not be encoded again.

    Args:
        pipeline: The base.
        class_phrase: For example `old man`.
        settings: How many and how they are drawn.
        seed: Seed of the first; each has its own.
        batch_size: Most drawn at once.

    Returns:
        None if there are none.
    """
    if not settings.pictures or not settings.weight:
        return None
    prompt = filled(PHOTO_OF[0], class_phrase)
    seeds = np.random.default_rng([seed, 23]).integers(2**62, size=settings.pictures)
    parts = [
        pipeline(
            [prompt] * len(some),
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=[torch.Generator().manual_seed(int(one)) for one in some],
            output_type="latent",
        ).images
        for some in np.array_split(seeds, math.ceil(len(seeds) / batch_size))
    ]
    return Prior(torch.cat(parts).float().cpu(), conditions(pipeline, [prompt]), settings.weight)


@contextmanager
def frozen(pipeline: StableDiffusionXLPipeline, gradient_checkpointing: bool = False) -> Iterator[None]:
    """Have nothing of a pipeline learn during the context; gradients still pass through it.

    Args:
        pipeline: Its flags and attention processors are put back afterwards, also after an error.
        gradient_checkpointing: Whether the UNet's activations are computed again in the backward pass.
    """
    models = (pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2)
    learning = [one for model in models for one in model.parameters() if one.requires_grad]
    unet, processors = pipeline.unet, dict(pipeline.unet.attn_processors)
    for parameter in learning:
        parameter.requires_grad_(False)
    if unet.device.type == "cpu" and unet.config.sample_size**2 <= PLAIN_TOKENS:
        unet.set_attn_processor(AttnProcessor())  # its backward pass is faster there
    if gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    try:
        yield
    finally:
        if gradient_checkpointing:
            unet.disable_gradient_checkpointing()
        unet.set_attn_processor(processors)
        for parameter in learning:
            parameter.requires_grad_(True)


@dataclass
class PersonRecipe(Recipe):
    """Learns the noise of one person's photos.

    Attributes:
        pipeline: The base; what of it learns was chosen by the method.
        trained: Modules whose parameters with `requires_grad` are tuned, by name.
        examples: The photos.
        condition: The captions.
        settings: How.
        prior: The base's own pictures, learned beside.
        unet: What predicts; None is the pipeline's own.
        rates: Learning rates that differ from the settings', by name of the module.
    """

    pipeline: StableDiffusionXLPipeline
    trained: Mapping[str, nn.Module]
    examples: Examples
    condition: Condition
    settings: TuningSettings
    prior: Prior | None = None
    unet: nn.Module | None = None
    rates: Mapping[str, float] = field(default_factory=dict)

    name = "person"

    def __post_init__(self) -> None:
        """Take the noise from the base's own schedule."""
        self.noising = Noising(self.settings.noise, self.pipeline.scheduler)
        self.size = picture_size(self.pipeline)
        self.model = self.pipeline.unet if self.unet is None else self.unet
        self.device = self.pipeline.unet.device

    def modules(self) -> dict[str, nn.Module]:
        """Return the tuned modules."""
        return dict(self.trained)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return one group a module."""
        return [
            {
                "params": [one for one in module.parameters() if one.requires_grad],
                "lr": self.rates.get(name, self.settings.lr),
                "weight_decay": self.settings.weight_decay,
            }
            for name, module in self.trained.items()
        ]

    @property
    def rows(self) -> np.ndarray:
        """All photos."""
        return np.arange(len(self.examples.latents))

    def loss(
        self, rows: np.ndarray, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Predict the noise of photos under captions drawn at random, and of as many class pictures."""
        count, settings = len(rows), self.settings
        seen = Examples(self.examples.latents[rows], self.examples.cells[rows])
        captions = torch.from_numpy(rng.integers(len(settings.templates), size=count))
        keep = (~null_rows(count, settings.noise.null_text, rng)).to(self.device)
        embeds, pooled = self.condition(captions.to(self.device))
        embeds, pooled = embeds * keep[:, None, None], pooled * keep[:, None]
        if self.prior is None:
            return self._errors(seen, embeds, pooled, generator).mean(), {}
        of_class = torch.from_numpy(rng.integers(len(self.prior.latents), size=count))
        clean = torch.cat([seen.latents, self.prior.latents[of_class]])
        cells = torch.cat([seen.cells, torch.ones_like(seen.cells)])
        beside = [one.expand(count, *one.shape[1:]) for one in self.prior.condition]
        error = self._errors(
            Examples(clean, cells),
            torch.cat([embeds, beside[0]]),
            torch.cat([pooled, beside[1]]),
            generator,
        )
        own, prior = error[:count].mean(), error[count:].mean()
        figures = {"own": float(own.detach()), "prior": float(prior.detach())}
        return own + self.prior.weight * prior, figures

    def _errors(self, seen: Examples, embeds: Tensor, pooled: Tensor, generator: torch.Generator) -> Tensor:
        """Loss of each row [batch]."""
        noisy, steps, target, weight = self.noising(seen.latents.to(self.device), generator)
        dtype, own = self.pipeline.unet.dtype, next(self.model.parameters()).dtype
        times = time_ids(len(noisy), self.size).to(self.device, embeds.dtype)
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            predicted = self.model(
                noisy.to(own),
                steps,
                encoder_hidden_states=embeds.to(own),
                added_cond_kwargs={"text_embeds": pooled.to(own), "time_ids": times},
                return_dict=False,
            )[0]
        return weighted_error(predicted, target, seen.cells.to(self.device)) * weight[:, 0, 0, 0]


def tune(recipe: PersonRecipe, progress: Progress | None = None) -> dict[str, Any]:
    """Take all steps of a recipe; the same settings give the same numbers.

    Args:
        recipe: What is tuned.
        progress: Told after every step.

    Returns:
        Notes for the identity: steps, seed, and the mean loss of the first and of the last tenth of the steps.

    Raises:
        SettingsError: The loss is no longer a number.
    """
    settings = recipe.settings
    # dropout draws from the global generator, which is lent and given back
    with torch.random.fork_rng([recipe.device] if recipe.device.type == "cuda" else []):
        losses = list(_steps(recipe, progress))
    tenth = max(1, len(losses) // 10)
    return {
        "steps": settings.steps,
        "seed": settings.seed,
        "loss_first": round(float(np.mean(losses[:tenth])), 6),
        "loss_last": round(float(np.mean(losses[-tenth:])), 6),
    }


def _steps(recipe: PersonRecipe, progress: Progress | None) -> Iterator[float]:
    """The loss of each step, which is taken."""
    settings, groups = recipe.settings, recipe.parameter_groups()
    parameters = [one for group in groups for one in group["params"]]
    peaks = [group["lr"] for group in groups]
    optimiser = torch.optim.AdamW(groups, fused=True)
    order = RowOrder(recipe.rows, recipe.groups, settings.batch_size, settings.seed)
    for step in range(settings.steps):
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["lr"] = peak * rate_factor(step, settings.rates)
        rng = np.random.default_rng([settings.seed, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        torch.manual_seed(int(rng.integers(2**62)))
        with torch.enable_grad():
            loss, _ = recipe.loss(order(step), rng, generator)
            loss.backward()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise SettingsError(
                f"the loss is {value} after {step + 1} steps at lr {settings.lr}; give a lower lr"
            )
        if settings.clip:
            nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if progress is not None:
            progress(step + 1, settings.steps, value)
        yield value
