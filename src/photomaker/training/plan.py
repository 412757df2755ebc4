"""A training from a settings file: reads the settings, builds the parts, and runs them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from photomaker import hub
from photomaker.dataset.shards import Shards
from photomaker.encoders.id_encoder import PhotoMakerIDEncoder
from photomaker.errors import SettingsError
from photomaker.synthetic.composed import ComposedDataset
from photomaker.synthetic.dataset import WorldDataset
from photomaker.training.config import BUNDLED, BaseChoice, DataSettings, EncoderChoice, TrainConfig
from photomaker.training.data.albums import ShardAlbum, WorldAlbum
from photomaker.training.data.array_cache import Share
from photomaker.training.data.dataset import Album
from photomaker.training.data.frames import Frames, bucket_sides, step_for
from photomaker.training.data.latents import FramedLatents, KeptLatents, Latents, cached_latents
from photomaker.training.data.texts import KeptTexts
from photomaker.training.encoder_start import from_clip, id_encoder
from photomaker.training.recipes.adapter import AdapterRecipe
from photomaker.training.recipes.anydoor import AnyDoorRecipe
from photomaker.training.recipes.base import BaseParts
from photomaker.training.recipes.controlnet import ControlNetRecipe
from photomaker.training.recipes.fastcomposer import FastComposerRecipe
from photomaker.training.recipes.flashface import FlashFaceRecipe
from photomaker.training.recipes.instantid import (
    Embeddings,
    InstantIDRecipe,
    kept_faces,
    seen_faces,
)
from photomaker.training.recipes.ip_adapter import IPAdapterRecipe
from photomaker.training.recipes.people import Ingredients, PeopleRecipe
from photomaker.training.recipes.photoverse import FaceEmbedding, PhotoVerseRecipe
from photomaker.training.recipes.pulid import PuLIDRecipe
from photomaker.training.recipes.reward import RewardRecipe
from photomaker.training.recipes.tuned_base import TunedBaseRecipe
from photomaker.training.running.checkpoint import take_over
from photomaker.training.running.loop import export_checkpoint, train
from photomaker.training.running.previews import Previewer, Score
from photomaker.training.running.recipe import Recipe
from photomaker.training.running.settings import TrainSettings
from photomaker.weights import bundled, model_hash

__all__ = [
    "BaseChoice", "DataSettings", "EncoderChoice", "TrainConfig", "TrainSettings", "build", "describe", "export",
    "from_clip", "id_encoder", "run",
]  # fmt: skip


log = logging.getLogger("photomaker.training")


def build(config: TrainConfig, score: Score | None = None, face: FaceEmbedding | None = None) -> PeopleRecipe:
    """Build the parts of a training; missing latents and text embeddings are computed.

    Args:
        config: What to train.
        score: What compares faces in pictures drawn on the way.
        face: What embeds faces for PhotoVerse's identity loss, which is left out where it is None, and for InstantID
            and PuLID on data of kind world.

    Raises:
        PhotoMakerError: Data, base or ID encoder is missing, damaged, or does not fit the others.
    """
    state = PartialState(cpu=not torch.cuda.is_available())
    share = Share(state.process_index, state.num_processes)
    album = _album(config)
    folder = bundled("base") if config.base.model == BUNDLED else hub.base_folder(config.base.model)
    parts = BaseParts.load(folder, torch.bfloat16 if config.base.dtype == "bf16" else torch.float32)
    encoder, lora = id_encoder(config, parts)
    for module in (parts.autoencoder, *parts.text_encoders):
        module.to(state.device)
    latents, more = _seen(config, album, parts, encoder, share)
    faces = more.pop("faces", None)
    given = Ingredients(album, latents, parts, encoder, config.recipe, config.data.held_out, **more)
    recipe = _recipe(config, given, lora, faces, face)
    notes = getattr(encoder.config, "adapter_notes", {})
    recipe.notes = {name: notes[name] for name in ("defaults",) if name in notes}
    recipe.origin = {"base": model_hash(folder), "data": getattr(album, "name", "synthetic people")}
    _put_away(config, parts, decoding=face is not None)
    if config.loop.preview_every and isinstance(recipe, AdapterRecipe):
        side = 128 if config.data.kind == "world" else config.data.resolution
        recipe.previewer = Previewer(recipe, config.preview, side, score)
    if recipe.single and share.process == 0:
        log.warning("%d people have only one picture and are not used as targets", recipe.single)
    return recipe


def _seen(
    config: TrainConfig,
    album: ShardAlbum | WorldDataset | WorldAlbum,
    parts: BaseParts,
    encoder: PhotoMakerIDEncoder,
    share: Share,
) -> tuple[Latents, dict[str, Any]]:
    """The latents of an album, and what else of its pictures and captions a recipe takes."""
    cache = config.data.cache or config.out / "cache"
    more: dict[str, Any] = {}
    if isinstance(album, ShardAlbum):
        album.check_captions(parts.tokenizers)
        more["frames"] = frames = _frames(config.data, album, parts)
        framed = FramedLatents(parts.autoencoder, album, frames)
        latents: Latents = (
            KeptLatents(framed, cache, album.name, share) if config.data.keep_latents else framed
        )
        if config.data.keep_texts:
            most = config.recipe.photos if config.method == "photomaker" else 1
            copies = [encoder.num_tokens * (count + 1) for count in range(most)]
            wanted = sorted({1, *copies} if config.recipe.text_only else set(copies))
            precision = config.loop.on("cuda" if torch.cuda.is_available() else "cpu")
            more["texts"] = KeptTexts(parts, album.captions, wanted, cache, share, precision)
        if encoder.needs_faces:
            more["faces"] = album.faces(int(encoder.config.id_embeddings_dim))
    elif isinstance(album, WorldAlbum):
        more["frames"] = Frames(
            album.sizes, album.boxes, sorted(map(tuple, np.unique(album.sizes, axis=0).tolist()))
        )
        known: list[WorldDataset | ComposedDataset] = [album.portraits, *album.composed]
        latents = album.latents(
            [cached_latents(parts.autoencoder, one, cache, share.process, share.processes) for one in known]
        )
    elif config.data.keep_latents:
        latents = cached_latents(parts.autoencoder, album, cache, share.process, share.processes)
    else:
        latents = FramedLatents(parts.autoencoder, album, Frames.of_the_world(album.boxes))
    return latents, more


def _put_away(config: TrainConfig, parts: BaseParts, decoding: bool) -> None:
    """Take from the device what the training does not need; `decoding` is whether faces are looked for."""
    unused = [*(parts.text_encoders if config.data.keep_texts else ())]
    decodes = bool(config.reward.steps) or (config.method == "photoverse" and decoding)
    decodes = decodes or config.method == "flashface"  # which encodes crops of the faces
    for module in [*unused, *([parts.autoencoder] if config.data.keep_latents and not decodes else [])]:
        module.to("cpu" if config.loop.preview_every else "meta")  # kept for pictures, or given up


def _recipe(
    config: TrainConfig,
    given: Ingredients,
    lora: Any,  # noqa: ANN401 - LoRA weights or None
    faces: np.ndarray | None,
    face: FaceEmbedding | None,
) -> PeopleRecipe:
    """The recipe of the method that is asked for."""
    seed = config.loop.seed
    alike: dict[str, tuple[Any, Any]] = {
        "ip_adapter": (IPAdapterRecipe, config.ip_adapter),
        "fastcomposer": (FastComposerRecipe, config.fastcomposer),
        "controlnet": (ControlNetRecipe, config.controlnet),
        "anydoor": (AnyDoorRecipe, config.anydoor),
    }
    by_face: dict[str, tuple[Any, Any]] = {
        "instantid": (InstantIDRecipe, config.instantid),
        "pulid": (PuLIDRecipe, config.pulid),
    }
    made: PeopleRecipe
    if config.method in alike:
        kind, own = alike[config.method]
        made = kind(given, own=own, seed=seed)
    elif config.method in by_face:
        kind, own = by_face[config.method]
        embeddings = _face_embeddings(given.data, own.width, face, config.method)
        made = kind(given, embeddings=embeddings, own=own, seed=seed)
    elif config.method == "photoverse":
        made = PhotoVerseRecipe(given, own=config.photoverse, face=face, seed=seed)
    elif config.method == "flashface":
        made = FlashFaceRecipe(given, own=config.flashface)
    elif config.method == "base":
        made = TunedBaseRecipe(given)
    else:
        made = AdapterRecipe(given, lora, faces=faces)
    return made


def _face_embeddings(album: Album, width: int, face: FaceEmbedding | None, method: str) -> Embeddings:
    """Embeddings of faces by rows: those that shards hold, or the recogniser's.

    Raises:
        SettingsError: There are none, and nothing makes them.
    """
    if isinstance(album, ShardAlbum):
        return kept_faces(album.faces(width))
    if face is not None:
        return seen_faces(album, face)
    raise SettingsError(
        f"method {method} needs what embeds faces on data of kind world; give face, or use shards"
    )


def run(
    config: TrainConfig,
    score: Score | None = None,
    fresh: bool = False,
    face: FaceEmbedding | None = None,
) -> dict[str, float]:
    """Train, or continue where a training in the same folder was stopped; see `build` and `loop.train`.

    Args:
        config: What to train.
        score: What compares faces in pictures drawn on the way.
        fresh: Start again instead of going on.
        face: See `build`.

    Raises:
        PhotoMakerError: See `build` and `loop.train`.
    """
    _settle(config.loop)
    recipe = build(config, score, face)
    if PartialState().is_main_process:
        log.info("%s", describe(recipe))
    if config.start is not None:
        taken = take_over(recipe, config.start)
        if PartialState().is_main_process:
            log.info("going on from %s", taken)
    return train(_finished(config, recipe), config.loop, config.out, resume=not fresh)


def export(config: TrainConfig) -> Path:
    """Export from a checkpoint without training on; see `loop.export_checkpoint`."""
    _settle(config.loop)
    return export_checkpoint(_finished(config, build(config)), config.loop, config.out)


def _finished(config: TrainConfig, recipe: PeopleRecipe) -> Recipe:
    """The recipe, or where it is asked for its finishing by reward."""
    return RewardRecipe(recipe, config.reward) if config.reward.steps else recipe


def _settle(settings: TrainSettings) -> None:
    torch.manual_seed(settings.seed)
    if not torch.cuda.is_available():
        # Denormal numbers, which appear in optimiser states, are many times slower on a CPU.
        torch.set_flush_denormal(True)


def _album(config: TrainConfig) -> ShardAlbum | WorldDataset | WorldAlbum:
    settings = config.data
    if settings.kind == "world":
        people = WorldDataset.open(settings.folder)
        if settings.composed is None:
            return people
        # the adapter and the base learn pictures of two people as well; the other methods have one in each
        pairs = config.method in {"base", "photomaker"}
        return WorldAlbum(people, ComposedDataset.open_all(settings.composed), pairs)
    return ShardAlbum(Shards.open(settings.folder))


def _frames(settings: DataSettings, album: ShardAlbum, parts: BaseParts) -> Frames:
    step = step_for(settings.resolution, len(parts.unet.config.block_out_channels))
    square = [(settings.resolution, settings.resolution)]
    sides = bucket_sides(settings.resolution, step) if settings.buckets else square
    return Frames(album.sizes, album.boxes, sides)


def describe(recipe: PeopleRecipe) -> str:
    """One line on the trained parameters and the data."""
    trained = {
        name: sum(p.numel() for p in module.parameters() if p.requires_grad)
        for name, module in recipe.modules().items()
    }
    people = len(np.unique(recipe.data.person[recipe.rows]))
    shown = ", ".join(f"{name} {count / 1e6:.1f} M" for name, count in trained.items())
    return f"{len(recipe.rows)} pictures of {people} people; trained parameters: {shown}"
