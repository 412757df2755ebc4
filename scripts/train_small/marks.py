r"""Train the classifier that says whether moles, freckles and beards are kept; it sees faces of photos.

    python scripts/train_small/marks.py --data data/world --out runs/marks --people 0:7000 --val-people 7000:7200

`torchrun --nproc-per-node 2` in place of `python` uses two cores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from photomaker.faces.attributes import AttributeClassifier, AttributeConfig, AttributeNetwork
from photomaker.faces.crops import face_crop, tensor_crops
from photomaker.synthetic.dataset import ATTRIBUTES, WorldDataset
from photomaker.synthetic.distributions import with_class
from photomaker.synthetic.marks import MARKS, marks_of
from photomaker.training.data.augment import blurred, moved_squares, noised, relit
from photomaker.training.recipes.small_networks import pictures, rows_of_people, span
from photomaker.types import Face
from train_small.attributes import AttributesRecipe
from train_small.common import held_out, network_parser, run_stage

SIZE = 96


class Marked:
    """The pictures of a dataset with the marks of who is shown as their attributes."""

    attribute_names = MARKS

    def __init__(self, data: WorldDataset) -> None:
        """Look up the marks of every picture."""
        self.images, self.person, self.boxes, self.is_photo = (
            data.images,
            data.person,
            data.boxes,
            data.is_photo,
        )
        self.attributes = {name: np.zeros(len(data), np.int64) for name in MARKS}
        classes = ATTRIBUTES["person_class"]
        for row, person_class in enumerate(data.attributes["person_class"]):
            shown = with_class(data.people[int(data.person[row])], classes[int(person_class)])
            for name, word in marks_of(shown).items():
                self.attributes[name][row] = MARKS[name].index(word)


class MarksRecipe(AttributesRecipe):
    """Trains on the faces of photos. Nothing is mirrored: left and right are labels."""

    name = "marks"

    def __init__(
        self,
        data: Marked,
        network: AttributeNetwork,
        people: tuple[int, int],
        rate: float,
        val_people: tuple[int, int],
    ) -> None:
        """Keep the photos of a range of people."""
        super().__init__(data, network, people, rate, validation=(data, val_people))  # type: ignore[arg-type]
        self._rows = self._rows[data.is_photo[self._rows]]

    def inputs(self, rows: np.ndarray, generator: torch.Generator) -> Tensor:
        """Augmented faces [batch, 3, size, size] of some rows; hardly blurred, for what they show is small."""
        boxes = torch.from_numpy(np.asarray(self.data.boxes[rows], np.float32))
        with torch.autocast("cpu", enabled=False):
            squares = moved_squares(boxes, 1.5, 0.05, 0.08, generator)
            faces = tensor_crops(pictures(self.data, rows), squares, self.network.config.size)
        faces = noised(relit(blurred(faces, 0.2, 0.3, generator), 0.1, generator), 0.02, generator)
        return faces.to(self.device, memory_format=torch.channels_last)

    def validate(self, rng: np.random.Generator, generator: torch.Generator) -> dict[str, float]:
        """Nothing in between; the end is measured."""
        del rng, generator
        return {}


def measure(classifier: AttributeClassifier, data: Marked, people: tuple[int, int]) -> dict[str, float]:
    """Accuracy of each kind on photos of people never trained on, and the share of marks that are seen."""
    rows = rows_of_people(data, people)  # type: ignore[arg-type]
    rows = rows[data.is_photo[rows]]
    predicted = classifier.predict(faces(data, rows, classifier.size))
    figures = {}
    for name, found in predicted.items():
        labels = data.attributes[name][rows]
        figures[name] = float((found == labels).mean())
        figures[f"{name} seen"] = float((found == labels)[labels > 0].mean())
        figures[f"{name} made up"] = float((found > 0)[labels == 0].mean())
    return figures


def faces(data: Marked, rows: Sequence[int] | np.ndarray, size: int) -> list[Image.Image]:
    """The faces of some rows, cut as the judge cuts them."""
    none = np.zeros((5, 2), np.float32)
    return [
        face_crop(
            Image.fromarray(np.asarray(data.images[row])), Face(tuple(data.boxes[row]), 1.0, none), size
        )
        for row in rows
    ]


def parser() -> argparse.ArgumentParser:
    """The options."""
    return network_parser("Train the classifier of moles, freckles and beards.", steps=4000, warmup=200)


def build(args: argparse.Namespace, data: WorldDataset) -> MarksRecipe:
    """The recipe, its network new."""
    network = AttributeNetwork(AttributeConfig(words=MARKS, size=SIZE, looks=3))
    return MarksRecipe(Marked(data), network, span(args.people), args.rate, span(args.val_people))


def reached(args: argparse.Namespace, data: WorldDataset) -> dict[str, float]:
    """What `export/attributes.safetensors` reaches on held-out people."""
    exported = AttributeClassifier.open(args.out / "export" / "attributes.safetensors")
    return measure(exported, Marked(held_out(args, data)), span(args.val_people))


if __name__ == "__main__":
    sys.exit(run_stage(parser(), build, measure=reached))
