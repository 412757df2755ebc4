"""Names of a UNet's weights in other code bases, which number the blocks consecutively (latent diffusion, FlashFace).

Names are worked out from the model itself, so that UNets of any size have them, and both ways.

Source: the layouts of CompVis' latent diffusion (LDM) and of FlashFace's `flashface.ckpt`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from photomaker.errors import WeightsError

_PAIRS = {"conv_norm_out": "0", "conv_out": "2"}


@dataclass(frozen=True)
class Naming:
    """How one code base calls the parts of a UNet.

    Attributes:
        down: Prefix of the blocks that halve.
        middle: Prefix of the blocks between.
        up: Prefix of the blocks that double.
        head: Prefix of the layers at the end.
        time: Prefix of the time embedding.
        label: Prefix of the embedding of sizes and pooled text.
        halve: Of the layer that halves, behind its block's number.
        double: Of the layer that doubles, behind its place in its block.
        residual: Parts of a residual block, by diffusers' names.
        attention: Parts of an attention block, by diffusers' names; others keep theirs.
        block: Parts of a transformer block, by diffusers' names; others keep theirs.
        layers: What the transformer blocks are called.
    """

    down: str
    middle: str
    up: str
    head: str
    time: str
    label: str
    halve: str
    double: str
    residual: Mapping[str, str]
    attention: Mapping[str, str]
    block: Mapping[str, str]
    layers: str


LDM = Naming(
    down="input_blocks", middle="middle_block", up="output_blocks", head="out", time="time_embed", label="label_emb.0",
    halve=".0.op", double=".conv",
    residual={"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
              "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"},
    attention={}, block={}, layers="transformer_blocks",
)  # fmt: skip
"""Latent diffusion's names."""

FLASHFACE = Naming(
    down="encoder", middle="middle", up="decoder", head="head", time="time_embedding", label="y_embedding",
    halve="", double=".1",
    residual={"norm1": "layer1.0", "conv1": "layer1.2", "time_emb_proj": "embedding.1",
              "norm2": "layer2.0", "conv2": "layer2.3", "conv_shortcut": "shortcut"},
    attention={"norm": "norm1", "proj_in": "conv1", "proj_out": "conv2"},
    block={"attn1.to_q": "self_attn.q", "attn1.to_k": "self_attn.k", "attn1.to_v": "self_attn.v",
           "attn1.to_out.0": "self_attn.o", "attn2.to_q": "cross_attn.q", "attn2.to_k": "cross_attn.k",
           "attn2.to_v": "cross_attn.v", "attn2.to_out.0": "cross_attn.o",
           "ff.net.0.proj": "ffn.0.proj", "ff.net.2": "ffn.2"},
    layers="blocks",
)  # fmt: skip
"""FlashFace's names."""


def parts_of(unet: Any, naming: Naming) -> dict[str, str]:  # noqa: ANN401 - a diffusers UNet or ControlNet
    """Prefixes of a UNet's parts in diffusers and in another code base.

    Args:
        unet: A diffusers UNet, or a ControlNet, which has no half that doubles.
        naming: The other code base's names.
    """
    found = {
        "conv_in": f"{naming.down}.0{'.0' if naming is LDM else ''}",
        "time_embedding.linear_1": f"{naming.time}.0",
        "time_embedding.linear_2": f"{naming.time}.2",
        "add_embedding.linear_1": f"{naming.label}.0",
        "add_embedding.linear_2": f"{naming.label}.2",
        **{own: f"{naming.head}.{place}" for own, place in _PAIRS.items()},
        "mid_block.resnets.0": f"{naming.middle}.0",
        "mid_block.attentions.0": f"{naming.middle}.1",
        "mid_block.resnets.1": f"{naming.middle}.2",
    }
    found |= dict(_halving(unet, naming))
    return found | dict(_doubling(unet, naming))


def _halving(unet: Any, naming: Naming) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - as above
    number = 1
    for place, block in enumerate(unet.down_blocks):
        for layer in range(len(block.resnets)):
            yield f"down_blocks.{place}.resnets.{layer}", f"{naming.down}.{number}.0"
            if getattr(block, "attentions", None):
                yield f"down_blocks.{place}.attentions.{layer}", f"{naming.down}.{number}.1"
            number += 1
        if block.downsamplers:
            yield f"down_blocks.{place}.downsamplers.0.conv", f"{naming.down}.{number}{naming.halve}"
            number += 1


def _doubling(unet: Any, naming: Naming) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - as above
    number = 0
    for place, block in enumerate(getattr(unet, "up_blocks", ())):
        attends = bool(getattr(block, "attentions", None))
        for layer in range(len(block.resnets)):
            yield f"up_blocks.{place}.resnets.{layer}", f"{naming.up}.{number}.0"
            if attends:
                yield f"up_blocks.{place}.attentions.{layer}", f"{naming.up}.{number}.1"
            number += 1
        if block.upsamplers:
            last = f"{naming.up}.{number - 1}.{1 + attends}"
            yield f"up_blocks.{place}.upsamplers.0.conv", f"{last}{naming.double}"


def names_of(unet: Any, naming: Naming) -> dict[str, str]:  # noqa: ANN401 - as above
    """Names of all weights of a UNet in another code base, by diffusers' names.

    Args:
        unet: A diffusers UNet, or a ControlNet, of which the layers that are its own are left out.
        naming: The other code base's names.
    """
    parts, found = parts_of(unet, naming), {}
    for name, _ in unet.named_parameters():
        prefix = next((part for part in parts if name.startswith(f"{part}.")), None)
        if prefix is not None and ".processor." not in name:
            found[name] = f"{parts[prefix]}.{_inner(name.removeprefix(f'{prefix}.'), prefix, naming)}"
    return found


def _inner(rest: str, prefix: str, naming: Naming) -> str:
    """The name inside a part."""
    if ".resnets." in prefix:
        return _replaced(rest, naming.residual)
    if ".attentions." not in prefix:
        return rest
    if not rest.startswith("transformer_blocks."):
        return _replaced(rest, naming.attention)
    _, number, inside = rest.split(".", 2)
    return f"{naming.layers}.{number}.{_replaced(inside, naming.block)}"


def _replaced(name: str, names: Mapping[str, str]) -> str:
    own = next((one for one in names if name.startswith(f"{one}.")), None)
    return name if own is None else names[own] + name.removeprefix(own)


def taken(
    unet: Any,  # noqa: ANN401 - as above
    tensors: Mapping[str, Tensor],
    names: Mapping[str, str],
    source: str,
) -> dict[str, Tensor]:
    """Weights of another code base under diffusers' names.

    Args:
        unet: What they are for; 1x1 convolutions and linear layers stand for each other.
        tensors: Under the other code base's names.
        names: By diffusers' names, as `names_of` gives them; they may be some of them.
        source: What to call the file in messages.

    Raises:
        WeightsError: A weight is missing or of a different shape.
    """
    own, found = dict(unet.named_parameters()), {}
    for name, theirs in names.items():
        tensor, shape = tensors.get(theirs), own[name].shape
        same = tensor is not None and _plain(tensor.shape) == _plain(shape)
        if tensor is None or not same:
            got = "nothing" if tensor is None else f"shape {tuple(tensor.shape)}"
            raise WeightsError(
                f"{source} has {got} for {theirs}, but the base model has shape {tuple(shape)}; give the base model "
                "that it was made for"
            )
        found[name] = tensor.reshape(shape)
    return found


def _plain(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the ones at its end."""
    shape = tuple(shape)
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape
