"""A web server on loopback that gives planted photos as servers do: slowly, not at first, wrongly, or not at all.

How a photo is given stands in its address, so that one server behaves in every way and needs no list.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

from photomaker.errors import SettingsError


@dataclass(frozen=True)
class Way:
    """How a photo is given.

    Attributes:
        share: Of the photos, 0..1.
        reason: For which a polite downloader must drop it, as `photomaker.dataset` names it; empty if it must arrive.
    """

    share: float
    reason: str = ""


PLAIN = "plain"
WAYS: Mapping[str, Way] = {
    PLAIN: Way(0.33),
    "slow": Way(0.04),
    "busy": Way(0.04),  # 503, and at the second try the photo
    "limited": Way(0.04),  # 429 with Retry-After, and then the photo
    "late": Way(0.04),  # no answer to the first try
    "shaky": Way(0.04),  # the first connection is reset
    "moved": Way(0.04),
    "otherbot": Way(0.04),  # X-Robots-Tag that refuses somebody else
    "missing": Way(0.03, "http 404"),
    "failing": Way(0.03, "http 500"),
    "silent": Way(0.03, "timeout"),
    "resetting": Way(0.03, "no connection"),
    "nowhere": Way(0.03, "no connection"),  # a port that nobody listens at
    "short": Way(0.03, "broken off"),
    "private": Way(0.03, "robots"),
    "closed": Way(0.03, "robots"),  # a host whose robots.txt fails, which refuses everything
    "noai": Way(0.03, "no-AI header"),
    "reserved": Way(0.03, "no-AI header"),
    "page": Way(0.03, "not an image"),
    "large": Way(0.03, "too large"),
    "endless": Way(0.03, "too large"),  # no length is stated
}
"""What may become of a request, by the first word of its path."""

SLOW, SILENT = 0.5, 20.0
"""Seconds until a slow answer comes, and for which a connection that is never answered is held."""

LARGE = 1 << 23
"""Bytes of a large file, which the downloader's limit must lie below."""

_OK = 200
_AT_FIRST = {"late": "silent", "shaky": "resetting", "busy": "overloaded", "limited": "rationed"}
_SIMPLE: Mapping[str, tuple[int, Mapping[str, str]]] = {
    "overloaded": (503, {}),
    "rationed": (429, {"Retry_After": "1"}),
    "missing": (404, {}),
    "failing": (500, {}),
    "otherbot": (_OK, {"X_Robots_Tag": "otherbot: noai, noindex"}),
    "noai": (_OK, {"X_Robots_Tag": "noai, noimageai"}),
    "reserved": (_OK, {"tdm_reservation": "1"}),
}
_NOBODY = 9
_CHUNK = b"x" * (1 << 16)
_ROBOTS = b"User-agent: *\nDisallow: /private/\n"


def address(way: str, name: str, port: int) -> str:
    """Address of a photo.

    Args:
        way: One of `WAYS`.
        name: "PERSON/FILE".
        port: Of the server.
    """
    host = {"closed": f"localhost:{port}", "nowhere": f"127.0.0.1:{_NOBODY}"}.get(way, f"127.0.0.1:{port}")
    return f"http://{host}/{way}/{quote(name)}"


@contextmanager
def serve(photos: Path, port: int) -> Iterator[None]:
    """Serve a folder's photos on loopback, past any proxy of the environment, until the context ends.

    Args:
        photos: With a folder for each person.
        port: Of 127.0.0.1.

    Raises:
        SettingsError: The port is out of range or taken.
    """

    class Handler(_Handler):
        names = frozenset(path.relative_to(photos).as_posix() for path in photos.glob("*/*"))
        folder, tries, lock, ended = photos, Counter(), threading.Lock(), threading.Event()

    try:
        server = _Server(("127.0.0.1", port), Handler)
    except (OSError, OverflowError) as error:
        raise SettingsError(f"port {port} of 127.0.0.1 cannot be used; give another port") from error
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    before = os.environ.get("no_proxy")
    os.environ["no_proxy"] = ",".join(filter(None, (before, "127.0.0.1", "localhost")))
    try:
        yield
    finally:
        if before is None:
            del os.environ["no_proxy"]
        else:
            os.environ["no_proxy"] = before
        Handler.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is not a fault of ours."""


class _Handler(BaseHTTPRequestHandler):
    """Answers by the first word of the path."""

    protocol_version = "HTTP/1.1"
    folder: Path
    names: frozenset[str]
    tries: Counter[str]
    lock: threading.Lock
    ended: threading.Event

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing on the terminal."""

    def do_GET(self) -> None:
        """Give a photo, or what comes instead."""
        way, _, name = self.path.lstrip("/").partition("/")
        if way == "robots.txt":
            fails = (self.headers.get("Host") or "").startswith("localhost")
            self._send(b"" if fails else _ROBOTS, 503 if fails else 200, "text/plain")
        elif name not in self.names:
            self._send(b"", 404)
        else:
            with self.lock:
                self.tries[self.path] += 1
            self._give(way, name, first=self.tries[self.path] == 1)

    def _give(self, way: str, name: str, first: bool) -> None:
        photo = (self.folder / name).read_bytes()
        if first and way in _AT_FIRST:
            way = _AT_FIRST[way]
        match way:
            case "silent":
                self.ended.wait(SILENT)
                self.close_connection = True
            case "resetting":
                self._reset()
            case "endless":
                self._send_endless()
            case "slow":
                self.ended.wait(SLOW)
                self._send(photo)
            case "short":
                self._send(photo, Content_Length=str(len(photo) + 100))
                self.close_connection = True
            case "moved":
                self._send(b"", 302, Location=f"/{PLAIN}/{name}")
            case "page":
                self._send(b"<html></html>", kind="text/html; charset=utf-8")
            case "large":
                self._send(photo + bytes(LARGE - len(photo)))
            case _:
                status, headers = _SIMPLE.get(way, (_OK, {}))
                self._send(photo if status == _OK else b"", status, **headers)

    def _send(self, body: bytes, status: int = 200, kind: str = "image/jpeg", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _send_endless(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "image/jpeg")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(LARGE // len(_CHUNK)):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(_CHUNK), _CHUNK))
        self.wfile.write(b"0\r\n\r\n")

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())
