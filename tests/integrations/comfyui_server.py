"""A real ComfyUI on the CPU, in a base folder of its own, and the way to talk to it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 180.0
"""Seconds for a start."""


def home() -> Path | None:
    """Where ComfyUI is; None where the tests shall do without."""
    place = os.environ.get("COMFYUI_HOME")
    return Path(place) if place else None


def python_of(place: Path) -> str:
    """The interpreter that ComfyUI runs by."""
    own = [place / "venv/bin/python", place / ".venv/bin/python", place.parent / "venv/bin/python"]
    found = [str(path) for path in own if path.is_file()]
    return os.environ.get("COMFYUI_PYTHON") or (found or [sys.executable])[0]


def base_folder(folder: Path) -> Path:
    """A ComfyUI base folder with our nodes, the probe and the photos of the examples."""
    for name in ("custom_nodes", "input", "output", "models/photomaker", "models/checkpoints", "user"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    nodes = folder / "custom_nodes"
    for name, place in {
        "photomaker": "integrations/comfyui",
        "probe": "tests/integrations/comfyui_probe",
    }.items():
        if not (nodes / name).exists():
            (nodes / name).symlink_to(ROOT / place)
    for person in ("ada", "ben"):
        shutil.copytree(ROOT / "examples" / person, folder / "input" / person, dirs_exist_ok=True)
    return folder


@dataclass
class Done:
    """A graph that was run: what its nodes showed, and what went wrong."""

    outputs: dict
    error: str


class Server:
    """ComfyUI, started on a free port of the loopback and stopped afterwards."""

    def __init__(self, place: Path, base: Path):
        self.base = base
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = base / "server.log"
        command = [python_of(place), "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port)]
        command += [
            "--disable-api-nodes",
            "--base-directory",
            str(base),
            "--user-directory",
            str(base / "user"),
        ]
        paths = f"{ROOT / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        environment = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=place, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        self._wait()

    def _wait(self):
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends and self.process.poll() is None:
            try:
                self.call("/system_stats")
            except OSError:
                time.sleep(0.5)
            else:
                return
        self.stop()
        raise RuntimeError(f"ComfyUI did not start:\n{self.log.read_text()[-3000:]}")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def call(self, path: str, data: object = None) -> dict:
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)

    def run(self, graph: dict, patience: float = 600) -> Done:
        """Queue a graph and wait for its end."""
        answer = self.call("/prompt", {"prompt": graph})
        if "prompt_id" not in answer:
            return Done({}, json.dumps(answer))
        number, ends = answer["prompt_id"], time.monotonic() + patience
        while time.monotonic() < ends:
            told = self.call(f"/history/{number}").get(number)
            if told and (told["status"]["completed"] or told["status"]["status_str"] == "error"):
                errors = [
                    one["exception_message"]
                    for kind, one in told["status"]["messages"]
                    if kind == "execution_error"
                ]
                return Done(told["outputs"], "\n".join(errors).strip())
            time.sleep(0.3)
        raise TimeoutError(self.log.read_text()[-3000:])
