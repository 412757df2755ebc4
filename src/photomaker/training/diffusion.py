"""What every diffusion recipe shares: the noise schedule, v-prediction, and the loss over cells.

With zero terminal SNR the last timestep holds no trace of the picture, so that sampling may start from pure noise;
otherwise a model learns to read the mean colour off the last timestep, and at sampling it reads grey.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import EulerAncestralDiscreteScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedModel

TIMESTEPS = 1000


@dataclass(frozen=True)
class DiffusionSettings:
    """How pictures are noised and how errors are weighted.

    Attributes:
        zero_snr: Whether the schedule ends at pure noise (arXiv 2305.08891).
        min_snr: Gamma of min-SNR weighting (arXiv 2303.09556); 0 switches it off, which is the plain v loss.
        null: Share of rows trained with the empty condition, all zeros.
        face: Weight of latent cells in the face box; 1 switches it off.
    """

    zero_snr: bool = True
    min_snr: float = 0.0
    null: float = 0.1
    face: float = 2.0


def make_scheduler(settings: DiffusionSettings) -> EulerAncestralDiscreteScheduler:
    """The scheduler that the model is trained for and shipped with.

    The fresh noise of every step lets later steps mend what earlier ones got wrong: with a small model and 20 steps the
    pictures are clearly more like the person than with the same steps without it.
    """
    return EulerAncestralDiscreteScheduler(
        num_train_timesteps=TIMESTEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=settings.zero_snr,
    )


class Noising:
    """Noisy latents and their v targets.

    With a = sqrt(alpha_bar_t) and s = sqrt(1 - alpha_bar_t): z_t = a x + s eps, v = a eps - s x (arXiv 2202.00512).

    Args:
        settings: The schedule and the weighting.
    """

    def __init__(self, settings: DiffusionSettings) -> None:
        """Take the schedule from the scheduler that will be shipped."""
        self.settings = settings
        self.alpha_bar = make_scheduler(settings).alphas_cumprod.double().clamp(0, 1).float()

    def __call__(self, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Noise a batch at random timesteps.

        Args:
            clean: Latents [batch, channels, h, w], float32.
            generator: Randomness, on the CPU.

        Returns:
            Noisy latents, timesteps [batch] int64, v targets, and loss weights [batch, 1, 1, 1].
        """
        count = len(clean)
        # One draw per equal part of the range: every batch sees early and late timesteps, which steadies the gradient.
        place = (torch.rand(1, generator=generator) + torch.randperm(count, generator=generator) / count) % 1
        steps = (place * TIMESTEPS).long().clamp(max=TIMESTEPS - 1)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        bar = self.alpha_bar[steps].view(-1, 1, 1, 1)
        weight = self._weight(bar).to(clean.device)
        a, s = bar.sqrt().to(clean.device), (1 - bar).sqrt().to(clean.device)
        return a * clean + s * noise, steps.to(clean.device), a * noise - s * clean, weight

    def _weight(self, bar: Tensor) -> Tensor:
        if not self.settings.min_snr:
            return torch.ones_like(bar)
        snr = bar / (1 - bar).clamp(min=1e-8)
        return snr.clamp(max=self.settings.min_snr) / (snr + 1)


def weighted_error(predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean square error in which every row counts by its cells' weights.

    Args:
        predicted: [batch, channels, h, w].
        target: The same shape.
        weight: Broadcastable to [batch, 1, h, w], at least 0; rows are divided by their mean weight over cells.

    Returns:
        [batch], one figure a row.
    """
    error = (predicted.float() - target).square().mean(1, keepdim=True)
    weight = weight.expand_as(error)
    return (error * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=1e-6)


def encode_ids(
    encoders: tuple[CLIPTextModel, CLIPTextModelWithProjection], ids: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Prompt embeddings as the SDXL pipelines take them: the layer before the last, both encoders side by side.

    Args:
        encoders: SDXL's two text encoders.
        ids: Token numbers of both tokenizers, each [batch, 77].

    Returns:
        Prompt embeddings [batch, 77, D1 + D2] and pooled embeddings [batch, projection].
    """
    first = encoders[0](ids[0], output_hidden_states=True)
    second = encoders[1](ids[1], output_hidden_states=True)
    return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1), second.text_embeds


def null_rows(count: int, share: float, rng: np.random.Generator) -> Tensor:
    """Bool [count], true for the rows that are trained without a condition."""
    return torch.from_numpy(rng.random(count) < share)


def use_plain_attention(*models: nn.Module) -> None:
    """Compute attention by plain matrix products: on a CPU the fused kernel's backward costs a fifth of a step."""
    if torch.cuda.is_available():
        return
    for model in models:
        if isinstance(model, PreTrainedModel):
            model.set_attn_implementation("eager")
        elif isinstance(model, UNet2DConditionModel):
            model.set_attn_processor(AttnProcessor())


def time_ids(count: int, size: int) -> Tensor:
    """SDXL's size conditioning [count, 6] for uncropped square pictures: original size, crop corner, target size."""
    return torch.tensor([[size, size, 0, 0, size, size]], dtype=torch.float32).expand(count, -1)
