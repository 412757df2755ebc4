r"""Train the attribute classifier that prompt accuracy is measured with.

    python scripts/train_small/attributes.py --data data/world --out runs/attributes \
        --people 0:8000 --val-people 8000:8400

`torchrun --nproc-per-node 2` in place of `python` uses two cores.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))

from photomaker.faces.attributes import AttributeClassifier, AttributeConfig, AttributeNetwork
from photomaker.faces.crops import tensor_crops
from photomaker.faces.networks import save_network
from photomaker.synthetic.dataset import WorldDataset
from photomaker.training.data.augment import blurred, moved_squares, noised, relit
from photomaker.training.recipes.small_networks import (
    NetworkRecipe,
    Rows,
    pictures,
    rows_of_people,
    span,
    tensor,
)
from train_small.common import held_out, network_parser, run_stage

NOTHING = -1
"""Label of an attribute that a picture does not have."""


class AttributesRecipe(NetworkRecipe):
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
        super().__init__(data, network, people, rate, 0.05, validation)

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

    def validate(self, rng: np.random.Generator, generator: torch.Generator) -> dict[str, float]:
        """See `Recipe.validate`."""
        del rng, generator
        if self.validation is None:
            return {}
        with self.ready():
            return measure(AttributeClassifier(self.network), *self.validation)

    def export(self, folder: Path) -> None:
        """See `Recipe.export`."""
        with self.ready():
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


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = network_parser("Train the attribute classifier.", steps=8000)
    options.add_argument("--channels", default="32,64,96", help="at strides 4, 8, 16, with commas")
    options.add_argument("--looks", type=int, default=2, help="places that each attribute may look at")
    return options


def build(args: argparse.Namespace, data: WorldDataset) -> AttributesRecipe:
    """The recipe, its network new."""
    words = {name: tuple(words) for name, words in data.attribute_names.items()}
    widths = tuple(int(part) for part in args.channels.split(","))
    network = AttributeNetwork(AttributeConfig(words, channels=widths, looks=args.looks))
    return AttributesRecipe(
        data, network, span(args.people), args.rate, validation=(held_out(args, data), span(args.val_people))
    )


def reached(args: argparse.Namespace, data: WorldDataset) -> dict[str, float]:
    """What `export/attributes.safetensors` reaches on held-out people."""
    exported = AttributeClassifier.open(args.out / "export" / "attributes.safetensors")
    return measure(exported, held_out(args, data), span(args.val_people))


if __name__ == "__main__":
    sys.exit(run_stage(parser(), build, measure=reached))
