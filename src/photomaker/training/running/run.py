"""The state of one training: what a checkpoint holds, how it is put back, and how a step is taken."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from photomaker.errors import WeightsError
from photomaker.training.running.average import Average, buffers_of, copy_tensors, trained_tensors
from photomaker.training.running.checkpoint import CHECKPOINT_FORMAT, load_checkpoint, restore_tensors
from photomaker.training.running.recipe import Preview, Recipe
from photomaker.training.running.settings import TrainSettings, rate_factor
from photomaker.training.running.sharding import (
    asked,
    load_state,
    put_together,
    shard,
    whole,
    whole_state,
)

REDUCED = 2**24
"""Numbers in one message between processes, so that a step takes little memory beside the gradients."""


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
        self.buffers = buffers_of(self.modules)
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
        state = load_checkpoint(path)
        for name, value in self.recipe.signature().items():
            before = state.get("signature", {}).get(name, value)
            if before != value:
                raise WeightsError(
                    f"{path} was trained with another {name} ({before}, now {value}); choose another folder"
                )
        restore_tensors(self.weights, state["weights"], path)
        restore_tensors(self.buffers, state["buffers"], path)
        if self.average:
            # A run that was started without averaging may continue with it: the average then starts here.
            restore_tensors(self.average.shadow, state["average"] or state["weights"], path)
        load_state(self.optimiser, state["optimiser"])
        self.step = state["step"]

    def broadcast(self) -> None:
        """Give every process the weights of the first."""
        if self.accelerator.num_processes > 1:
            # parts of weights come from one process each anyhow
            for tensor in [*([] if self.cut else self.weights.values()), *self.buffers.values()]:
                torch.distributed.broadcast(tensor.data, 0)
        if self.average:
            copy_tensors(self.weights, self.average.shadow)

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
