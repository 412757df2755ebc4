"""Executors of a stage's units: processes of this machine, or Ray actors on several.

Both run the same `Hand`, which opens a stage once and then does one unit after another, on one thread. So what comes
out is equal, byte for byte, whoever does it and in whatever order.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, Self

from photomaker.cluster import join, ray_module
from photomaker.errors import OutputError, PhotoMakerError, SettingsError
from photomaker.processes import serve_parent

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from photomaker.dataset.tasks import Outcome, Task

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_PATIENCE = 5.0


@dataclass(frozen=True)
class Run:
    """Who builds.

    Attributes:
        executor: "local" for processes of this machine, "ray" for a Ray cluster, whose machines must all see the
            dataset's folder under the same path.
        workers: Processes or actors, 1 or more; None takes one for each core.
        address: Of the Ray cluster, such as "auto"; None starts Ray on this machine.
        gpus: GPUs that one Ray actor takes, 0 or more; 0.25 lets four share one.

    Raises:
        SettingsError: A value is outside its range.
    """

    executor: Literal["local", "ray"] = "local"
    workers: int | None = None
    address: str | None = None
    gpus: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.workers is not None and self.workers < 1:
            raise SettingsError(f"run.workers is {self.workers}; give 1 or more, or leave it out")
        if not self.gpus >= 0:
            raise SettingsError(f"run.gpus is {self.gpus}; give 0 or more")

    def open(self) -> Executor:
        """The executor; nothing starts before it has something to do.

        Raises:
            SettingsError: Ray is asked for and not installed.
        """
        if self.executor == "ray":
            return RayExecutor(self)
        return LocalExecutor(self.workers or _cores())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Hand:
    """What works inside a worker: keeps the stage that it opened last."""

    def __init__(self) -> None:
        """Hold this process to one thread, which its results should not depend on."""
        os.environ.update(dict.fromkeys(_THREADS, "1"))
        import pyarrow as pa
        import pyarrow.dataset  # at its first use it takes seconds, which are no unit's

        pa.set_cpu_count(1)
        self._opened: tuple[bytes, Callable[[int], Outcome]] | None = None

    def ready(self) -> None:
        """Answer, which shows that all is imported."""

    def do(self, work: bytes, unit: int) -> Outcome | Exception:
        """Do a unit.

        Args:
            work: A pickled `Task`.
            unit: The number of the unit.

        Returns:
            What became of it, or the mistake or fault that stopped it.
        """
        try:
            opening = 0.0
            if self._opened is None or self._opened[0] != work:
                begun = perf_counter()
                self._opened = None  # the models of two stages need not fit in memory at once
                one: Task = pickle.loads(work)
                self._opened = (work, one.open())
                _one_torch_thread()
                opening = perf_counter() - begun
            return replace(self._opened[1](unit), opening=opening)
        except PhotoMakerError as error:
            return error
        except Exception:  # noqa: BLE001 - told by the process that asked
            return RuntimeError(traceback.format_exc())


def _one_torch_thread() -> None:
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


class Executor(ABC):
    """Does the units of stages; a context that ends its workers.

    Attributes:
        workers: How many units can be done at once.
    """

    workers: int

    @abstractmethod
    def ready(self, count: int) -> None:
        """Start workers until there are `count`, and wait until they can work.

        Raises:
            SettingsError: There is no such cluster.
            OutputError: A worker died.
        """

    @abstractmethod
    def run(self, work: Task, units: Sequence[int], count: int) -> Iterator[Outcome]:
        """Do units, in any order; gives what became of each as soon as it is known.

        Args:
            work: The stage.
            units: Numbers of its units.
            count: How many workers should be at it at once, all of them `ready`.

        Raises:
            PhotoMakerError: A unit met a mistake of the user's or a full disk; others stay as they are.
            OutputError: A worker died.
            RuntimeError: A step is faulty.
        """

    def __enter__(self) -> Self:
        """Start nothing yet."""
        return self

    @abstractmethod
    def __exit__(self, *error: object) -> None:
        """End the workers, also in the middle of a unit."""


def _serve(pipe: Connection) -> None:
    """The life of a local worker: it ends with its parent, however that ends."""
    serve_parent()
    hand = Hand()
    try:
        pipe.send(None)
        while True:
            pipe.send(hand.do(*pipe.recv()))
    except (EOFError, OSError):
        return


class LocalExecutor(Executor):
    """Processes of this machine, started when first needed and kept from stage to stage."""

    def __init__(self, workers: int) -> None:
        """Take the number of processes."""
        self.workers = workers
        self._processes: dict[Connection, BaseProcess] = {}

    def ready(self, count: int) -> None:
        """See `Executor.ready`."""
        new = [self._start() for _ in range(len(self._processes), count)]
        for pipe in new:
            self._answer(pipe, 0)

    def run(self, work: Task, units: Sequence[int], count: int) -> Iterator[Outcome]:
        """See `Executor.run`."""
        order, left, busy = pickle.dumps(work), deque(units), dict[Connection, int]()
        for pipe in list(self._processes)[: min(count, len(units))]:
            busy[pipe] = left.popleft()
            _send(pipe, order, busy[pipe])
        while busy:
            ready = wait(list(busy))
            for pipe in [pipe for pipe in busy if pipe in ready]:
                outcome = self._answer(pipe, busy.pop(pipe))
                if left:
                    busy[pipe] = left.popleft()
                    _send(pipe, order, busy[pipe])
                yield outcome

    def _answer(self, pipe: Connection, unit: int) -> Outcome:
        try:
            answer = pipe.recv()
        except (EOFError, OSError) as error:
            raise _dead(unit) from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        self._processes[ours] = process
        return ours

    def __exit__(self, *error: object) -> None:
        """Kill the workers; no file of theirs is whole before it is renamed."""
        for pipe, process in self._processes.items():
            process.kill()
            pipe.close()
        for process in self._processes.values():
            process.join(_PATIENCE)
        self._processes.clear()


def _send(pipe: Connection, order: bytes, unit: int) -> None:
    try:
        pipe.send((order, unit))
    except OSError as error:
        raise _dead(unit) from error


def _dead(unit: int) -> OutputError:
    return OutputError(
        f"a worker died at unit {unit}, probably because memory ran out; use fewer workers (--set "
        "run.workers=1) and start again: finished units are kept"
    )


class RayExecutor(Executor):
    """Ray's actors, which may be on many machines."""

    def __init__(self, run: Run) -> None:
        """See whether Ray is there; it is started when first needed.

        Raises:
            SettingsError: It is not installed.
        """
        ray = ray_module("run.executor")
        self._ray, self._run, self.workers = ray, run, run.workers or _cores()
        self._actors: list[Any] = []
        self._started = False

    def run(self, work: Task, units: Sequence[int], count: int) -> Iterator[Outcome]:
        """See `Executor.run`."""
        ray, order, left = self._ray, pickle.dumps(work), deque(units)
        busy: dict[Any, tuple[Any, int]] = {}
        for actor in self._actors[: min(count, len(units))]:
            unit = left.popleft()
            busy[actor.do.remote(order, unit)] = (actor, unit)
        while busy:
            (ready,), _ = ray.wait(list(busy))
            actor, unit = busy.pop(ready)
            try:
                answer = ray.get(ready)
            except ray.exceptions.RayError as error:
                raise _dead(unit) from error
            if isinstance(answer, Exception):
                raise answer
            if left:
                unit = left.popleft()
                busy[actor.do.remote(order, unit)] = (actor, unit)
            yield answer

    def ready(self, count: int) -> None:
        """See `Executor.ready`."""
        ray = self._ray
        if not self._started:
            join(ray, self._run.address, self.workers, "run.address")
            self._started = True
        actor = ray.remote(num_cpus=1, num_gpus=self._run.gpus)(Hand)
        while len(self._actors) < count:
            self._actors.append(actor.remote())
        try:
            ray.get([actor.ready.remote() for actor in self._actors])
        except ray.exceptions.RayError as error:
            raise _dead(0) from error

    def __exit__(self, *error: object) -> None:
        """End the actors, and Ray where it was started here."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors.clear()
        if self._started:
            self._ray.shutdown()
            self._started = False
