"""What docs/serve.md tells people to type works, on the bundled model."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.apps.served import client, served

from photomaker import weights
from photomaker.studio.desk.desk import Desk

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
ROWS = re.findall(r"^\| .* \| `(curl [^`]*)` \|$", PAGE, re.MULTILINE)


def test_every_route_has_a_line_to_try():
    from photomaker.apps.server.app import create_app  # noqa: F401 - so that what is missing is told here

    assert len(ROWS) == 20
    for path in (
        "identities",
        "identities/mix",
        "jobs",
        "images",
        "models",
        "styles",
        "images/generations",
        "images/edits",
    ):
        assert f"/v1/{path}`" in PAGE


@pytest.mark.bundled
@pytest.mark.skipif(not weights.SMALL.is_dir(), reason="the bundled weights are not trained yet")
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_lines_work_in_their_order(tmp_path):
    from photomaker.studio.engine import Engine

    (tmp_path / "examples").symlink_to(ROOT / "examples")
    first, files = BLOCKS[0], next(block for block in BLOCKS if "upload:scene" in block)
    rows = sorted(ROWS, key=lambda row: ("DELETE" in row, "forget" in row))
    with served(Desk(Engine.open(), tmp_path / "desk")) as url:
        with client(url) as http:
            photo = (ROOT / "examples" / "ben" / "1.png").read_bytes()
            http.post("/v1/identities", files={"photos": photo}, data={"name": "Ben"}).raise_for_status()
        script = ["set -e", 'curl() { command curl -fsS "$@"; }']
        script += [
            first.replace("http://127.0.0.1:8765", url).replace('"n": 4', '"n": 1, "steps": 3'),
            files,
            *rows,
        ]
        result = subprocess.run(
            ["bash", "-c", "\n".join(script)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "ada.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "ada.safetensors").is_file()
    assert "event: ended" in result.stdout
