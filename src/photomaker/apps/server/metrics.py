"""Metrics for Prometheus: queue, seconds by phase, pictures, likeness."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from photomaker.studio.desk.workers import LIKENESS, MADE

if TYPE_CHECKING:
    from photomaker.studio.desk.desk import Desk

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_LIKENESS = tuple(round(0.1 * step, 1) for step in range(-2, 11))


def _count(desk: Desk, name: str) -> float:
    return desk.counts()[name]


class Metrics:
    """Metrics of one server, in a separate registry."""

    def __init__(self) -> None:
        """Start at 0."""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._seconds = Histogram(
            "photomaker_phase_seconds",
            "Seconds by phase: waiting, identity, drawing (a turn), saving.",
            ["phase"], registry=self._registry, buckets=_SECONDS,
        )  # fmt: skip
        self._pictures = Counter("photomaker_pictures", "Pictures saved.", registry=self._registry)
        self._likeness = Histogram(
            "photomaker_likeness", "Likeness of saved pictures.", registry=self._registry,
            buckets=_LIKENESS,
        )  # fmt: skip

    def watch(self, desk: Desk) -> None:
        """Read the length of a desk's queue at each scrape."""
        for name, about in (("waiting", "Waiting jobs."), ("drawing", "Running jobs.")):
            gauge = Gauge(f"photomaker_jobs_{name}", about, registry=self._registry)
            gauge.set_function(partial(_count, desk, name))

    def measure(self, name: str, value: float) -> None:
        """Record a measurement of the desk."""
        if name == LIKENESS:
            self._likeness.observe(value)
        elif name == MADE:
            self._pictures.inc(value)
        else:
            self._seconds.labels(name).observe(value)

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self._registry)
