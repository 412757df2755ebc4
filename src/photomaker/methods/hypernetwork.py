"""Hypernetworks of the AUTOMATIC1111 kind: small networks that rewrite the tokens behind keys and values of attention.

For each width d of tokens there are two networks, for keys and for values; an attention whose tokens have width d sees
x + weight * f(x) there. Despite the name nothing generates weights. The files were made for Stable Diffusion 1.x and
2.x; networks of SDXL's widths (640, 1280, 2048) are an extension of ours in the same layout.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from photomaker.errors import SettingsError, WeightsError
from photomaker.methods.tuned import TunedMethod, must_exist
from photomaker.pipelines.drawing.changes import rewritten
from photomaker.training.recipes.tuning import Examples, Progress, TuningSettings, fixed, tune
from photomaker.types import Identity
from photomaker.weights import read_pickle

ACTIVATIONS: Mapping[str, type[nn.Module] | None] = {
    "linear": None, "relu": nn.ReLU, "leakyrelu": nn.LeakyReLU, "elu": nn.ELU, "swish": nn.Hardswish, "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid, "softsign": nn.Softsign, "mish": nn.Mish, "gelu": nn.GELU, "silu": nn.SiLU,
    "hardswish": nn.Hardswish, "softplus": nn.Softplus, "selu": nn.SELU, "celu": nn.CELU, "relu6": nn.ReLU6,
}  # fmt: skip
"""Names in files to activations; `linear` is none at all."""

_PARTS = ("k", "v")
_START = 0.01
_NAME = re.compile(r"linear\.\d+\.(weight|bias)")


@dataclass(frozen=True)
class NetworkShape:
    """What each small network consists of, as the files note it.

    Attributes:
        layer_structure: Widths of the layers as multiples of d; the first and last are 1.
        activation_func: A name of `ACTIVATIONS`.
        is_layer_norm: Whether a LayerNorm follows each layer.
        activate_output: Whether the activation follows the last layer too.
        dropout: Dropout behind each width of `layer_structure`, 0..1; empty is none.
        norm_last: Whether a LayerNorm follows the last layer too; files do not say, their tensors do.

    Raises:
        SettingsError: A value is of no known kind.
    """

    layer_structure: tuple[float, ...] = (1, 2, 1)
    activation_func: str = "linear"
    is_layer_norm: bool = False
    activate_output: bool = True
    dropout: tuple[float, ...] = ()
    norm_last: bool = True

    def __post_init__(self) -> None:
        """Check the values."""
        structure = self.layer_structure
        if len(structure) < 2 or structure[0] != 1 or structure[-1] != 1 or min(structure) <= 0:  # noqa: PLR2004
            raise SettingsError(
                f"layer_structure is {list(structure)}; give multiples of the width that begin and end with 1"
            )
        if self.activation_func not in ACTIVATIONS:
            raise SettingsError(
                f"activation_func is {self.activation_func!r}; give one of {', '.join(ACTIVATIONS)}"
            )
        if self.dropout and (
            len(self.dropout) != len(structure) or not all(0 <= p < 1 for p in self.dropout)
        ):
            raise SettingsError(
                f"dropout is {list(self.dropout)}; give {len(structure)} shares from 0 to below 1, or none"
            )

    @classmethod
    def noted(cls, notes: Mapping[str, Any]) -> NetworkShape:
        """Read it from a file or an identity's notes, with A1111's defaults for what older files leave out."""
        dropout = tuple(notes.get("dropout_structure") or ())
        if not dropout and notes.get("use_dropout"):
            count = len(notes.get("layer_structure") or (1, 2, 1))
            last = 0.3 if notes.get("last_layer_dropout") else 0.0
            dropout = (0.0, *[0.3] * (count - 2), last)
        return cls(
            tuple(notes.get("layer_structure") or (1, 2, 1)),
            str(notes.get("activation_func") or "linear").lower(),
            bool(notes.get("is_layer_norm", False)),
            bool(notes.get("activate_output", True)),
            dropout,
            bool(notes.get("norm_last", True)),
        )

    def notes(self) -> dict[str, Any]:
        """The same for a file or an identity's notes."""
        return {
            "layer_structure": list(self.layer_structure),
            "activation_func": self.activation_func,
            "is_layer_norm": self.is_layer_norm,
            "activate_output": self.activate_output,
            "norm_last": self.norm_last,
            "dropout_structure": list(self.dropout) or None,
            "last_layer_dropout": bool(self.dropout and self.dropout[-1]),
        }


@dataclass(frozen=True)
class HypernetworkSettings:
    """How the networks are tuned; the defaults are A1111's with a middle rate of what its users write of.

    Attributes:
        widths: Widths of tokens that get networks; empty is every width of the base.
        shape: The networks.
        token: A word before the class word; empty is none, as captions of hypernetworks usually have it.
        tuning: The shared recipe.
    """

    widths: tuple[int, ...] = ()
    shape: NetworkShape = NetworkShape()
    token: str = ""
    tuning: TuningSettings = field(
        default_factory=lambda: TuningSettings(steps=3000, lr=1e-5, weight_decay=0.01)
    )


class TokenNetwork(nn.Module):
    """One small network f: tokens [..., d] to [..., d]; the modules stand in the order that the files count them in.

    Args:
        width: d.
        shape: What it consists of.
    """

    def __init__(self, width: int, shape: NetworkShape) -> None:
        """Build; linear layers start small, biases at 0."""
        super().__init__()
        sizes = [round(width * multiple) for multiple in shape.layer_structure]
        activation = ACTIVATIONS[shape.activation_func]
        layers: list[nn.Module] = []
        for number in range(1, len(sizes)):
            last = number == len(sizes) - 1
            layers.append(nn.Linear(sizes[number - 1], sizes[number]))
            if activation is not None and (not last or shape.activate_output):
                layers.append(activation())
            if shape.is_layer_norm and (shape.norm_last or not last):
                layers.append(nn.LayerNorm(sizes[number]))
            if shape.dropout and shape.dropout[number] > 0:
                layers.append(nn.Dropout(shape.dropout[number]))
        self.linear = nn.Sequential(*layers)
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=_START)
                nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """What is added to the tokens."""
        return self.linear(tokens)


Networks = dict[int, tuple[TokenNetwork, TokenNetwork]]


def context_widths(unet: nn.Module) -> list[int]:
    """Widths of the tokens that go into keys and values of a UNet's attention, of itself and of text."""
    return sorted({int(one.to_k.in_features) for one in unet.modules() if isinstance(one, Attention)})


class Hypernetwork(TunedMethod[HypernetworkSettings]):
    """Hypernetworks on a diffusers SDXL pipeline."""

    name: ClassVar[str] = "hypernetwork"
    published: ClassVar[HypernetworkSettings] = HypernetworkSettings()
    small: ClassVar[HypernetworkSettings] = HypernetworkSettings(
        tuning=TuningSettings(steps=200, lr=1e-3, batch_size=4)
    )

    def tune(
        self, examples: Examples, class_phrase: str, progress: Progress | None
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tune the networks; see `TunedMethod.tune`."""
        settings, unet = self.settings, self.pipeline.unet
        widths = settings.widths or context_widths(unet)
        self._check_widths(widths)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.tuning.seed)
            networks: Networks = {
                width: (TokenNetwork(width, settings.shape), TokenNetwork(width, settings.shape))
                for width in widths
            }
        modules = nn.ModuleDict(
            {
                f"{width} {part}": network
                for width, both in networks.items()
                for part, network in zip(_PARTS, both, strict=True)
            }
        ).to(unet.device)
        notes = {"token": settings.token, **settings.shape.notes()}
        condition = fixed(self.pipeline, self.captions(notes, class_phrase))
        with rewritten(unet, networks):
            told = tune(self.recipe({"networks": modules}, examples, condition=condition), progress)
        return _tensors(networks), notes | told

    def put_in(self, identity: Identity, weight: float) -> AbstractContextManager[None]:
        """Hook the networks in, and take them out."""
        networks = _networks(identity.tensors, NetworkShape.noted(identity.notes), self.name)
        self._check_widths(list(networks))
        for both in networks.values():
            for network in both:
                network.to(self.pipeline.unet.device).eval()
        return rewritten(self.pipeline.unet, networks, weight)

    def _check_widths(self, widths: Sequence[int]) -> None:
        known = context_widths(self.pipeline.unet)
        if not set(widths) & set(known):
            raise WeightsError(
                f"the hypernetwork is for tokens of width {', '.join(map(str, widths))}, but the base has "
                f"{', '.join(map(str, known))}; give one for this base"
            )

    def load_published(self, path: str | os.PathLike[str], token: str = "") -> Identity:
        """Read a `.pt` file of A1111, NovelAI or kohya; nothing that it may hold is run.

        Args:
            path: The file.
            token: A word that prompts should have before the class word, if any.

        Raises:
            IdentityError: There is no such file.
            WeightsError: It is not a hypernetwork, or none of its widths is in this base.
            SettingsError: Its networks are of an unknown kind.
        """
        place = must_exist(path)
        content = read_pickle(place)
        sections = {key: value for key, value in content.items() if isinstance(key, int)}
        if not sections:
            raise WeightsError(f"{place} is not a hypernetwork: it has no widths of tokens; give such a file")
        tensors: dict[str, Tensor] = {}
        for width, both in sections.items():
            if not isinstance(both, tuple | list) or len(both) != len(_PARTS) or not all(both):
                raise WeightsError(f"{place} has no pair of networks for width {width}; download it again")
            for part, state in zip(_PARTS, both, strict=True):
                for name, tensor in state.items():
                    if not _NAME.fullmatch(_today(name)) or not isinstance(tensor, Tensor):
                        raise WeightsError(
                            f"{place} is not a hypernetwork: it holds {name!r}; give such a file"
                        )
                    tensors[f"{width}.{part}.{_today(name)}"] = tensor.float()
        shape = NetworkShape.noted({key: value for key, value in content.items() if isinstance(key, str)})
        last = max(int(name.split(".")[3]) for name in tensors)
        if (
            shape.is_layer_norm and _tensor_of(tensors, last).dim() > 1
        ):  # the last is not a norm, which has vectors
            shape = replace(shape, norm_last=False)
        networks = _networks(tensors, shape, str(place))
        self._check_widths(list(networks))
        notes = {"token": token, "published": str(content.get("name") or place.stem), **shape.notes()}
        return self.identity(tensors, notes)

    def export(self, identity: Identity, path: str | os.PathLike[str]) -> Path:
        """Write a `.pt` file in A1111's layout.

        Raises:
            IdentityError: The identity is of another method or base.
        """
        self.check_identity(identity)
        place, shape = Path(path), NetworkShape.noted(identity.notes)
        networks = _networks(identity.tensors, shape, self.name)
        content: dict[Any, Any] = {
            width: tuple(network.state_dict() for network in both) for width, both in networks.items()
        }
        content |= shape.notes() | {
            "step": int(identity.notes.get("steps", 0)),
            "name": place.stem,
            "weight_initialization": "Normal",
            "use_dropout": bool(shape.dropout),
            "sd_checkpoint": None,
            "sd_checkpoint_name": None,
            "optional_info": None,
        }
        part = place.with_name(place.name + ".part")
        torch.save(content, part)
        part.replace(place)
        return place


def _today(name: str) -> str:
    """A tensor's name in today's files; the first ones called the two layers `linear1` and `linear2`."""
    return name.replace("linear1.", "linear.0.").replace("linear2.", "linear.1.")


def _tensor_of(tensors: Mapping[str, Tensor], number: int) -> Tensor:
    """The weight of the module of that number in any of the networks."""
    return next(one for name, one in tensors.items() if name.endswith(f".linear.{number}.weight"))


def _tensors(networks: Networks) -> dict[str, Tensor]:
    return {
        f"{width}.{part}.{name}": tensor.detach().cpu()
        for width, both in networks.items()
        for part, network in zip(_PARTS, both, strict=True)
        for name, tensor in network.state_dict().items()
    }


def _networks(tensors: Mapping[str, Tensor], shape: NetworkShape, source: str) -> Networks:
    """Networks of named tensors.

    Raises:
        WeightsError: The tensors are not those of such networks.
    """
    networks: Networks = {}
    for width in sorted({int(name.partition(".")[0]) for name in tensors}):
        with torch.random.fork_rng(devices=[]):  # the start is replaced at once
            both = (TokenNetwork(width, shape), TokenNetwork(width, shape))
        for part, network in zip(_PARTS, both, strict=True):
            prefix = f"{width}.{part}."
            state = {
                name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)
            }
            try:
                network.load_state_dict(state)
            except RuntimeError as error:
                raise WeightsError(
                    f"the networks for width {width} in {source} do not have the structure that it states "
                    f"({list(shape.layer_structure)}, {shape.activation_func}); download it again"
                ) from error
        networks[width] = both
    return networks
