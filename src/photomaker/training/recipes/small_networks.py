"""What the recipes of the small judging networks share: people of a dataset, pictures, settled statistics, a recipe."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from photomaker.errors import SettingsError
from photomaker.training.running.recipe import Recipe


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


class NetworkRecipe(Recipe):
    """Trains one network on the pictures of a range of people; a subclass says what it sees and its loss.

    Args:
        data: The dataset.
        network: The network, with one tensor argument.
        people: The range of people, see `span`.
        rate: Peak learning rate.
        decay: Weight decay.
        validation: Data and range of people to measure on; None measures nothing.

    Raises:
        SettingsError: The dataset has no picture of them.
    """

    calibrated: ClassVar[int] = 128
    """Rows of a batch of `calibration`."""

    def __init__(
        self,
        data: Rows,
        network: Any,  # noqa: ANN401 - one of the small networks, whose attributes its recipe knows
        people: tuple[int, int],
        rate: float,
        decay: float,
        validation: tuple[Rows, tuple[int, int]] | None = None,
    ) -> None:
        """Look up the rows."""
        self.data, self.rate, self.decay, self.validation = data, rate, decay, validation
        self.network = network.to(memory_format=torch.channels_last)
        self._rows = rows_of_people(data, people)

    @abstractmethod
    def inputs(self, rows: np.ndarray, generator: torch.Generator) -> Tensor:
        """What the network sees of some rows, augmented [batch, 3, size, size]."""

    def modules(self) -> dict[str, nn.Module]:
        """Return the network."""
        return {"network": self.network}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the network's weights."""
        return [{"params": list(self.network.parameters()), "lr": self.rate, "weight_decay": self.decay}]

    @property
    def rows(self) -> np.ndarray:
        """See `Recipe.rows`."""
        return self._rows

    def calibration(self, count: int = 40) -> Iterator[Tensor]:
        """Training inputs for the batch statistics of the averaged weights."""
        generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
        for _ in range(count):
            size = min(self.calibrated, len(self._rows))
            yield self.inputs(rng.choice(self._rows, size, replace=False), generator)

    def ready(self) -> AbstractContextManager[None]:
        """The network with batch statistics of the present weights as long as the context lasts, see `settled`."""
        return settled(self.network, self.calibration())
