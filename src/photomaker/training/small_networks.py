"""What the recipes of the small judging networks share: people of a dataset, pictures, settled statistics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from photomaker.errors import SettingsError


class Rows(Protocol):
    """The part of a synthetic dataset that the small networks read; see `photomaker.synthetic.dataset`."""

    images: np.ndarray
    masks: np.ndarray
    person: np.ndarray
    boxes: np.ndarray
    landmarks: np.ndarray
    attributes: dict[str, np.ndarray]
    attribute_names: dict[str, tuple[str, ...]]
    is_photo: np.ndarray

    @property
    def factors(self) -> np.ndarray:
        """Identity factors [people, F] float32, scaled to deviate by about one."""


def span(text: str) -> tuple[int, int]:
    """Read a range of people `A:B`, A included and B not.

    Raises:
        SettingsError: The text is no such range.
    """
    first, colon, last = text.partition(":")
    if not (colon and first.isdigit() and last.isdigit() and int(first) < int(last)):
        raise SettingsError(f"{text!r} is not a range of people; write it like 0:4000, the end not included")
    return int(first), int(last)


def rows_of_people(data: Rows, people: tuple[int, int]) -> np.ndarray:
    """Rows of all pictures of a range of people.

    Raises:
        SettingsError: The dataset has no picture of them.
    """
    person = np.asarray(data.person)
    rows = np.flatnonzero((person >= people[0]) & (person < people[1]))
    if not len(rows):
        held = int(person.max(initial=-1)) + 1
        raise SettingsError(
            f"the data has no picture of people {people[0]}:{people[1]}; it has people 0:{held}"
        )
    return rows


def pictures(data: Rows, rows: np.ndarray) -> Tensor:
    """Pictures of some rows as [batch, 3, height, width] float in 0..1."""
    return torch.from_numpy(np.asarray(data.images[rows])).permute(0, 3, 1, 2).float().div_(255)


def tensor(values: np.ndarray) -> Tensor:
    """A copy of an array as a tensor; memory maps cannot be shared because they are read-only."""
    return torch.from_numpy(np.array(values))


@contextmanager
def settled(network: nn.Module, batches: Iterable[Tensor]) -> Iterator[None]:
    """Inside, batch statistics are those of the present (averaged) weights; afterwards they are as they were.

    The running statistics that training keeps belong to the trained weights, not to their moving average.

    Args:
        network: A network with one tensor argument.
        batches: Its inputs, as in training; none for networks without batch normalisation.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    kept = [{name: buffer.clone() for name, buffer in layer.named_buffers()} for layer in layers]
    momenta, training = [layer.momentum for layer in layers], network.training
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean over the batches
    try:
        if layers:
            network.train()
            with torch.no_grad():
                for batch in batches:
                    network(batch)
            network.eval()
        yield
    finally:
        network.train(training)
        for layer, buffers, momentum in zip(layers, kept, momenta, strict=True):
            layer.momentum = momentum
            for name, buffer in layer.named_buffers():
                buffer.copy_(buffers[name])
