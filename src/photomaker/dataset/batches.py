"""Cutting a stream into batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from photomaker.errors import SettingsError

Item = TypeVar("Item")


def check_batch(size: int) -> None:
    """Refuse a size that is not a batch.

    Raises:
        SettingsError: It is less than 1.
    """
    if size < 1:
        raise SettingsError(f"batch is {size}; give 1 or more")


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one shorter where they do not come out even."""
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch
