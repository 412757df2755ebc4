"""Recipe that teaches the ID encoder's image tower who is who, before the adapter is trained.

What it learns from: the known identity factors of the synthetic people, to be regressed; their names, by a margin loss
(CosFace, arXiv 1801.09414); and, where there is one, a trained recogniser whose feature maps and embeddings it copies.
A small vision transformer needs many more pictures than a convolutional network to find out what matters in a face;
imitating one place by place hands that on (arXiv 2012.12877 distils the class token alone).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

from photomaker.encoders.id_encoder import PhotoMakerIDEncoder, vision_config
from photomaker.errors import WeightsError
from photomaker.training.data.dataset import SIZE, People
from photomaker.training.data.photos import SMALL, PhotoSettings, photo_tensor
from photomaker.training.losses.diffusion import use_plain_attention
from photomaker.training.recipes.base import decayed_groups
from photomaker.training.running.recipe import Recipe

FILE = "id_tower.safetensors"


@dataclass(frozen=True)
class TowerSizes:
    """Sizes of the image tower.

    Attributes:
        width: Hidden width, a multiple of 32.
        layers: Transformer layers.
        patch: Side of a patch in pixels, a divisor of 128.
        mlp: Hidden width of the MLPs, as a multiple of the width.
    """

    width: int = 160
    layers: int = 5
    patch: int = 16
    mlp: int = 2


@dataclass(frozen=True)
class TowerSettings:
    """How the tower is trained.

    Attributes:
        lr: Peak learning rate.
        weight_decay: AdamW's, on matrices.
        margin: CosFace's margin.
        scale: CosFace's scale.
        factors: Weight of the factor regression.
        names: Weight of the margin loss.
        word: Weight of the class word's cross-entropy.
        imitation: Weight of the recogniser's feature maps and embeddings, where there is a recogniser.
        photos: Background and light.
    """

    lr: float = 2e-3
    weight_decay: float = 0.02
    margin: float = 0.2
    scale: float = 24.0
    factors: float = 3.0
    names: float = 0.1
    word: float = 0.3
    imitation: float = 2.0
    photos: PhotoSettings = SMALL


def tower_config(sizes: TowerSizes, text: tuple[int, int]) -> CLIPVisionConfig:
    """Configuration of an ID encoder with this tower for text encoders of the widths `text`."""
    return vision_config(
        hidden_size=sizes.width,
        intermediate_size=sizes.width * sizes.mlp,
        num_hidden_layers=sizes.layers,
        num_attention_heads=max(1, sizes.width // 32),
        patch_size=sizes.patch,
        image_size=SIZE,
        projection_dim=text[0],
        projection_dim_2=text[1],
        hidden_act="gelu",
    )


@dataclass(frozen=True)
class Lesson:
    """What a recogniser makes of some pictures.

    Attributes:
        maps: Features [batch, channels, cells, cells] of a square around the face.
        embeddings: Unit vectors [batch, width].
        squares: Those squares, x0, y0, x1, y1 in pixels [batch, 4].
    """

    maps: Tensor
    embeddings: Tensor
    squares: Tensor


Teacher = Callable[[np.ndarray], Lesson]
"""Gives the lesson of dataset rows [batch]."""


def inside_squares(tokens: Tensor, squares: Tensor, cells: int) -> Tensor:
    """Sample a tower's tokens in squares of the picture.

    Args:
        tokens: [batch, 1 + side * side, width], the class token first.
        squares: x0, y0, x1, y1 in pixels of a 128-pixel picture [batch, 4].
        cells: Samples along a side.

    Returns:
        [batch, width, cells, cells]; zeros outside of the picture.
    """
    count, length, width = tokens.shape
    side = int((length - 1) ** 0.5)
    grid = tokens[:, 1:].transpose(1, 2).reshape(count, width, side, side).float()
    centres = (torch.arange(cells, device=tokens.device) + 0.5) / cells
    low, high = squares[:, :2, None], squares[:, 2:, None]
    place = (low + (high - low) * centres) / SIZE * 2 - 1
    x = place[:, 0, None, :].expand(count, cells, cells)
    y = place[:, 1, :, None].expand(count, cells, cells)
    return functional.grid_sample(grid, torch.stack([x, y], dim=-1), align_corners=False)


def margin_loss(cosines: Tensor, names: Tensor, margin: float, scale: float) -> Tensor:
    """CosFace: cross-entropy of scale * (cos - margin at the right name).

    Args:
        cosines: [batch, people].
        names: Right column of each row [batch].
        margin: Taken off the right cosine.
        scale: Factor on all.

    Returns:
        A scalar. Source: arXiv 1801.09414, equation 4.
    """
    lowered = cosines - margin * functional.one_hot(names, cosines.shape[1])
    return functional.cross_entropy(scale * lowered, names)


def grid_positions(side: int, width: int) -> Tensor:
    """Sines and cosines of the rows and columns of a square grid: [side * side, width], deviation 1."""
    quarter = width // 4
    speed = 1.5 / 32 ** (torch.arange(quarter) / quarter)
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    waves = [wave(place.reshape(-1, 1) * speed) for place in (column, row) for wave in (torch.sin, torch.cos)]
    positions = torch.cat(waves, dim=1)
    return positions / positions.std()


@torch.no_grad()
def start_locally(tower: CLIPVisionModel, pixel_values: Tensor) -> None:
    """Let a tower start with attention that looks near by, instead of everywhere alike.

    With CLIP's own start every patch attends to all others evenly and place hardly counts, and a small vision
    transformer takes long to leave that state: with this start it needed about half of the steps.

    Args:
        tower: A CLIP vision model; its positions, queries and keys are overwritten.
        pixel_values: A few photos [photos, 3, size, size], to measure how large patches are.

    Source: the idea of arXiv 2305.09828 (mimetic initialisation), without its values and projections.
    """
    embeddings, width = tower.embeddings, tower.config.hidden_size
    side = tower.config.image_size // tower.config.patch_size
    size = float(embeddings.patch_embedding(pixel_values).std())
    embeddings.position_embedding.weight[1:] = size * grid_positions(side, width)
    # Queries equal to keys: a token's own logit is head_width * width * std**2 / sqrt(head_width); 3.5 is a peak.
    head = width // tower.config.num_attention_heads
    deviation = (3.5 / (head**0.5 * width)) ** 0.5
    for layer in tower.encoder.layers:
        layer.self_attn.q_proj.weight.normal_(std=deviation)
        layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)


class _Heads(nn.Module):
    """What the tower is asked in training only."""

    def __init__(self, width: int, factors: int, people: int, words: int, lesson: Lesson | None) -> None:
        super().__init__()
        if lesson is not None:
            self.maps = nn.Conv2d(width, lesson.maps.shape[1], 1)
            self.imitated = nn.Linear(width, lesson.embeddings.shape[1])
        self.factors = nn.Linear(width, factors)
        self.embedding = nn.Linear(width, 128, bias=False)
        self.names = nn.Parameter(torch.randn(people, 128))
        self.words = nn.Linear(width, words)

    def cosines(self, pooled: Tensor) -> Tensor:
        return (
            functional.normalize(self.embedding(pooled).float(), dim=-1)
            @ functional.normalize(self.names, dim=-1).T
        )

    def imitation(self, tokens: Tensor, pooled: Tensor, lesson: Lesson) -> Tensor:
        """Distance to a recogniser: of normalised features at each place, and of embeddings; a scalar, about 0..3."""
        seen = self.maps(inside_squares(tokens, lesson.squares, lesson.maps.shape[-1]))
        maps = functional.layer_norm(lesson.maps, lesson.maps.shape[1:])
        alike = (functional.normalize(self.imitated(pooled).float(), dim=-1) * lesson.embeddings).sum(-1)
        return (seen - maps).square().mean() + 2 * (1 - alike).mean()


class TowerRecipe(Recipe):
    """Trains the image tower on photo-style pictures.

    Args:
        data: Pictures, masks, people and their factors.
        config: From `tower_config`.
        settings: How.
        held_out: People kept for validation, the last ones.
        teacher: A recogniser to imitate; None learns without.
    """

    name = "id tower"

    def __init__(
        self,
        data: People,
        config: CLIPVisionConfig,
        settings: TowerSettings = TowerSettings(),
        held_out: int = 100,
        teacher: Teacher | None = None,
    ) -> None:
        """Make the tower and its heads and split the people."""
        self.data, self.config, self.settings, self.teacher = data, config, settings, teacher
        people = len(data.factors)
        self.people = people - min(held_out, people // 4)
        # The whole ID encoder is made, so that the tower's weights are initialised exactly as it would initialise them.
        self.tower = PhotoMakerIDEncoder(config).vision_model
        use_plain_attention(self.tower)
        words = len(data.attribute_names["person_class"])
        lesson = None if teacher is None else teacher(np.arange(1))
        self.heads = _Heads(config.hidden_size, data.factors.shape[1], self.people, words, lesson)
        photos = np.flatnonzero(data.is_photo)
        self._rows = photos[data.person[photos] < self.people]
        start_locally(
            self.tower, photo_tensor(data, self._rows[:64], settings.photos, np.random.default_rng(0))
        )
        self._held_out = photos[data.person[photos] >= self.people]

    def modules(self) -> dict[str, nn.Module]:
        """Return the tower and its heads."""
        return {"tower": self.tower, "heads": self.heads}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return matrices and vectors of both."""
        s = self.settings
        return decayed_groups(self.tower, s.lr, s.weight_decay) + decayed_groups(
            self.heads, s.lr, s.weight_decay
        )

    @property
    def rows(self) -> np.ndarray:
        """Photo-style pictures of the training people."""
        return self._rows

    def seen(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """The tower's tokens [batch, tokens, width] and pooled features [batch, width] of changed photos."""
        photos = photo_tensor(self.data, rows, self.settings.photos, rng).to(self.device)
        output = self.tower(photos)
        return output.last_hidden_state, output.pooler_output

    def loss(
        self, rows: np.ndarray, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Regress factors, tell names, tell class words."""
        settings = self.settings
        tokens, pooled = self.seen(rows, rng)
        names = torch.from_numpy(self.data.person[rows]).to(self.device)
        words = torch.from_numpy(self.data.attributes["person_class"][rows]).to(self.device)
        factors = torch.from_numpy(self.data.factors[self.data.person[rows]]).to(self.device)
        regression = (self.heads.factors(pooled).float() - factors).square().mean()
        cosines = self.heads.cosines(pooled)
        margin = margin_loss(cosines, names, settings.margin, settings.scale)
        word = functional.cross_entropy(self.heads.words(pooled).float(), words)
        loss = settings.factors * regression + settings.names * margin + settings.word * word
        right = (cosines.argmax(1) == names).float().mean()
        figures: dict[str, float] = {}
        if self.teacher is not None:
            imitation = self.heads.imitation(tokens, pooled, self.teacher(rows))
            loss = loss + settings.imitation * imitation
            figures["imitation"] = float(imitation.detach())
        return loss, figures | {"factors": float(regression.detach()), "margin": float(margin.detach()),
                      "word": float(word.detach()), "names_right": float(right)}  # fmt: skip

    def validate(self, rng: np.random.Generator, generator: torch.Generator) -> dict[str, float]:
        """Find held-out people by their other photos; measure the factor error."""
        rows = self._held_out
        if len(rows) < 2:  # noqa: PLR2004 - one to ask, one to find
            return {}
        pooled = torch.cat([self.seen(part, rng)[1] for part in np.array_split(rows, len(rows) // 32 + 1)])
        people = self.data.person[rows]
        factors = torch.from_numpy(self.data.factors[people]).to(self.device)
        error = (self.heads.factors(pooled).float() - factors).square().mean()
        features = functional.normalize(self.heads.embedding(pooled).float(), dim=-1)
        likeness = features @ features.T
        likeness.fill_diagonal_(-2)
        found = people[likeness.argmax(1).cpu().numpy()] == people
        return {"nearest_right": float(found.mean()), "factors": float(error)}

    def export(self, folder: Path) -> None:
        """Write the tower's weights with the configuration."""
        sizes = json.dumps(
            {**self.config.to_dict(), "projection_dim_2": self.config.projection_dim_2}, default=str
        )
        tensors = {
            name: tensor.detach().cpu().contiguous() for name, tensor in self.tower.state_dict().items()
        }
        save_file(tensors, folder / FILE, metadata={"config": sizes})


def load_tower(path: Path, encoder: CLIPVisionModelWithProjection) -> None:
    """Put a trained tower into an ID encoder.

    Args:
        path: The export folder or its file.
        encoder: An ID encoder of the same sizes; its image tower is overwritten.

    Raises:
        WeightsError: The file is missing or of other sizes.
    """
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise WeightsError(f"there is no trained tower at {path}; run scripts/train_small/id_tower.py first")
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    try:
        encoder.vision_model.load_state_dict(state)
    except RuntimeError as error:
        message = f"the tower in {path} has other sizes than the ID encoder; train both with the same sizes"
        raise WeightsError(message) from error


def tower_sizes(path: Path) -> TowerSizes:
    """Sizes of an exported tower.

    Raises:
        WeightsError: There is none.
    """
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise WeightsError(f"there is no trained tower at {path}; run scripts/train_small/id_tower.py first")
    with safe_open(path, framework="pt") as file:
        values = json.loads(file.metadata()["config"])
    width = values["hidden_size"]
    return TowerSizes(
        width, values["num_hidden_layers"], values["patch_size"], values["intermediate_size"] // width
    )
