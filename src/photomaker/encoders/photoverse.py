"""PhotoVerse's adapters and their files.

No weights of the paper's authors exist, so that the layout is ours: flat safetensors with `text_adapters.{i}.{0,2}` and
`image_adapters.{i}.{0,2}` (`weight`, `bias`), `attn.{layer}.{to_k,to_v}.{lora_A,lora_B}` and
`attn.{layer}.{to_k_s,to_v_s}`; layers of the image encoder and rank are noted as JSON.

Source: PhotoVerse, arXiv 2309.05793, section 3.2.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from photomaker.encoders.adapter_file import check_finite, noted_config, write_adapter
from photomaker.encoders.ip_adapter import cross_attentions
from photomaker.errors import WeightsError
from photomaker.weights import read_sections

MATRICES = ("to_k.lora_A", "to_k.lora_B", "to_v.lora_A", "to_v.lora_B", "to_k_s", "to_v_s")
"""Matrices of a cross-attention layer, as files name them."""


class PhotoVerseAdapters(nn.Module):
    """Text and image adapters: for each chosen layer of the image encoder a two-layer MLP of either kind.

    Args:
        layers: Number of layers.
        image_width: Width H of the image encoder.
        width: Width D of the prompt embeddings, the word embeddings of both text encoders side by side.
        hidden: Width inside.
    """

    def __init__(self, layers: int, image_width: int, width: int, hidden: int) -> None:
        """Make the MLPs."""
        super().__init__()
        self.text_adapters, self.image_adapters = (
            nn.ModuleList(_mlp(image_width, hidden, width) for _ in range(layers)) for _ in range(2)
        )

    def forward(self, summaries: Tensor) -> tuple[Tensor, Tensor]:
        """Pseudo-words and image tokens.

        Args:
            summaries: What the chosen layers say of a person [people, layers, H].

        Returns:
            Pseudo-words [people, layers, D] and image tokens [people, layers, D].
        """
        words, tokens = (
            torch.stack([one(summaries[:, number]) for number, one in enumerate(adapters)], dim=1)
            for adapters in (self.text_adapters, self.image_adapters)
        )
        return words, tokens


def _mlp(width_in: int, hidden: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width_in, hidden), nn.GELU(), nn.Linear(hidden, width))


@dataclass(frozen=True)
class PhotoVerseFile:
    """The content of a PhotoVerse file.

    Attributes:
        adapters: Weights of `PhotoVerseAdapters`.
        attention: Name of a cross-attention layer to its `MATRICES`.
        config: `layers` (numbers of the image encoder's layers), and what the trainer noted.
        source: Its origin, for messages.
    """

    adapters: Mapping[str, Tensor]
    attention: Mapping[str, Mapping[str, Tensor]]
    config: Mapping[str, Any] = field(default_factory=dict)
    source: str = "the given weights"

    @property
    def layers(self) -> tuple[int, ...]:
        """Numbers of the image encoder's layers that are read."""
        return tuple(int(one) for one in self.config["layers"])

    @property
    def image_width(self) -> int:
        """Width of the image encoder."""
        return int(self.adapters["text_adapters.0.0.weight"].shape[1])

    @property
    def width(self) -> int:
        """Width D of the prompt embeddings."""
        return int(self.adapters["text_adapters.0.2.weight"].shape[0])

    @property
    def rank(self) -> int:
        """Rank of the updates of the text's keys and values."""
        return int(next(iter(self.attention.values()))["to_k.lora_A"].shape[0])

    def build_adapters(self) -> PhotoVerseAdapters:
        """The adapters with these weights, in evaluation mode.

        Raises:
            WeightsError: Tensors are missing, left over or of other shapes.
        """
        hidden = int(self.adapters["text_adapters.0.0.weight"].shape[0])
        made = PhotoVerseAdapters(len(self.layers), self.image_width, self.width, hidden)
        try:
            made.load_state_dict(dict(self.adapters))
        except RuntimeError as error:
            detail = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
            raise WeightsError(f"the adapters in {self.source} do not fit: {detail[:200]}") from error
        return made.requires_grad_(False).eval()


def read_photoverse(source: str | os.PathLike[str]) -> PhotoVerseFile:
    """Read a PhotoVerse file.

    Raises:
        WeightsError: The file is missing, damaged, no PhotoVerse file, or has a number that is not finite.
    """
    path = Path(source)
    sections = read_sections(path)
    adapters = {
        f"{part}.{name}": tensor
        for part in ("text_adapters", "image_adapters")
        for name, tensor in sections.get(part, {}).items()
    }
    attention: dict[str, dict[str, Tensor]] = {}
    for name, tensor in sections.get("attn", {}).items():
        for matrix in MATRICES:
            if name.endswith(f".{matrix}"):
                attention.setdefault(name.removesuffix(f".{matrix}"), {})[matrix] = tensor
    config = noted_config(path)
    whole = all(set(found) == set(MATRICES) for found in attention.values())
    first = {f"text_adapters.0.{number}.weight" for number in (0, 2)}
    if not (first <= adapters.keys() and attention and whole and config.get("layers")):
        names = ", ".join(sorted(sections)[:5]) or "nothing"
        raise WeightsError(
            f"{path} is not a whole PhotoVerse file (it has {names}); give one that `photomaker train` made"
        )
    check_finite(
        {**adapters, **{f"{n}.{m}": t for n, own in attention.items() for m, t in own.items()}}, str(path)
    )
    return PhotoVerseFile(adapters, attention, config, str(path))


def check_fit(file: PhotoVerseFile, unet: Any) -> None:  # noqa: ANN401 - a diffusers UNet
    """Compare a file with the base it is to be put into.

    Raises:
        WeightsError: The layers of the base are others.
    """
    names = list(cross_attentions(unet).values())
    if sorted(names) != sorted(file.attention):
        raise WeightsError(
            f"{file.source} is for {len(file.attention)} cross-attention layers, but the base model has {len(names)}, "
            "or others; give the base model that it was made for"
        )
    for name in names:
        layer = unet.get_submodule(name)
        wanted, found = tuple(layer.to_k.weight.shape), tuple(file.attention[name]["to_k_s"].shape)
        if wanted != found:
            raise WeightsError(
                f"attn.{name}.to_k_s of {file.source} has shape {found}, but the base's layer {wanted}; give the "
                "base model that it was made for"
            )


def export_photoverse(
    path: str | os.PathLike[str],
    adapters: PhotoVerseAdapters,
    attention: Mapping[str, Mapping[str, Tensor]],
    config: Mapping[str, Any],
    dtype: torch.dtype | None = torch.float16,
) -> Path:
    """Write a PhotoVerse file.

    Args:
        path: File to write.
        adapters: Text and image adapters.
        attention: Name of a cross-attention layer to its `MATRICES`.
        config: With `layers`.
        dtype: Precision of the file; None keeps that of the weights.

    Raises:
        WeightsError: A weight is not finite.
    """
    flat = dict(adapters.state_dict())
    flat |= {f"attn.{name}.{part}": tensor for name, own in attention.items() for part, tensor in own.items()}
    return write_adapter(path, flat, config, dtype)
