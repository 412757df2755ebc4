"""A server on loopback in a thread of this process, with fakes or the bundled model behind it."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import contextmanager

import httpx
import uvicorn

from photomaker.apps.server import create_app
from photomaker.studio.desk.desk import Desk

PROMPT = "a photo of a woman img in the snow"


@contextmanager
def served(desk: Desk, settings=None):
    """Serve a desk; yields where."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        create_app(desk, settings), log_level="critical", ws="none", timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        desk.stop()
        server.should_exit = True
        thread.join()
        listening.close()


def client(url: str, token: str | None = None) -> httpx.Client:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=url, headers=headers, timeout=60)


def events(client: httpx.Client, job: str, **more) -> list[tuple[str, dict, str | None]]:
    """All events of a job: name, data, id."""
    with client.stream("GET", f"/v1/jobs/{job}/events", **more) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = "".join(answer.iter_text())
    found = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["event"], json.loads(fields["data"]), fields.get("id")))
    return found


def problem(answer: httpx.Response, status: int, words: str) -> dict:
    """A mistake: the right status, problem+json, one sentence, no traceback."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert words in body["detail"], body["detail"]
    assert "\n" not in body["detail"]
    assert "Traceback" not in answer.text
    return body
