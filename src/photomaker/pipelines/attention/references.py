"""Feature maps of reference pictures as further keys and values in a UNet's self-attention, as long as a context lasts.

A second UNet reads the reference pictures at the noise level of the step, and what goes into its self-attention is
kept. The drawing UNet gets, beside each self-attention in its middle and second half, another one over its own places
and those of the references. Both read the same normalised input, so that one attention processor adds up both.

Source: FlashFace, arXiv 2403.17008, section 3.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional

from photomaker.pipelines.attention.wrapping import forward_in

RESCALE = 0.5
"""How far the spread of a guided prediction is brought back to that of the text alone."""


def reading_layers(unet: Any) -> list[str]:  # noqa: ANN401 - a diffusers UNet
    """Names of the self-attention layers of the middle and the second half, in the order in which they run."""
    names = [name for name, _ in unet.named_modules() if name.endswith(".attn1")]
    return [
        *(name for name in names if name.startswith("mid_block.")),
        *(name for name in names if name.startswith("up_blocks.")),
    ]


@dataclass
class Bank:
    """What the references look like, and which row of a batch reads which.

    Attributes:
        features: Name of the layer to [photos, places, C].
        index: Photos that each row reads [rows, most].
        bias: Added to the attention to each photo [rows, most]: 0 changes nothing, -inf leaves it out.
        strength: How much of the second attention reads the references [rows]; above 1 goes beyond it.
    """

    features: dict[str, Tensor] = field(default_factory=dict)
    index: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.int64))
    bias: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    strength: Tensor = field(default_factory=lambda: torch.zeros(0))

    @property
    def reads(self) -> bool:
        """Whether any row reads a reference."""
        return bool((self.strength != 0).any())

    def context(self, name: str, own: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's own places and those of the references [rows, length, C], and their bias [rows, 1, 1, length]."""
        seen = self.features[name]
        index, bias = self.index.to(own.device), self.bias.to(own)
        theirs = seen.to(own.dtype)[index].flatten(1, 2)
        nothing = bias.new_zeros(own.shape[:2])
        both = torch.cat([nothing, bias.repeat_interleave(seen.shape[1], dim=1)], dim=1)
        return torch.cat([own, theirs], dim=1), both[:, None, None]


class SecondAttention(nn.Module):
    """An attention of the published names, beside a self-attention; it starts as that one.

    Args:
        layer: The self-attention.
        plain: Whether it is computed without torch's fused kernel, whose backward pass is slow on a CPU.
    """

    def __init__(self, layer: Attention, plain: bool = False) -> None:
        """Copy the projections."""
        super().__init__()
        self.heads, self.plain = int(layer.heads), plain
        self.q, self.k, self.v = (copy.deepcopy(one) for one in (layer.to_q, layer.to_k, layer.to_v))
        self.o = copy.deepcopy(layer.to_out[0])

    def forward(self, hidden: Tensor, context: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            hidden: [rows, places, C].
            context: [rows, length, C].
            bias: [rows, 1, 1, length].
        """
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.q(hidden), self.k(context), self.v(context))
        )
        bias = None if bias is None else bias.to(query)
        if self.plain:
            looks = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
            out = (looks if bias is None else looks + bias).softmax(-1) @ value
        else:
            out = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.o(out.transpose(1, 2).flatten(2))


class ReadingProcessor(nn.Module):
    """A self-attention with a second one beside it, which reads the references.

    Args:
        layer: The self-attention that it is for.
        name: The layer's name.
        bank: What it reads.
        plain: Whether the first attention is computed without torch's fused kernel.
    """

    def __init__(self, layer: Attention, name: str, bank: Bank, plain: bool = False) -> None:
        """Start as a copy."""
        super().__init__()
        self.self_attn_first = SecondAttention(layer, plain)
        self.name, self.bank = name, bank
        self.inner = AttnProcessor() if plain else AttnProcessor2_0()

    def forward(self, attn: Attention, hidden_states: Tensor, *_args: Any, **_more: Any) -> Tensor:
        """Called by diffusers in place of the layer's own processor."""
        return self.inner(attn, hidden_states) + self.second(hidden_states)

    def second(self, hidden: Tensor) -> Tensor:
        """(1 - strength) * without references + strength * with them; each is left out where nothing is of it."""
        bank = self.bank
        if not bank.reads:
            return self.self_attn_first(hidden, hidden)
        seen = self.self_attn_first(hidden, *bank.context(self.name, hidden))
        share = bank.strength.to(hidden)[:, None, None]
        if bool((bank.strength == 1).all()):
            return seen
        return share * seen + (1 - share) * self.self_attn_first(hidden, hidden)


class WritingProcessor:
    """An unchanged self-attention of the reference UNet that keeps what goes into it.

    Args:
        name: The layer's name.
        bank: Where it is kept.
        plain: See `ReadingProcessor`.
    """

    def __init__(self, name: str, bank: Bank, plain: bool = False) -> None:
        """Keep nothing yet."""
        self.name, self.bank = name, bank
        self.inner = AttnProcessor() if plain else AttnProcessor2_0()

    def __call__(self, attn: Attention, hidden_states: Tensor, *_args: Any, **_more: Any) -> Tensor:
        """Called by diffusers in place of the layer's own processor."""
        self.bank.features[self.name] = hidden_states
        return self.inner(attn, hidden_states)


def reading_processors(unet: Any, bank: Bank, plain: bool = False) -> dict[str, ReadingProcessor]:  # noqa: ANN401
    """A second attention for every layer that reads, by the names of attention processors."""
    return {
        f"{name}.processor": ReadingProcessor(unet.get_submodule(name), name, bank, plain)
        for name in reading_layers(unet)
    }


def reference_unet(unet: Any, bank: Bank, plain: bool = False) -> Any:  # noqa: ANN401 - diffusers UNets
    """A copy of a UNet that keeps in `bank` what goes into its self-attention."""
    made = copy.deepcopy(unet)
    writing = {f"{name}.processor": WritingProcessor(name, bank, plain) for name in reading_layers(made)}
    made.set_attn_processor({**made.attn_processors, **writing})
    return made


@contextmanager
def placed(unet: Any, weight: Tensor, masks: Callable[[int], Tensor]) -> Iterator[None]:  # noqa: ANN401
    """Have a UNet read a map of where the face should be beside its latents, during the context.

    Args:
        unet: A diffusers UNet.
        weight: Of its first layer for the map [C, 1, k, k].
        masks: Number of rows to maps [rows, 1, height, width], 1 in the face's square.
    """
    conv = unet.conv_in

    def after(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:  # noqa: ANN401 - a hook
        maps = masks(len(output)).to(output)
        return output + functional.conv2d(maps, weight.to(output), padding=conv.padding)

    hook = conv.register_forward_hook(after)
    try:
        yield
    finally:
        hook.remove()


@dataclass(frozen=True)
class Guidance:
    """How much of what.

    Attributes:
        text: The pipeline's guidance scale.
        strength: Of the references in the second attention, once they have a guidance of their own.
        early: The same before that, where text and references are guided together.
        reference: Guidance of the references.
        launch: Timestep, 0..1000, from which down the references have a guidance of their own.
    """

    text: float
    strength: float = 0.85
    early: float = 0.85
    reference: float = 2.0
    launch: float = 750.0


class Referenced:
    """Draws with references: reads them in every step, and guides text and references apart.

    Args:
        net: The reference UNet, which writes into `bank`.
        bank: What the drawing UNet's processors read.
        latents: Of the photos [photos, channels, h, w].
        shares: How much each photo counts [photos], their sum is 1; together they count as four photos.
        context: The conditions of the reference UNet: text [texts, length, D] and pooled [texts, P].
        texts: Which of these each picture has [pictures].
        guidance: How much of what.

    Attributes:
        on: Whether the references take part in the next call.
    """

    def __init__(
        self,
        net: nn.Module,
        bank: Bank,
        latents: Tensor,
        shares: Tensor,
        context: tuple[Tensor, Tensor],
        texts: Sequence[int],
        guidance: Guidance,
    ) -> None:
        """Take part from the start."""
        self.net, self.bank, self.latents, self.guidance, self.on = net, bank, latents, guidance, True
        self.context, self.pictures = context, len(texts)
        photos = torch.arange(len(latents))
        self.index = torch.stack([photos + text * len(latents) for text in texts])
        self.bias = photo_bias(shares)[None].expand(len(texts), -1)

    @contextmanager
    def attached(self, unet: Any) -> Iterator[Referenced]:  # noqa: ANN401 - a diffusers UNet
        """Around a UNet's call during the context, also when it ends in an error."""
        with ExitStack() as stack:
            stack.callback(self.bank.features.clear)
            stack.enter_context(forward_in(unet, self._around))
            yield self

    def _around(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        def forward(sample: Tensor, timestep: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            rows = len(sample)
            if not self.on:
                self._settle([0.0] * rows)
                return inner(sample, timestep, *args, **kwargs)
            self.read(timestep)
            if float(timestep) > self.guidance.launch:
                self._settle([self.guidance.early] * rows)
                return inner(sample, timestep, *args, **kwargs)
            self._settle([0.0] * rows + [self.guidance.strength] * self.pictures)
            more = _with_last(kwargs, rows, self.pictures)
            result = inner(_with_last(sample, rows, self.pictures), timestep, *args, **more)
            return _like(result, self.combined(_sample(result), rows))

        return forward

    def _settle(self, strength: list[float]) -> None:
        times = -(-len(strength) // self.pictures)
        self.bank.strength = torch.tensor(strength)
        self.bank.index = self.index.repeat(times, 1)[: len(strength)]
        self.bank.bias = self.bias.repeat(times, 1)[: len(strength)]

    def read(self, timestep: Any) -> None:  # noqa: ANN401 - a number or a tensor
        """Run the reference UNet on the photos, once for each text."""
        texts, photos = len(self.context[0]), len(self.latents)
        words, pooled = (one.repeat_interleave(photos, dim=0) for one in self.context)
        latents = self.latents.repeat(texts, 1, 1, 1)
        added = {"text_embeds": pooled, "time_ids": crop_ids(latents).to(pooled)}
        self.net(latents, timestep, encoder_hidden_states=words, added_cond_kwargs=added, return_dict=False)

    def combined(self, predicted: Tensor, rows: int) -> Tensor:
        """What the pipeline is given, so that its own guidance makes of it text and references guided apart.

        Args:
            predicted: Rows of the call, with those behind them that read the references.
            rows: Rows of the call; without guidance the negative ones are not there.
        """
        text, seen = predicted[rows - self.pictures : rows], predicted[rows:]
        scale = self.guidance.text if rows > self.pictures else 1.0
        nothing = predicted[: self.pictures] if rows > self.pictures else text
        guided = nothing + scale * (text - nothing) + self.guidance.reference * (seen - text)
        spread = _spread(text) / _spread(guided).clamp(min=1e-8)
        guided = guided * (RESCALE * spread + 1 - RESCALE)
        if rows == self.pictures:
            return guided
        return torch.cat([nothing, nothing + (guided - nothing) / scale])


def photo_bias(shares: Tensor) -> Tensor:
    """Attention bias of each photo, so that all together count as four photos, each by its share."""
    return (4 * shares).log()


def crop_ids(latents: Tensor) -> Tensor:
    """SDXL's size conditioning [photos, 6] of square crops."""
    high, wide = (int(side) * 8 for side in latents.shape[-2:])
    return torch.tensor([[high, wide, 0, 0, high, wide]], dtype=torch.float32).expand(len(latents), -1)


def square_map(box: Sequence[float], height: int, width: int) -> Tensor:
    """Where a face should be: the square around a box, which may reach beyond the picture.

    Args:
        box: Left, top, right, bottom in cells.
        height: Cells from top to bottom.
        width: Cells from left to right.

    Returns:
        [1, height, width], 1 inside.
    """
    half = max(box[2] - box[0], box[3] - box[1]) / 2
    found = torch.zeros(1, height, width)
    edges = [
        (max(0, round(middle - half)), max(0, round(middle + half)))
        for middle in ((box[1] + box[3]) / 2, (box[0] + box[2]) / 2)
    ]
    found[:, slice(*edges[0]), slice(*edges[1])] = 1
    return found


def _spread(predicted: Tensor) -> Tensor:
    return predicted.std(dim=(1, 2, 3), keepdim=True)


def _with_last(value: Any, rows: int, count: int) -> Any:  # noqa: ANN401 - whatever a UNet is called with
    """The same with the last `count` rows once more behind, however deep the tensors lie."""
    if isinstance(value, Tensor):
        return torch.cat([value, value[-count:]]) if value.dim() and value.shape[0] == rows else value
    if isinstance(value, dict):
        return {name: _with_last(one, rows, count) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_with_last(one, rows, count) for one in value)
    return value


def _sample(result: Any) -> Tensor:  # noqa: ANN401 - a tuple or an output of diffusers
    return result[0] if isinstance(result, tuple) else result.sample


def _like(result: Any, sample: Tensor) -> Any:  # noqa: ANN401 - as above
    return (sample, *result[1:]) if isinstance(result, tuple) else type(result)(sample=sample)
