"""Recipe of the bundled base: two text encoders and a UNet, trained together on latents and captions."""

from __future__ import annotations

import copy
import json
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from photomaker.errors import WeightsError
from photomaker.hub import variant_of
from photomaker.pipelines.autoencoder import SmallAutoencoder
from photomaker.training.data.dataset import SIZE, People
from photomaker.training.data.mixture import Captioned, Mixture, Sized
from photomaker.training.losses.diffusion import (
    DiffusionSettings,
    Noising,
    encode_ids,
    make_scheduler,
    null_rows,
    use_plain_attention,
    weighted_error,
)
from photomaker.training.running.recipe import Recipe

HEAD = 32
Tokenizers = tuple[CLIPTokenizer, CLIPTokenizer]


@dataclass(frozen=True)
class BaseSizes:
    """Widths of the UNet and the text encoders.

    Attributes:
        blocks: UNet channels at 16 x 16, 8 x 8, ..., multiples of 16.
        layers: Residual blocks a resolution.
        text: Widths of the two text encoders, multiples of 32; their sum is the cross-attention width.
        text_layers: Layers of each; the last layer of the first is never used (SDXL takes the one before).
        text_mlp: Hidden width of the text MLPs, as a multiple of the width.
        time: Width of each embedded size condition.
    """

    blocks: tuple[int, ...] = (96, 128)
    layers: int = 1
    text: tuple[int, int] = (96, 160)
    text_layers: tuple[int, int] = (3, 3)
    text_mlp: int = 2
    time: int = 32


@dataclass(frozen=True)
class BaseSettings:
    """How the base is trained.

    Attributes:
        lr: Peak learning rate of the UNet.
        text_lr: Peak learning rate of the text encoders.
        weight_decay: AdamW's, on matrices only.
        plain_captions: Share of captions that describe no appearance trait at all.
        diffusion: Noise and loss weights.
    """

    lr: float = 6e-4
    text_lr: float = 4e-4
    weight_decay: float = 0.01
    plain_captions: float = 0.4
    diffusion: DiffusionSettings = field(default_factory=DiffusionSettings)


def make_unet(sizes: BaseSizes, latent_channels: int) -> UNet2DConditionModel:
    """An SDXL-shaped UNet with attention at every resolution."""
    count, second = len(sizes.blocks), sizes.text[1]
    return UNet2DConditionModel(
        sample_size=SIZE // 8,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=("CrossAttnDownBlock2D",) * count,
        up_block_types=("CrossAttnUpBlock2D",) * count,
        block_out_channels=sizes.blocks,
        layers_per_block=sizes.layers,
        transformer_layers_per_block=1,
        attention_head_dim=tuple(max(1, width // HEAD) for width in sizes.blocks),
        cross_attention_dim=sum(sizes.text),
        norm_num_groups=16,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=sizes.time,
        projection_class_embeddings_input_dim=second + 6 * sizes.time,
    )


def make_text_encoders(
    sizes: BaseSizes, tokenizers: Tokenizers
) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """SDXL's two text encoders in small."""

    def config(place: int) -> CLIPTextConfig:
        width, tokenizer = sizes.text[place], tokenizers[place]
        return CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=width * sizes.text_mlp,
            num_hidden_layers=sizes.text_layers[place],
            num_attention_heads=max(1, width // HEAD),
            max_position_embeddings=tokenizer.model_max_length,
            projection_dim=width,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )

    return CLIPTextModel(config(0)), CLIPTextModelWithProjection(config(1))


@dataclass
class BaseParts:
    """The pieces of a base: what a diffusers folder holds."""

    autoencoder: SmallAutoencoder | AutoencoderKL
    text_encoders: tuple[CLIPTextModel, CLIPTextModelWithProjection]
    tokenizers: Tokenizers
    unet: UNet2DConditionModel
    scheduler: Any

    @classmethod
    def new(
        cls, autoencoder: SmallAutoencoder, tokenizers: Tokenizers, sizes: BaseSizes, seed: int = 0
    ) -> BaseParts:
        """Untrained text encoders and UNet around a trained autoencoder."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoders = make_text_encoders(sizes, tokenizers)
            unet = make_unet(sizes, autoencoder.config.latent_channels)
        return cls(autoencoder, encoders, tokenizers, unet, make_scheduler(DiffusionSettings()))

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype = torch.float32) -> BaseParts:
        """Read a diffusers folder.

        Args:
            folder: With `model_index.json`.
            dtype: Precision of text encoders and UNet; the autoencoder is always read in float32.

        Raises:
            WeightsError: It holds no SDXL base.
        """
        try:
            kind = json.loads((folder / "model_index.json").read_text())["_class_name"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(
                f"{folder} has no readable model_index.json; give a diffusers folder"
            ) from error
        if "StableDiffusionXL" not in str(kind):
            raise WeightsError(f"the base in {folder} is a {kind}; PhotoMaker needs an SDXL base model")
        try:
            pipe = StableDiffusionXLPipeline.from_pretrained(
                folder,
                dtype={"vae": torch.float32, "default": dtype},
                variant=variant_of(folder),
                add_watermarker=False,
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise WeightsError(
                f"the base in {folder} cannot be read ({reason}); download it again"
            ) from error
        encoders, tokenizers = (pipe.text_encoder, pipe.text_encoder_2), (pipe.tokenizer, pipe.tokenizer_2)
        if None in (*encoders, *tokenizers):
            raise WeightsError(
                f"the base in {folder} lacks one of the two text encoders; PhotoMaker needs an SDXL base model"
            )
        return cls(pipe.vae, encoders, tokenizers, pipe.unet, pipe.scheduler)

    def save(self, folder: Path, settings: DiffusionSettings | None = None) -> None:
        """Write a diffusers folder in half precision, with the scheduler of the settings, or None for its own."""
        models = [copy.deepcopy(m).half().eval() for m in (self.autoencoder, *self.text_encoders, self.unet)]
        StableDiffusionXLPipeline(
            vae=models[0],
            text_encoder=models[1],
            text_encoder_2=models[2],
            tokenizer=self.tokenizers[0],
            tokenizer_2=self.tokenizers[1],
            unet=models[3],
            scheduler=self.scheduler if settings is None else make_scheduler(settings),
            force_zeros_for_empty_prompt=True,
            add_watermarker=False,
        ).save_pretrained(folder)
        for name in ("text_encoder", "text_encoder_2"):
            _note_single_precision(folder / name / "config.json")


def _note_single_precision(config: Path) -> None:
    """Let a plain `from_pretrained` load a text encoder in float32, as it loads the UNet.

    transformers takes the precision noted in the file where none is asked for, diffusers takes float32: without this
    the two would not fit together.
    """
    values = json.loads(config.read_text())
    values["dtype"] = "float32"
    config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def token_ids(tokenizers: Tokenizers, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token numbers [batch, 77] of both tokenizers, padded and cut as the pipelines do it."""

    def ids(tokenizer: CLIPTokenizer) -> Tensor:
        length = tokenizer.model_max_length
        return tokenizer(
            list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).input_ids

    return ids(tokenizers[0]), ids(tokenizers[1])


def decayed_groups(module: nn.Module, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Two AdamW groups: matrices with weight decay, vectors without."""
    trained = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "lr": lr, "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "lr": lr, "weight_decay": 0.0},
    ]


def kept_ids(
    tokenizers: Tokenizers, parts: Sequence[Captioned], plain: float, variants: int, workers: int = 1
) -> np.ndarray:
    """Token numbers of several captions of every row, made beforehand: a GPU would wait for new ones.

    Args:
        tokenizers: The base's.
        parts: The datasets, in the order of the recipe's `data` and `more`.
        plain: See `BaseSettings.plain_captions`.
        variants: Captions of each row.
        workers: Processes; more than one are forked, so call this before anything is computed on a GPU or trained.

    Returns:
        int16 [rows, variants, 2, 77]; a vocabulary must have less than 32768 tokens.
    """
    jobs = [
        (tokenizers, part, rows, plain, variants, number)
        for number, part in enumerate(parts)
        for rows in np.array_split(np.arange(len(part.boxes)), workers * 8)
    ]
    if workers == 1:
        return np.concatenate([_ids_of(*job) for job in jobs])
    # what is forked has the jobs already: nothing is copied
    with multiprocessing.get_context("fork").Pool(workers, _take, (jobs,)) as pool:
        return np.concatenate(pool.map(_ids_of_job, range(len(jobs))))


def _ids_of(
    tokenizers: Tokenizers, part: Captioned, rows: np.ndarray, plain: float, variants: int, number: int
) -> np.ndarray:
    rng = np.random.default_rng([number, len(rows), int(rows[0]) if len(rows) else 0])
    each = []
    for _ in range(variants):
        shares = _described(len(rows), plain, rng)
        captions = [
            part.caption(int(row), rng, float(share)) for row, share in zip(rows, shares, strict=True)
        ]
        each.append(torch.stack(token_ids(tokenizers, captions), dim=1).numpy().astype(np.int16))
    return np.stack(each, axis=1)


_JOBS: list[tuple[Any, ...]] = []
"""What a forked process may be asked for."""


def _take(jobs: list[tuple[Any, ...]]) -> None:
    _JOBS[:] = jobs


def _ids_of_job(number: int) -> np.ndarray:
    return _ids_of(*_JOBS[number])


def _described(count: int, plain: float, rng: np.random.Generator) -> np.ndarray:
    """How likely captions mention a trait [count]: a share of them none, the others 0.3 to 1."""
    return np.where(rng.random(count) < plain, 0.0, rng.uniform(0.3, 1.0, count))


class BaseRecipe(Recipe):
    """Trains the text encoders and the UNet by v-prediction.

    Args:
        data: Pictures and captions.
        latents: [rows, channels, 16, 16] of the same rows.
        parts: The base; its autoencoder stays as it is.
        settings: How.
        held_out: Rows kept for validation, taken from the end.
        more: Further pictures, of any sizes; a step is of one size.
        kept: Captions made beforehand, see `kept_ids`; None makes new ones in every step.
    """

    name = "base"

    def __init__(
        self,
        data: People,
        latents: np.ndarray,
        parts: BaseParts,
        settings: BaseSettings = BaseSettings(),
        held_out: int = 256,
        more: Sequence[Sized] = (),
        kept: np.ndarray | None = None,
    ) -> None:
        """Store the arguments and split the rows."""
        self.parts, self.settings = parts, settings
        self.data = Mixture([Sized(data, latents), *more], held_out)
        self.kept = kept
        self.noising = Noising(settings.diffusion, make_scheduler(settings.diffusion))
        use_plain_attention(parts.unet, *parts.text_encoders)

    def modules(self) -> dict[str, nn.Module]:
        """Return the two text encoders and the UNet."""
        first, second = self.parts.text_encoders
        return {"text_encoder": first, "text_encoder_2": second, "unet": self.parts.unet}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return groups with the UNet's and the text encoders' learning rates."""
        groups = decayed_groups(self.parts.unet, self.settings.lr, self.settings.weight_decay)
        for encoder in self.parts.text_encoders:
            groups += decayed_groups(encoder, self.settings.text_lr, self.settings.weight_decay)
        return groups

    @property
    def rows(self) -> np.ndarray:
        """All rows but the held-out ones."""
        return self.data.rows

    @property
    def groups(self) -> np.ndarray:
        """One group a size."""
        return self.data.groups

    def captions(self, rows: np.ndarray, rng: np.random.Generator) -> list[str]:
        """Captions of which a share describes no trait, the others each trait with a probability of 0.3 to 1."""
        return self.data.captions(rows, _described(len(rows), self.settings.plain_captions, rng), rng)

    def ids(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Token numbers of a caption of each row; see `token_ids`."""
        if self.kept is None:
            return token_ids(self.parts.tokenizers, self.captions(rows, rng))
        chosen = torch.from_numpy(
            self.kept[rows, rng.integers(self.kept.shape[1], size=len(rows))].astype(np.int64)
        )
        return chosen[:, 0], chosen[:, 1]

    def errors(
        self, rows: np.ndarray, ids: tuple[Tensor, Tensor], null: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Loss of each row [batch] and its timestep [batch]."""
        clean = self.data.latents(rows).to(self.device)
        noisy, steps, target, weight = self.noising(clean, generator)
        embeds, pooled = encode_ids(
            self.parts.text_encoders, (ids[0].to(self.device), ids[1].to(self.device))
        )
        keep = (~null).to(self.device)
        # Zeros, and not an encoded empty text: what force_zeros_for_empty_prompt gives at sampling.
        embeds, pooled = embeds * keep[:, None, None], pooled * keep[:, None]
        predicted = self.parts.unet(
            noisy,
            steps,
            encoder_hidden_states=embeds,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": ids_of_size(clean).to(self.device)},
            return_dict=False,
        )[0]
        cells = 1 + (self.settings.diffusion.face - 1) * self.data.faces(rows)
        error = weighted_error(predicted, target, cells.to(self.device)) * weight[:, 0, 0, 0]
        return error, steps

    def loss(
        self, rows: np.ndarray, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Predict v under captions, some rows without any."""
        null = null_rows(len(rows), self.settings.diffusion.null_text, rng)
        error, steps = self.errors(rows, self.ids(rows, rng), null, generator)
        return error.mean(), thirds(error.detach(), steps)

    def validate(self, rng: np.random.Generator, generator: torch.Generator) -> dict[str, float]:
        """Measure the loss on held-out rows with fixed captions and noise."""
        total = []
        for rows in np.array_split(self.data.held_out, max(1, len(self.data.held_out) // 32)):
            null = torch.zeros(len(rows), dtype=torch.bool)
            ids = token_ids(self.parts.tokenizers, self.captions(rows, rng))
            total.append(self.errors(rows, ids, null, generator)[0])
        return {"loss": float(torch.cat(total).mean())}

    def export(self, folder: Path) -> None:
        """Write the diffusers folder."""
        self.parts.save(folder, self.settings.diffusion)


def ids_of_size(latents: Tensor) -> Tensor:
    """SDXL's size conditioning [batch, 6] for uncropped pictures: original size, crop corner, target size."""
    height, width = (side * 8 for side in latents.shape[-2:])
    row = torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32)
    return row.expand(len(latents), -1)


def thirds(error: Tensor, steps: Tensor) -> dict[str, float]:
    """Mean loss at low, middle and high noise, where a batch has such timesteps."""
    part = (steps * 3 // 1000).clamp(max=2)
    names = ("loss_low_noise", "loss_middle_noise", "loss_high_noise")
    return {name: float(error[part == i].mean()) for i, name in enumerate(names) if bool((part == i).any())}
