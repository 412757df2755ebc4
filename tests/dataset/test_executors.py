"""Processes and Ray's actors come to the same bytes as one process does; nobody outlives a killed build."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.dataset import fakes

from photomaker.dataset.executors import Run
from photomaker.dataset.listing import Input
from photomaker.dataset.runner import Build, tallies
from photomaker.errors import OutputError, SettingsError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    return fakes.album(tmp_path_factory.mktemp("album") / "in")


@pytest.fixture(scope="module")
def built(album, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "out"
    Build(fakes.FakeSettings(Input(folders=album), out)).run()
    return fakes.files_of(out)


@pytest.fixture
def settings(album, tmp_path):
    return fakes.FakeSettings(Input(folders=album), tmp_path / "out", run=Run(workers=2))


def test_two_processes_come_to_the_same(settings, built):
    Build(settings).run()
    assert fakes.files_of(settings.out) == built
    assert {one.workers for one in tallies(settings.out)} == {2}


@pytest.mark.slow
def test_ray_comes_to_the_same(settings, built, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}:{ROOT}")
    Build(replace(settings, run=Run(executor="ray", workers=2))).run()
    assert fakes.files_of(settings.out) == built


def test_without_ray_it_is_named(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r"pip install 'photomaker\[scale\]'"):
        Build(replace(settings, run=Run(executor="ray"))).run()


def test_a_worker_that_dies_is_told_and_ends_the_others(settings, built):
    with pytest.raises(
        OutputError, match=r"a worker died at unit \d, probably because memory ran out.*start again"
    ):
        Build(replace(settings, bright=fakes.Bright(fault="die"))).run()
    assert not list(settings.out.rglob("*.part"))
    Build(replace(settings, run=fakes.InlineRun())).run(fresh="bright")
    assert fakes.files_of(settings.out) == built


@pytest.mark.parametrize("change", [{"workers": 0}, {"gpus": -1}])
def test_settings_out_of_range(change):
    with pytest.raises(SettingsError, match="give"):
        Run(**change)


SCRIPT = """
import signal
import sys
from pathlib import Path
from tests.dataset import fakes
from photomaker.dataset.executors import Run
from photomaker.dataset.listing import Input
from photomaker.dataset.runner import Build, Watcher

class Loud(Watcher):
    def unit(self, name, outcome):
        print(name, flush=True)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs the tests may have been started deaf to it
    out, album = map(Path, sys.argv[1:])
    settings = fakes.FakeSettings(Input(folders=album), out, run=Run(workers=2))
    Build(settings, Loud()).run()
"""


def begun(script, settings, album):
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(script), str(settings.out), str(album)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def session(number):
    """Processes of a session that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[3] == str(number) and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def gone(number, patience=10.0):
    end = time.monotonic() + patience
    while session(number) and time.monotonic() < end:
        time.sleep(0.05)
    return not session(number)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="counts processes as Linux shows them")
def test_workers_end_with_a_build_that_is_killed_or_interrupted(settings, album, built, tmp_path):
    script = tmp_path / "build.py"
    script.write_text(SCRIPT)
    rng = random.Random(1)
    for end in (signal.SIGKILL, signal.SIGINT):
        process = begun(script, settings, album)
        for _ in range(rng.randrange(2, 7)):
            process.stdout.readline()
        time.sleep(rng.uniform(0, 0.05))
        if end == signal.SIGINT:
            os.killpg(process.pid, end)
        else:
            process.kill()
        _, errors = process.communicate(timeout=30)
        assert gone(process.pid), errors
        if end == signal.SIGINT:
            assert process.returncode != 0
            assert not list(settings.out.rglob("*.part"))
    process = begun(script, settings, album)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert fakes.files_of(settings.out) == built
