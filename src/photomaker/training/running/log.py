"""What a training writes down on its way: JSON lines, and TensorBoard if wanted."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from PIL import Image

from photomaker.errors import SettingsError
from photomaker.training.running.run import Run, means


class TrainLog:
    """Means of figures between log lines, written by the first process: JSON lines, and TensorBoard if wanted."""

    def __init__(self, run: Run) -> None:
        """Go on with the file that is there, as far as the run is."""
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
        """Write a line."""
        if not self.main:
            return
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **{k: _rounded(v) for k, v in figures.items()}}) + "\n")
        if self.board is not None:
            for name, value in figures.items():
                self.board.add_scalar(name.replace("validation_", "validation/"), value, step)
            self.board.flush()

    def show(self, step: int, sheet: Image.Image) -> None:
        """Show a sheet of pictures in TensorBoard."""
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
        """Begin the next mean, and its clock."""
        self.pending, self.started = [], time.perf_counter()

    def close(self) -> None:
        """Nothing more is written."""
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
