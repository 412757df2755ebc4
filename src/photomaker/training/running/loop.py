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
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch
from tqdm import tqdm

from photomaker.errors import OutputError, SettingsError, WeightsError
from photomaker.images import save_png
from photomaker.training.data.row_order import RowOrder
from photomaker.training.running.average import Average
from photomaker.training.running.checkpoint import (
    BEST,
    checkpoints,
    keep_best,
    no_room,
    save_checkpoint,
    take_over,
)
from photomaker.training.running.log import TrainLog
from photomaker.training.running.recipe import Preview, Recipe
from photomaker.training.running.run import Run
from photomaker.training.running.settings import TIMED, TrainSettings, rate_factor

__all__ = [
    "Average", "Preview", "Recipe", "RowOrder", "Run", "TrainSettings", "checkpoints", "export_checkpoint",
    "rate_factor", "take_over", "train",
]  # fmt: skip


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
            raise OutputError(no_room(out, error)) from error
        raise


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _train(recipe: Recipe, settings: TrainSettings, out: Path, resume: bool) -> dict[str, float]:
    if not len(recipe.rows):
        raise SettingsError(f"the data has no rows for the recipe {recipe.name}; make a larger dataset")
    run = Run(recipe, settings, out)
    _begin(run, resume)
    figures = _loop(run)
    if run.step < run.settings.steps:
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
    log = TrainLog(run)
    if log.main:
        _mark_best(run, log)  # a run may have been killed between writing a checkpoint and marking it
    figures: dict[str, float] = {}
    for module in run.modules.values():
        module.train()
    bar = tqdm(
        total=settings.steps, initial=run.step, desc=run.recipe.name, disable=not log.main, mininterval=2
    )
    first, start = run.step, time.monotonic()
    with _stop_request() as stop, bar:
        while run.step < run.settings.steps:
            log.pending.append(run.advance(order(run.step)))
            bar.update()
            if settings.seconds and run.step - first == TIMED:
                run.settings = _timed(run, time.monotonic() - start)
                bar.reset(run.settings.steps)
                bar.update(run.step)
            last = run.step == run.settings.steps
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


def _timed(run: Run, took: float) -> TrainSettings:
    """The settings with as many steps as fit into what is left of the time, by the slowest process.

    Args:
        run: After `TIMED` steps of this session.
        took: Seconds that these took.
    """
    left = max(0.0, run.settings.seconds - took)
    most = torch.tensor(took, device=run.accelerator.device)
    if run.accelerator.num_processes > 1:
        torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
        left = max(0.0, run.settings.seconds - float(most))
    return replace(run.settings, steps=run.step + int(TIMED * left / float(most)))


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


def _any_process(run: Run, flag: bool) -> bool:
    if run.accelerator.num_processes == 1:
        return flag
    return bool(run.accelerator.reduce(torch.tensor(float(flag), device=run.accelerator.device)))


def _save_and_validate(run: Run, log: TrainLog) -> dict[str, float]:
    # Validated and logged first: what is logged beyond the last checkpoint is forgotten by who continues from it.
    figures = {f"validation_{name}": value for name, value in run.validate().items()}
    if figures:
        log.write(run.step, figures)
    state = run.state()
    if log.main:
        save_checkpoint(state, run.out, run.settings.keep)
        log.learn(run.step, figures)
        _mark_best(run, log)
    return figures


def _mark_best(run: Run, log: TrainLog) -> None:
    """Give the newest checkpoint a second name, which outlives it, if its validation loss is the lowest so far."""
    if log.best_step == run.step:
        keep_best(checkpoints(run.out)[-1])


def _show(run: Run, log: TrainLog) -> dict[str, float]:
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
