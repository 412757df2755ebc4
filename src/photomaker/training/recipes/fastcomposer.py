"""Recipe of FastComposer: fusion, image encoder and LoRA as for the PhotoMaker adapter, with its localisation loss.

A person takes one token, the mean of the photos' features. What differs from the paper: the UNet is trained by LoRA,
which the export adds to the weights, and not whole; several subjects in one picture are not in the data, so that every
row has one.

Source: arXiv 2305.10431, section 4.2: the attention of a subject's token should lie on its mask.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from transformers import CLIPVisionConfig

from photomaker.encoders.fastcomposer import FastComposerEncoder, export_fastcomposer
from photomaker.encoders.id_encoder import FULL_SIZE, PhotoMakerIDEncoder
from photomaker.encoders.ip_adapter import cross_attentions
from photomaker.errors import SettingsError
from photomaker.training.losses.attention import AttentionRecorder
from photomaker.training.recipes.adapter import AdapterRecipe
from photomaker.training.recipes.people import Condition, Ingredients, Noised

FILE = "fastcomposer.safetensors"


@dataclass(frozen=True)
class FastComposerSettings:
    """Settings specific to FastComposer.

    Attributes:
        localisation: Weight of the localisation loss, 0 or more; 0 switches it off.

    Raises:
        SettingsError: It is below 0.
    """

    localisation: float = 1e-3

    def __post_init__(self) -> None:
        """Check the range."""
        if self.localisation < 0:
            raise SettingsError(f"localisation is {self.localisation}; give a number from 0 up")


def localisation_loss(attention: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """How much more a subject's token looks beside its mask than on it.

    Args:
        attention: Probabilities [batch, places, length], the places row by row.
        tokens: Bool [batch, length], true at the subject's token; rows without one do not count.
        mask: The subject's share of each place [batch, places].

    Returns:
        Mean over rows of (mean attention off the mask - mean attention on it); 0 if no row counts.

    Source: arXiv 2305.10431, equation 4, in its balanced form.
    """
    rows = tokens.any(1)
    if not bool(rows.any()):
        return attention.new_zeros(())
    share = tokens[rows].float() / tokens[rows].float().sum(1, keepdim=True)
    seen = (attention[rows].float() * share[:, None]).sum(-1)
    on = mask[rows]
    off = 1 - on
    means = [(seen * part).sum(1) / part.sum(1).clamp(min=1e-6) for part in (off, on)]
    return (means[0] - means[1]).mean()


def middle_layers(unet: Any) -> list[str]:  # noqa: ANN401 - a diffusers UNet
    """Names of the cross-attention layers between the finest ones; of all if there are no others."""
    names = list(cross_attentions(unet).values())
    groups = list(dict.fromkeys(_group(name) for name in names))
    # the groups come down, up, mid; the first and the last of the way through the UNet are of the finest resolution
    ends = {groups[0], [group for group in groups if group.startswith("up")][-1]}
    return [name for name in names if _group(name) not in ends] or names


def _group(name: str) -> str:
    return ".".join(name.split(".")[:2]) if not name.startswith("mid") else "mid"


class FastComposerRecipe(AdapterRecipe):
    """Trains FastComposer; see `AdapterRecipe` for the arguments.

    Args:
        id_encoder: Its image tower is started from; projections and fusion are newly initialised.
        own: What is FastComposer's own.
        seed: Of the new weights.

    Raises:
        SettingsError: The localisation loss and `gradient_checkpointing` are both asked for, or the adapter's own loss
            on attention.
    """

    name = "fastcomposer"

    def __init__(
        self,
        given: Ingredients,
        *,
        own: FastComposerSettings = FastComposerSettings(),
        seed: int = 0,
    ) -> None:
        """Start projections and fusion anew, and watch the attention."""
        id_encoder, settings = given.id_encoder, given.settings
        if own.localisation and settings.gradient_checkpointing:
            raise SettingsError(
                "the localisation loss needs the attention of the forward pass, which gradient_checkpointing does not "
                "keep; switch one of them off"
            )
        if settings.attention:
            raise SettingsError(
                f"recipe.attention is {settings.attention}, but FastComposer has its own loss on attention; set "
                "it to 0, and fastcomposer.localisation as you wish"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = PhotoMakerIDEncoder(copy.deepcopy(id_encoder.config))
        encoder.vision_model.load_state_dict(id_encoder.vision_model.state_dict())
        settings = replace(settings, stack="average")
        super().__init__(replace(given, id_encoder=encoder, settings=settings))
        self.own = own
        if own.localisation:
            self.recorder = AttentionRecorder(self.parts.unet, middle_layers(self.parts.unet))

    def further(
        self, noised: Noised, predicted: Tensor, condition: Condition
    ) -> tuple[Tensor, dict[str, float]]:
        """The localisation loss, the mean over layers."""
        tokens = condition.more["class_tokens"]
        losses = [
            localisation_loss(attention.mean(1), tokens, mask) for attention, mask in self.seen(noised.rows)
        ]
        if not losses:
            return super().further(noised, predicted, condition)
        loss = torch.stack(losses).mean()
        return self.own.localisation * loss, {"localisation": float(loss.detach())}

    def encoder(self) -> FastComposerEncoder:
        """The trained encoder under the published names."""
        own = self.id_encoder
        names = {*FULL_SIZE, "hidden_act"} - {"projection_dim", "projection_dim_2"}
        sizes = {name: getattr(own.config, name) for name in names}
        made = FastComposerEncoder(CLIPVisionConfig(**sizes, projection_dim=own.width))
        made.image_encoder.vision_model = copy.deepcopy(own.vision_model)
        both = torch.cat([own.visual_projection.weight, own.visual_projection_2.weight])
        made.image_encoder.visual_projection.weight.data = both.detach()
        made.postfuse_module.load_state_dict(own.fuse_module.state_dict())
        return made

    def export(self, folder: Path) -> None:
        """Write the published layout; of the UNet the attention weights, which alone were trained."""
        weights = {
            f"{name}.weight": layer.base_layer.weight.float() + layer.get_delta_weight("photomaker")
            for name, layer in self.parts.unet.named_modules()
            if isinstance(layer, BaseTunerLayer)
        }
        notes = {**self.notes, "rank": self.settings.rank, "crop": self.settings.photo.crop}
        export_fastcomposer(folder / FILE, self.encoder(), weights, notes)
