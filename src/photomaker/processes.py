"""Processes that do work for this one: they end when it does, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any

LOOK_AGAIN = 0.05
"""Seconds."""

_UNDER_WAY: list[None] = []
"""One for each context of `asked_to_end` that the main thread is in."""


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
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with asked_to_end():
            yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def asked_to_end() -> Iterator[None]:
    """Have SIGTERM come as KeyboardInterrupt, and nothing else changed.

    Raises:
        KeyboardInterrupt: This process was asked to end.
    """
    before = signal.signal(signal.SIGTERM, _interrupt)
    _UNDER_WAY.append(None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _UNDER_WAY.pop()


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
        while _UNDER_WAY:
            time.sleep(LOOK_AGAIN)
    os._exit(1)


@contextmanager
def pool(
    workers: int, begin: Callable[..., None] | None = None, *given: Any, ask_to_end: bool = False
) -> Iterator[ProcessPoolExecutor]:
    """Processes that carry out calls; where the context ends in an error they end in the middle of their work.

    Args:
        workers: How many.
        begin: Called in each of them first.
        given: Its arguments.
        ask_to_end: Whether a call can keep what it has done before its process ends: within `asked_to_end` it meets a
            KeyboardInterrupt.
    """
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, context, _serve, (ask_to_end, begin, given))
    try:
        yield executor
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _serve(ask_to_end: bool, begin: Callable[..., None] | None, given: tuple[Any, ...]) -> None:
    serve_parent(ask_to_end)
    if ask_to_end:  # between two calls it waits for the word that there are no more
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if begin is not None:
        begin(*given)
