"""Seconds a picture and peak memory, measured in a separate process that does nothing else."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import replace

from photomaker.evaluation.bench import Bench, Part
from photomaker.evaluation.settings import BenchmarkSettings
from photomaker.evaluation.tasks import Pictures
from photomaker.evaluation.workshop import Tools, Worker
from photomaker.processes import pool

BATCH = 8
MEBIBYTE = 2**20


def measure(bench: Bench, tools: Tools) -> Part:
    """Measure one picture at a time and a batch of `BATCH`, with all threads that the run gives a process."""
    batch = bench.picture_task(bench.people[0], bench.prompts[:1], BATCH)
    with pool(1) as alone:
        return Part({}, {"cost": alone.submit(weigh, bench.settings, tools, batch).result()})


def weigh(settings: BenchmarkSettings, tools: Tools, batch: Pictures) -> dict[str, float | int]:
    """Generate one picture and then a batch, after one to warm up, and read this process's memory."""
    import torch

    torch.set_num_threads(settings.threads)
    worker = Worker(settings, tools)
    start = time.perf_counter()
    _ = worker.method
    opened = time.perf_counter() - start
    one = replace(batch, prompts=batch.prompts[:1], seeds=batch.seeds[:1])
    start = time.perf_counter()
    worker.identity(one)
    fitted = time.perf_counter() - start
    worker.make(one)
    return {
        "open_seconds": opened,
        "fit_seconds": fitted,
        "seconds_one": worker.make(one).seconds,
        "seconds_each_of_batch": worker.make(batch).seconds / len(batch.prompts),
        "batch": len(batch.prompts),
        "threads": settings.threads,
        "peak_memory_mib": peak_memory() / MEBIBYTE,
        **_device_memory(),
    }


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak if sys.platform == "darwin" else peak * 1024


def _device_memory() -> dict[str, float]:
    import torch

    if not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return {}
    return {"peak_device_memory_mib": torch.cuda.max_memory_allocated() / MEBIBYTE}
