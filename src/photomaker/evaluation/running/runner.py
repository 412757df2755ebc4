"""The one runner: carries tasks out in this process or in several; what is done already is not done again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Protocol, Self

from PIL import Image

from photomaker.errors import OutputError
from photomaker.evaluation.judges.bundled import Measured
from photomaker.evaluation.people.world import World
from photomaker.evaluation.running.picture_sets import PictureSet
from photomaker.evaluation.running.store import Store
from photomaker.evaluation.running.worker import Tools, Worker
from photomaker.processes import asked_to_end, pool

Progress = Callable[[str, int, int], None]
"""Called with the stage, the tasks done and the tasks there are."""

LOOK_AGAIN = 0.5
"""Seconds after which a gauge is read again while tasks are at work."""


class Task(Protocol):
    """A piece of a plan: it knows whether its result is in the store, and how to bring it there."""

    def done(self, store: Store) -> bool:
        """Whether there is nothing left to do."""

    def carry_out(self, worker: Worker, store: Store) -> None:
        """Do what is left, and write it whole or not at all."""


class Runner:
    """Carries out lists of tasks. Used as a context manager, it ends its processes and gives back the threads.

    Attributes:
        store: Where results are kept.
        world: Where real photos come from, in this process.
    """

    def __init__(
        self,
        settings: Any,  # noqa: ANN401 - the settings of any plan
        tools: Tools,
        store: Store,
        progress: Progress | None = None,
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            settings: Those of the plan; `processes` and `threads` of each are taken from them (None leaves the
                threads as they are), the rest is for the tasks.
            tools: How a process gets what it works with.
            store: Where results are kept.
            progress: Told of every task; None shows bars.
        """
        self.store = store
        self._settings, self._tools = settings, tools
        self._progress = progress or Bar()
        self._pool: ProcessPoolExecutor | None = None
        self._stack = ExitStack()
        self._worker = Worker(settings, tools)

    def __enter__(self) -> Self:
        """Set this process's threads, where it does the work itself."""
        import torch

        self._threads = torch.get_num_threads()
        if self._settings.processes == 1:
            _set_threads(self._settings.threads)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the other processes, without waiting for tasks that have not begun; give back the threads."""
        import torch

        torch.set_num_threads(self._threads)
        self._stack.__exit__(kind, error, trace)

    @property
    def world(self) -> World:
        """Where real photos come from, in this process."""
        return self._worker.world

    def run(
        self,
        stage: str,
        tasks: Sequence[Task],
        *,
        apart: bool = False,
        gauge: Callable[[], tuple[int, int]] | None = None,
        lasting: bool = False,
    ) -> None:
        """Carry out what is missing of some tasks.

        Args:
            stage: What is being done, for the progress.
            tasks: The tasks.
            apart: Give the stage processes of its own, so that their peak memory is of it alone.
            gauge: How much is done, of how much in all, for tasks that take long; None counts tasks.
            lasting: Ask tasks to end, when they must, so that they can keep what they have.

        Raises:
            PhotoMakerError: What a task raises for a mistake of the caller's.
            OutputError: A process was killed.
        """
        missing = [task for task in tasks if not task.done(self.store)]
        done = len(tasks) - len(missing)
        self._progress(stage, *(gauge() if gauge else (done, len(tasks))))
        for more in self._finished(missing, apart, lasting):
            done += more
            if gauge or more:
                self._progress(stage, *(gauge() if gauge else (done, len(tasks))))

    def measure(self, stage: str, sets: Sequence[PictureSet]) -> list[Measured]:
        """Carry out sets of pictures and read what was measured, one measurement a set, in their order."""
        self.run(stage, sets)
        return [one.measured(self.store) for one in sets]

    def pictures(self, of: PictureSet) -> list[Image.Image]:
        """The pictures of a set that has been measured, or of real photos."""
        return of.pictures_in(self.store) if of.generated else of.make(self._worker).pictures

    def _finished(self, missing: Sequence[Task], apart: bool, lasting: bool) -> Iterator[int]:
        """How many tasks came to their end, again and again until all have."""
        if self._settings.processes == 1:
            for task in missing:
                task.carry_out(self._worker, self.store)
                yield 1
        elif missing:
            try:
                with ExitStack() as own:
                    workers = self._workers(own, lasting) if apart or lasting else self._kept_workers()
                    waiting = {workers.submit(_carry_out, task) for task in missing}
                    while waiting:
                        ended, waiting = wait(waiting, LOOK_AGAIN, FIRST_COMPLETED)
                        for one in ended:
                            one.result()
                        yield len(ended)
            except BrokenProcessPool as error:
                raise OutputError(
                    "a process of the benchmark was killed, most likely because memory ran out; give fewer "
                    "--processes and start again: finished rows are kept"
                ) from error

    def _kept_workers(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = self._workers(self._stack, lasting=False)
        return self._pool

    def _workers(self, stack: ExitStack, lasting: bool) -> ProcessPoolExecutor:
        begin = (self._settings, self._tools, self.store, lasting)
        return stack.enter_context(pool(self._settings.processes, _begin, *begin, ask_to_end=lasting))


class Bar:
    """Progress as bars on the terminal, one a stage."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._bars: dict[str, Any] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """See `Progress`."""
        from tqdm import tqdm

        if stage not in self._bars:
            # What was found done is not a measure of speed, so the bar begins there.
            self._bars[stage] = tqdm(desc=stage, total=total, initial=done, unit="person")
        bar = self._bars[stage]
        bar.update(done - bar.n)
        if done >= total:
            self._bars.pop(stage).close()


_PROCESS: dict[str, Any] = {}
"""What this process works with, where it is one of a pool's: a pool calls functions, not methods."""


def _begin(settings: Any, tools: Tools, store: Store, lasting: bool) -> None:  # noqa: ANN401
    _set_threads(settings.threads)
    _PROCESS.update(worker=Worker(settings, tools), store=store, lasting=lasting)


def _carry_out(task: Task) -> None:
    with asked_to_end() if _PROCESS["lasting"] else ExitStack():
        task.carry_out(_PROCESS["worker"], _PROCESS["store"])


def _set_threads(threads: int | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
