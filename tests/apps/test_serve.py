"""`photomaker serve`: what is refused, and a real process that is killed, started again, and asked to end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.apps.served import PROMPT, client, events

from photomaker import weights
from photomaker.apps.serve import models_of, seconds_of
from photomaker.errors import SettingsError

ADA = sorted((Path(__file__).parents[2] / "examples" / "ada").glob("*.png"))


def test_a_port_in_use_names_the_next_that_is_free(shell):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = shell.refused("serve", "--port", port, "--data", "data")
    found = re.search(
        rf"port {port} on 127\.0\.0\.1 cannot be used \(Address already in use\); (\d+) is free", line
    )
    assert found, line
    assert int(found[1]) > port
    assert f"--port {found[1]}" in line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--host", "0.0.0.0"), "other machines can reach the server on 0.0.0.0, so it needs tokens"),
        (("--host", "example.com"), "so it needs tokens"),
        (("--token-file", "none"), "cannot read the tokens in none"),
        (("--ttl", "soon"), "the time to live is 'soon'; write for example 90s"),
        (("--allow", "canny"), "'canny' is not NAME=PATH"),
        (("--allow", "canny=nowhere"), "the model nowhere of --allow canny does not exist"),
        (("--host", "192.0.2.1", "--token-file", "TOKENS"), "cannot listen on 192.0.2.1"),
        (("--method", "photomakr"), "did you mean 'photomaker'"),
    ],
)
def test_what_cannot_be_served_is_told_before_anything_is_loaded(shell, words, told):
    (shell.folder / "tokens").write_text("x" * 32)
    given = [str(shell.folder / "tokens") if word == "TOKENS" else word for word in words]
    assert told in shell.refused("serve", "--port", 0, "--data", "data", *given)


def test_times_and_models(tmp_path):
    assert [seconds_of(text) for text in ("90s", "30 m", "1.5h", "7D")] == [90, 1800, 5400, 604800]
    for text in ("0s", "-1h", "7", "h", ""):
        with pytest.raises(SettingsError, match="time to live"):
            seconds_of(text)
    (tmp_path / "a.safetensors").write_bytes(b"x")
    assert models_of([f"a=b={tmp_path}"][:0]) == {}
    assert models_of([f"pixel={tmp_path / 'a.safetensors'}"]) == {"pixel": str(tmp_path / "a.safetensors")}


class Process:
    """`photomaker serve` on the bundled model, as a user starts it."""

    def __init__(self, folder):
        self.folder = folder
        self.running = None

    def start(self):
        source = str(Path(weights.__file__).parents[1])
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": source}
        words = [
            sys.executable,
            "-m",
            "photomaker.apps.cli",
            "serve",
            "--port",
            "0",
            "--data",
            str(self.folder / "data"),
        ]
        with (self.folder / "log").open("w") as log:
            self.running = subprocess.Popen(words, env=environment, stdout=log, stderr=subprocess.STDOUT)
        ends = time.monotonic() + 120
        while not (found := re.search(r"serves on (\S+);", self.said())):
            assert self.running.poll() is None, self.said()
            assert time.monotonic() < ends, self.said()
            time.sleep(0.1)
        return client(found[1])

    def said(self):
        return (self.folder / "log").read_text()

    def end(self, how):
        self.running.send_signal(how)
        return self.running.wait(60)


@pytest.fixture
def process(tmp_path):
    process = Process(tmp_path)
    yield process
    if process.running is not None and process.running.poll() is None:
        process.end(signal.SIGKILL)


def pictures_of(http, job):
    return http.get(f"/v1/jobs/{job}").json()["pictures"]


def drawn(http, job, count):
    """Wait until so many pictures of a job are finished."""
    ends = time.monotonic() + 120
    while len(found := pictures_of(http, job)) < count:
        assert time.monotonic() < ends
        time.sleep(0.05)
    return found


@pytest.mark.slow
@pytest.mark.bundled
@pytest.mark.skipif(not weights.SMALL.is_dir(), reason="the bundled weights are not trained yet")
def test_a_kill_in_mid_job_loses_no_finished_picture_and_the_job_is_drawn_to_its_end(process):
    with process.start() as http:
        files = [("photos", (path.name, path.read_bytes())) for path in ADA]
        assert http.post("/v1/identities", files=files, data={"name": "Ada"}).status_code == 201
        asked = {"people": ["Ada"], "prompts": [PROMPT], "n": 12, "steps": 6}
        job = http.post("/v1/jobs", json=asked).json()["id"]
        waiting = http.post("/v1/jobs", json={**asked, "n": 1, "seed": 50}).json()["id"]
        kept = drawn(http, job, 4)
    process.end(signal.SIGKILL)
    with process.start() as http:
        assert "2 unfinished jobs of the last run continue now" in process.said()
        assert pictures_of(http, job)[: len(kept)] == kept
        for one in (job, waiting):
            assert events(http, one)[-1][1]["state"] == "done"
        made = pictures_of(http, job)
        assert [one["seed"] for one in made] == list(range(12))
        assert made[: len(kept)] == kept
        assert all(http.get(one["url"]).status_code == 200 for one in made)
        assert len(list((process.folder / "data" / "pictures").iterdir())) == 13
        last = http.post("/v1/jobs", json={**asked, "steps": 100}).json()["id"]
        with http.stream("GET", f"/v1/jobs/{last}/events") as answer:
            lines = answer.iter_lines()
            next(lines)
            process.running.send_signal(signal.SIGTERM)
            assert "event: ended" not in list(lines)  # who listens is let go
    assert process.running.wait(60) == 0
    assert "stopped; 1 unfinished jobs will continue at the next start" in process.said()
    assert "Traceback" not in process.said()
