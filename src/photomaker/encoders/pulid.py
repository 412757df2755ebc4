"""PuLID's checkpoint: an ID encoder of a face embedding and an image encoder's layers, and second keys and values.

The published files are flat: `id_adapter.…` is the ID encoder, a perceiver in version 1.1 and layers of linear maps in
version 1, and `id_adapter_attn_layers.{i}.id_to_k.weight` and `….id_to_v.weight` belong to attention layer i.

Source: PuLID, arXiv 2404.16022, section 3.3, and the layout of its released files for SDXL.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from photomaker.encoders.adapter_file import check_finite, noted_config, write_adapter
from photomaker.encoders.ip_adapter import cross_attentions
from photomaker.encoders.resampler import PerceiverAttention, feed_forward
from photomaker.errors import WeightsError
from photomaker.weights import read_sections

HUB = "guozinan/PuLID/pulid_v1.1.safetensors"
RECOGNISER = "antelopev2"
"""InsightFace's pack whose face embeddings the published files read, as they are."""
TOWER = "EVA02-CLIP-L-14-336"
"""The image encoder of the published files."""
LAYERS = (4, 8, 12, 16, 20)
"""Its layers that they read."""
_HEAD = 64  # of the perceiver, which no file tells
_REMEDY = "give PuLID's file for SDXL, pulid_v1.1.safetensors or pulid_v1.bin"


@dataclass(frozen=True)
class FormerSizes:
    """Sizes of an `IDFormer`; the defaults are the published ones.

    Attributes:
        embed_width: Width of face embedding and image embedding side by side.
        vision_width: Width of the image encoder's tokens.
        scales: Layers of the image encoder that are read.
        dim: Width inside.
        hidden: Width of the maps into it.
        depth: Layers, the same number for each layer of the image encoder.
        queries: Tokens of a person.
        id_tokens: Tokens that the two embeddings become.
        width: Width D of the prompt embeddings.
    """

    embed_width: int = 1280
    vision_width: int = 1024
    scales: int = 5
    dim: int = 1024
    hidden: int = 1024
    depth: int = 10
    queries: int = 32
    id_tokens: int = 5
    width: int = 2048


class IDFormer(nn.Module):
    """Learned queries read the embeddings and, from early to late, layers of the image encoder.

    Args:
        sizes: See `FormerSizes`.
    """

    def __init__(self, sizes: FormerSizes) -> None:
        """Build the layers under the names of the released file."""
        super().__init__()
        self.sizes, dim = sizes, sizes.dim
        self.latents = nn.Parameter(torch.randn(1, sizes.queries, dim) / dim**0.5)
        self.proj_out = nn.Parameter(torch.randn(dim, sizes.width) / dim**0.5)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [PerceiverAttention(dim=dim, dim_head=_HEAD, heads=dim // _HEAD), feed_forward(dim, 4)]
            )
            for _ in range(sizes.depth)
        )
        for scale in range(sizes.scales):
            self.add_module(f"mapping_{scale}", _mapping(sizes.vision_width, sizes.hidden, sizes.hidden, dim))
        ends = sizes.hidden, dim * sizes.id_tokens
        self.id_embedding_mapping = _mapping(sizes.embed_width, sizes.hidden, *ends)

    def forward(self, embeds: Tensor, layers: Tensor) -> Tensor:
        """Tokens of photos.

        Args:
            embeds: Face embedding and image embedding side by side [photos, embed_width].
            layers: Tokens of the image encoder's layers [photos, scales, tokens, vision_width].

        Returns:
            [photos, queries, D].
        """
        person = self.id_embedding_mapping(embeds).unflatten(-1, (-1, self.sizes.dim))
        latents = torch.cat([self.latents.expand(len(embeds), -1, -1), person], dim=1)
        each = self.sizes.depth // self.sizes.scales
        for scale in range(self.sizes.scales):
            seen = torch.cat([person, self.get_submodule(f"mapping_{scale}")(layers[:, scale])], dim=1)
            for layer in self.layers[scale * each : (scale + 1) * each]:
                attention, feed = cast(nn.ModuleList, layer)
                latents = attention(seen, latents) + latents
                latents = feed(latents) + latents
        return latents[:, : self.sizes.queries] @ self.proj_out


class IDEncoder(nn.Module):
    """The encoder of version 1: a few tokens of the embeddings, and one of each layer of the image encoder.

    Args:
        embed_width: Width of face embedding and image embedding side by side.
        vision_width: Width of the image encoder's tokens.
        scales: Layers of the image encoder that are read.
        widths: Two widths inside.
        hidden: Width inside the layers' maps.
        width: Width D of the prompt embeddings.
        id_tokens: Tokens of the embeddings.
    """

    def __init__(
        self,
        embed_width: int = 1280,
        vision_width: int = 1024,
        scales: int = 5,
        widths: tuple[int, int] = (1024, 1024),
        hidden: int = 1024,
        width: int = 2048,
        id_tokens: int = 5,
    ) -> None:
        """Build the layers under the names of the released file."""
        super().__init__()
        self.scales, self.id_tokens = scales, id_tokens
        self.body = _mapping(embed_width, *widths, width * id_tokens)
        for scale in range(scales):
            for name in ("mapping", "mapping_patch"):
                self.add_module(f"{name}_{scale}", _mapping(vision_width, hidden, hidden, width))

    def forward(self, embeds: Tensor, layers: Tensor) -> Tensor:
        """Tokens of photos [photos, id_tokens + scales, D]; see `IDFormer.forward`."""
        tokens = [self.body(embeds).unflatten(-1, (self.id_tokens, -1))]
        for scale in range(self.scales):
            whole = self.get_submodule(f"mapping_{scale}")(layers[:, scale, :1])
            patches = self.get_submodule(f"mapping_patch_{scale}")(layers[:, scale, 1:])
            tokens.append(whole + patches.mean(dim=1, keepdim=True))
        return torch.cat(tokens, dim=1)


def _mapping(first: int, second: int, third: int, last: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(first, second),
        nn.LayerNorm(second),
        nn.LeakyReLU(),
        nn.Linear(second, third),
        nn.LayerNorm(third),
        nn.LeakyReLU(),
        nn.Linear(third, last),
    )


def side_by_side(face: Tensor, image: Tensor) -> Tensor:
    """Face embeddings [photos, E], and image embeddings [photos, V] brought to length 1: [photos, E + V]."""
    return torch.cat([face, nn.functional.normalize(image, dim=-1)], dim=-1)


@dataclass(frozen=True)
class PuLIDFile:
    """The content of a PuLID file.

    Attributes:
        id_adapter: Weights of the ID encoder.
        attention: `{i}.id_to_k.weight` and `{i}.id_to_v.weight` [C, D] of attention layer i.
        config: What the trainer noted; nothing in published files.
        source: Its origin, for messages.
    """

    id_adapter: Mapping[str, Tensor]
    attention: Mapping[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    source: str = "the given weights"

    @property
    def first_version(self) -> bool:
        """Whether the encoder is that of version 1."""
        return "body.0.weight" in self.id_adapter

    @property
    def embed_width(self) -> int:
        """Width of face embedding and image embedding side by side."""
        name = "body" if self.first_version else "id_embedding_mapping"
        return int(self.id_adapter[f"{name}.0.weight"].shape[1])

    @property
    def vision_width(self) -> int:
        """Width of the image encoder's tokens."""
        return int(self.id_adapter["mapping_0.0.weight"].shape[1])

    @property
    def scales(self) -> int:
        """Layers of the image encoder that are read."""
        return sum(bool(re.fullmatch(r"mapping_\d+\.0\.weight", name)) for name in self.id_adapter)

    def build_encoder(self) -> IDFormer | IDEncoder:
        """The ID encoder with its weights, in float32.

        Raises:
            WeightsError: A weight is missing or has another shape.
        """
        try:
            encoder = self._first() if self.first_version else IDFormer(self._sizes())
            encoder.load_state_dict({name: tensor.float() for name, tensor in self.id_adapter.items()})
        except (KeyError, RuntimeError, IndexError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[-1].strip()[:200]
            raise WeightsError(
                f"the ID encoder of {self.source} cannot be built ({reason}); {_REMEDY}"
            ) from error
        return encoder.requires_grad_(False).eval()

    def _sizes(self) -> FormerSizes:
        weights = self.id_adapter
        dim, width = (int(side) for side in weights["proj_out"].shape)
        depth = len({name.split(".")[1] for name in weights if name.startswith("layers.")})
        id_tokens = len(weights["id_embedding_mapping.6.weight"]) // dim
        hidden, queries = len(weights["mapping_0.0.weight"]), int(weights["latents"].shape[1])
        return FormerSizes(
            self.embed_width, self.vision_width, self.scales, dim, hidden, depth, queries, id_tokens, width
        )

    def _first(self) -> IDEncoder:
        weights = self.id_adapter
        width, hidden = (int(side) for side in weights["mapping_0.6.weight"].shape)
        widths = len(weights["body.0.weight"]), len(weights["body.3.weight"])
        id_tokens = len(weights["body.6.weight"]) // width
        return IDEncoder(self.embed_width, self.vision_width, self.scales, widths, hidden, width, id_tokens)


def read_pulid(source: str | os.PathLike[str]) -> PuLIDFile:
    """Read a PuLID file for SDXL, of version 1 or 1.1, or one that was trained here.

    Raises:
        WeightsError: The file is missing, damaged, of another method or base, or has a number that is not finite.
    """
    sections = read_sections(source)
    encoder, attention = (sections.get(name, {}) for name in ("id_adapter", "id_adapter_attn_layers"))
    if "pulid_encoder" in sections or "pulid_ca" in sections:
        raise WeightsError(f"{source} is PuLID for FLUX, not for SDXL; {_REMEDY}")
    known = "body.0.weight" in encoder or "proj_out" in encoder
    if not known or "mapping_0.0.weight" not in encoder or not attention:
        names = ", ".join(sorted(sections)[:5]) or "nothing"
        raise WeightsError(f"{source} is not a PuLID file: it holds {names}; {_REMEDY}")
    check_finite({**encoder, **attention}, str(source))
    return PuLIDFile(encoder, attention, noted_config(Path(source)), str(source))


def check_fit(file: PuLIDFile, unet: Any) -> None:  # noqa: ANN401 - a diffusers UNet
    """Compare a file with the base it is to be put into.

    Raises:
        WeightsError: The layers of the base are others.
    """
    layers = {f"{number}.id_to_{part}.weight": (unet.get_submodule(name), part)
              for number, name in cross_attentions(unet).items() for part in "kv"}  # fmt: skip
    for key in sorted(layers.keys() | file.attention.keys()):
        found = tuple(file.attention[key].shape) if key in file.attention else None
        layer, part = layers.get(key, (None, ""))
        linear = None if layer is None else getattr(layer, f"to_{part}")
        wanted = None if linear is None else (linear.out_features, linear.in_features)
        if found != wanted:
            raise WeightsError(
                f"{key} of {file.source} has shape {found}, but the base model's layer {wanted}; give the base model "
                "that the file was made for"
            )


def export_pulid(
    path: str | os.PathLike[str],
    encoder: IDFormer,
    keys_and_values: Mapping[int, tuple[Tensor, Tensor]],
    config: Mapping[str, Any] | None = None,
) -> None:
    """Write the layout of version 1.1, as flat safetensors in float16.

    Args:
        path: File to write.
        encoder: The ID encoder.
        keys_and_values: Layer number, as `cross_attentions` counts, to id_to_k and id_to_v [C, D].
        config: Noted in the file.

    Raises:
        WeightsError: A weight is not finite.
    """
    flat = {f"id_adapter.{name}": tensor for name, tensor in encoder.state_dict().items()}
    for number, (key, value) in keys_and_values.items():
        flat[f"id_adapter_attn_layers.{number}.id_to_k.weight"] = key
        flat[f"id_adapter_attn_layers.{number}.id_to_v.weight"] = value
    write_adapter(path, flat, dict(config or {}))
