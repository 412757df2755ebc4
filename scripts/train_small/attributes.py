r"""Train the attribute classifier that prompt accuracy is measured with.

    python scripts/train_small/attributes.py --data data/world --out runs/attributes \
        --people 0:8000 --val-people 8000:8400

`torchrun --nproc-per-node 2` in place of `python` uses two cores.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from photomaker.faces.attributes import AttributeClassifier, AttributeConfig, AttributeNetwork
from photomaker.faces.crops import tensor_crops
from photomaker.faces.networks import save_network
from photomaker.training.augment import blurred, moved_squares, noised, relit
from photomaker.training.loop import Recipe, TrainSettings, train
from photomaker.training.small_networks import Rows, pictures, rows_of_people, settled, span, tensor

NOTHING = -1
"""Label of an attribute that a picture does not have."""


class AttributesRecipe(Recipe):
    """Trains on all pictures of a range of people; light blur and noise let it read generated pictures too."""

    name = "attributes"

    def __init__(
        self,
        data: Rows,
        network: AttributeNetwork,
        people: tuple[int, int],
        rate: float = 2e-3,
        validation: tuple[Rows, tuple[int, int]] | None = None,
    ) -> None:
        """Keep data, network and the range of people; `validation` names other data and people."""
        self.data, self.rate, self.validation = data, rate, validation
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._rows = rows_of_people(data, people)

    def modules(self) -> dict[str, nn.Module]:
        """See `Recipe.modules`."""
        return {"network": self.network}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `Recipe.parameter_groups`."""
        return [{"params": list(self.network.parameters()), "lr": self.rate, "weight_decay": 0.05}]

    @property
    def rows(self) -> np.ndarray:
        """See `Recipe.rows`."""
        return self._rows

    def inputs(self, rows: np.ndarray, generator: torch.Generator) -> Tensor:
        """Augmented pictures [batch, 3, size, size] of some rows. Colours are labels, so light changes little."""
        images = pictures(self.data, rows)
        frame = torch.tensor([0.0, 0.0, images.shape[-1], images.shape[-2]]).expand(len(rows), 4)
        # In half precision the sampling grid would be off by whole pixels.
        with torch.autocast("cpu", enabled=False):
            images = tensor_crops(
                images, moved_squares(frame, 1.0, 0.02, 0.03, generator), self.network.config.size
            )
        mirrored = torch.rand(len(rows), 1, 1, 1, generator=generator) < 0.5
        images = torch.where(mirrored, images.flip(-1), images)
        images = noised(relit(blurred(images, 0.3, 0.5, generator), 0.08, generator), 0.03, generator)
        return images.to(self.device, memory_format=torch.channels_last)

    def loss(
        self, rows: np.ndarray, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """See `Recipe.loss`."""
        del rng
        inputs = self.inputs(rows, generator)
        losses, figures = [], {}
        for name, logits in self.network(inputs).items():
            labels = tensor(self.data.attributes[name][rows]).long().to(self.device)
            total = functional.cross_entropy(logits.float(), labels, ignore_index=NOTHING, reduction="sum")
            losses.append(total / (labels != NOTHING).sum().clamp(min=1))
            figures[name] = float(losses[-1].detach())
        return torch.stack(losses).sum(), figures

    def calibration(self, count: int = 40, size: int = 128) -> Iterator[Tensor]:
        """Training inputs for the batch statistics of the averaged weights."""
        generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
        for _ in range(count):
            yield self.inputs(rng.choice(self._rows, min(size, len(self._rows)), replace=False), generator)

    def validate(self, rng: np.random.Generator, generator: torch.Generator) -> dict[str, float]:
        """See `Recipe.validate`."""
        del rng, generator
        if self.validation is None:
            return {}
        with settled(self.network, self.calibration()):
            return measure(AttributeClassifier(self.network), *self.validation)

    def export(self, folder: Path) -> None:
        """See `Recipe.export`."""
        with settled(self.network, self.calibration()):
            save_network(self.network, folder / "attributes.safetensors")


def measure(
    classifier: AttributeClassifier, data: Rows, people: tuple[int, int], most: int = 3000
) -> dict[str, float]:
    """Accuracy of every attribute on people never trained on, over pictures that have it, and `mean` of all."""
    rows = rows_of_people(data, people)
    rows = np.sort(np.random.default_rng(0).permutation(rows)[:most])
    predicted = classifier.predict([Image.fromarray(np.asarray(data.images[row])) for row in rows])
    figures = {}
    for name, indices in predicted.items():
        labels = np.asarray(data.attributes[name])[rows]
        known = labels != NOTHING
        figures[name] = float((indices[known] == labels[known]).mean()) if known.any() else 0.0
    return {**figures, "mean": float(np.mean(list(figures.values())))}


def main(  # noqa: PLR0913, PLR0917 - every option of a command is an argument
    data: Annotated[Path, typer.Option(help="Folder of the synthetic dataset.")],
    out: Annotated[Path, typer.Option(help="Folder of this training.")],
    people: Annotated[str, typer.Option(help="Range of people A:B to train on.")],
    val_people: Annotated[str, typer.Option(help="Range of people A:B to measure on.")],
    val_data: Annotated[Path | None, typer.Option(help="Dataset to measure on; the same by default.")] = None,
    steps: int = 8000,
    batch_size: Annotated[int, typer.Option(help="Rows a step and process.")] = 64,
    rate: float = 2e-3,
    precision: Annotated[str, typer.Option(help="auto, bf16 or fp32.")] = "auto",
    seed: int = 0,
    save_every: int = 1000,
    channels: Annotated[str, typer.Option(help="At strides 4, 8, 16, with commas.")] = "32,64,96",
    looks: Annotated[int, typer.Option(help="Places that each attribute may look at.")] = 2,
) -> None:
    """Train, write `export/attributes.safetensors` and print what it reaches on held-out people."""
    from photomaker.synthetic.dataset import WorldDataset

    torch.manual_seed(seed)
    world = WorldDataset.open(data)
    held_out = world if val_data is None else WorldDataset.open(val_data)
    words = {name: tuple(words) for name, words in world.attribute_names.items()}
    widths = tuple(int(part) for part in channels.split(","))
    network = AttributeNetwork(AttributeConfig(words, channels=widths, looks=looks))
    recipe = AttributesRecipe(world, network, span(people), rate, validation=(held_out, span(val_people)))
    settings = TrainSettings(
        steps, batch_size, seed, warmup=min(300, steps // 10), ema_decay=0.998, clip=5.0, precision=precision,  # type: ignore[arg-type]
        save_every=save_every, log_every=50,
    )  # fmt: skip
    if not train(recipe, settings, out)["finished"]:
        return  # asked to stop; the same command goes on from here
    exported = AttributeClassifier.open(out / "export" / "attributes.safetensors")
    print(json.dumps(measure(exported, held_out, span(val_people)), indent=1))


if __name__ == "__main__":
    typer.run(main)
