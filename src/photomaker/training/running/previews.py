"""Pictures in the middle of an adapter's training: what it makes of people that it is not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from photomaker.encoders.preprocess import face_square
from photomaker.errors import SettingsError
from photomaker.images import grid, square
from photomaker.prompts.trigger import TRIGGER, ParsedPrompt, parse
from photomaker.training.recipes.adapter import AdapterRecipe
from photomaker.training.running.recipe import Preview

Score = Callable[[Sequence[Image.Image], Sequence[Image.Image]], float]
"""Likeness of pictures to photos of the same person: their mean, or not a number where no face is found."""

CELL = 256
"""Largest side of a picture on the sheet."""


@dataclass(frozen=True)
class PreviewSettings:
    """What is drawn at intervals.

    Attributes:
        people: How many people, held-out ones where there are any.
        photos: Photos of each that the adapter gets.
        prompts: Each a picture of every person; `{}` stands for the person's class word.
        steps: Denoising steps.
        guidance: Guidance scale.
        merge: Share of text-only steps, 0..1.
        seed: Of the first picture.
        likeness: What compares faces: none, bundled or insightface.

    Raises:
        SettingsError: A value is outside its range.
    """

    people: int = 2
    photos: int = 4
    prompts: tuple[str, ...] = ("a photo of a {}", "a photo of a {} wearing sunglasses", "a sketch of a {}")
    steps: int = 20
    guidance: float = 5.0
    merge: float = 0.2
    seed: int = 0
    likeness: str = "none"

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("people", "photos", "steps"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; give a whole number from 1 up")
        for prompt in self.prompts:
            if prompt.count("{}") != 1:
                raise SettingsError(f"the prompt {prompt!r} needs the place of the class word, {{}}, once")
        if not self.prompts:
            raise SettingsError("prompts is empty; give one or more")
        if self.likeness not in ("none", "bundled", "insightface"):
            raise SettingsError(f"likeness is {self.likeness!r}; give none, bundled or insightface")


class Previewer:
    """Draws with the weights as they are.

    Args:
        recipe: The adapter in training.
        settings: What to draw.
        side: Width and height of a picture in pixels.
        score: What compares faces; None leaves likeness out.
    """

    def __init__(
        self, recipe: AdapterRecipe, settings: PreviewSettings, side: int, score: Score | None = None
    ) -> None:
        """Choose the people."""
        self.recipe, self.settings, self.side, self.score = recipe, settings, side, score
        rows = recipe.held_out if len(recipe.held_out) else recipe.rows
        people = list(dict.fromkeys(recipe.data.person[rows].tolist()))[: settings.people]
        self.people = [recipe.data.rows_of(person)[: settings.photos] for person in people]

    def __call__(self) -> Preview:
        """Draw every prompt for every person."""
        cells: list[Image.Image] = []
        likeness: list[float] = []
        with torch.no_grad(), _Pipeline(self.recipe) as pipeline:
            for rows in self.people:
                photos = [self._photo(int(row)) for row in rows]
                drawn = self._draw(pipeline, rows, photos)
                cells += [square(one, min(self.side, CELL)) for one in (photos[0], *drawn)]
                if self.score is not None:
                    likeness.append(self.score(drawn, photos))
        sheet = grid(cells, columns=1 + len(self.settings.prompts))
        found = [value for value in likeness if not np.isnan(value)]
        return Preview(sheet, {"likeness": float(np.mean(found))} if found else {})

    def _photo(self, row: int) -> Image.Image:
        """An ID photo as it would be given at inference."""
        data, crop = self.recipe.data, self.recipe.settings.photo.crop
        photo = Image.fromarray(np.asarray(data.images[row]))
        x0, y0, x1, y1 = (float(edge) for edge in data.boxes[row])
        return face_square(photo, (x0, y0, x1, y1), crop) if crop else photo

    def _draw(self, pipeline: Any, rows: np.ndarray, photos: list[Image.Image]) -> list[Image.Image]:  # noqa: ANN401
        settings, faces = self.settings, self.recipe.faces
        caption = self.recipe.data.caption(int(rows[0]), np.random.default_rng(0), 0.0, TRIGGER)
        word = (caption if isinstance(caption, ParsedPrompt) else parse(caption)).class_word
        identity = pipeline.encode_identity(photos, id_embeds=None if faces is None else faces[rows])
        return [
            pipeline(
                prompt.replace("{}", f"{word} {TRIGGER}"),
                identity=identity,
                start_merge_step=settings.merge if settings.merge else -1,
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance,
                height=self.side,
                width=self.side,
                generator=torch.Generator().manual_seed(settings.seed + number),
            ).images[0]
            for number, prompt in enumerate(settings.prompts)
        ]


class _Pipeline:
    """A pipeline around the recipe's own modules, with the frozen ones on the device as long as it is open."""

    def __init__(self, recipe: AdapterRecipe) -> None:
        self.recipe = recipe
        self.moved = [recipe.parts.autoencoder, *recipe.parts.text_encoders]
        self.before = [module.device for module in self.moved]

    def __enter__(self) -> Any:  # noqa: ANN401 - a diffusers pipeline
        from photomaker.pipelines import PhotoMakerStableDiffusionXLPipeline

        parts = self.recipe.parts
        for module in self.moved:
            module.to(self.recipe.device)
        pipeline = PhotoMakerStableDiffusionXLPipeline(
            vae=parts.autoencoder, text_encoder=parts.text_encoders[0], text_encoder_2=parts.text_encoders[1],
            tokenizer=parts.tokenizers[0], tokenizer_2=parts.tokenizers[1], unet=parts.unet,
            scheduler=parts.scheduler, id_encoder=self.recipe.id_encoder, add_watermarker=False,
        )  # fmt: skip
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def __exit__(self, *_: object) -> None:
        for module, device in zip(self.moved, self.before, strict=True):
            module.to(device)
