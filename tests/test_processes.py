"""Workers end with whoever started them, however that one ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from photomaker import weights
from photomaker.processes import interruptible, pool

WORKERS = """
import os, sys, time
from photomaker.processes import interruptible, pool

def work(place):
    open(os.path.join(place, str(os.getpid())), "x").close()
    time.sleep(100)

if __name__ == "__main__":
    try:
        with interruptible(), pool(2) as workers:
            for call in [workers.submit(work, sys.argv[1]) for _ in range(4)]:
                call.result()
    except KeyboardInterrupt:
        sys.exit(130)
"""


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def deaf():
    """As a shell starts what goes to the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize(
    ("number", "start", "code"),
    [
        (signal.SIGTERM, None, 130),
        (signal.SIGINT, None, 130),
        (signal.SIGINT, deaf, 130),
        (signal.SIGKILL, None, -signal.SIGKILL),
    ],
    ids=["SIGTERM", "SIGINT", "SIGINT in the background", "SIGKILL"],
)
def test_workers_end_with_who_started_them(tmp_path, number, start, code):
    (tmp_path / "job.py").write_text(WORKERS)
    (tmp_path / "pids").mkdir()
    job = subprocess.Popen(
        [sys.executable, tmp_path / "job.py", tmp_path / "pids"],
        preexec_fn=start,  # noqa: PLW1509 - no thread runs here
        stderr=subprocess.PIPE,
    )
    assert until(lambda: len(os.listdir(tmp_path / "pids")) == 2)
    workers = [int(name) for name in os.listdir(tmp_path / "pids")]
    assert all(map(alive, workers))
    job.send_signal(number)
    _, said = job.communicate(timeout=20)
    assert job.returncode == code, said
    assert until(lambda: not any(map(alive, workers)), 5)
    assert b"Traceback" not in said
    assert len(os.listdir(tmp_path / "pids")) == 2  # nothing new was begun


def square(number):
    return number * number


def test_a_pool_works_and_an_error_comes_through():
    with pool(1) as workers:
        assert workers.submit(square, 3).result() == 9
    with pytest.raises(TypeError), pool(1) as workers:
        workers.submit(square, None).result()


def test_handlers_are_given_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with interruptible():
        assert signal.getsignal(signal.SIGTERM) != before[0]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="children are read from /proc")
@pytest.mark.skipif(not (weights.SMALL / "base").is_dir(), reason="no bundled weights")
@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "--people", 4, "--prompts", 2, "--processes", 2, "--parts", "main", "--gallery", 4],
        ["benchmark", "--methods", "photomaker", "--people", 4, "--processes", 2, "--gallery", 4],
    ],
    ids=["evaluate", "benchmark"],
)
def test_a_benchmark_that_is_ended_leaves_no_worker(tmp_path, words):
    line = [sys.executable, "-m", "photomaker.apps.cli", *map(str, words), "--out", str(tmp_path / "out")]
    job = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=tmp_path)
    tasks = Path(f"/proc/{job.pid}/task/{job.pid}/children")
    assert until(lambda: len(tasks.read_text().split()) >= 2, 120)
    children = [int(pid) for pid in tasks.read_text().split()]
    time.sleep(1)
    job.send_signal(signal.SIGTERM)
    _, said = job.communicate(timeout=30)
    assert job.returncode == 130, said
    assert until(lambda: not any(map(alive, children)), 5)
    assert b"Traceback" not in said
