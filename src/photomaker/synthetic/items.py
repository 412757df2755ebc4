"""Masks of hats and clothing: the pixels that change with their colour."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from photomaker.errors import SettingsError
from photomaker.synthetic.factors import Person, View
from photomaker.synthetic.renderer import render

ITEMS = ("hat", "clothing")
_COLOURS = ("white", "black")
_LEAST = 24
"""Levels of 255 that a pixel changes by where it is mostly the item's."""


def item_mask(person: Person, view: View, item: str, size: int = 128) -> np.ndarray:
    """Where a picture shows an item: uint8 [size, size], 255 on it; nowhere, where there is none.

    Args:
        person: Who.
        view: In which circumstances; the mask is that of the photo style.
        item: `hat` or `clothing`.
        size: Pixels to a side.

    Raises:
        SettingsError: The item is neither.
    """
    if item not in ITEMS:
        raise SettingsError(f"the item is {item!r}; give one of {', '.join(ITEMS)}")
    changes: list[dict[str, Any]] = [{f"{item}_colour": colour, "style": "photo"} for colour in _COLOURS]
    drawn = [render(person, replace(view, **change), size).image.astype(int) for change in changes]
    return np.where(np.abs(drawn[0] - drawn[1]).max(-1) >= _LEAST, 255, 0).astype(np.uint8)
