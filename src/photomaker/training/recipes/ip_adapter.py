"""Recipe of IP-Adapter: image projection and second keys and values beside a frozen base and a frozen image tower.

Rows, photos, noise, masks and loss are those of `training.people`. Of a row's photos the image embeddings are averaged,
as `mean` does at inference; the plus form, which reads patches, is given one photo a row.

Source: arXiv 2308.06721, section 3.2: W'_k and W'_v start from the text's W_k and W_v; conditions are dropped at
random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers.models.attention_processor import IPAdapterAttnProcessor, IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import MultiIPAdapterImageProjection
from torch import Tensor, nn

from photomaker.encoders.ip_adapter import (
    TOKENS,
    ImageProjection,
    ImageResampler,
    cross_attentions,
    export_ip_adapter,
)
from photomaker.encoders.tower import ImageTower
from photomaker.errors import SettingsError
from photomaker.training.data.texts import Caption
from photomaker.training.recipes.people import (
    Condition,
    Ingredients,
    PeopleRecipe,
    mean_of_photos,
)

FILE = "ip_adapter.safetensors"


@dataclass(frozen=True)
class IPAdapterSettings:
    """Settings specific to IP-Adapter.

    Of `AdapterSettings`, `lr` is the rate of keys and values, `fusion_lr` that of the projection, and `text_only` the
    share of rows without photos; `rank`, `vision` and `vision_lr` do nothing.

    Attributes:
        form: `base` reads the image embedding, `plus` the patch tokens.
        queries: Tokens of a photo in the plus form.
        hidden: Width of the plus form's resampler, a multiple of 64.

    Raises:
        SettingsError: A value is outside its range.
    """

    form: Literal["base", "plus"] = "base"
    queries: int = 16
    hidden: int = 1280

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.queries < 1:
            raise SettingsError(f"queries is {self.queries}; give a whole number from 1 up")
        if self.hidden < 1 or self.hidden % 64:
            raise SettingsError(f"hidden is {self.hidden}; give a multiple of 64")


def second_attentions(unet: nn.Module, tokens: int, plain: bool) -> dict[int, nn.Module]:
    """Put a trainable second attention beside every one over the text; each starts as that one.

    Args:
        unet: It keeps them as its attention processors.
        tokens: Tokens that they read.
        plain: Whether attention is computed without torch's fused kernels where there is no GPU.

    Returns:
        The new layers, by the numbers that they have in a published file.
    """
    kind = IPAdapterAttnProcessor if plain and not torch.cuda.is_available() else IPAdapterAttnProcessor2_0
    owner: Any = unet
    layers, processors = {}, dict(owner.attn_processors)
    for number, name in cross_attentions(unet).items():
        layer: Any = unet.get_submodule(name)
        made = kind(layer.to_k.out_features, layer.to_k.in_features, (tokens,))
        for new, old in ((made.to_k_ip[0], layer.to_k), (made.to_v_ip[0], layer.to_v)):
            new.weight.data.copy_(old.weight.data.float())
        layers[number] = processors[f"{name}.processor"] = made
    owner.set_attn_processor(processors)
    return layers


def put_beside(
    unet: nn.Module, projection: ImageProjection | ImageResampler, tokens: int, plain: bool
) -> dict[int, nn.Module]:
    """Let a UNet read a person's tokens: a projection makes them, and `second_attentions`, returned, read them."""
    owner: Any = unet
    layers = second_attentions(unet, tokens, plain)
    owner.encoder_hid_proj = MultiIPAdapterImageProjection([projection])
    owner.config.encoder_hid_dim_type = "ip_image_proj"
    return layers


def keys_and_values(layers: Mapping[int, nn.Module]) -> dict[int, tuple[Tensor, Tensor]]:
    """The weights of second attentions, as a published file has them."""
    return {
        number: (layer.to_k_ip[0].weight, layer.to_v_ip[0].weight)  # type: ignore[index, union-attr]
        for number, layer in layers.items()
    }


class IPAdapterRecipe(PeopleRecipe):
    """Trains an IP-Adapter; see `PeopleRecipe`.

    Args:
        id_encoder: Its image tower sees the photos and stays as it is.
        own: What is IP-Adapter's own.
        seed: Of the new projection's weights.
    """

    name = "ip_adapter"

    def __init__(
        self,
        given: Ingredients,
        *,
        own: IPAdapterSettings = IPAdapterSettings(),
        seed: int = 0,
    ) -> None:
        """Freeze base and tower and put the new layers beside them."""
        if own.form == "plus":
            given = replace(given, settings=replace(given.settings, photos=1))
        super().__init__(given)
        self.own = own
        self.tower = ImageTower.of_encoder(given.id_encoder)
        unet, width = given.parts.unet, int(given.parts.unet.config.cross_attention_dim)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.projection: ImageProjection | ImageResampler = (
                ImageProjection(self.tower.width, width)
                if own.form == "base"
                else ImageResampler(int(self.tower.config.hidden_size), width, own.queries, own.hidden)
            )
        tokens = TOKENS if own.form == "base" else own.queries
        self.layers = put_beside(unet, self.projection, tokens, self.plain)

    def prepare(self, device: torch.device) -> None:
        """Move the frozen tower and text encoders."""
        super().prepare(device)
        self.tower.to(device)

    def modules(self) -> dict[str, nn.Module]:
        """Return the UNet, of which only the new layers are trained."""
        return {"unet": self.parts.unet}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return keys and values, and the projection, each at its own rate."""
        return self.token_rates(self.layers.values(), self.projection)

    def signature(self) -> dict[str, str]:
        """Base, data and form; see `Recipe.signature`."""
        return {"form": self.own.form, **self.origin}

    def condition(
        self,
        captions: Sequence[Caption],
        references: list[np.ndarray],
        text_only: np.ndarray,
        rng: np.random.Generator,
    ) -> Condition:
        """The prompt's text alone, and what the tower says of the photos; see `PeopleRecipe.condition`."""
        encoded = self.texts(captions, [1] * len(captions), self.device)
        with torch.no_grad():
            photos = self.photos(references, rng)
            if self.own.form == "base":
                seen = mean_of_photos(self.tower.embed(photos).float(), references)
                nothing = torch.zeros_like(seen)
            else:
                seen = self.tower.tokens(photos).float()
                nothing = self.tower.tokens(torch.zeros_like(photos[:1])).float().expand_as(seen)
        without = torch.from_numpy(text_only).to(self.device).view(-1, *[1] * (seen.dim() - 1))
        # one picture a row, as diffusers counts
        tokens = torch.where(without, nothing, seen)[:, None]
        return Condition(
            encoded.embeds.float(), encoded.pooled, {"image": tokens}, {"image": nothing[:, None]}
        )

    def added(self, condition: Condition) -> dict[str, Any]:
        """Give the UNet the photos."""
        return {"image_embeds": [condition.more["image"]]}

    def export(self, folder: Path) -> None:
        """Write the published layout."""
        notes = {**self.notes, "crop": self.settings.photo.crop}
        export_ip_adapter(folder / FILE, self.projection, keys_and_values(self.layers), notes)
