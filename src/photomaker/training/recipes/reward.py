"""Finishing by reward: gradients through few-step sampling, towards likeness, prompt and realism.

Works around every recipe that is trained on people: PhotoMaker's adapter and the methods that it is compared with. A
step draws pictures as the user's pipeline does, with the base's own scheduler, guidance and merging; the last of the
denoising steps keep their gradients. What is drawn is judged by rewards and by two discriminators that learn beside it;
the ordinary diffusion loss continues, so that nothing is unlearnt.

Source: DRaFT, arXiv 2309.17400, section 4 (gradients through the last K steps); the accurate identity loss of PuLID,
arXiv 2404.16022, section 3.2, and its contrastive alignment; ADD, arXiv 2311.17042, section 3 (hinge losses, R1).
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from photomaker.errors import SettingsError
from photomaker.faces.attributes import AttributeNetwork
from photomaker.faces.base import Detector
from photomaker.faces.bundled import BundledFaces, BundledRecogniser
from photomaker.faces.networks import load_network
from photomaker.registry import find
from photomaker.synthetic.captions import SCENE_PHRASES
from photomaker.training.data.dataset import clip_normalised
from photomaker.training.losses.alignment import Aligning
from photomaker.training.losses.discriminators import CRITICS, Critics, frozen
from photomaker.training.recipes.people import Condition, Noised, PeopleRecipe
from photomaker.training.running.recipe import Preview, Recipe


@dataclass(frozen=True)
class RewardSettings:
    """Settings of finishing by reward; each weight is of a loss, and 0 switches it off.

    Attributes:
        steps: Denoising steps; 0 means ordinary training, without finishing.
        fewest: If above 0, the number of steps is sampled from this number to `steps`: few steps and many then
            draw alike.
        through: Last steps whose gradients are kept, 1 or more.
        guidance: Guidance scale while drawing.
        merge: Share of text-only steps while drawing.
        likeness: Weight of 1 - cosine of the drawn face to the mean of other photos' faces, in photo-style pictures.
        towards: Photos of that mean, which the adapter does not get.
        tower: Weight of the same in the features of the adapter's own image encoder, a second opinion.
        prompt: Weight of the cross-entropy of what the caption states.
        classifier: Attribute network that reads it; never the one that scores.
        realism: Weight of the discriminators' opinion.
        realism_lr: Peak learning rate of the discriminators.
        r1: Weight of the R1 penalty on real pictures.
        diffusion: Weight of the ordinary loss.
        base_lr: Peak learning rate of the base's UNet; 0 leaves it as it is, and only the adapter learns.
        semantic: Weight of how much the person changes what the words find in the picture, see `training.alignment`.
        layout: Weight of how much the person changes the picture's features in their places.
        rewards: Further rewards, each a name in the registry or "module:Class", with its weight.

    Raises:
        SettingsError: A value is outside its range.
    """

    steps: int = 0
    fewest: int = 0
    through: int = 2
    guidance: float = 2.0
    merge: float = 0.1
    likeness: float = 1.0
    towards: int = 4
    tower: float = 0.0
    prompt: float = 0.0
    classifier: Path | None = None
    realism: float = 0.0
    realism_lr: float = 3e-4
    r1: float = 1.0
    diffusion: float = 1.0
    base_lr: float = 0.0
    semantic: float = 0.0
    layout: float = 0.0
    rewards: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.steps < 0 or (self.steps and not 1 <= self.through <= self.steps):
            raise SettingsError(
                f"reward.steps is {self.steps} and reward.through {self.through}; give steps from 1 up, or 0 for no "
                "finishing, and through from 1 to that"
            )
        if self.fewest and not self.through <= self.fewest <= self.steps:
            raise SettingsError(
                f"reward.fewest is {self.fewest}; give a number from through ({self.through}) to steps ({self.steps}), "
                "or 0"
            )
        if not 0 <= self.merge < 1:
            raise SettingsError(f"reward.merge is {self.merge}; give a share from 0 to below 1")
        if self.towards < 1:
            raise SettingsError(f"reward.towards is {self.towards}; give a number of photos from 1 up")
        weights = ("likeness", "tower", "prompt", "realism", "r1", "diffusion", "semantic", "layout")
        for name in (*weights, "guidance", "realism_lr", "base_lr"):
            if getattr(self, name) < 0:
                raise SettingsError(f"reward.{name} is {getattr(self, name)}; give a number from 0 up")
        if self.prompt and self.classifier is None:
            raise SettingsError(
                f"reward.prompt is {self.prompt} and there is no reward.classifier; give an attribute network's file"
            )

    @property
    def aligns(self) -> bool:
        """Whether pictures are drawn without the person too, to be compared with."""
        return bool(self.semantic or self.layout)


@dataclass(frozen=True)
class Drawn:
    """A batch of pictures drawn in training, and what they were drawn of.

    Attributes:
        pixels: [batch, 3, h, w] in 0..1, with gradients.
        real: The dataset's own pictures of the same people and captions, [batch, 3, h, w] in 0..1.
        boxes: Face boxes of the drawn pictures [batch, 4] in pixels; zeros where no face was found.
        real_boxes: The same of the real ones.
        rows: Dataset rows [batch] of the real pictures.
        captions: The captions, with trigger.
        others: Dataset rows of other photos of each person, which the adapter did not get.
        recipe: What is trained.
        alignment: Losses of alignment, `semantic` and `layout`; empty if they do not count.
    """

    pixels: Tensor
    real: Tensor
    boxes: Tensor
    real_boxes: Tensor
    rows: np.ndarray
    captions: Sequence[str]
    others: Sequence[np.ndarray]
    recipe: PeopleRecipe
    alignment: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def found(self) -> Tensor:
        """Bool [batch], where a face was found."""
        return (self.boxes[:, 2] > self.boxes[:, 0]) & (self.boxes[:, 3] > self.boxes[:, 1])


class Reward(ABC):
    """Judges drawn pictures. A plug-in: `register("reward", name, "module:Class")`, opened without arguments."""

    @abstractmethod
    def __call__(self, drawn: Drawn) -> Tensor:
        """The loss of each picture [batch]: 0 is best."""


class Likeness(Reward):
    """1 - cosine to the mean face of other photos of the person, by the users' recogniser; 1 if there is no face."""

    def __init__(self) -> None:
        """Open the recogniser; the evaluation's is another one and never in a loop."""
        self.recogniser = BundledRecogniser.open()

    def __call__(self, drawn: Drawn) -> Tensor:
        """See `Reward`; pictures that are no photos cost nothing."""
        found = drawn.found.to(drawn.pixels.device)
        boxes = torch.where(found[:, None].cpu(), drawn.boxes, torch.tensor([0.0, 0.0, 8.0, 8.0]))
        seen = self.recogniser.embed_tensors(drawn.pixels, boxes)
        means = torch.stack([self._mean(drawn.recipe, rows) for rows in drawn.others])
        wanted = functional.normalize(means, dim=-1)
        loss = torch.where(found, 1 - (seen * wanted.to(seen.device)).sum(-1), torch.ones_like(seen[:, 0]))
        return loss * torch.from_numpy(drawn.recipe.data.is_photo[drawn.rows]).to(loss.device)

    @torch.no_grad()
    def _mean(self, recipe: PeopleRecipe, rows: np.ndarray) -> Tensor:
        photos = [_pixels(np.asarray(recipe.data.images[int(row)]))[None].to(recipe.device) for row in rows]
        boxes = torch.from_numpy(np.asarray(recipe.data.boxes[rows], dtype=np.float32))
        seen = [self.recogniser.embed_tensors(one, box[None]) for one, box in zip(photos, boxes, strict=True)]
        return torch.cat(seen).mean(0)


class TowerLikeness(Reward):
    """1 - cosine in the features of the adapter's own image encoder, between the drawn picture and other photos."""

    def __call__(self, drawn: Drawn) -> Tensor:
        """See `Reward`; pictures that are no photos cost nothing."""
        encoder = drawn.recipe.id_encoder
        size = int(encoder.config.image_size)

        def features(pixels: Sequence[Tensor]) -> Tensor:
            fitted = torch.cat(
                [
                    functional.interpolate(one, size=(size, size), mode="bilinear", antialias=True)
                    for one in pixels
                ]
            )
            pooled = encoder.vision_model(clip_normalised(fitted * 255))[1]
            return functional.normalize(pooled.float(), dim=-1)

        with torch.no_grad():
            wanted = torch.stack([features(_photos(drawn, rows)).mean(0) for rows in drawn.others])
        with frozen(encoder):
            seen = features([drawn.pixels])
        loss = 1 - (seen * functional.normalize(wanted, dim=-1)).sum(-1)
        return loss * torch.from_numpy(drawn.recipe.data.is_photo[drawn.rows]).to(loss.device)


def _photos(drawn: Drawn, rows: np.ndarray) -> list[Tensor]:
    """Photos of the dataset, each [1, 3, h, w] in 0..1."""
    images = drawn.recipe.data.images
    return [_pixels(np.asarray(images[int(row)]))[None].to(drawn.pixels.device) for row in rows]


class Stated(Reward):
    """Cross-entropy of what a caption of the synthetic world states, read by an attribute network.

    Args:
        network: The network; the one that scores the benchmark must not be used here.
    """

    def __init__(self, network: AttributeNetwork) -> None:
        """Take the network as it is."""
        self.network = network.eval().requires_grad_(False)

    def __call__(self, drawn: Drawn) -> Tensor:
        """See `Reward`: the mean over what is stated."""
        words: Any = drawn.recipe.data
        self.network.to(drawn.pixels.device)
        side = self.network.config.size
        logits = self.network(
            functional.interpolate(drawn.pixels, (side, side), mode="bilinear", antialias=True)
        )
        total = drawn.pixels.new_zeros(len(drawn.rows))
        count = drawn.pixels.new_zeros(len(drawn.rows))
        for at, (row, text) in enumerate(zip(drawn.rows, drawn.captions, strict=True)):
            for name, word in stated(words.words(int(row)), text).items():
                known = self.network.config.words[name]
                label = torch.tensor([known.index(word)], device=total.device)
                total[at] = total[at] + functional.cross_entropy(logits[name][at : at + 1].float(), label)
                count[at] += 1
        return total / count.clamp(min=1)


def stated(shown: Mapping[str, str], text: str) -> dict[str, str]:
    """What a caption says of what its picture shows: attribute to word.

    Args:
        shown: Attributes of the picture, see `synthetic.dataset.WorldDataset.words`; none says that nothing is known.
        text: The caption.
    """
    if not shown:
        return {}
    found = {"style": shown["style"]}
    if f" {shown['person_class']} " in f" {text} ":
        found["person_class"] = shown["person_class"]
    if any(phrase in text for phrase in SCENE_PHRASES[shown["scene"]]):
        found["scene"] = shown["scene"]
    if f"{shown['clothing_colour']} {shown['clothing']}" in text:
        found |= {name: shown[name] for name in ("clothing", "clothing_colour")}
    found["eyewear"] = shown["eyewear"]
    found["hat"] = shown["hat"]
    if shown["hat"] != "none":
        found["hat_colour"] = shown["hat_colour"]
    return found


class RewardRecipe(Recipe):
    """Finishes what another recipe trained.

    Args:
        inner: The recipe of the method, with trained weights in it.
        settings: How.
        detector: Finds faces in drawn pictures; None is the bundled one.
    """

    def __init__(
        self, inner: PeopleRecipe, settings: RewardSettings, detector: Detector | None = None
    ) -> None:
        """Open the rewards."""
        self.inner, self.own = inner, settings
        self.name = f"{inner.name}-reward"
        self.detector = detector or BundledFaces.open()
        self.critics = Critics() if settings.realism else None
        self.rewards: list[tuple[str, float, Reward]] = []
        if settings.likeness:
            self.rewards.append(("likeness", settings.likeness, Likeness()))
        if settings.tower:
            self.rewards.append(("tower", settings.tower, TowerLikeness()))
        if settings.prompt:
            assert settings.classifier is not None
            network = load_network(settings.classifier, AttributeNetwork)
            assert isinstance(network, AttributeNetwork)
            self.rewards.append(("prompt", settings.prompt, Stated(network)))
        self.rewards += [(name, weight, find("reward", name)()) for name, weight in settings.rewards.items()]
        if settings.base_lr:
            inner.parts.unet.requires_grad_(True)

    # ---- what the loop asks

    def modules(self) -> dict[str, nn.Module]:
        """Those of the inner recipe, and the discriminators."""
        return self.inner.modules() | ({} if self.critics is None else {"critics": self.critics})

    def called(self) -> list[nn.Module]:
        """See `Recipe.called`."""
        return [*self.inner.called(), *([] if self.critics is None else [self.critics])]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The inner recipe's, without the base's own weights; those, and the discriminators', at rates of their own."""
        base = {id(one) for one in self._base()}
        groups = []
        for group in self.inner.parameter_groups():
            kept = [one for one in group["params"] if id(one) not in base]
            groups += [{**group, "params": kept}] if kept else []
        if base:
            groups.append({"params": self._base(), "lr": self.own.base_lr, "weight_decay": 0.0})
        if self.critics is not None:
            learnt = {
                "params": list(self.critics.parameters()),
                "lr": self.own.realism_lr,
                "weight_decay": 0.0,
            }
            groups.append({**learnt, "betas": (0.5, 0.99)})
        return groups

    def _base(self) -> list[nn.Parameter]:
        """Weights of the UNet that belong to no adapter, where they are trained."""
        if not self.own.base_lr:
            return []
        return [one for name, one in self.inner.parts.unet.named_parameters() if "lora_" not in name]

    @property
    def rows(self) -> np.ndarray:
        """See `PeopleRecipe.rows`; where likeness counts, pictures of one person."""
        return self.inner.rows[self._counted]

    @property
    def groups(self) -> np.ndarray:
        """See `PeopleRecipe.groups`."""
        return self.inner.groups[self._counted]

    @property
    def _counted(self) -> np.ndarray:
        rows = self.inner.rows
        alone = ~self.inner.pair[rows]
        return alone if self.own.likeness or self.own.tower else np.ones(len(rows), dtype=bool)

    def signature(self) -> dict[str, str]:
        """See `Recipe.signature`."""
        return self.inner.signature()

    def prepare(self, device: torch.device) -> None:
        """See `Recipe.prepare`."""
        super().prepare(device)
        self.inner.prepare(device)
        self.inner.parts.autoencoder.to(device)

    def validate(self, rng: np.random.Generator, generator: torch.Generator) -> dict[str, float]:
        """The ordinary losses of unseen people."""
        return self.inner.validate(rng, generator)

    def preview(self) -> Preview | None:
        """See `PeopleRecipe.preview`."""
        return self.inner.preview()

    def export(self, folder: Path) -> None:
        """What the inner recipe exports; the base as well, as `base`, where it was trained."""
        self.inner.export(folder)
        if self.own.base_lr:
            parts = self.inner.parts
            unet = copy.deepcopy(parts.unet)
            unet.unload_lora()
            replace(parts, unet=unet).save(folder / "base")

    # ---- a step

    def loss(
        self, rows: np.ndarray, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Draw, judge, and go on learning what the inner recipe learnt."""
        drawn = self.drawn(rows, rng, generator)
        total, figures = drawn.pixels.new_zeros(()), {}
        for name, weight, reward in self.rewards:
            loss = reward(drawn).mean()
            total, figures[name] = total + weight * loss, float(loss.detach())
        for name, loss in drawn.alignment.items():
            total, figures[name] = total + getattr(self.own, name) * loss, float(loss.detach())
        if self.critics is not None:
            fooled = self.critics.fooled(drawn.pixels, drawn.boxes)
            critics, lead = self.critics.loss(
                (drawn.pixels, drawn.boxes), (drawn.real, drawn.real_boxes), self.own.r1
            )
            total = total + self.own.realism * fooled + CRITICS * critics
            figures |= {"realism": float(fooled.detach()), "critics": float(critics.detach()), "lead": lead}
        if self.own.diffusion:
            ordinary, _ = self.inner.loss(rows, rng, generator)
            total, figures["diffusion"] = total + self.own.diffusion * ordinary, float(ordinary.detach())
        figures["faces"] = float(drawn.found.float().mean())
        return total, figures

    def drawn(self, rows: np.ndarray, rng: np.random.Generator, generator: torch.Generator) -> Drawn:
        """Pictures of the people of some rows, under their captions."""
        inner, own = self.inner, self.own
        references, others = self._photos(rows, rng)
        captions = [inner._caption(int(row), rng) for row in rows]
        with_photos = np.zeros(len(rows), dtype=bool)
        condition = inner.condition(captions, references, with_photos, rng)
        needs_plain = own.merge or own.aligns
        plain = inner.condition(captions, references, ~with_photos, rng) if needs_plain else condition
        steps = int(rng.integers(own.fewest, own.steps + 1)) if own.fewest else own.steps
        latents, alignment = self._sampled(rows, condition, plain, steps, generator)
        scale = inner.parts.autoencoder.config.scaling_factor
        weights = next(inner.parts.autoencoder.parameters())
        decoded = inner.parts.autoencoder.decode((latents / scale).to(weights.dtype), return_dict=False)[0]
        pixels = decoded.float().clamp(-1, 1) / 2 + 0.5
        real = np.stack(
            [inner.frames.picture(int(row), np.asarray(inner.data.images[int(row)])) for row in rows]
        )
        return Drawn(
            pixels,
            torch.stack([_pixels(one) for one in real]).to(pixels.device),
            self._boxes(pixels),
            torch.from_numpy(np.asarray(inner.frames.boxes(rows), dtype=np.float32)),
            rows,
            [str(text) for text in captions],
            others,
            inner,
            alignment,
        )

    def _photos(
        self, rows: np.ndarray, rng: np.random.Generator
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """ID photos of each row, and other photos of the person to compare with, as far as there are any."""
        data = self.inner.data
        references = self.inner._references(rows, rng)
        others = []
        for row, given in zip(rows, references, strict=True):
            mine = data.rows_of(int(data.person[row]))
            photos = mine[data.is_photo[mine]]
            left = np.setdiff1d(photos, [*given, row])
            left = left if len(left) else photos if len(photos) else np.array([row])
            others.append(rng.permutation(left)[: self.own.towards])
        return references, others

    def _sampled(
        self,
        rows: np.ndarray,
        condition: Condition,
        plain: Condition,
        count: int,
        generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Latents [batch, channels, h, w] at the UNet's scale, the last steps with gradients; losses of alignment."""
        inner, own = self.inner, self.own
        high, wide = (int(side) // 8 for side in inner.frames.targets[rows[0]])
        channels = int(inner.parts.unet.config.in_channels)
        start = torch.randn((len(rows), channels, high, wide), generator=generator)
        path = _Path(self, rows, start, count)
        # the same noise and words without the person, where both are compared
        apart = _Path(self, rows, start, count) if own.aligns else None
        aligning = Aligning(inner.parts.unet, own.semantic, own.layout) if apart else None
        for number in range(count):
            used = condition if number >= round(own.merge * count) else plain
            learns = torch.is_grad_enabled() and number >= count - own.through
            compares = learns and used is condition
            if apart is not None and aligning is not None:
                with torch.no_grad(), aligning.recorded("without", compares), _same_noise(generator) as again:
                    apart.step(plain, again)
            with (
                torch.set_grad_enabled(learns),
                aligning.recorded("with", compares) if aligning else nullcontext(),
            ):
                path.step(used, generator)
            if compares and aligning is not None:
                aligning.compare(len(rows))
        return path.latents, aligning.losses() if aligning else {}

    @torch.no_grad()
    def _boxes(self, pixels: Tensor) -> Tensor:
        """The largest face's box in each picture [batch, 4]; zeros where there is none."""
        boxes = torch.zeros(len(pixels), 4)
        levels = (pixels.detach().float().cpu() * 255).round().byte().permute(0, 2, 3, 1).numpy()
        for at, picture in enumerate(levels):
            faces = self.detector.detect(Image.fromarray(picture))
            if faces:
                boxes[at] = torch.tensor(max(faces, key=lambda face: face.area).box)
        return boxes


class _Path:
    """Denoising from noise on, step by step.

    Args:
        recipe: Whose settings and models these are.
        rows: Dataset rows, for the sizes.
        start: Noise of variance 1 [batch, channels, h, w].
        count: Steps.
    """

    def __init__(self, recipe: RewardRecipe, rows: np.ndarray, start: Tensor, count: int) -> None:
        """Begin with noise; a scheduler of its own keeps where it is."""
        self.inner, self.guidance, self.rows = recipe.inner, recipe.own.guidance, rows
        made = self.inner.parts.scheduler
        self.scheduler = type(made).from_config(made.config)
        self.scheduler.set_timesteps(count, device=self.inner.device)
        self.left = iter(self.scheduler.timesteps)
        self.latents = start.to(self.inner.device) * self.scheduler.init_noise_sigma

    def step(self, condition: Condition, generator: torch.Generator) -> None:
        """Take the next step under a condition."""
        step, guided = next(self.left), self.guidance > 1
        given = torch.cat([self.latents] * 2) if guided else self.latents
        rows = np.concatenate([self.rows, self.rows]) if guided else self.rows
        noisy = self.scheduler.scale_model_input(given, step)
        asked = Noised(rows, noisy, noisy, step.expand(len(noisy)), noisy, noisy[:, :1, :1, :1])
        predicted = self.inner.predict(asked, _doubled(condition) if guided else condition).float()
        if guided:
            without, with_text = predicted.chunk(2)
            predicted = without + self.guidance * (with_text - without)
        noise = {"generator": generator} if self.inner.device.type == "cpu" else {}
        self.latents = self.scheduler.step(predicted, step, self.latents, return_dict=False, **noise)[0]


@contextmanager
def _same_noise(generator: torch.Generator) -> Iterator[torch.Generator]:
    """Randomness that what comes after draws once more."""
    again = torch.Generator()
    again.set_state(generator.get_state())
    with torch.random.fork_rng():
        yield again


def _doubled(condition: Condition) -> Condition:
    """The empty condition for each row, then the condition."""
    count = len(condition.embeds)
    twice = replace(
        condition,
        embeds=torch.cat([condition.embeds] * 2),
        pooled=torch.cat([condition.pooled] * 2),
        more={name: torch.cat([value] * 2) for name, value in condition.more.items()},
        nothing={name: torch.cat([value] * 2) for name, value in condition.nothing.items()},
    )
    return twice.kept(torch.arange(2 * count, device=condition.embeds.device) >= count)


def _pixels(picture: np.ndarray) -> Tensor:
    """A picture uint8 [h, w, 3] as [3, h, w] in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))).float() / 255
