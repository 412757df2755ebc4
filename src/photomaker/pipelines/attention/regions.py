"""Several people in one picture: each person's tokens are attended to only in that person's region.

Where that is comes from a layout, from the places that the prompt gives the people, or from what the text-only steps
looked at when they read the people's class words. The UNet and its attention processors stay as they are: the bias goes
in as the attention mask of each cross-attention layer.

Source: the idea of FastComposer's localised attention, arXiv 2305.10431, section 4.2, taken to sampling.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from photomaker.checks import shown
from photomaker.errors import SettingsError
from photomaker.pipelines.steps.merging import Subjects
from photomaker.prompts.places import PLACES

SOFT = 0.04
"""Width of the border between people, over the picture's side."""
SMALLEST = 1e-4
"""Share of a person at a place below which the person's tokens are as good as not there."""
PLACES_TRIED = 64
"""Cells of a side on which a layout is tried, before anything is drawn."""
SHARPNESS = 4.0
"""How decidedly a place belongs to whom it looked at most."""

Place: TypeAlias = str | Sequence[float] | Image.Image
"""`left`, `middle`, `right`, a box left, top, right, bottom in 0..1, or a mask picture, white where the person is."""


def regions_of(places: Sequence[Place], height: int, width: int) -> Tensor:
    """Where each person is.

    Args:
        places: One for each person.
        height: Cells from top to bottom.
        width: Cells from left to right.

    Returns:
        [people, height, width] in 0..1, soft at the borders.

    Raises:
        SettingsError: A place is none, or is outside the picture.
    """
    names = [one for one in places if isinstance(one, str)]
    maps = [_region(one, names, height, width) for one in places]
    stacked = torch.stack(maps)
    # where two people are both told to be, each has a share
    return stacked / stacked.sum(0).clamp(min=1)


def _region(place: Place, names: Sequence[str], height: int, width: int) -> Tensor:
    if isinstance(place, Image.Image):
        small = place.convert("L").resize((width, height), Image.Resampling.BOX)
        found = torch.from_numpy(np.asarray(small, dtype=np.float32) / 255)
        if not bool((found > 0).any()):
            raise SettingsError("a person's mask is black all over; paint white where the person is")
        return found
    if isinstance(place, str):
        if place not in PLACES:
            raise SettingsError(f"a region is {place!r}; give {', '.join(PLACES)}, a box or a mask")
        parts = 3 if "middle" in names else 2
        start = {"left": 0, "middle": 1, "right": parts - 1}[place] / parts
        box = [start, 0.0, start + 1 / parts, 1.0]
    else:
        box = [float(edge) for edge in place]
        wanted = len(box) == 4 and all(math.isfinite(edge) and 0 <= edge <= 1 for edge in box)  # noqa: PLR2004
        if not wanted or box[0] >= box[2] or box[1] >= box[3]:
            raise SettingsError(
                f"a person's box is {shown(place)}; give left, top, right, bottom as shares from 0 to 1"
            )
    return _edge(box[1], box[3], height)[:, None] * _edge(box[0], box[2], width)[None]


def _edge(low: float, high: float, count: int) -> Tensor:
    """1 between two shares of a side, 0 outside, with soft ends but where the picture ends."""
    at = (torch.arange(count) + 0.5) / count
    low, high = (low if low > 0 else -1.0), (high if high < 1 else 2.0)
    return torch.sigmoid((at - low) / SOFT * 4) * torch.sigmoid((high - at) / SOFT * 4)


class RegionalAttention:
    """Keeps every person's tokens to that person's region, from the merge step on.

    Args:
        subjects: Whose token is where, for the conditional rows.
        places: Where each person is, or None to find that in the text-only steps.

    Raises:
        SettingsError: A place is none, or there are not as many as people.
    """

    def __init__(self, subjects: Subjects, places: Sequence[Place] | None = None) -> None:
        """Start before the first step."""
        people = subjects.merged.shape[1]
        if places is not None:
            if len(places) != people:
                raise SettingsError(
                    f"the layout has {len(places)} places for {people} people; give one for each"
                )
            regions_of(places, PLACES_TRIED, PLACES_TRIED)
        self.subjects, self.places = subjects, places
        self.size = (0, 0)
        self.merging = False
        self._looked, self._looks = torch.zeros(()), 0
        self._regions: Tensor | None = None
        self._biases: dict[tuple[int, int], Tensor] = {}

    @classmethod
    def known(cls, merged: Tensor, regions: Tensor) -> RegionalAttention:
        """For training: everybody is in the picture from the start, and it is known where.

        Args:
            merged: Whose token is where, bool [rows, people, length].
            regions: [rows, people, h, w] in 0..1.
        """
        made = cls(Subjects(merged, merged))
        made._regions, made.merging = regions, True
        return made

    def switch(self, merging: bool) -> None:
        """Told before each call of the UNet whether the people take part in it."""
        self.merging = merging

    @contextmanager
    def attached(self, unet: nn.Module) -> Iterator[RegionalAttention]:
        """Hooks on the cross-attention layers during the context."""
        layers: list[Any] = [layer for name, layer in unet.named_modules() if name.endswith(".attn2")]
        with ExitStack() as stack:
            stack.callback(unet.register_forward_pre_hook(self._begin, with_kwargs=True).remove)
            for layer in layers:
                hook = layer.register_forward_pre_hook(self._before, with_kwargs=True)
                stack.callback(hook.remove)
            yield self

    def _begin(self, _unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        high, wide = (args[0] if args else kwargs["sample"]).shape[-2:]
        self.size = (int(high), int(wide))

    @property
    def regions(self) -> Tensor:
        """[rows, people, h, w] in 0..1.

        Raises:
            SettingsError: Nothing says where anybody is.
        """
        if self._regions is None and self.places is not None:
            own = regions_of(self.places, *self.size)
            self._regions = own[None].expand(len(self.subjects.merged), -1, -1, -1)
        if self._regions is None:
            if not self._looks:
                raise SettingsError(
                    "the positions of the people are unknown; write 'on the left' and 'on the right' after them, "
                    "give a layout, or let the first steps be without them (start_merge_step)"
                )
            looked = self._looked / self._looks
            # attention to a person's class word here, compared with the whole picture
            contrast = looked / looked.mean((2, 3), keepdim=True).clamp(min=1e-8)
            smooth = functional.avg_pool2d(contrast, 3, 1, 1, count_include_pad=False)
            self._regions = (smooth.clamp(min=1e-6).log() * SHARPNESS).softmax(1)
        return self._regions

    def _before(
        self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        hidden, text = args[0], kwargs.get("encoder_hidden_states")
        if text is None:
            return None
        if not self.merging:
            if self.places is None:
                self._look(layer, hidden, text)
            return None
        return args, kwargs | {"attention_mask": self._bias(hidden, len(text))}

    def _shape(self, places: int) -> tuple[int, int]:
        """Height and width of a layer with so many places."""
        high, wide = self.size
        while high * wide > places:
            high, wide = -(-high // 2), -(-wide // 2)
        return high, wide

    @torch.no_grad()
    def _look(self, layer: Any, hidden: Tensor, text: Tensor) -> None:  # noqa: ANN401 - a diffusers attention
        """How much each place looks at each person's class word, the mean over heads."""
        rows = len(self.subjects.plain)
        query = layer.head_to_batch_dim(layer.to_q(hidden[-rows:]))
        # keys of all rows are kept for the layer's own call
        key = layer.head_to_batch_dim(layer.to_k(text)[-rows:])
        seen = layer.get_attention_scores(query, key, None).float()
        seen = seen.unflatten(0, (rows, layer.heads)).mean(1)
        own = self.subjects.plain.to(seen.device).float()
        people = torch.einsum("bql,bpl->bpq", seen, own).unflatten(2, self._shape(hidden.shape[1]))
        whole = functional.interpolate(people, self.size, mode="bilinear", align_corners=False)
        self._looked, self._looks = self._looked.to(whole) + whole, self._looks + 1

    def _bias(self, hidden: Tensor, rows: int) -> Tensor:
        """[rows of the call, places, length]: 0 if a token may be read, far below where it may not."""
        places = hidden.shape[1]
        known = self._biases.get((rows, places))
        if known is None:
            regions = self.regions.float().cpu()
            small = functional.interpolate(regions, self._shape(places), mode="area").flatten(2)
            level = small.clamp(min=SMALLEST).log()
            own = self.subjects.merged.cpu().float()
            bias = torch.einsum("bpq,bpl->bql", level, own)
            before = torch.zeros(rows - len(bias), *bias.shape[1:])
            known = torch.cat([before, bias]).to(hidden)
            self._biases[rows, places] = known
        return known
