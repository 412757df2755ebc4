r"""Train a recogniser of the synthetic people: CosFace margin and regression of the identity factors.

The recogniser shown to users, the one for evaluation and the one for the last table alone are of different
architectures and see disjoint people:

    python scripts/train_small/recogniser.py --data data/world --out runs/recogniser_a \
        --architecture conv --people 0:4000 --val-people 8000:8400
    python scripts/train_small/recogniser.py --data data/world --out runs/recogniser_b \
        --architecture mixer --people 4000:8000 --val-people 8000:8400
    python scripts/train_small/recogniser.py --data data/last --val-data data/world --out runs/recogniser_c \
        --architecture next --people 0:2400 --val-people 8000:8400

`torchrun --nproc-per-node 2` in place of `python` uses two cores.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))

from photomaker.errors import SettingsError
from photomaker.faces.bundled import BundledRecogniser
from photomaker.faces.crops import SIDE, tensor_crops
from photomaker.faces.networks import (
    ConvRecogniser,
    FaceEmbedder,
    MixerRecogniser,
    NextRecogniser,
    save_network,
)
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
from photomaker.types import Face
from train_small.common import held_out, network_parser, run_stage

ARCHITECTURES: dict[str, type[ConvRecogniser] | type[MixerRecogniser] | type[NextRecogniser]] = {
    "conv": ConvRecogniser,
    "mixer": MixerRecogniser,
    "next": NextRecogniser,
}
FACTOR_WEIGHT = 30.0
"""Weight of the regression; it makes the margin loss start moving about ten times sooner.

In rehearsals of 300 steps, 30 with a margin rising over 3/4 of the steps found 41 of 100 people, and 8 with a margin
rising over 1/4 found 20; the two changes were not tried apart.
"""
OTHER_STYLE_WEIGHT = 0.3
"""Weight of the margin loss on drawings, which keep less of the person than photos do."""


class IdentityHead(nn.Module):
    """CosFace (Wang et al., arXiv 1801.09414, equation 4) beside a linear regression of the identity factors."""

    scale = 32.0

    def __init__(self, width: int, people: int, factors: int) -> None:
        """Build for a number of people and of factors."""
        super().__init__()
        self.people = nn.Parameter(torch.randn(people, width) * 0.05)
        self.factors = nn.Linear(width, factors)
        # Kept with the weights, so that a resumed training goes on with the margin it had.
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def margin(self, most: float, ramp: int) -> float:
        """The margin of this step: it rises to `most` over `ramp` steps."""
        self.steps: Tensor
        self.steps += 1
        return most * min(1.0, float(self.steps) / max(1, ramp))

    def logits(self, features: Tensor, labels: Tensor, margin: float) -> Tensor:
        """Map [batch, width] features to [batch, people] scaled cosines, the right one less the margin."""
        cosines = functional.linear(functional.normalize(features), functional.normalize(self.people)).float()
        return self.scale * (cosines - margin * functional.one_hot(labels, len(self.people)))


@dataclass(frozen=True)
class Options:
    """Numbers of a recogniser's training.

    Attributes:
        rate: Peak learning rate.
        weight_decay: Weight decay of the network.
        margin: CosFace margin in 0..1.
        ramp: Steps over which the margin rises from 0.
        other_styles: Share of the pictures that are no photos to train on.
        validation: Data and range of people to measure on; None measures nothing.
    """

    rate: float = 2e-3
    weight_decay: float = 0.05
    margin: float = 0.3
    ramp: int = 1000
    other_styles: float = 0.15
    validation: tuple[Rows, tuple[int, int]] | None = None


class RecogniserRecipe(NetworkRecipe):
    """Trains on the photos of a range of people, and on some of their drawings."""

    def __init__(self, data: Rows, network: FaceEmbedder, people: tuple[int, int], options: Options) -> None:
        """Keep data, network, the range of people and the numbers."""
        super().__init__(data, network, people, options.rate, options.weight_decay, options.validation)
        self.name, self.people, self.options = network.architecture, people, options
        self.head = IdentityHead(network.config.width, people[1] - people[0], data.factors.shape[1])
        self._rows = _chosen_rows(data, people, self.options.other_styles)

    def modules(self) -> dict[str, nn.Module]:
        """See `Recipe.modules`."""
        return {**super().modules(), "head": self.head}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `Recipe.parameter_groups`."""
        head = {"params": list(self.head.parameters()), "lr": self.rate, "weight_decay": 0.0}
        return [*super().parameter_groups(), head]

    def inputs(self, rows: np.ndarray, generator: torch.Generator) -> Tensor:
        """Augmented crops [batch, 3, size, size] of some rows."""
        squares = moved_squares(tensor(self.data.boxes[rows]).float(), SIDE, 0.04, 0.06, generator)
        # In half precision the sampling grid would be off by whole pixels.
        with torch.autocast("cpu", enabled=False):
            crops = tensor_crops(pictures(self.data, rows), squares, self.network.config.size)
        crops = noised(relit(crops, 0.3, generator), 0.03, generator)
        return blurred(crops, 0.3, 0.45, generator).to(self.device, memory_format=torch.channels_last)

    def loss(
        self, rows: np.ndarray, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """See `Recipe.loss`."""
        del rng
        person = np.asarray(self.data.person[rows])
        labels = tensor(person - self.people[0]).to(self.device)
        weights = tensor(np.where(self.data.is_photo[rows], 1.0, OTHER_STYLE_WEIGHT)).float().to(self.device)
        crops = self.inputs(rows, generator)
        features = self.network.features(crops).float()
        margin_loss, right = self._margin_loss(features, labels, weights)
        factors = tensor(self.data.factors[person]).to(self.device)
        error = (self.head.factors(features).float() - factors).square().mean(1)
        factor_loss = (error * weights).sum() / weights.sum()
        figures = {
            "margin": float(margin_loss.detach()),
            "factors": float(factor_loss.detach()),
            "right": right,
        }
        return margin_loss + FACTOR_WEIGHT * factor_loss, figures

    def _margin_loss(self, features: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, float]:
        margin = self.head.margin(self.options.margin, self.options.ramp)
        logits = self.head.logits(features, labels, margin)
        losses = functional.cross_entropy(logits, labels, reduction="none")
        right = (logits.detach().argmax(1) == labels).float().mean()
        return (losses * weights).sum() / weights.sum(), float(right)

    def validate(self, rng: np.random.Generator, generator: torch.Generator) -> dict[str, float]:
        """See `Recipe.validate`."""
        del rng, generator
        if self.validation is None:
            return {}
        with self.ready():
            return measure(BundledRecogniser(self.network), *self.validation)

    def export(self, folder: Path) -> None:
        """See `Recipe.export`."""
        with self.ready():
            save_network(self.network, folder / "recogniser.safetensors")


def _chosen_rows(data: Rows, people: tuple[int, int], other_styles: float) -> np.ndarray:
    """All photos of the people, and a share of their other pictures."""
    rows = rows_of_people(data, people)
    photo = np.asarray(data.is_photo)[rows].astype(bool)
    others = np.random.default_rng(0).permutation(rows[~photo])
    return np.sort(np.concatenate([rows[photo], others[: int(other_styles * len(others))]]))


def embeddings(recogniser: BundledRecogniser, data: Rows, rows: np.ndarray) -> np.ndarray:
    """Embeddings [rows, width] of whole pictures by the way users' photos go, with the true face boxes."""
    faces = [_face(data, row) for row in rows]
    return recogniser.embed_batch([Image.fromarray(np.asarray(data.images[row])) for row in rows], faces)


def _face(data: Rows, row: int) -> Face:
    x0, y0, x1, y1 = (float(value) for value in data.boxes[row])
    return Face((x0, y0, x1, y1), 1.0, np.asarray(data.landmarks[row]))


def measure(
    recogniser: BundledRecogniser, data: Rows, people: tuple[int, int], most: int = 200
) -> dict[str, float]:
    """Measure on people never trained on, up to `most` of them and four photos each.

    Returns:
        auc: Chance that a pair of one person has a higher cosine than a pair of two.
        same, different: Mean cosines of such pairs.
        top1, top1_of_three: How often a photo finds its person among all of them, by one photo or the mean of three.
        people: How many people it was measured on.
    """
    groups = _groups(data, people, most)
    points = embeddings(recogniser, data, np.concatenate(groups)).reshape(len(groups), 4, -1)
    cosines = np.einsum("ikd,jld->ijkl", points, points)
    own = np.eye(len(groups), dtype=bool)
    same = cosines[own][:, ~np.eye(4, dtype=bool)].ravel()
    different = cosines[~own].ravel()
    mean = points[:, 1:].mean(1)
    mean /= np.linalg.norm(mean, axis=-1, keepdims=True)
    order = np.arange(len(groups))
    return {
        "auc": _auc(same, different),
        "same": float(same.mean()),
        "different": float(different.mean()) if different.size else 0.0,
        "top1": float((cosines[:, :, 0, 1].argmax(1) == order).mean()),
        "top1_of_three": float(((points[:, 0] @ mean.T).argmax(1) == order).mean()),
        "people": float(len(groups)),
    }


def _groups(data: Rows, people: tuple[int, int], most: int) -> list[np.ndarray]:
    """Four photo rows of each person who has so many."""
    rows = rows_of_people(data, people)
    rows = rows[np.asarray(data.is_photo)[rows].astype(bool)]
    owners = np.asarray(data.person)[rows]
    groups = [rows[owners == owner][:4] for owner in np.unique(owners)]
    groups = [group for group in groups if len(group) == 4][:most]
    if not groups:
        raise SettingsError(f"no one of the people {people[0]}:{people[1]} has four photos; give others")
    return groups


def _auc(high: np.ndarray, low: np.ndarray) -> float:
    """Area under the ROC curve: the mean rank of the `high` values among the `low` ones."""
    below = np.searchsorted(np.sort(low), high, side="left") + np.searchsorted(
        np.sort(low), high, side="right"
    )
    return float(below.mean() / 2 / max(1, len(low)))


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = network_parser("Train a recogniser of the synthetic people.", steps=6000)
    options.add_argument(
        "--architecture",
        default="conv",
        choices=ARCHITECTURES,
        help="conv (likeness scores), mixer (evaluation only), or next (the last table alone)",
    )
    options.add_argument("--margin", type=float, default=Options.margin, help="of CosFace")
    options.add_argument(
        "--other-styles",
        type=float,
        default=Options.other_styles,
        help="share of the pictures that are no photos to train on",
    )
    return options


def build(args: argparse.Namespace, data: WorldDataset) -> RecogniserRecipe:
    """The recipe, its network new."""
    validation = (held_out(args, data), span(args.val_people))
    options = Options(
        rate=args.rate, margin=args.margin, ramp=args.steps * 3 // 4, other_styles=args.other_styles,
        validation=validation,
    )  # fmt: skip
    return RecogniserRecipe(data, ARCHITECTURES[args.architecture](), span(args.people), options)


def reached(args: argparse.Namespace, data: WorldDataset) -> dict[str, float]:
    """What `export/recogniser.safetensors` reaches on held-out people."""
    exported = BundledRecogniser.open(args.out / "export" / "recogniser.safetensors")
    return measure(exported, held_out(args, data), span(args.val_people))


if __name__ == "__main__":
    sys.exit(run_stage(parser(), build, measure=reached))
