"""One training loop for every recipe: processes, precision, averaging, checkpoints, resume and log.

A recipe says what is trained and what its loss is. The loop does the rest, in one process or in several that
`torchrun` started, on a CPU or on GPUs; every process keeps the whole model, or its part of each weight where
accelerate is configured for FSDP (see `sharding`). Two choices need a word:

* Where the model is whole, gradients are averaged by one explicit all-reduce instead of a `DistributedDataParallel`
  wrapper, because a recipe trains several modules at once (two text encoders and a UNet), some of which a step may
  leave unused.
* A step's batch is cut into slices of `batch_size` rows, of which each process takes `accumulate`. Every random number
  comes from generators seeded by (seed, step, slice). So a checkpoint needs no random state, a run that was killed
  continues with exactly the losses that it would have had, and the same slices give the same step however many
  processes share them.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from photomaker import bfloat16
from photomaker.errors import OutputError, SettingsError, WeightsError
from photomaker.images import save_png
from photomaker.training.sharding import (
    asked,
    cut_like,
    load_state,
    local,
    put_together,
    shard,
    whole,
    whole_state,
)

BEST = "best.pt"
REDUCED = 2**24
"""Numbers in one message between processes, so that a step takes little memory beside the gradients."""

CHECKPOINT_FORMAT = "photomaker-training-1"


@dataclass(frozen=True)
class Preview:
    """Pictures made in the middle of a training.

    Attributes:
        image: All of them on one sheet.
        figures: What was measured on them, for the log.
    """

    image: Image.Image
    figures: Mapping[str, float]


class Recipe(ABC):
    """Defines what is trained, on which rows, with which loss.

    Attributes:
        name: Short name, used in messages and in the progress bar.
        device: Where the loop put the modules; set by the loop before the first loss.
    """

    name: str = "recipe"
    device: torch.device = torch.device("cpu")

    @abstractmethod
    def modules(self) -> dict[str, nn.Module]:
        """Return the trained modules; their trainable parameters and buffers are saved and averaged."""

    def called(self) -> list[nn.Module]:
        """Return the modules, or the parts of them, whose weights are used by their call alone; these can be cut up."""
        return list(self.modules().values())

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return AdamW groups: `params`, `lr` and, where wanted, `weight_decay`."""

    @property
    @abstractmethod
    def rows(self) -> np.ndarray:
        """Dataset rows [n] int64 that an epoch goes over."""

    @property
    def groups(self) -> np.ndarray:
        """Group [n] int64 of each of `rows`; a step's rows are all of one group, such as one size of picture."""
        return np.zeros(len(self.rows), dtype=np.int64)

    def signature(self) -> dict[str, str]:
        """What a checkpoint must agree with to be gone on from: name to value, both in words."""
        return {}

    @abstractmethod
    def loss(
        self, rows: np.ndarray, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Compute the loss of one batch.

        Args:
            rows: Dataset rows [batch].
            rng: Randomness of this step and process, for numpy.
            generator: The same for torch, on the CPU.

        Returns:
            The scalar loss and figures for the log.
        """

    def prepare(self, device: torch.device) -> None:
        """Move to `device` what `modules` does not list, such as a frozen base. Called once."""
        self.device = device

    def validate(self, rng: np.random.Generator, generator: torch.Generator) -> dict[str, float]:
        """Measure on held-out rows, with the averaged weights in place; the same randomness every time."""
        del rng, generator
        return {}

    def preview(self) -> Preview | None:
        """Make previews with the averaged weights; None if the recipe has none."""
        return None

    def export(self, folder: Path) -> None:
        """Write what the training was for into `folder`, with the averaged weights in place."""
        del folder


@dataclass(frozen=True)
class TrainSettings:
    """Settings of the training loop.

    Attributes:
        steps: Optimiser steps in all, 1 or more.
        batch_size: Rows of a slice: what goes through the model at once in one process, 1 or more.
        accumulate: Slices of a step and process, 1 or more; a step has batch_size * accumulate * processes rows.
        seed: Seed of everything random.
        warmup: Steps over which the learning rate rises from 0.
        schedule: Shape of the learning rate after that; `cosine` ends at 2 % of the peak, `linear_decay` at 0.
        ema_decay: Decay of the averaged weights, 0..1; 0 switches averaging off.
        clip: Largest gradient norm; 0 switches clipping off.
        precision: Autocast precision; `auto` is bf16 where the device computes in it, else fp32.
        save_every: Steps between checkpoints; 0 saves only at the end.
        log_every: Steps between log lines.
        keep: Number of checkpoints kept, beside the one with the lowest validation loss.
        betas: AdamW's decay rates.
        preview_every: Steps between sheets of pictures; 0 makes none.
        tensorboard: Whether figures and pictures are written for TensorBoard too.
        export: Which weights the result is made of.

    Raises:
        SettingsError: A value is outside its range.
    """

    steps: int
    batch_size: int
    accumulate: int = 1
    seed: int = 0
    warmup: int = 0
    schedule: Literal["cosine", "constant", "linear_decay"] = "cosine"
    ema_decay: float = 0.999
    clip: float = 1.0
    precision: Literal["auto", "bf16", "fp32"] = "fp32"
    save_every: int = 500
    log_every: int = 20
    keep: int = 2
    betas: tuple[float, float] = (0.9, 0.99)
    preview_every: int = 0
    tensorboard: bool = False
    export: Literal["last", "best"] = "last"

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("steps", "batch_size", "accumulate", "log_every", "keep"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; give a whole number from 1 up")
        for name in ("seed", "warmup", "save_every", "clip", "preview_every"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} is {getattr(self, name)}; give a number from 0 up")
        if not 0 <= self.ema_decay < 1:
            raise SettingsError(f"ema_decay is {self.ema_decay}; give a number from 0 to below 1")
        if self.schedule not in {"cosine", "constant", "linear_decay"}:
            raise SettingsError(f"schedule is {self.schedule!r}; give cosine, constant or linear_decay")
        if self.precision not in {"auto", "bf16", "fp32"}:
            raise SettingsError(f"precision is {self.precision!r}; give auto, bf16 or fp32")

    def on(self, device: str | torch.device) -> Literal["bf16", "fp32"]:
        """The precision on a device."""
        if self.precision != "auto":
            return self.precision
        return "bf16" if bfloat16.quick(device) else "fp32"


def rate_factor(step: int, settings: TrainSettings) -> float:
    """Share of the peak learning rate at `step` (0-based), in 0..1."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    done = min(1.0, (step - settings.warmup) / max(1, settings.steps - settings.warmup))
    if settings.schedule == "cosine":
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))
    return 1.0 - done if settings.schedule == "linear_decay" else 1.0


class Average:
    """Exponential moving average of named tensors, with a warm-up so that the first weights are forgotten soon.

    Args:
        live: The trained tensors; the average starts as a copy.
        decay: Weight of the old average in one update, 0..1; reached after about `10 * decay / (1 - decay)` updates.
    """

    def __init__(self, live: Mapping[str, Tensor], decay: float) -> None:
        """Copy the tensors."""
        self.live = dict(live)
        self.decay = decay
        self.shadow = {name: tensor.detach().clone() for name, tensor in live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights as they are after 0-based `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        shadow, live = ([local(one) for one in named.values()] for named in (self.shadow, self.live))
        torch._foreach_lerp_(shadow, live, 1 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Put the averaged weights in place, and the trained ones back afterwards."""
        kept = {name: tensor.detach().clone() for name, tensor in self.live.items()}
        _copy(self.shadow, self.live)
        try:
            yield
        finally:
            _copy(kept, self.live)


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(cut_like(source[name], tensor))


def trained_tensors(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Trainable parameters of all modules, named `module.parameter`."""
    return {
        f"{prefix}.{name}": parameter
        for prefix, module in modules.items()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def _buffers(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    return {
        f"{prefix}.{name}": buffer
        for prefix, module in modules.items()
        for name, buffer in module.named_buffers()
    }


class RowOrder:
    """Rows of every step, one group at a time, the groups taking turns by their sizes.

    The rows of a group are shuffled epochs laid end to end and cut into batches; within one epoch no row comes twice.

    Args:
        rows: All rows [n].
        groups: Group of each row [n].
        batch: Rows of all processes together.
        seed: Seed of the shuffles.
    """

    def __init__(self, rows: np.ndarray, groups: np.ndarray, batch: int, seed: int) -> None:
        """Lay out one round, in which each group has its share of steps and the smallest has one."""
        self.batch, self.seed = batch, seed
        self.members = [rows[groups == group] for group in np.unique(groups)]
        sizes = np.array([len(members) for members in self.members])
        self.turns = np.repeat(
            np.arange(len(sizes)), np.maximum(1, np.round(sizes / sizes.min())).astype(int)
        )
        self.shuffles: dict[tuple[int, int], np.ndarray] = {}

    def __call__(self, step: int) -> np.ndarray:
        """Rows [batch] of a 0-based step, all of one group."""
        if len(self.members) == 1:
            return self._stream(0, step)
        turn, place = divmod(step, len(self.turns))
        order = np.random.default_rng([self.seed, 19, turn]).permutation(self.turns)
        group = int(order[place])
        before = turn * int((self.turns == group).sum()) + int((order[:place] == group).sum())
        return self._stream(group, before)

    def _stream(self, group: int, number: int) -> np.ndarray:
        """The batch of that number in a group's shuffled epochs laid end to end."""
        members = self.members[group]
        start, count = number * self.batch, len(members)
        epochs = range(start // count, (start + self.batch - 1) // count + 1)
        order = np.concatenate([self._shuffle(group, epoch) for epoch in epochs])
        offset = start - epochs[0] * count
        for old in [key for key in self.shuffles if key[0] == group and key[1] < epochs[0]]:
            del self.shuffles[old]
        return members[order[offset : offset + self.batch]]

    def _shuffle(self, group: int, epoch: int) -> np.ndarray:
        if (group, epoch) not in self.shuffles:
            seeds = [self.seed, 17, epoch, *([group] if group else [])]
            self.shuffles[group, epoch] = np.random.default_rng(seeds).permutation(len(self.members[group]))
        return self.shuffles[group, epoch]


def checkpoints(out: Path) -> list[Path]:
    """Finished checkpoints under `out`, oldest first."""
    return sorted((out / "checkpoints").glob("step_*.pt"))


def _save(state: dict[str, Any], out: Path, keep: int) -> Path:
    folder = out / "checkpoints"
    path = folder / f"step_{state['step']:08d}.pt"
    part = path.with_suffix(".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:  # torch raises the latter for a write that was cut short
        part.unlink(missing_ok=True)
        raise OutputError(_no_room(path, error)) from error
    for old in checkpoints(out)[:-keep]:
        old.unlink()
    return path


def _no_room(path: Path, error: BaseException) -> str:
    reason = getattr(error, "strerror", None) or "the file could not be written whole"
    return (
        f"cannot write {path}: {reason}; make room and give the same command again, which continues from the last "
        "checkpoint"
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        message = (
            f"{path} is not a training checkpoint or is damaged; delete it to continue from an older one"
        )
        raise WeightsError(message) from error
    if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
        raise WeightsError(f"{path} is not a checkpoint of this trainer; delete it or choose another folder")
    return state


def _restore(target: Mapping[str, Tensor], source: Mapping[str, Tensor], path: Path) -> None:
    if target.keys() != source.keys() or any(target[k].shape != source[k].shape for k in target):
        raise WeightsError(
            f"{path} belongs to a model of a different size; choose another folder or the same sizes"
        )
    _copy(source, target)


def take_over(recipe: Recipe, folder: Path) -> Path:
    """Start from what an earlier training ended with: its averaged weights, where it has any.

    The newest checkpoint is taken. What the recipe trains besides, such as discriminators, stays as it is, and what was
    trained then need not be trained now.

    Args:
        recipe: What will be trained.
        folder: Of the earlier training, of the same recipe and sizes.

    Returns:
        The checkpoint.

    Raises:
        WeightsError: There is no checkpoint, or it is damaged or of something else.
    """
    found = checkpoints(folder)
    if not found:
        raise WeightsError(f"{folder} has no training checkpoint; give the folder of a training")
    state = _load(found[-1])
    weights = state["average"] or state["weights"]
    own = {
        f"{prefix}.{name}": one
        for prefix, module in recipe.modules().items()
        for name, one in module.named_parameters()
    }
    if not weights.keys() <= own.keys():
        raise WeightsError(
            f"{found[-1]} was trained for {state['recipe']}, not for {recipe.name}; give one of the same method"
        )
    _restore({name: own[name] for name in weights}, weights, found[-1])
    return found[-1]


class Run:
    """State of one training: what a checkpoint holds, how it is put back, and how a step is taken.

    Args:
        recipe: What to train.
        settings: How.
        out: Folder of the training.

    Raises:
        SettingsError: accelerate is configured for something that the training has not.

    Attributes:
        cut: Parts of the model that are cut up between processes; empty if each keeps the whole model.
    """

    def __init__(self, recipe: Recipe, settings: TrainSettings, out: Path) -> None:
        """Move the modules and make the optimiser."""
        self.recipe, self.settings, self.out = recipe, settings, out
        # "cpu" is forced only where there is no accelerator, so that the same command uses a GPU that is there.
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        plugin = asked(self.accelerator.distributed_type)
        self.modules = recipe.modules()
        self.cut = shard(recipe.called(), plugin, self.accelerator.device) if plugin else []
        for module in self.modules.values():
            module.to(self.accelerator.device)
        recipe.prepare(self.accelerator.device)
        self.weights = trained_tensors(self.modules)
        self.buffers = _buffers(self.modules)
        groups = recipe.parameter_groups()
        self.peaks = [group["lr"] for group in groups]
        self.optimiser = torch.optim.AdamW(groups, betas=settings.betas, fused=True)
        self.average = Average(self.weights, settings.ema_decay) if settings.ema_decay else None
        self.step = 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds. Every process must ask."""
        return {
            "format": CHECKPOINT_FORMAT,
            "recipe": self.recipe.name,
            "step": self.step,
            "signature": self.recipe.signature(),
            "settings": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.settings).items()},
            "weights": {name: whole(tensor) for name, tensor in self.weights.items()},
            "buffers": self.buffers,
            "average": {name: whole(one) for name, one in self.average.shadow.items()}
            if self.average
            else {},
            "optimiser": whole_state(self.optimiser),
        }

    def restore(self, path: Path) -> None:
        """Go back to a checkpoint.

        Raises:
            WeightsError: It is damaged or of another training.
        """
        state = _load(path)
        for name, value in self.recipe.signature().items():
            before = state.get("signature", {}).get(name, value)
            if before != value:
                raise WeightsError(
                    f"{path} was trained with another {name} ({before}, now {value}); choose another folder"
                )
        _restore(self.weights, state["weights"], path)
        _restore(self.buffers, state["buffers"], path)
        if self.average:
            # A run that was started without averaging may continue with it: the average then starts here.
            _restore(self.average.shadow, state["average"] or state["weights"], path)
        load_state(self.optimiser, state["optimiser"])
        self.step = state["step"]

    def broadcast(self) -> None:
        """Give every process the weights of the first."""
        if self.accelerator.num_processes > 1:
            # parts of weights come from one process each anyhow
            for tensor in [*([] if self.cut else self.weights.values()), *self.buffers.values()]:
                torch.distributed.broadcast(tensor.data, 0)
        if self.average:
            _copy(self.weights, self.average.shadow)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Evaluation mode with the averaged weights."""
        modes = {name: module.training for name, module in self.modules.items()}
        for module in self.modules.values():
            module.eval()
        try:
            if self.average:
                with self.average.swapped(), torch.no_grad():
                    yield
            else:
                with torch.no_grad():
                    yield
        finally:
            for part in self.cut:
                part.reshard()  # what was put together of the averaged weights
            for name, module in self.modules.items():
                module.train(modes[name])

    def autocast(self) -> torch.autocast:
        """The compute precision."""
        device = self.accelerator.device
        return torch.autocast(device.type, torch.bfloat16, enabled=self.settings.on(device) == "bf16")

    def reduce_gradients(self) -> None:
        """Average gradients over processes, in messages of about `REDUCED` numbers; those cut up are so already."""
        if self.accelerator.num_processes == 1 or self.cut:
            return
        parameters = list(self.weights.values())
        # Which parameters took part goes ahead: one that no process used must keep no gradient at all, or AdamW would
        # decay it here and leave it alone in a run of one process.
        used = torch.tensor(
            [p.grad is not None for p in parameters], device=parameters[0].device, dtype=torch.float32
        )
        torch.distributed.all_reduce(used)
        left = [p for p, users in zip(parameters, used.tolist(), strict=True) if users]
        while left:
            some, count = [left.pop(0)], 1
            while left and sum(p.numel() for p in some) + left[0].numel() <= REDUCED:
                some.append(left.pop(0))
                count += 1
            flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in some])
            torch.distributed.all_reduce(flat)
            for parameter, part in zip(some, flat.split([p.numel() for p in some]), strict=True):
                parameter.grad = part.view_as(parameter) / self.accelerator.num_processes

    def advance(self, rows: np.ndarray) -> dict[str, float]:
        """Take one optimiser step.

        Args:
            rows: Of all processes and slices together.

        Returns:
            Figures of this process's slices for the log.
        """
        settings, processes = self.settings, self.accelerator.num_processes
        factor = rate_factor(self.step, settings)
        for group, peak in zip(self.optimiser.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        slices = [
            self.accelerator.process_index + processes * number for number in range(settings.accumulate)
        ]
        size = settings.batch_size
        found = [self._slice(rows[number * size :][:size], number) for number in slices]
        self.reduce_gradients()
        figures = means(found)
        if settings.clip:
            norm = nn.utils.clip_grad_norm_(self.weights.values(), settings.clip)
            figures["gradient"] = float(whole(norm))
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.average:
            self.average.update(self.step)
        self.step += 1
        return figures

    def _slice(self, rows: np.ndarray, number: int) -> dict[str, float]:
        """Add the gradients of one slice, whose number among all processes' seeds its randomness."""
        rng = np.random.default_rng([self.settings.seed, self.step, number])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        torch.manual_seed(
            int(rng.integers(2**62))
        )  # dropout inside library modules draws from the global generator
        with self.autocast():
            loss, figures = self.recipe.loss(rows, rng, generator)
        (loss / self.settings.accumulate).backward()
        return {"loss": float(loss.detach()), **figures}

    def validate(self) -> dict[str, float]:
        """Validate on the first process, on all if the model is cut up, always with the same randomness."""
        figures: dict[str, float] = {}
        if self.accelerator.is_main_process or self.cut:
            with self.averaged(), self.autocast():
                rng = np.random.default_rng([self.settings.seed, 2**31])
                figures = self.recipe.validate(rng, torch.Generator().manual_seed(self.settings.seed))
        self.accelerator.wait_for_everyone()
        return figures

    def preview(self) -> Preview | None:
        """The recipe's pictures, made by the first process, or by all if the model is cut up; elsewhere None."""
        found = None
        if self.accelerator.is_main_process or self.cut:
            with self.averaged(), self.autocast():
                found = self.recipe.preview()
        self.accelerator.wait_for_everyone()
        return found if self.accelerator.is_main_process else None

    def export(self) -> Path:
        """Export with averaged weights into `out/export`, replacing an older one only when complete."""
        final, part, main = self.out / "export", self.out / "export.part", self.accelerator.is_main_process
        with self.averaged(), put_together(self.modules.values(), keep=main):
            if main:
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir(parents=True)
                self.recipe.export(part)
                shutil.rmtree(final, ignore_errors=True)
                part.rename(final)
        self.accelerator.wait_for_everyone()
        return final


def means(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each figure over those that have it."""
    names = sorted({name for figures in found for name in figures})
    return {name: float(np.mean([figures[name] for figures in found if name in figures])) for name in names}


class _Log:
    """Means of figures between log lines, written by the first process: JSON lines, and TensorBoard if wanted."""

    def __init__(self, run: Run) -> None:
        self.path = run.out / "log.jsonl"
        self.main, self.several = run.accelerator.is_main_process, run.accelerator.num_processes > 1
        self.rate = run.settings.batch_size * run.settings.accumulate * run.accelerator.num_processes
        self.pending: list[dict[str, float]] = []
        self.started = time.perf_counter()
        self.lowest, self.best_step = math.inf, -1
        if self.main:
            self._forget_after(run.step)
        self.board = _board(run.out, run.step) if self.main and run.settings.tensorboard else None

    def _forget_after(self, step: int) -> None:
        """Drop lines of steps that will be taken again, and learn from the others."""
        if not self.path.is_file():
            return
        lines = [line for line in self.path.read_text().splitlines() if json.loads(line)["step"] <= step]
        part = self.path.with_suffix(".part")
        part.write_text("".join(f"{line}\n" for line in lines))
        part.replace(self.path)
        for values in map(json.loads, lines):
            self.learn(values["step"], values)

    def learn(self, step: int, figures: Mapping[str, float]) -> None:
        """Remember the step with the lowest validation loss."""
        loss = _rounded(figures.get("validation_loss", math.inf))
        if loss < self.lowest:
            self.lowest, self.best_step = loss, step

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        if not self.main:
            return
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **{k: _rounded(v) for k, v in figures.items()}}) + "\n")
        if self.board is not None:
            for name, value in figures.items():
                self.board.add_scalar(name.replace("validation_", "validation/"), value, step)
            self.board.flush()

    def show(self, step: int, sheet: Image.Image) -> None:
        if self.board is not None:
            self.board.add_image("pictures", np.asarray(sheet.convert("RGB")), step, dataformats="HWC")

    def flush(self, step: int, learning_rate: float) -> dict[str, float]:
        """Log the means over steps, slices and processes since the last line."""
        found = means(self.pending)
        if self.several:
            found = means(gather_object([found]))
        seconds = time.perf_counter() - self.started
        found |= {"samples_per_second": self.rate * len(self.pending) / seconds, "rate": learning_rate}
        self.write(step, found)
        self.restart()
        return found

    def restart(self) -> None:
        self.pending, self.started = [], time.perf_counter()

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


def _board(out: Path, step: int) -> Any:  # noqa: ANN401 - TensorBoard's writer, imported on use
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise SettingsError(
            "tensorboard is not installed; run: pip install 'photomaker[train]', or set tensorboard to false"
        ) from error
    return SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)


def _rounded(value: float) -> float:
    return float(f"{value:.9g}")


@contextmanager
def _stop_request() -> Iterator[list[int]]:
    """Collect SIGTERM instead of dying by it, so that a checkpoint can still be written."""
    received: list[int] = []
    try:
        old = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    except ValueError:  # not the main thread
        yield received
        return
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, old)


def train(recipe: Recipe, settings: TrainSettings, out: Path, resume: bool = True) -> dict[str, float]:
    """Train a recipe, or continue with a training that was stopped.

    Args:
        recipe: What to train.
        settings: How.
        out: Folder of this training: `checkpoints/` (the last ones, and `best.pt` with the lowest validation loss),
            `log.jsonl`, `previews/`, `tensorboard/`, and at the end `export/` and `done.json`.
        resume: Whether to continue from the last checkpoint in `out`; otherwise old checkpoints are removed.

    Returns:
        The last logged and validated figures; `finished` is 0 if the run was asked to stop before its end.

    Raises:
        WeightsError: The checkpoint found is damaged or belongs to another model.
        SettingsError: The recipe has no rows.
        OutputError: The folder cannot be written or the disk is full.
    """
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        return _train(recipe, settings, out, resume)
    except OSError as error:
        if error.errno in _FULL or not out.is_dir():
            raise OutputError(_no_room(out, error)) from error
        raise


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _train(recipe: Recipe, settings: TrainSettings, out: Path, resume: bool) -> dict[str, float]:
    if not len(recipe.rows):
        raise SettingsError(f"the data has no rows for the recipe {recipe.name}; make a larger dataset")
    run = Run(recipe, settings, out)
    _begin(run, resume)
    figures = _loop(run)
    if run.step < settings.steps:
        return {**figures, "finished": 0.0}
    if settings.export == "best" and (out / "checkpoints" / BEST).is_file():
        run.restore(out / "checkpoints" / BEST)
    run.export()
    if run.accelerator.is_main_process:
        _write_done(run, figures)
    return {**figures, "finished": 1.0}


def export_checkpoint(recipe: Recipe, settings: TrainSettings, out: Path) -> Path:
    """Export from the newest checkpoint in `out`, or the best if the settings say so, without training on.

    Raises:
        WeightsError: There is no checkpoint, or it does not fit.
    """
    found = checkpoints(Path(out))
    if not found:
        raise WeightsError(f"there is no checkpoint under {out}; train first")
    run = Run(recipe, settings, Path(out))
    best = Path(out) / "checkpoints" / BEST
    run.restore(best if settings.export == "best" and best.is_file() else found[-1])
    return run.export()


def _begin(run: Run, resume: bool) -> None:
    found = checkpoints(run.out)
    run.accelerator.wait_for_everyone()  # until all have done their share of what is computed beforehand
    if found and resume:
        run.restore(found[-1])
        return
    if run.accelerator.is_main_process:
        best = run.out / "checkpoints" / BEST
        for path in [*found, best, run.out / "log.jsonl", run.out / "done.json"]:
            path.unlink(missing_ok=True)
        shutil.rmtree(run.out / "tensorboard", ignore_errors=True)
    run.accelerator.wait_for_everyone()
    run.broadcast()


def _loop(run: Run) -> dict[str, float]:
    settings, processes = run.settings, run.accelerator.num_processes
    batch = settings.batch_size * settings.accumulate * processes
    order = RowOrder(run.recipe.rows, run.recipe.groups, batch, settings.seed)
    log = _Log(run)
    if log.main:
        _mark_best(run, log)  # a run may have been killed between writing a checkpoint and marking it
    figures: dict[str, float] = {}
    for module in run.modules.values():
        module.train()
    bar = tqdm(
        total=settings.steps, initial=run.step, desc=run.recipe.name, disable=not log.main, mininterval=2
    )
    with _stop_request() as stop, bar:
        while run.step < settings.steps:
            log.pending.append(run.advance(order(run.step)))
            bar.update()
            last = run.step == settings.steps
            if last or run.step % settings.log_every == 0:
                figures |= log.flush(run.step, run.optimiser.param_groups[0]["lr"])
                bar.set_postfix(loss=f"{figures['loss']:.4f}", rate=f"{figures['samples_per_second']:.0f}/s")
            stopping = _any_process(run, bool(stop)) if run.step % 10 == 0 or processes == 1 else False
            if last or stopping or (settings.save_every and run.step % settings.save_every == 0):
                figures |= _save_and_validate(run, log)
                log.restart()
            if settings.preview_every and (last or run.step % settings.preview_every == 0):
                figures |= _show(run, log)
                log.restart()
            if stopping:
                break
    log.close()
    return figures


def _any_process(run: Run, flag: bool) -> bool:
    if run.accelerator.num_processes == 1:
        return flag
    return bool(run.accelerator.reduce(torch.tensor(float(flag), device=run.accelerator.device)))


def _save_and_validate(run: Run, log: _Log) -> dict[str, float]:
    # Validated and logged first: what is logged beyond the last checkpoint is forgotten by who continues from it.
    figures = {f"validation_{name}": value for name, value in run.validate().items()}
    if figures:
        log.write(run.step, figures)
    state = run.state()
    if log.main:
        _save(state, run.out, run.settings.keep)
        log.learn(run.step, figures)
        _mark_best(run, log)
    return figures


def _mark_best(run: Run, log: _Log) -> None:
    """Give the newest checkpoint a second name, which outlives it, if its validation loss is the lowest so far."""
    if log.best_step == run.step:
        _keep_best(checkpoints(run.out)[-1])


def _keep_best(saved: Path) -> None:
    """Give a checkpoint its second name, which outlives it."""
    part = saved.with_name("best.part")
    part.unlink(missing_ok=True)
    try:
        part.hardlink_to(saved)
    except OSError:  # a file system without hard links
        shutil.copyfile(saved, part)
    part.replace(saved.with_name(BEST))


def _show(run: Run, log: _Log) -> dict[str, float]:
    """Have pictures made and put them where they can be looked at."""
    preview = run.preview()
    if preview is None:
        return {}
    folder = run.out / "previews"
    folder.mkdir(exist_ok=True)
    save_png(preview.image, folder / f"step_{run.step:08d}.png")
    log.show(run.step, preview.image)
    figures = {f"preview_{name}": value for name, value in preview.figures.items()}
    log.write(run.step, figures)
    return figures


def _write_done(run: Run, figures: Mapping[str, float]) -> None:
    data = {
        "recipe": run.recipe.name,
        "step": run.step,
        "settings": asdict(run.settings),
        "figures": dict(figures),
    }
    part = run.out / "done.part"
    part.write_text(json.dumps(data, indent=1) + "\n")
    part.replace(run.out / "done.json")
