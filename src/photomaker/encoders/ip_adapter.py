"""IP-Adapter files in their published layout, and the image projections that are trained here under its names.

Source: IP-Adapter, arXiv 2308.06721, section 3.2; the forms of the released files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from photomaker.encoders.adapter_file import check_finite, noted_config, write_adapter
from photomaker.encoders.resampler import FacePerceiverResampler
from photomaker.errors import WeightsError
from photomaker.weights import read_sections

Form = Literal["base", "plus", "full", "faceid", "faceid-plus"]
TOKENS = 4
"""Tokens of an image in the base form."""
_HEAD, _DEPTH = 64, 4  # of the resampler, which no file tells


@dataclass(frozen=True)
class IPAdapterFile:
    """The content of an IP-Adapter file.

    Attributes:
        form: base (image embedding), plus or full (patch tokens), faceid (face embedding), faceid-plus (both).
        image_proj: Weights of the image projection.
        ip_adapter: `{i}.to_k_ip.weight` [C, D] and `{i}.to_v_ip.weight` of attention layer i; FaceID forms have
            `{i}.to_{q,k,v,out}_lora.{down,up}.weight` too.
        config: What the trainer noted; empty in published files.
        source: Its origin, for messages.
    """

    form: Form
    image_proj: Mapping[str, Tensor]
    ip_adapter: Mapping[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    source: str = "the given weights"

    @property
    def sees(self) -> bool:
        """Whether an image encoder is needed."""
        return self.form != "faceid"

    @property
    def needs_faces(self) -> bool:
        """Whether a face embedding of each photo is needed."""
        return self.form.startswith("faceid")

    @property
    def image_width(self) -> int:
        """Width of what the image encoder gives; of the face embedding in the faceid form."""
        if self.form == "plus":
            return int(self.image_proj["proj_in.weight"].shape[1])
        if self.form == "faceid-plus":
            return int(self.image_proj["perceiver_resampler.proj_in.weight"].shape[1])
        return int(self.image_proj["proj.weight" if self.form == "base" else "proj.0.weight"].shape[1])

    @property
    def face_width(self) -> int:
        """Width of a face embedding, in the FaceID forms."""
        return int(self.image_proj["proj.0.weight"].shape[1])

    def sections(self) -> dict[str, dict[str, Tensor]]:
        """As diffusers' loader takes it."""
        return {"image_proj": dict(self.image_proj), "ip_adapter": dict(self.ip_adapter)}


def form_of(image_proj: Mapping[str, Tensor]) -> Form:
    """Which form an image projection is of, told by its names in the order in which diffusers looks.

    Raises:
        WeightsError: It is of none.
    """
    marks: tuple[tuple[str, Form], ...] = (
        ("proj.weight", "base"),
        ("proj.3.weight", "full"),
        ("perceiver_resampler.proj_in.weight", "faceid-plus"),
        ("norm.weight", "faceid"),
        ("latents", "plus"),
    )
    for name, form in marks:
        if name in image_proj:
            return form
    raise WeightsError("the image projection is of no known IP-Adapter form; give an IP-Adapter file")


def read_ip_adapter(source: str | os.PathLike[str]) -> IPAdapterFile:
    """Read an IP-Adapter: `.bin` with the sections `image_proj` and `ip_adapter`, or flat safetensors.

    Raises:
        WeightsError: The file is missing, damaged, no IP-Adapter, or has a number that is not finite.
    """
    path = Path(source)
    sections = read_sections(path)
    lacking = [name for name in ("image_proj", "ip_adapter") if not sections.get(name)]
    if lacking:
        names = ", ".join(sorted(sections)[:5]) or "nothing"
        raise WeightsError(f"{path} is not an IP-Adapter: it has no `{lacking[0]}` weights, but {names}")
    check_finite({**sections["image_proj"], **sections["ip_adapter"]}, str(path))
    image_proj = sections["image_proj"]
    return IPAdapterFile(
        form_of(image_proj), image_proj, sections["ip_adapter"], noted_config(path), str(path)
    )


def check_fit(file: IPAdapterFile, unet: Any) -> None:  # noqa: ANN401 - a diffusers UNet
    """Compare a file with the base it is to be put into.

    Raises:
        WeightsError: The layers of the base are others.
    """
    for number, name in cross_attentions(unet).items():
        layer = unet.get_submodule(name)
        for part, linear in (("k", layer.to_k), ("v", layer.to_v)):
            key = f"{number}.to_{part}_ip.weight"
            wanted = (linear.out_features, linear.in_features)
            found = file.ip_adapter.get(key)
            if found is None or tuple(found.shape) != wanted:
                got = "is missing" if found is None else f"has shape {tuple(found.shape)}"
                raise WeightsError(
                    f"{key} of {file.source} {got}, but the base model's layer is {wanted}; give the base model that "
                    "the adapter was made for"
                )
    last = max(cross_attentions(unet))
    more = [name for name in file.ip_adapter if int(name.split(".")[0]) > last]
    if more:
        raise WeightsError(
            f"{file.source} has {more[0]}, but the base model's last layer is {last}; give the base model that the "
            "adapter was made for"
        )


def cross_attentions(unet: Any) -> dict[int, str]:  # noqa: ANN401 - a diffusers UNet
    """Number of each cross-attention layer among all attention layers, as files count them, and its name."""
    return {
        number: name.removesuffix(".processor")
        for number, name in enumerate(unet.attn_processors)
        if name.endswith("attn2.processor")
    }


class ImageProjection(nn.Module):
    """The base form: an image embedding as a few tokens.

    Args:
        image_width: Width E of the image embedding.
        width: Width D of the prompt embeddings.
    """

    form: Form = "base"

    def __init__(self, image_width: int, width: int) -> None:
        """Build the layers under the names of the released files."""
        super().__init__()
        self.proj = nn.Linear(image_width, TOKENS * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, image_embeds: Tensor) -> Tensor:
        """Map [photos, E] to [photos, TOKENS, D]."""
        return self.norm(self.proj(image_embeds).unflatten(-1, (TOKENS, -1)))


class ImageResampler(FacePerceiverResampler):
    """The plus form: learned queries read the patch tokens of a photo.

    Args:
        image_width: Width of the image encoder's tokens.
        width: Width D of the prompt embeddings.
        queries: Tokens that a photo becomes.
        hidden: Width inside, a multiple of 64.
    """

    form: Form = "plus"

    def __init__(self, image_width: int, width: int, queries: int = 16, hidden: int = 1280) -> None:
        """Build the layers under the names of the released files."""
        super().__init__(
            dim=hidden,
            depth=_DEPTH,
            dim_head=_HEAD,
            heads=hidden // _HEAD,
            embedding_dim=image_width,
            output_dim=width,
        )
        self.latents = nn.Parameter(torch.randn(1, queries, hidden) / hidden**0.5)

    def forward(self, tokens: Tensor) -> Tensor:  # type: ignore[override]
        """Map [photos, tokens, image_width] to [photos, queries, D]."""
        return super().forward(self.latents.expand(len(tokens), -1, -1), tokens)


def export_ip_adapter(
    path: str | os.PathLike[str],
    projection: ImageProjection | ImageResampler,
    keys_and_values: Mapping[int, tuple[Tensor, Tensor]],
    config: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = torch.float16,
) -> Path:
    """Write an IP-Adapter in the published layout, as flat safetensors.

    Args:
        path: File to write.
        projection: The image projection.
        keys_and_values: Layer number, as `cross_attentions` counts, to W'_k and W'_v [C, D].
        config: Noted in the file.
        dtype: Precision of the file; None keeps that of the weights.

    Raises:
        WeightsError: A weight is not finite.
    """
    flat = {f"image_proj.{name}": tensor for name, tensor in projection.state_dict().items()}
    for number, (key, value) in keys_and_values.items():
        flat |= {
            f"ip_adapter.{number}.to_k_ip.weight": key,
            f"ip_adapter.{number}.to_v_ip.weight": value,
        }
    return write_adapter(path, flat, {"form": projection.form} | dict(config or {}), dtype)
