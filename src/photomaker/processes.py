"""Processes that do work for this one: they end when it does, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def interruptible() -> Iterator[None]:
    """Have requests to end come as KeyboardInterrupt: SIGTERM, and SIGINT where a shell has switched it off.

    A shell starts what goes to the background deaf to SIGINT. Outside the main thread nothing changes.

    Raises:
        KeyboardInterrupt: This process was asked to end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, _interrupt)
    if before[signal.SIGINT] is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


def serve_parent(ask_to_end: bool = False) -> None:
    """Call this first in a process that works for another: it ends with that one and leaves Ctrl-C to it.

    Args:
        ask_to_end: Whether it is sent SIGTERM, so that it can keep what it has done; else it ends at once.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not ask_to_end:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, args=(ask_to_end,), daemon=True).start()


def _end_with_parent(ask_to_end: bool) -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    if ask_to_end:
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        os._exit(1)


@contextmanager
def pool(
    workers: int, begin: Callable[..., None] | None = None, *given: Any
) -> Iterator[ProcessPoolExecutor]:
    """Processes that carry out calls; where the context ends in an error they end in the middle of their work.

    Args:
        workers: How many.
        begin: Called in each of them first.
        given: Its arguments.
    """
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, context, _serve, (begin, given))
    try:
        yield executor
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _serve(begin: Callable[..., None] | None, given: tuple[Any, ...]) -> None:
    serve_parent()
    if begin is not None:
        begin(*given)
