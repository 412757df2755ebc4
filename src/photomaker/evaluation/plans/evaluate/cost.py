"""Seconds a picture and peak memory, measured in a separate process that does nothing else."""

from __future__ import annotations

import time
from dataclasses import replace

from photomaker.evaluation.plans.cast import Cast, Part
from photomaker.evaluation.plans.evaluate.settings import EvaluationSettings
from photomaker.evaluation.running.picture_sets import Pictures
from photomaker.evaluation.running.worker import Tools, Worker, device_memory, process_memory
from photomaker.processes import pool

BATCH = 8


def measure(cast: Cast, tools: Tools) -> Part:
    """Measure one picture at a time and a batch of `BATCH`, with all threads that the run gives a process."""
    batch = cast.picture_task(cast.people[0], cast.prompts[:1], BATCH)
    with pool(1) as alone:
        return Part({}, {"cost": alone.submit(weigh, cast.settings, tools, batch).result()})


def weigh(settings: EvaluationSettings, tools: Tools, batch: Pictures) -> dict[str, float | int]:
    """Generate one picture and then a batch, after one to warm up, and read this process's memory."""
    import torch

    torch.set_num_threads(settings.threads)
    worker = Worker(settings, tools)
    start = time.perf_counter()
    worker.method(settings.entry)
    opened = time.perf_counter() - start
    one = replace(batch, prompts=batch.prompts[:1], seeds=batch.seeds[:1])
    start = time.perf_counter()
    one.identity(worker)
    fitted = time.perf_counter() - start
    one.make(worker)
    alone, together = one.make(worker).seconds, batch.make(worker).seconds
    device = device_memory()
    return {
        "open_seconds": opened,
        "fit_seconds": fitted,
        "seconds_one": alone,
        "seconds_each_of_batch": together / len(batch.prompts),
        "batch": len(batch.prompts),
        "threads": settings.threads,
        "peak_memory_mib": process_memory(),
        **({} if device is None else {"peak_device_memory_mib": device}),
    }
