"""Shared by all diffusion recipes: noise by the base's own schedule, prediction target, and the loss over cells.

With zero terminal SNR the last timestep holds no trace of the picture, so that sampling may start from pure noise;
otherwise a model learns to read the mean colour off the last timestep, and at sampling it reads grey.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedModel

from photomaker.errors import WeightsError

TIMESTEPS = 1000
PREDICTIONS = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class LossSettings:
    """Sampling of timesteps and weighting of errors.

    Attributes:
        min_snr: Gamma of min-SNR weighting (arXiv 2303.09556); 0 switches it off, which is the plain loss.
        null_text: Share of rows trained with the empty condition, all zeros.
        face: Weight of latent cells in the face box; 1 switches it off.
        stratified: Whether the timesteps of a slice are spread evenly over the range, instead of drawn apart.
        late: Power of the share of the schedule at which a timestep is drawn; above 1, more of them have little noise.
    """

    min_snr: float = 0.0
    null_text: float = 0.1
    face: float = 1.0
    stratified: bool = True
    late: float = 1.0


@dataclass(frozen=True)
class DiffusionSettings(LossSettings):
    """The same with the schedule, for a base that is trained.

    Attributes:
        zero_snr: Whether the schedule ends at pure noise (arXiv 2305.08891).
    """

    face: float = 2.0
    zero_snr: bool = True


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
    """Noisy latents and what is to be predicted of them.

    With a = sqrt(alpha_bar_t) and s = sqrt(1 - alpha_bar_t): z_t = a x + s eps; the target is eps (arXiv 2006.11239) or
    v = a eps - s x (arXiv 2202.00512), as the scheduler says.

    Args:
        settings: Timesteps and weighting.
        scheduler: The base's diffusers scheduler.

    Raises:
        WeightsError: The scheduler has no such schedule, or predicts something else.
    """

    def __init__(self, settings: LossSettings, scheduler: Any) -> None:  # noqa: ANN401 - any diffusers scheduler
        """Take the schedule from the scheduler that the base is shipped with."""
        self.settings = settings
        self.prediction = str(getattr(scheduler.config, "prediction_type", "nothing known"))
        alpha_bar = getattr(scheduler, "alphas_cumprod", None)
        if alpha_bar is None or self.prediction not in PREDICTIONS:
            raise WeightsError(
                f"the base's scheduler is {type(scheduler).__name__} and predicts {self.prediction}; give an SDXL base "
                "that predicts epsilon or v"
            )
        self.alpha_bar = alpha_bar.double().clamp(0, 1).float()

    def __call__(self, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Noise a batch at random timesteps.

        Args:
            clean: Latents [batch, channels, h, w], float32.
            generator: Randomness, on the CPU.

        Returns:
            Noisy latents, timesteps [batch] int64, targets, and loss weights [batch, 1, 1, 1].
        """
        count, timesteps = len(clean), len(self.alpha_bar)
        if self.settings.stratified:
            # One draw per equal part of the range: every slice sees early and late timesteps, which steadies the
            # gradient.
            place = (
                torch.rand(1, generator=generator) + torch.randperm(count, generator=generator) / count
            ) % 1
        else:
            place = torch.rand(count, generator=generator)
        steps = (place**self.settings.late * timesteps).long().clamp(max=timesteps - 1)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        bar = self.alpha_bar[steps].view(-1, 1, 1, 1)
        weight = self._weight(bar).to(clean.device)
        a, s = bar.sqrt().to(clean.device), (1 - bar).sqrt().to(clean.device)
        target = noise if self.prediction == "epsilon" else a * noise - s * clean
        return a * clean + s * noise, steps.to(clean.device), target, weight

    def clean(self, noisy: Tensor, predicted: Tensor, steps: Tensor) -> Tensor:
        """The picture that a prediction stands for, in one step.

        Args:
            noisy: z_t [batch, channels, h, w].
            predicted: eps or v, as the scheduler says.
            steps: Timesteps [batch].

        Returns:
            x: (z_t - s eps) / a, or a z_t - s v.
        """
        bar = self.alpha_bar.to(noisy.device)[steps].view(-1, 1, 1, 1)
        a, s = bar.sqrt(), (1 - bar).sqrt()
        if self.prediction == "epsilon":
            return (noisy - s * predicted) / a.clamp(min=1e-3)
        return a * noisy - s * predicted

    def _weight(self, bar: Tensor) -> Tensor:
        if not self.settings.min_snr:
            return torch.ones_like(bar)
        snr = bar / (1 - bar).clamp(min=1e-8)
        whole = snr if self.prediction == "epsilon" else snr + 1
        return snr.clamp(max=self.settings.min_snr) / whole


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
        elif isinstance(model, UNet2DConditionModel | ControlNetModel):
            model.set_attn_processor(AttnProcessor())


def time_ids(count: int, size: int) -> Tensor:
    """SDXL's size conditioning [count, 6] for uncropped square pictures: original size, crop corner, target size."""
    return torch.tensor([[size, size, 0, 0, size, size]], dtype=torch.float32).expand(count, -1)
