"""A classifier of what a picture shows: scene, hat, glasses, clothing, style, class."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from photomaker.faces.crops import to_tensor
from photomaker.faces.networks import ConfiguredNetwork, centred, load_network, residual_trunk

_BATCH = 64


@dataclass(frozen=True)
class AttributeConfig:
    """Sizes of `AttributeNetwork` and the words of each attribute.

    Attributes:
        words: Attribute name to its words; the order of the words is the order of the classes.
        size: Side of the pictures in pixels.
        channels: Channels at strides 4, 8, 16.
        depths: Residual blocks of each stage.
        looks: Attention maps for each attribute.
    """

    words: dict[str, tuple[str, ...]] = field(default_factory=dict)
    size: int = 128
    channels: tuple[int, ...] = (32, 64, 96)
    depths: tuple[int, ...] = (1, 1, 1)
    looks: int = 2


class AttributeNetwork(ConfiguredNetwork):
    """A residual network with one head for each attribute; every head has its own attention maps.

    A hat is decided at the top of the picture and clothing at the bottom: a mean over the picture would blur both.
    """

    architecture = "attributes"

    def __init__(self, config: AttributeConfig) -> None:
        """Build untrained."""
        super().__init__()
        self.config = config
        last, cells = config.channels[-1], config.size // (4 * 2 ** (len(config.channels) - 1))
        self.trunk = residual_trunk(config.channels, config.depths)
        self.places = nn.Parameter(torch.zeros(len(config.words) * config.looks, cells * cells))
        self.attend = nn.Conv2d(last, len(config.words) * config.looks, 1)
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(last * (config.looks + 1), last // 2),
                    nn.ReLU(),
                    nn.Linear(last // 2, len(words)),
                )
                for name, words in config.words.items()
            }
        )

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> AttributeNetwork:
        """Build from JSON values."""
        words = {str(name): tuple(map(str, words)) for name, words in values["words"].items()}
        sizes: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        sizes["words"] = words
        return cls(AttributeConfig(**sizes))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map [batch, 3, size, size] pictures in 0..1 to logits [batch, words] of each attribute."""
        maps = self.trunk(centred(images))
        weights = (self.attend(maps).flatten(2) + self.places).float().softmax(-1).to(maps.dtype)
        seen = (weights @ maps.flatten(2).mT).unflatten(1, (len(self.config.words), self.config.looks))
        mean = maps.mean((2, 3))
        return {
            name: head(torch.cat([seen[:, index].flatten(1), mean], 1))
            for index, (name, head) in enumerate(self.heads.items())
        }


class AttributeClassifier:
    """Reads the attributes of pictures of synthetic people."""

    def __init__(self, network: AttributeNetwork) -> None:
        """Wrap a network."""
        self._network = network.eval()

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None = None) -> AttributeClassifier:
        """Read the bundled weights, or a file in their format.

        Raises:
            WeightsError: The file is missing, damaged or of a different architecture.
        """
        if path is None:
            from photomaker.weights import bundled

            path = bundled("evaluation/attributes.safetensors")
        network = load_network(Path(path), AttributeNetwork)
        assert isinstance(network, AttributeNetwork)
        return cls(network)

    @property
    def size(self) -> int:
        """Side in pixels of the pictures that the network sees."""
        return self._network.config.size

    @torch.inference_mode()
    def features(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Features of pictures of `size` pixels: mean and deviation over the positions of each layer's feature maps.

        Early layers see edges and grain, late ones what things are; both count where pictures should be like real ones.

        Returns:
            [n, features] float32.
        """
        batches = [to_tensor(list(images[start : start + _BATCH])) for start in range(0, len(images), _BATCH)]
        parts = [self._seen(centred(batch.to(self._network.device))).cpu() for batch in batches]
        return torch.cat(parts).numpy() if parts else np.zeros((0, 2 * sum(self._widths())), np.float32)

    def _seen(self, maps: Tensor) -> Tensor:
        found = []
        for layer in self._network.trunk:
            maps = layer(maps)
            found += [maps.mean((2, 3)), maps.std((2, 3))]
        return torch.cat(found, 1)

    def _widths(self) -> list[int]:
        size = self._network.config.size
        maps, found = torch.zeros(1, 3, size, size, device=self._network.device), []
        for layer in self._network.trunk:
            maps = layer(maps)
            found.append(maps.shape[1])
        return found

    @property
    def words(self) -> dict[str, tuple[str, ...]]:
        """The words of each attribute; a predicted index points into them."""
        return dict(self._network.config.words)

    def predict(self, images: Sequence[Image.Image]) -> dict[str, np.ndarray]:
        """Classify pictures.

        Args:
            images: n square pictures of any size and mode.

        Returns:
            For each attribute [n] int64, indices into `words`.
        """
        return {name: part.argmax(1) for name, part in self.probabilities(images).items()}

    @torch.inference_mode()
    def probabilities(self, images: Sequence[Image.Image]) -> dict[str, np.ndarray]:
        """Like `predict`, but [n, words] float32 probabilities."""
        size = self._network.config.size
        resized = [image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR) for image in images]
        parts: dict[str, list[np.ndarray]] = {
            name: [np.zeros((0, len(words)), np.float32)] for name, words in self.words.items()
        }
        for start in range(0, len(resized), _BATCH):
            for name, logits in self._network(
                to_tensor(resized[start : start + _BATCH]).to(self._network.device)
            ).items():
                parts[name].append(logits.float().softmax(-1).cpu().numpy())
        return {name: np.concatenate(chunks) for name, chunks in parts.items()}
