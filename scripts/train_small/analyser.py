r"""Train the face analyser (boxes, landmarks, person mask) on collages made on the fly from synthetic people.

    python scripts/train_small/analyser.py --data data/world --out runs/analyser \
        --people 0:8000 --val-people 8000:8400

A collage has no, one or two people on a background: another picture whose person was painted over, a flat colour,
or noise, with random shapes in front of it. Some are whole untouched pictures.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))

from photomaker.faces.base import overlaps
from photomaker.faces.bundled import BundledFaces
from photomaker.faces.networks import Analysis, FaceAnalyser, save_network
from photomaker.synthetic.dataset import WorldDataset
from photomaker.training.data.augment import blurred, noised, relit, uniform
from photomaker.training.recipes.small_networks import (
    NetworkRecipe,
    Rows,
    pictures,
    rows_of_people,
    span,
    tensor,
)
from train_small.common import held_out, network_parser, run_stage

LAYERS = 2
"""Most people in a collage."""
SMALLEST, LARGEST = 0.14, 0.95
"""Width of a face over the width of the collage."""
HIDDEN = 0.35
"""A face covered by more than this share by another person is neither asked for nor punished."""


@dataclass(frozen=True)
class Collage:
    """Pictures with all that is known about them.

    Attributes:
        images: [batch, 3, size, size] in 0..1.
        masks: [batch, 1, size, size] 0..1: a person is here.
        boxes: [batch, layers, 4] pixels.
        landmarks: [batch, layers, 5, 2] pixels.
        present: [batch, layers] bool: there is such a face.
        hidden: [batch, layers] bool: it is mostly covered or outside.
    """

    images: Tensor
    masks: Tensor
    boxes: Tensor
    landmarks: Tensor
    present: Tensor
    hidden: Tensor


@dataclass(frozen=True)
class _Layout:
    """Where people go: face widths [batch, layers] and face centres [batch, layers, 2], over the collage's."""

    widths: Tensor
    centres: Tensor
    present: Tensor
    untouched: Tensor
    framed: Tensor


@dataclass(frozen=True)
class _Person:
    """One layer of some collages: picture, alpha and person mask, box and landmarks in pixels of the collage."""

    image: Tensor
    alpha: Tensor
    mask: Tensor
    boxes: Tensor
    landmarks: Tensor


class Composer:
    """Makes collages from rows of a dataset."""

    def __init__(self, data: Rows, rows: np.ndarray, size: int) -> None:
        """Keep the data, the rows for backgrounds and second people, and the collages' side in pixels."""
        self.data, self.rows, self.size = data, rows, size

    def __call__(self, rows: np.ndarray, generator: torch.Generator) -> Collage:
        """Make one collage for each of some rows."""
        with torch.autocast("cpu", enabled=False), torch.no_grad():
            return self._compose(rows, generator)

    def _others(self, count: int, generator: torch.Generator) -> np.ndarray:
        return self.rows[torch.randint(len(self.rows), (count,), generator=generator).numpy()]

    def _compose(self, rows: np.ndarray, generator: torch.Generator) -> Collage:
        layout = _layout(len(rows), generator)
        canvas = self._background(len(rows), generator)
        masks = torch.zeros(len(rows), 1, self.size, self.size)
        boxes, landmarks = torch.zeros(len(rows), LAYERS, 4), torch.zeros(len(rows), LAYERS, 5, 2)
        covered = torch.zeros(len(rows), LAYERS)
        for layer in range(LAYERS):
            here = layout.present[:, layer].nonzero()[:, 0]
            chosen = rows[here.numpy()] if layer == 0 else self._others(len(here), generator)
            person = self._person(chosen, layout, layer, here)
            canvas[here] = canvas[here] * (1 - person.alpha) + person.image * person.alpha
            masks[here] = masks[here] * (1 - person.alpha) + person.mask * person.alpha
            for below in range(layer):
                covered[here, below] += _share(person.alpha, boxes[here, below])
            boxes[here, layer], landmarks[here, layer] = person.boxes, person.landmarks
            covered[here, layer] = _share_outside(person.boxes, self.size)
        images = relit(_greyed(canvas, generator), 0.3, generator)
        images = blurred(noised(images, 0.05, generator), 0.25, 0.45, generator)
        return Collage(images, masks, boxes, landmarks, layout.present, covered > HIDDEN)

    def _person(self, rows: np.ndarray, layout: _Layout, layer: int, here: Tensor) -> _Person:
        """One layer: the people of some rows, brought to their places in the collages `here`."""
        images, person = pictures(self.data, rows), _masks(self.data, rows)
        boxes, points = tensor(self.data.boxes[rows]).float(), tensor(self.data.landmarks[rows]).float()
        scale = layout.widths[here, layer] * self.size / (boxes[:, 2] - boxes[:, 0]).clamp(min=1)
        shift = layout.centres[here, layer] * self.size - (boxes[:, :2] + boxes[:, 2:]) / 2 * scale[:, None]
        keeps = layout.framed[here]
        if layer == 0:
            untouched, whole = layout.untouched[here], self.size / images.shape[-1]
            scale = torch.where(untouched, torch.full_like(scale, whole), scale)
            shift = torch.where(untouched[:, None], torch.zeros_like(shift), shift)
            keeps = keeps | untouched
        # A framed person keeps the background of the own picture, as in a photo on a wall.
        layers = _warped(torch.cat([images, person, torch.ones_like(person)], 1), scale, shift, self.size)
        keeps = keeps[:, None, None, None]
        alpha = torch.where(keeps, layers[:, 4:5], layers[:, 3:4])
        # Inside an alpha of 1 the person covers all of it; in a frame, only where its mask says so.
        mask = torch.where(keeps, layers[:, 3:4], torch.ones_like(alpha))
        boxes = (boxes.view(-1, 2, 2) * scale[:, None, None] + shift[:, None]).view(-1, 4)
        points = points * scale[:, None, None] + shift[:, None]
        return _Person(layers[:, :3] / layers[:, 4:5].clamp(min=1e-3), alpha, mask, boxes, points)

    def _background(self, count: int, generator: torch.Generator) -> Tensor:
        canvas = self._fill(count, generator)
        scene = (torch.rand(count, generator=generator) < 0.65).nonzero()[:, 0]
        rows = self._others(len(scene), generator)
        grown = _enlarged(functional.max_pool2d(_masks(self.data, rows), 7, 1, 3), self.size)
        canvas[scene] = _enlarged(pictures(self.data, rows), self.size) * (1 - grown) + canvas[scene] * grown
        return _with_shapes(canvas, generator)

    def _fill(self, count: int, generator: torch.Generator) -> Tensor:
        """Flat colours, soft clouds of colour and coarse noise."""
        cells = torch.tensor([1, 6, 64])[torch.randint(3, (count,), generator=generator)]
        canvas = torch.empty(count, 3, self.size, self.size)
        for size in (1, 6, 64):
            here = (cells == size).nonzero()[:, 0]
            canvas[here] = _enlarged(torch.rand(len(here), 3, size, size, generator=generator), self.size)
        return canvas


def _layout(count: int, generator: torch.Generator) -> _Layout:
    """Decide how many people, how large and where."""
    kind = torch.rand(count, generator=generator)
    untouched, nobody, two = kind < 0.25, (kind >= 0.25) & (kind < 0.42), kind >= 0.72
    ratio = uniform((count, LAYERS), 0, 1, generator)
    largest = torch.where(two, 0.38, LARGEST)[:, None]
    widths = SMALLEST * (largest / SMALLEST) ** ratio
    centres = 0.5 + (uniform((count, LAYERS, 2), -0.5, 0.5, generator) * (1 - 0.8 * widths[..., None]))
    apart = _side_by_side(widths, generator)
    centres[..., 0] = torch.where(two[:, None], apart, centres[..., 0])
    # A face mostly shows with some of the body below, so two people stand at about the same height.
    level = centres[:, :1, 1] + uniform((count, LAYERS), -0.12, 0.12, generator)
    centres[..., 1] = torch.where(two[:, None], level, centres[..., 1])
    present = torch.stack([~nobody, two], 1)
    framed = torch.rand(count, generator=generator) < 0.15
    return _Layout(widths, centres, present, untouched, framed)


def _side_by_side(widths: Tensor, generator: torch.Generator) -> Tensor:
    """Horizontal face centres of two people, in random order, with their faces apart."""
    gap = widths.sum(1) * uniform((len(widths),), 0.75, 1.3, generator)
    middle = 0.5 + uniform((len(widths),), -0.5, 0.5, generator) * (1 - gap - widths.mean(1)).clamp(min=0)
    side = torch.where(torch.rand(len(widths), generator=generator) < 0.5, -0.5, 0.5)
    return torch.stack([middle + side * gap, middle - side * gap], 1)


def _warped(layers: Tensor, scale: Tensor, shift: Tensor, size: int) -> Tensor:
    """Scale and move [batch, channels, n, n] layers into a frame of `size` pixels; 0 outside."""
    source = layers.shape[-1]
    # Sampling alone would leave jagged edges on small people that resized photos do not have.
    small = scale < 0.6
    layers[small] = _enlarged(functional.avg_pool2d(layers[small], 2), source)
    theta = torch.zeros(len(layers), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = size / (scale * source)
    theta[:, :, 2] = (size - 2 * shift) / (scale[:, None] * source) - 1
    grid = functional.affine_grid(theta, [len(layers), layers.shape[1], size, size], align_corners=False)
    return functional.grid_sample(layers, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _with_shapes(canvas: Tensor, generator: torch.Generator) -> Tensor:
    """Draw up to three ellipses or rectangles, also in the colours of skin, that are no faces."""
    size = canvas.shape[-1]
    line = (torch.arange(size) + 0.5) / size
    for _ in range(3):
        centre, half = (
            uniform((len(canvas), 2, 1), 0, 1, generator),
            uniform((len(canvas), 2, 1), 0.03, 0.3, generator),
        )
        across, down = ((line - centre) / half).abs().unbind(1)
        rectangle = torch.rand(len(canvas), 1, 1, generator=generator) < 0.5
        oval = across.square()[:, None, :] + down.square()[:, :, None] < 1
        inside = torch.where(rectangle, (across < 1)[:, None, :] & (down < 1)[:, :, None], oval)[:, None]
        inside &= torch.rand(len(canvas), 1, 1, 1, generator=generator) < 0.35
        tone = uniform((len(canvas), 1, 1, 1), 0.3, 0.95, generator)
        skin = tone * torch.tensor([1.0, 0.8, 0.68]).view(1, 3, 1, 1)
        any_colour = torch.rand(len(canvas), 3, 1, 1, generator=generator)
        colour = torch.where(torch.rand(len(canvas), 1, 1, 1, generator=generator) < 0.5, skin, any_colour)
        canvas = torch.where(inside, colour, canvas)
    return canvas


def _greyed(images: Tensor, generator: torch.Generator) -> Tensor:
    """One picture in ten without colour."""
    grey = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.1
    return torch.where(grey, images.mean(1, keepdim=True).expand_as(images), images)


def _masks(data: Rows, rows: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(data.masks[rows])).unsqueeze(1).float().div_(255)


def _enlarged(images: Tensor, size: int) -> Tensor:
    return functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)


def _share(alpha: Tensor, boxes: Tensor) -> Tensor:
    """Mean of [batch, 1, size, size] alpha inside one box of each picture: [batch]."""
    inside = _inside(boxes, alpha.shape[-1])
    return (alpha[:, 0] * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)


def _share_outside(boxes: Tensor, size: int) -> Tensor:
    """Share of each box [batch, 4] that lies outside the frame: [batch]."""
    held = boxes.clamp(0, size)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1).clamp(min=1e-6)
    return 1 - (held[:, 2:] - held[:, :2]).prod(1) / area


def _inside(boxes: Tensor, size: int) -> Tensor:
    line = torch.arange(size) + 0.5
    x = (line >= boxes[:, :1]) & (line <= boxes[:, 2:3])
    y = (line >= boxes[:, 1:2]) & (line <= boxes[:, 3:4])
    return (y[:, :, None] & x[:, None, :]).float()


@dataclass(frozen=True)
class Targets:
    """What the maps of the analyser should be.

    Attributes:
        heat: [batch, cells, cells] 0..1, 1 in the cells with a face centre.
        weight: [batch, cells, cells] 0 near hidden faces, 1 elsewhere.
        near: [batch, cells, cells] weight of box and landmarks of this cell, 0 away from faces.
        reach: [batch, 4, cells, cells] logarithm of the distances to the edges of the cell's face, in cells.
        points: [batch, 10, cells, cells] offsets of its landmarks, in cells.
        width: [batch, cells, cells] its width in cells.
    """

    heat: Tensor
    weight: Tensor
    near: Tensor
    reach: Tensor
    points: Tensor
    width: Tensor


def targets(collage: Collage) -> Targets:
    """Targets of a batch of collages; each cell belongs to the face it is nearest to in widths of that face."""
    stride = FaceAnalyser.stride
    cells = collage.images.shape[-1] // stride
    boxes, points = collage.boxes / stride, collage.landmarks / stride
    line = torch.arange(cells) + 0.5
    middle = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
    centres, widths = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2] - boxes[..., 0]
    # The peak stands on a cell, or no cell would ever be a full hit.
    offsets = middle - (centres.floor() + 0.5)[:, :, None, None]
    spread = (widths * 0.12).clamp(min=0.55)[..., None, None]
    peaks = torch.exp(-offsets.square().sum(-1) / (2 * spread**2)) * collage.present[..., None, None]
    owner = peaks.argmax(1)
    batch = torch.arange(len(boxes))[:, None, None]
    own_box, own_points = boxes[batch, owner], points[batch, owner]
    visible = peaks * ~collage.hidden[..., None, None]
    heat, ghost = visible.amax(1), (peaks * collage.hidden[..., None, None]).amax(1)
    belongs = (collage.present & ~collage.hidden)[batch, owner]
    reach = torch.cat([middle - own_box[..., :2], own_box[..., 2:] - middle], -1).clamp(min=0.1).log()
    return Targets(
        heat=heat,
        weight=(ghost < 0.1).float(),
        near=torch.where(belongs & (heat > 0.45), heat, torch.zeros_like(heat)),
        reach=reach.permute(0, 3, 1, 2),
        points=(own_points - middle[..., None, :]).flatten(3).permute(0, 3, 1, 2),
        width=widths[batch, owner].clamp(min=1),
    )


def analyser_loss(analysis: Analysis, wanted: Targets, masks: Tensor) -> dict[str, Tensor]:
    """Losses of CenterNet (arXiv 1904.07850, equations 1 to 4, distances in logarithms) and of the person mask."""
    total = wanted.near.sum().clamp(min=1)
    boxes = functional.smooth_l1_loss(analysis.boxes.float(), wanted.reach, beta=0.1, reduction="none").mean(
        1
    )
    error = (analysis.landmarks.float() - wanted.points) / wanted.width[:, None]
    points = functional.smooth_l1_loss(error, torch.zeros_like(error), beta=0.05, reduction="none").mean(1)
    logits = analysis.mask.float()
    mask = functional.interpolate(masks, size=logits.shape[-2:], mode="area")
    return {
        "heat": _focal(analysis.heat[:, 0].float(), wanted),
        "boxes": 2 * (boxes * wanted.near).sum() / total,
        "landmarks": 10 * (points * wanted.near).sum() / total,
        "mask": functional.binary_cross_entropy_with_logits(logits, mask) * 2 + _dice(logits, mask) * 0.5,
    }


def _focal(logits: Tensor, wanted: Targets) -> Tensor:
    """Penalty-reduced focal loss, alpha 2 and beta 4, per face."""
    hit = (wanted.heat >= 1 - 1e-4).float()
    chance = logits.sigmoid()
    positive = -functional.logsigmoid(logits) * (1 - chance) ** 2 * hit
    negative = -functional.logsigmoid(-logits) * chance**2 * (1 - wanted.heat) ** 4 * (1 - hit)
    return ((positive + negative) * wanted.weight).sum() / hit.sum().clamp(min=1)


def _dice(logits: Tensor, mask: Tensor) -> Tensor:
    chance = logits.sigmoid()
    shared, both = (chance * mask).sum((1, 2, 3)), (chance + mask).sum((1, 2, 3))
    return (1 - (2 * shared + 1) / (both + 1)).mean()


class AnalyserRecipe(NetworkRecipe):
    """Trains on collages of a range of people."""

    name = "analyser"
    calibrated = 64

    def __init__(
        self,
        data: Rows,
        network: FaceAnalyser,
        people: tuple[int, int],
        rate: float = 2e-3,
        validation: tuple[Rows, tuple[int, int]] | None = None,
    ) -> None:
        """Keep data, network and the range of people; `validation` names other data and people."""
        super().__init__(data, network, people, rate, 0.02, validation)
        self.compose = Composer(data, self._rows, network.config.size)

    def inputs(self, rows: np.ndarray, generator: torch.Generator) -> Tensor:
        """Collages, a picture of each."""
        return self.compose(rows, generator).images.to(self.device)

    def loss(
        self, rows: np.ndarray, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """See `Recipe.loss`."""
        del rng
        collage = self.compose(rows, generator)
        wanted = Targets(**{name: maps.to(self.device) for name, maps in vars(targets(collage)).items()})
        analysis = self.network(collage.images.to(self.device, memory_format=torch.channels_last))
        losses = analyser_loss(analysis, wanted, collage.masks.to(self.device))
        return torch.stack(list(losses.values())).sum(), {
            name: float(loss.detach()) for name, loss in losses.items()
        }

    def validate(self, rng: np.random.Generator, generator: torch.Generator) -> dict[str, float]:
        """See `Recipe.validate`."""
        del rng, generator
        if self.validation is None:
            return {}
        with self.ready():
            return measure(BundledFaces(self.network), *self.validation, self.network.config.size, 300)

    def export(self, folder: Path) -> None:
        """See `Recipe.export`."""
        with self.ready():
            save_network(self.network, folder / "analyser.safetensors")


def measure(
    faces: BundledFaces, data: Rows, people: tuple[int, int], size: int, most: int = 800
) -> dict[str, float]:
    """Measure on people never trained on.

    Returns:
        collage_recall, collage_iou, collage_landmarks: Share of the visible faces of collages found (overlap at least
            0.5), mean overlap of what was found, and mean landmark error in pixels of the collage.
        collage_false_positives: Faces reported per collage with nobody in it.
        photo_...: The same on untouched pictures in photo style (128 pixels) and drawing_... on the others, with
            photo_mask_iou, drawing_mask_iou: mean overlap of the person mask.
    """
    rows = rows_of_people(data, people)
    rows = np.random.default_rng(0).permutation(rows)[:most]
    figures = _measure_collages(faces, Composer(data, rows, size), rows)
    photo = np.asarray(data.is_photo)[rows].astype(bool)
    for name, part in (("photo", rows[photo]), ("drawing", rows[~photo])):
        if len(part):
            figures |= {f"{name}_{key}": value for key, value in _measure_pictures(faces, data, part).items()}
    return figures


class _Tally:
    """Counts of faces found and missed."""

    def __init__(self) -> None:
        self.faces, self.ious, self.errors = 0, list[float](), list[float]()

    def add(self, faces: BundledFaces, image: Image.Image, boxes: np.ndarray, landmarks: np.ndarray) -> int:
        """Look for the faces with these boxes [n, 4]; return how many faces were reported in all."""
        found = faces.detect(image)
        shared = overlaps(np.clip(boxes, 0, max(image.size)), np.array([face.box for face in found]))
        for index in range(len(boxes)):
            self.faces += 1
            if len(found) and shared[index].max() >= 0.5:
                best = int(shared[index].argmax())
                self.ious.append(float(shared[index, best]))
                self.errors.append(
                    float(np.linalg.norm(found[best].landmarks - landmarks[index], axis=-1).mean())
                )
        return len(found)

    def figures(self) -> dict[str, float]:
        """Recall, mean overlap, landmark error."""
        return {
            "recall": len(self.ious) / max(1, self.faces),
            "iou": float(np.mean(self.ious or [0.0])),
            "landmarks": float(np.mean(self.errors or [0.0])),
        }


def _measure_collages(faces: BundledFaces, compose: Composer, rows: np.ndarray) -> dict[str, float]:
    tally, empty, false = _Tally(), 0, 0
    collage = compose(rows, torch.Generator().manual_seed(0))
    visible = collage.present & ~collage.hidden
    for index, pixels in enumerate((collage.images * 255).byte().permute(0, 2, 3, 1).numpy()):
        seen = visible[index]
        boxes, points = collage.boxes[index][seen].numpy(), collage.landmarks[index][seen].numpy()
        reported = tally.add(faces, Image.fromarray(pixels), boxes, points)
        if not bool(collage.present[index].any()):
            empty, false = empty + 1, false + reported
    figures = {**tally.figures(), "false_positives": false / max(1, empty)}
    return {f"collage_{name}": value for name, value in figures.items()}


def _measure_pictures(faces: BundledFaces, data: Rows, rows: np.ndarray) -> dict[str, float]:
    tally, reported, mask_ious = _Tally(), 0, []
    for row in rows:
        image = Image.fromarray(np.asarray(data.images[row]))
        reported += tally.add(
            faces, image, np.asarray(data.boxes[row])[None], np.asarray(data.landmarks[row])[None]
        )
        found, wanted = faces.detect(image), np.asarray(data.masks[row]) > 127
        mask = faces.person_mask(image, found[0]) > 127 if found else np.zeros_like(wanted)
        mask_ious.append(float((mask & wanted).sum() / max(1, (mask | wanted).sum())))
    return {**tally.figures(), "reported": reported / len(rows), "mask_iou": float(np.mean(mask_ious))}


def parser() -> argparse.ArgumentParser:
    """The options."""
    return network_parser("Train the face analyser.", steps=6000, batch=32)


def build(args: argparse.Namespace, data: WorldDataset) -> AnalyserRecipe:
    """The recipe, its network new."""
    return AnalyserRecipe(
        data,
        FaceAnalyser(),
        span(args.people),
        args.rate,
        validation=(held_out(args, data), span(args.val_people)),
    )


def reached(args: argparse.Namespace, data: WorldDataset) -> dict[str, float]:
    """What `export/analyser.safetensors` reaches on held-out people."""
    exported = BundledFaces.open(args.out / "export" / "analyser.safetensors")
    return measure(exported, held_out(args, data), span(args.val_people), FaceAnalyser().config.size)


if __name__ == "__main__":
    sys.exit(run_stage(parser(), build, measure=reached))
