"""`photomaker bench-train`: what a training step costs on full-size SDXL, beside diffusers' own LoRA training.

The weights are random numbers in the released sizes: time and memory depend on shapes alone. Every way runs in a
process of its own, so that its peak of memory is its own.

diffusers' training script `train_text_to_image_lora_sdxl.py` is not part of the installed package. What is measured in
its place is the step that it takes, written here from its procedure: frozen modules in bfloat16 but for the autoencoder
in float32, LoRA in float32 on the UNet's attention, picture and text encoded in every step, epsilon prediction under
autocast, mean square error, gradients clipped, AdamW. It reads no files and writes no log, which the script does too.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers import DDPMScheduler
from peft import LoraConfig
from torch import nn
from torch.nn import functional
from transformers import CLIPTokenizer

from photomaker.apps import bench, terminal
from photomaker.apps.bench_page import publish
from photomaker.encoders import PhotoMakerIDEncoder, PhotoMakerIDEncoder_CLIPInsightfaceExtendtoken
from photomaker.encoders.id_encoder import FULL_SIZE, vision_config
from photomaker.encoders.id_encoder_v2 import vision_config_v2
from photomaker.errors import SettingsError
from photomaker.processes import serve_parent
from photomaker.prompts.trigger import ParsedPrompt
from photomaker.training.data.frames import Frames
from photomaker.training.data.latents import FramedLatents
from photomaker.training.data.texts import KeptTexts
from photomaker.training.recipes.adapter import ATTENTION, AdapterRecipe
from photomaker.training.recipes.base import BaseParts
from photomaker.training.recipes.people import AdapterSettings, Ingredients
from photomaker.training.running.run import Run
from photomaker.training.running.settings import TrainSettings
from photomaker.weights import bundled

CAPTION = ParsedPrompt("a photo of a man", " on the beach, in a blue shirt")
PICTURES = 5
GIB = 2**30


@dataclass(frozen=True)
class Way:
    """One way to take training steps.

    Attributes:
        name: In the table.
        keep_latents: Whether latents are computed beforehand.
        keep_texts: Whether text embeddings are computed beforehand.
        checkpointing: Whether activations are computed again in the backward pass.
        vision: How much of the image encoder is trained.
        version: Of the adapter; "" is diffusers' LoRA alone.
    """

    name: str
    keep_latents: bool = False
    keep_texts: bool = False
    checkpointing: bool = False
    vision: Literal["all", "none"] = "none"
    version: Literal["v1", "v2", ""] = "v1"


REFERENCE = Way("diffusers' LoRA step", version="")
WAYS = (
    REFERENCE,
    Way("PhotoMaker V1, everything anew"),
    Way("latents kept", keep_latents=True),
    Way("latents and texts kept", keep_latents=True, keep_texts=True),
    Way("both kept, image encoder trained", keep_latents=True, keep_texts=True, vision="all"),
    Way("the same, gradient checkpointing", True, True, True, "all"),
    Way("the same for V2", True, True, True, "all", "v2"),
    Way("diffusers' LoRA step, with gradient checkpointing", checkpointing=True, version=""),
    Way("diffusers' LoRA step, once more", version=""),
)


@dataclass(frozen=True)
class TrainBenchSettings:
    """What is measured.

    Attributes:
        side: Side of the pictures in pixels, a multiple of 32.
        batch: Pictures a step.
        steps: Steps timed, after one that is not.
        rank: Of the LoRA.
        device: A torch device.
        sizes: Of the model.
        ways: Numbers of the ways to measure; empty is all.

    Raises:
        SettingsError: One is out of range.
    """

    side: int = 512
    batch: int = 1
    steps: int = 2
    rank: int = 64
    device: str = "cpu"
    sizes: bench.Sizes = field(default_factory=bench.Sizes)
    ways: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.side < 64 or self.side % 32:  # noqa: PLR2004 - whole at each of the UNet's levels
            raise SettingsError(f"the side is {self.side}; give a multiple of 32 from 64 up")
        for name in ("batch", "steps", "rank"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; give 1 or more")
        for number in self.ways:
            if not 0 <= number < len(WAYS):
                raise SettingsError(f"there is no way {number}; give numbers from 0 to {len(WAYS) - 1}")


def run(settings: TrainBenchSettings, out: Path) -> dict[str, Any]:
    """Measure each way in its own process, print a table, and write `train_speed.json` and `train_speed.md`."""
    found = []
    for way in [WAYS[number] for number in settings.ways] or WAYS:
        with terminal.waiting(way.name):
            found.append({"way": way.name} | _apart(settings, way))
    document = {
        "settings": asdict(settings),
        "machine": bench.machine(settings.device),
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers", "peft")},
        "ways": found,
    }
    publish(out, "train_speed", document, markdown(document))
    return document


def _apart(settings: TrainBenchSettings, way: Way) -> dict[str, Any]:
    """Measure one way in a separate process."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(settings, way, theirs))
    process.start()
    theirs.close()
    try:
        return dict(mine.recv())
    except EOFError:  # killed, most likely for memory
        process.join()
        return {"failed": f"ended with status {process.exitcode}"}
    except BaseException:
        process.terminate()
        raise
    finally:
        process.join()


def _send(settings: TrainBenchSettings, way: Way, place: Connection) -> None:
    serve_parent()
    place.send(measured(settings, way))


def measured(settings: TrainBenchSettings, way: Way) -> dict[str, Any]:
    """Seconds of each step, peak memory over them, and numbers of parameters trained."""
    with tempfile.TemporaryDirectory() as folder:
        step, trained = _made(settings, way, Path(folder))
        step(0)
        _forget_peak(settings.device)
        seconds = []
        for number in range(1, settings.steps + 1):
            _wait(settings.device)
            start = time.perf_counter()
            loss = step(number)
            _wait(settings.device)
            seconds.append(time.perf_counter() - start)
    if not np.isfinite(loss):
        return {"failed": f"the loss is {loss}"}
    return {
        "seconds": statistics.median(seconds),
        "each": seconds,
        "peak_gib": _peak(settings.device),
        "trained": trained,
    }


def _made(settings: TrainBenchSettings, way: Way, folder: Path) -> tuple[Callable[[int], float], int]:
    """A function that takes a step of some number and gives its loss, and how many parameters it trains."""
    torch.manual_seed(0)
    parts = _parts(settings)
    if not way.version:
        return _reference(settings, parts, way.checkpointing)
    recipe = _recipe(settings, parts, way, folder)
    loop = TrainSettings(
        steps=1000, batch_size=settings.batch, precision="bf16", ema_decay=0, schedule="constant"
    )
    state = Run(recipe, loop, folder)
    for module in state.modules.values():
        module.train()
    rows = np.zeros(settings.batch, dtype=np.int64)
    trained = sum(tensor.numel() for tensor in state.weights.values())
    return lambda _: state.advance(rows)["loss"], trained


def _parts(settings: TrainBenchSettings) -> BaseParts:
    sizes, device = settings.sizes, settings.device
    with bench.bare(torch.bfloat16):
        unet, texts = bench.make_unet(sizes), bench.make_text_encoders(sizes)
    with bench.bare(torch.float32):
        vae = bench.make_vae(sizes, force_upcast=True)
    unet, vae = bench.filled(unet, device), bench.filled(vae, device)
    first, second = (bench.filled(part, device) for part in texts)
    base = bundled("base")
    tokenizers = tuple(CLIPTokenizer.from_pretrained(base / name) for name in ("tokenizer", "tokenizer_2"))
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    return BaseParts(vae, (first, second), (tokenizers[0], tokenizers[1]), unet, scheduler)


class _Noise:
    """An album of one person in pictures of noise."""

    def __init__(self, side: int) -> None:
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (PICTURES, side, side, 3), dtype=np.uint8)
        self.masks = np.zeros((PICTURES, side, side), dtype=np.uint8)
        self.masks[:, side // 4 : -side // 4, side // 4 : -side // 4] = 255
        self.person = np.zeros(PICTURES, dtype=np.int64)
        self.boxes = np.tile(np.array([0.4, 0.3, 0.6, 0.5], dtype=np.float32) * side, (PICTURES, 1))
        self.is_photo = np.ones(PICTURES, dtype=bool)

    def rows_of(self, person_row: int) -> np.ndarray:
        del person_row
        return np.arange(PICTURES)

    def caption(
        self, row: int, rng: np.random.Generator, describe: float, trigger: str | None = None
    ) -> ParsedPrompt:
        del row, rng, describe, trigger
        return CAPTION


def _recipe(settings: TrainBenchSettings, parts: BaseParts, way: Way, folder: Path) -> AdapterRecipe:
    album, side = _Noise(settings.side), settings.side
    frames = Frames(np.full((PICTURES, 2), side), album.boxes, [(side, side)])
    names = (*FULL_SIZE, *(("id_embeddings_dim", "resampler_depth", "resampler_head", "resampler_ff",
                            "resampler_ratio") if way.version == "v2" else ()))  # fmt: skip
    sizes = {name: value for name, value in settings.sizes.encoder.items() if name in names}
    with bench.bare(torch.float32):
        encoder = (
            PhotoMakerIDEncoder_CLIPInsightfaceExtendtoken(vision_config_v2(**sizes))
            if way.version == "v2"
            else PhotoMakerIDEncoder(vision_config(**sizes))
        )
    encoder = bench.filled(encoder, settings.device)
    framed = FramedLatents(parts.autoencoder, album, frames)
    chosen = AdapterSettings(rank=settings.rank, vision=way.vision, gradient_checkpointing=way.checkpointing)
    texts, faces = None, None
    if way.keep_texts:
        copies = [encoder.num_tokens * (count + 1) for count in range(chosen.photos)]
        texts = KeptTexts(parts, [CAPTION], copies, folder, precision="bf16")
    if way.version == "v2":
        width = int(encoder.config.id_embeddings_dim)
        faces = np.random.default_rng(0).normal(size=(PICTURES, width)).astype(np.float32)
    latents = framed[np.arange(PICTURES)] if way.keep_latents else framed
    recipe = AdapterRecipe(Ingredients(album, latents, parts, encoder, chosen, 0, frames, texts), faces=faces)
    for module in [
        *(parts.text_encoders if way.keep_texts else ()),
        *([parts.autoencoder] * way.keep_latents),
    ]:
        module.to("meta")
    return recipe


def _reference(
    settings: TrainBenchSettings, parts: BaseParts, checkpointing: bool
) -> tuple[Callable[[int], float], int]:
    """The step of diffusers' script; see the head of this file."""
    device, unet, vae = settings.device, parts.unet, parts.autoencoder
    for module in (unet, vae, *parts.text_encoders):
        module.requires_grad_(False)
    unet.add_adapter(
        LoraConfig(
            r=settings.rank,
            lora_alpha=settings.rank,
            init_lora_weights="gaussian",
            target_modules=list(ATTENTION),
        )
    )
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.float()
    if checkpointing:
        unet.enable_gradient_checkpointing()
    unet.train()
    optimiser = torch.optim.AdamW(trained, lr=1e-4)
    text = CAPTION.before + CAPTION.after
    ids = [
        tokenizer(
            [text] * settings.batch, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        for tokenizer in parts.tokenizers
    ]
    side, scheduler = settings.side, parts.scheduler
    pictures = torch.rand(settings.batch, 3, side, side) * 2 - 1
    times = torch.tensor([[side, side, 0, 0, side, side]] * settings.batch, device=device)

    def step(_: int) -> float:
        latents = vae.encode(pictures.to(device), return_dict=False)[0].sample() * vae.config.scaling_factor
        latents = latents.to(torch.bfloat16)
        noise = torch.randn_like(latents)
        moments = torch.randint(0, scheduler.config.num_train_timesteps, (settings.batch,), device=device)
        noisy = scheduler.add_noise(latents, noise, moments)
        found = [
            encoder(own.to(device), output_hidden_states=True)
            for encoder, own in zip(parts.text_encoders, ids, strict=True)
        ]
        embeds = torch.cat([one.hidden_states[-2] for one in found], dim=-1)
        added = {"text_embeds": found[1].text_embeds, "time_ids": times}
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            predicted = unet(noisy, moments, embeds, added_cond_kwargs=added, return_dict=False)[0]
        loss = functional.mse_loss(predicted.float(), noise.float())
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        return float(loss.detach())

    return step, sum(parameter.numel() for parameter in trained)


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _forget_peak(device: str) -> None:
    """Have peaks counted from now on; building the model may have taken more than training does."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # not on Linux: the peak then is that since the start
        Path("/proc/self/clear_refs").write_text("5")


def _peak(device: str) -> dict[str, float]:
    found = bench.peak(device)
    for line in _status():
        if line.startswith("VmHWM:"):
            found["process"] = int(line.split()[1]) * 1024 / GIB
    return found


def _status() -> Iterator[str]:
    path = Path("/proc/self/status")
    if path.is_file():
        yield from path.read_text().splitlines()


def markdown(document: dict[str, Any]) -> str:
    """The page for people."""
    settings, machine = document["settings"], document["machine"]
    tiny = bool(settings["sizes"]["encoder"])
    plain = next((one for one in document["ways"] if one["way"] == REFERENCE.name and "seconds" in one), None)
    lines = [
        "# A training step on full-size SDXL, beside diffusers' LoRA training",
        "",
        *(["A REHEARSAL with a tiny model: none of the figures mean anything.", ""] if tiny else []),
        "Made by `photomaker bench-train`: random bfloat16 weights in SDXL's sizes, what is trained in float32, LoRA "
        f"of rank {settings['rank']} on all attention layers, {settings['side']} x {settings['side']} pixels, "
        f"{settings['batch']} picture(s) a step with 1 to 4 ID photos; medians of {settings['steps']} steps after one "
        "that is not counted; each way in a separate process. Peaks are over the timed steps.",
        "",
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, device "
        f"{machine['device']}.",
        "",
        "diffusers' own script is not part of its package; its step was reimplemented from its procedure: picture and "
        "text encoded in every step, the autoencoder in float32, AdamW, no moving average. PhotoMaker's ways encode "
        "the ID photos as well, and train projections and fusion beside the LoRA; the image encoder is frozen where "
        "nothing else is said.",
        "",
        "| way | seconds a step | over diffusers | peak GiB | trained parameters |",
        "|---|---|---|---|---|",
    ]
    for found in document["ways"]:
        if "seconds" not in found:
            lines.append(f"| {found['way']} | {found['failed']} | | | |")
            continue
        peak = ", ".join(f"{value:.2f} ({name})" for name, value in found["peak_gib"].items())
        over = f"{found['seconds'] / plain['seconds']:.3f}" if plain else ""
        lines.append(
            f"| {found['way']} | {found['seconds']:.2f} | {over} | {peak} | {found['trained'] / 1e6:.0f} M |"
        )
    return "\n".join([*lines, ""])
