"""A training from a settings file: reads the settings, builds the parts, and runs them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import PartialState

from photomaker import hub
from photomaker.dataset.shards import Shards
from photomaker.encoders.adapter_file import AdapterFile, read_adapter
from photomaker.encoders.id_encoder import PhotoMakerIDEncoder, vision_config
from photomaker.encoders.id_encoder_v2 import (
    PhotoMakerIDEncoder_CLIPInsightfaceExtendtoken,
    vision_config_v2,
)
from photomaker.errors import SettingsError, WeightsError
from photomaker.synthetic.composed import ComposedDataset
from photomaker.synthetic.dataset import WorldDataset
from photomaker.training.adapter import AdapterRecipe
from photomaker.training.albums import ShardAlbum, WorldAlbum
from photomaker.training.anydoor import AnyDoorRecipe, AnyDoorSettings
from photomaker.training.base import BaseParts
from photomaker.training.controlnet import ControlNetRecipe, ControlNetSettings
from photomaker.training.fastcomposer import FastComposerRecipe, FastComposerSettings
from photomaker.training.flashface import FlashFaceRecipe, FlashFaceTraining
from photomaker.training.frames import Frames, bucket_sides, step_for
from photomaker.training.id_tower import FILE as TOWER_FILE
from photomaker.training.id_tower import load_tower, tower_config, tower_sizes
from photomaker.training.instantid import (
    Embeddings,
    InstantIDRecipe,
    InstantIDSettings,
    kept_faces,
    seen_faces,
)
from photomaker.training.ip_adapter import IPAdapterRecipe, IPAdapterSettings
from photomaker.training.latents import FramedLatents, KeptLatents, Latents, cached_latents
from photomaker.training.loop import Recipe, TrainSettings, export_checkpoint, take_over, train
from photomaker.training.people import AdapterSettings, PeopleRecipe
from photomaker.training.photoverse import FaceEmbedding, PhotoVerseRecipe, PhotoVerseSettings
from photomaker.training.previews import Previewer, PreviewSettings, Score
from photomaker.training.pulid import PuLIDRecipe, PuLIDSettings
from photomaker.training.reward import RewardRecipe, RewardSettings
from photomaker.training.store import Share
from photomaker.training.texts import KeptTexts
from photomaker.training.tuned_base import TunedBaseRecipe
from photomaker.weights import bundled, model_hash

BUNDLED = "bundled"
log = logging.getLogger("photomaker.training")


@dataclass(frozen=True)
class DataSettings:
    """The training data.

    Attributes:
        folder: The dataset.
        kind: `shards`, as `photomaker dataset build` writes them, or `world`, synthetic people as arrays.
        resolution: Side of a square picture in pixels; others have as many pixels. Synthetic people have 128.
        buckets: Whether pictures keep about their own aspect ratio; otherwise all are cut to squares.
        held_out: People kept for validation, a quarter at most.
        keep_latents: Whether latents are computed once and kept on disk.
        keep_texts: Whether text embeddings are computed once and kept on disk, for each number of photos.
        cache: Folder for both; None is `cache` inside the training's own.
        composed: Folder of compositions of the same synthetic people, which are trained on as well: other formats,
            people farther away, and, for the adapter and the base, two people in a picture.
    """

    folder: Path
    kind: Literal["shards", "world"] = "shards"
    resolution: int = 1024
    buckets: bool = True
    held_out: int = 100
    keep_latents: bool = True
    keep_texts: bool = False
    cache: Path | None = None
    composed: Path | None = None


@dataclass(frozen=True)
class BaseChoice:
    """The frozen base.

    Attributes:
        model: A diffusers folder, a hub id, or `bundled`.
        dtype: Precision that it is held in.
    """

    model: str
    dtype: Literal["bf16", "fp32"] = "bf16"


@dataclass(frozen=True)
class EncoderChoice:
    """Where the ID encoder comes from.

    Attributes:
        start: A CLIP image encoder (folder or hub id), with new projections and fusion; the export folder of a small
            image tower, the same; or an adapter (file, hub id, or `bundled`), whose LoRA is gone on from too.
        version: `v1`, or `v2` with face embeddings.
        anew: Whether only the image encoder of an adapter is started from, with new projections, fusion and LoRA; the
            methods that PhotoMaker is compared with always start so.
    """

    start: str = "openai/clip-vit-large-patch14"
    version: Literal["v1", "v2"] = "v1"
    anew: bool = False


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a training.

    Attributes:
        out: Folder of the training.
        data: What is trained on.
        base: The frozen base.
        encoder: The ID encoder.
        recipe: What is trained and how, for every method.
        method: What is trained: the PhotoMaker adapter, one of the methods that it is compared with, or the UNet of the
            base itself, by captions alone.
        ip_adapter: What is IP-Adapter's own.
        fastcomposer: What is FastComposer's own.
        photoverse: What is PhotoVerse's own.
        instantid: What is InstantID's own.
        controlnet: What is a ControlNet's own.
        pulid: What is PuLID's own.
        flashface: What is FlashFace's own.
        anydoor: What is AnyDoor's own.
        start: Folder of an earlier training of the same method, whose averaged weights are gone on from.
        reward: Finishing by reward of what was trained before, which `start` or `encoder.start` names; off by default.
        loop: How long.
        preview: Pictures drawn every `loop.preview_every` steps.

    Raises:
        SettingsError: Settings contradict each other.
    """

    out: Path
    data: DataSettings
    base: BaseChoice
    loop: TrainSettings
    encoder: EncoderChoice = field(default_factory=EncoderChoice)
    recipe: AdapterSettings = field(default_factory=AdapterSettings)
    method: Literal[
        "photomaker",
        "ip_adapter",
        "fastcomposer",
        "photoverse",
        "instantid",
        "controlnet",
        "pulid",
        "flashface",
        "anydoor",
        "base",
    ] = "photomaker"
    ip_adapter: IPAdapterSettings = field(default_factory=IPAdapterSettings)
    fastcomposer: FastComposerSettings = field(default_factory=FastComposerSettings)
    photoverse: PhotoVerseSettings = field(default_factory=PhotoVerseSettings)
    instantid: InstantIDSettings = field(default_factory=InstantIDSettings)
    controlnet: ControlNetSettings = field(default_factory=ControlNetSettings)
    pulid: PuLIDSettings = field(default_factory=PuLIDSettings)
    flashface: FlashFaceTraining = field(default_factory=FlashFaceTraining)
    anydoor: AnyDoorSettings = field(default_factory=AnyDoorSettings)
    start: Path | None = None
    reward: RewardSettings = field(default_factory=RewardSettings)
    preview: PreviewSettings = field(default_factory=PreviewSettings)

    def __post_init__(self) -> None:
        """Check what depends on several settings."""
        if self.base.dtype == "bf16" and self.loop.precision != "bf16":
            raise SettingsError(
                f"base.dtype is bf16, but loop.precision is {self.loop.precision}; set both to bf16, or both to fp32"
            )
        if self.data.kind == "world" and self.encoder.version == "v2":
            raise SettingsError(
                "V2 needs a face embedding of every photo, which data of kind world lacks; use shards or version v1"
            )
        if self.data.kind == "world" and self.data.keep_texts:
            raise SettingsError(
                "captions of kind world change each time and cannot be cached; set keep_texts to false"
            )
        if self.data.composed is not None and (self.data.kind != "world" or not self.data.keep_latents):
            raise SettingsError(
                f"data.composed is {self.data.composed}; that needs data.kind world and data.keep_latents true"
            )
        if self.method == "base" and (self.data.keep_texts or self.base.dtype != "fp32"):
            raise SettingsError(
                "method base trains the UNet itself; set base.dtype to fp32 and data.keep_texts to false"
            )
        seeing = self.method not in ("base", "controlnet")
        if not seeing and (self.reward.likeness or self.reward.tower) and self.reward.steps:
            raise SettingsError(
                f"method {self.method} gets no photos, so likeness cannot be rewarded; set reward.likeness and "
                "reward.tower to 0"
            )
        if self.method == "photoverse" and self.data.keep_texts:
            raise SettingsError(
                "PhotoVerse's words go through the text encoders and cannot be cached; set keep_texts to false"
            )
        if self.method != "photomaker" and (self.loop.preview_every or self.encoder.version == "v2"):
            raise SettingsError(
                f"method {self.method} has neither previews nor a V2 encoder; set loop.preview_every to 0 and "
                "encoder.version to v1"
            )


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
    cache = config.data.cache or config.out / "cache"
    for module in (parts.autoencoder, *parts.text_encoders):
        module.to(state.device)
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
    recipe = _recipe(config, (album, latents, parts, encoder), lora, more, face)
    notes = getattr(encoder.config, "adapter_notes", {})
    recipe.notes = {name: notes[name] for name in ("defaults",) if name in notes}
    recipe.origin = {"base": model_hash(folder), "data": getattr(album, "name", "synthetic people")}
    unused = [*(parts.text_encoders if config.data.keep_texts else ())]
    decodes = bool(config.reward.steps) or (config.method == "photoverse" and face is not None)
    decodes = decodes or config.method == "flashface"  # which encodes crops of the faces
    for module in [*unused, *([parts.autoencoder] if config.data.keep_latents and not decodes else [])]:
        module.to("cpu" if config.loop.preview_every else "meta")  # kept for pictures, or given up
    if config.loop.preview_every and isinstance(recipe, AdapterRecipe):
        side = 128 if config.data.kind == "world" else config.data.resolution
        recipe.previewer = Previewer(recipe, config.preview, side, score)
    if recipe.single and share.process == 0:
        log.warning("%d people have only one picture and are not used as targets", recipe.single)
    return recipe


def _recipe(
    config: TrainConfig,
    given: tuple[ShardAlbum | WorldDataset | WorldAlbum, Latents, BaseParts, PhotoMakerIDEncoder],
    lora: Any,  # noqa: ANN401 - LoRA weights or None
    more: Mapping[str, Any],
    face: FaceEmbedding | None,
) -> PeopleRecipe:
    """The recipe of the method that is asked for."""
    held_out, seed = config.data.held_out, config.loop.seed
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
        made = kind(*given, config.recipe, held_out, own=own, seed=seed, **more)
    elif config.method in by_face:
        kind, own = by_face[config.method]
        embeddings = _face_embeddings(given[0], own.width, face, config.method)
        made = kind(*given, config.recipe, held_out, embeddings=embeddings, own=own, seed=seed, **more)
    elif config.method == "photoverse":
        made = PhotoVerseRecipe(
            *given, config.recipe, held_out, own=config.photoverse, face=face, seed=seed, **more
        )
    elif config.method == "flashface":
        made = FlashFaceRecipe(*given, config.recipe, held_out, own=config.flashface, **more)
    elif config.method == "base":
        made = TunedBaseRecipe(*given, config.recipe, held_out, **more)
    else:
        made = AdapterRecipe(*given, config.recipe, held_out, lora, **more)
    return made


def _face_embeddings(
    album: ShardAlbum | WorldDataset | WorldAlbum, width: int, face: FaceEmbedding | None, method: str
) -> Embeddings:
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


def id_encoder(config: TrainConfig, parts: BaseParts) -> tuple[PhotoMakerIDEncoder, Any]:
    """The ID encoder to start from, in float32, and the LoRA that goes with it or None.

    Raises:
        WeightsError: It is missing or damaged, or of another version.
    """
    choice, widths = config.encoder, tuple(int(one.config.hidden_size) for one in parts.text_encoders)
    tower = Path(choice.start)
    if (tower / TOWER_FILE).is_file() or (tower.is_file() and tower.name == TOWER_FILE):
        torch.manual_seed(config.loop.seed)
        encoder = PhotoMakerIDEncoder(tower_config(tower_sizes(tower), (widths[0], widths[1])))
        load_tower(tower, encoder)
        return encoder, None
    adapter = _adapter(choice.start)
    if adapter is None:
        return from_clip(choice.start, choice.version, (widths[0], widths[1]), config.loop.seed), None
    if adapter.version != choice.version:
        raise WeightsError(
            f"{choice.start} is a {adapter.version} adapter and encoder.version is {choice.version}; give one of that "
            "version, or an image encoder"
        )
    encoder = adapter.build_encoder().float().requires_grad_(True)
    if not choice.anew:
        return encoder, adapter.lora
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.loop.seed)
        fresh = type(encoder)(encoder.config)
    fresh.vision_model.load_state_dict(encoder.vision_model.state_dict())
    return fresh, None


def _adapter(start: str) -> AdapterFile | None:
    """The adapter that is meant, or None if an image encoder is."""
    if start == BUNDLED:
        return read_adapter(bundled("adapter/photomaker.safetensors"))
    if Path(start).is_file() or start in hub.ADAPTER_FILES or start.endswith((".bin", ".safetensors")):
        return read_adapter(hub.adapter_file(start))
    return None


def from_clip(place: str, version: str, widths: tuple[int, int], seed: int) -> PhotoMakerIDEncoder:
    """An ID encoder around a trained CLIP image encoder; projections, resampler and fusion start from scratch.

    CLIP's own projection is kept where it has the width of the first text encoder, as it has in SDXL.

    Args:
        place: Folder or hub id of a CLIP model.
        version: "v1" or "v2".
        widths: Of the two text encoders.
        seed: Of the new weights.

    Raises:
        WeightsError: There is no CLIP model.
    """
    from transformers import CLIPVisionModelWithProjection

    folder = hub.model_folder(place)
    try:
        clip = CLIPVisionModelWithProjection.from_pretrained(folder, dtype=torch.float32)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise WeightsError(f"{place} is not a CLIP image encoder in safetensors; give another") from error
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size",
             "image_size", "hidden_act")  # fmt: skip
    sizes = {name: getattr(clip.config, name) for name in names}
    sizes |= {"projection_dim": widths[0], "projection_dim_2": widths[1]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = (
            PhotoMakerIDEncoder(vision_config(**sizes))
            if version == "v1"
            else PhotoMakerIDEncoder_CLIPInsightfaceExtendtoken(vision_config_v2(**sizes))
        )
    encoder.vision_model.load_state_dict(clip.vision_model.state_dict())
    if clip.visual_projection.weight.shape == encoder.visual_projection.weight.shape:
        encoder.visual_projection.load_state_dict(clip.visual_projection.state_dict())
    return encoder


def describe(recipe: PeopleRecipe) -> str:
    """One line on the trained parameters and the data."""
    trained = {
        name: sum(p.numel() for p in module.parameters() if p.requires_grad)
        for name, module in recipe.modules().items()
    }
    people = len(np.unique(recipe.data.person[recipe.rows]))
    shown = ", ".join(f"{name} {count / 1e6:.1f} M" for name, count in trained.items())
    return f"{len(recipe.rows)} pictures of {people} people; trained parameters: {shown}"
