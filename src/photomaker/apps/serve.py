"""`photomaker serve`: the HTTP server, with a model and a data folder."""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from photomaker.apps import terminal
from photomaker.apps.elsewhere import Elsewhere
from photomaker.apps.signing import Signing
from photomaker.errors import SettingsError
from photomaker.studio.desk.desk import Desk
from photomaker.studio.desk.limits import Limits
from photomaker.studio.engine import Engine

if TYPE_CHECKING:
    from fastapi import FastAPI

    from photomaker.apps.server import ServerSettings
    from photomaker.studio.desk.workers import Drawer

PORT = 8765
FURTHER = 100
"""Number of ports after a port in use that are tried."""
GOODBYE = 10
"""Seconds that open requests get to finish when the server stops."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")


@dataclass(frozen=True)
class Served:
    """The options of `photomaker serve`.

    Attributes:
        host: Address to listen on.
        port: Port; 0 takes a free one.
        data: Data folder.
        token_file: File of tokens; None admits everybody on this machine.
        limits: Limits on requests.
        ttl: Seconds after which stored data is deleted; None keeps it.
        allow: NAME=PATH of each model that callers may name.
        method: Name of the method.
        engine: Options of `Engine.open`.
        elsewhere: Replicas that draw; None draws in this process.
        signing: How pictures are signed.
    """

    host: str = "127.0.0.1"
    port: int = PORT
    data: Path = Path("photomaker-data")
    token_file: Path | None = None
    limits: Limits = field(default_factory=Limits)
    ttl: float | None = None
    allow: Sequence[str] = ()
    method: str = "photomaker"
    engine: Mapping[str, Any] = field(default_factory=dict)
    elsewhere: Elsewhere | None = None
    signing: Signing = Signing()  # noqa: RUF009 - frozen


def run(asked: Served) -> None:
    """Serve until stopped; unfinished jobs then return to the queue.

    Args:
        asked: The options.

    Raises:
        PhotoMakerError: The address needs a token, the port is in use, the folder cannot be used, or the model
            cannot be opened.
    """
    settings = settings_of(asked)
    allowed = models_of(asked.allow)
    with closing(bound(asked.host, asked.port)) as listening, drawers_of(asked) as drawers:
        desk = opened(asked, allowed, drawers)
        left = desk.counts()["waiting"]
        try:
            app = application(desk, settings)
            with terminal.waiting("loading the model"):
                assert desk.engine.method
            terminal.say(f"photomaker serves on {address(listening)}; stop it with Ctrl-C")
            terminal.note(f"{desk.engine.profile.line}; people and pictures are stored in {asked.data}")
            if left:
                terminal.note(f"{left} unfinished jobs of the last run continue now")
            serve(app, desk, listening)
        finally:
            desk.close()
    waiting = desk.open_jobs
    terminal.say(
        f"stopped; {waiting} unfinished jobs will continue at the next start" if waiting else "stopped"
    )


@contextmanager
def drawers_of(asked: Served) -> Iterator[Sequence[Drawer] | None]:
    """Replicas, started and stopped here; None if this process draws."""
    if asked.elsewhere is None:
        yield None
        return
    options = {**asked.engine, "method": asked.method, "image_encoder": False}
    with asked.elsewhere.replicas(options) as replicas:
        yield replicas.drawers


def opened(
    asked: Served, allowed: Mapping[str, str] | None = None, drawers: Sequence[Drawer] | None = None
) -> Desk:
    """The desk to serve, with the model not loaded yet.

    Raises:
        PhotoMakerError: The model cannot be opened, or the folder cannot be used.
    """
    engine = Engine.open(method=asked.method, **asked.engine)
    seal = asked.signing.sealing()
    return Desk(engine, asked.data, asked.limits, allowed, asked.ttl, drawers, seal=seal)


def application(desk: Desk, settings: ServerSettings) -> FastAPI:
    """The application around a desk.

    Raises:
        SettingsError: A required package is not installed.
    """
    try:
        from photomaker.apps.server import create_app
    except ModuleNotFoundError as error:
        raise _lacking(error) from error
    return create_app(desk, settings)


def serve(app: FastAPI, desk: Desk, listening: socket.socket, goodbye: int = GOODBYE) -> None:
    """Answer requests until a signal comes, then finish open requests for some seconds."""
    import uvicorn

    class Server(uvicorn.Server):
        """Disconnects clients that listen to jobs; they would not disconnect by themselves."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            threading.Thread(target=desk.stop).start()
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=goodbye,
        server_header=False,
        ws="none",
    )
    try:
        Server(config).run(sockets=[listening])
    except KeyboardInterrupt:  # uvicorn raises a caught signal again after it has stopped
        return


def settings_of(asked: Served) -> ServerSettings:
    """The tokens of the server.

    Raises:
        SettingsError: Other machines could connect without a token, or the tokens cannot be read.
    """
    try:
        from photomaker.apps.server import ServerSettings
        from photomaker.apps.server.tokens import read_tokens
    except ModuleNotFoundError as error:
        raise _lacking(error) from error
    if asked.token_file is not None:
        return ServerSettings(read_tokens(asked.token_file), hosts=None)
    if not _loopback(asked.host):
        raise SettingsError(
            f"other machines can reach the server on {asked.host}, so it needs tokens: openssl rand -hex 32 > tokens, "
            "then --token-file tokens; or leave --host at 127.0.0.1"
        )
    return ServerSettings()


def _lacking(error: ModuleNotFoundError) -> SettingsError:
    return SettingsError(f"the server needs {error.name}; install it with: pip install 'photomaker[serve]'")


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def models_of(allow: Sequence[str]) -> dict[str, str]:
    """Names and paths of models that callers may name.

    Raises:
        SettingsError: One is not NAME=PATH, or the path does not exist.
    """
    found = {}
    for text in allow:
        name, equals, place = text.partition("=")
        if not (equals and name and place):
            raise SettingsError(
                f"{text!r} is not NAME=PATH; write for example --allow canny=models/canny-sdxl"
            )
        if not Path(place).exists():
            raise SettingsError(f"the model {place} of --allow {name} does not exist; check the path")
        found[name] = str(Path(place).resolve())
    return found


def seconds_of(text: str) -> float:
    """A time such as `90s`, `30m`, `24h` or `7d` in seconds.

    Raises:
        SettingsError: It is not a time.
    """
    match = _TIME.fullmatch(text.strip().lower())
    if match is None or float(match[1]) <= 0:
        raise SettingsError(f"the time to live is {text!r}; write for example 90s, 30m, 24h or 7d")
    return float(match[1]) * _UNITS[match[2]]


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        SettingsError: The port is in use (the message names the next free one), or the address is not this machine's.
    """
    try:
        return _listening(host, port)
    except OSError as error:
        free = _next_free(host, port)
        if free is None:
            raise SettingsError(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another"
            ) from error
        raise SettingsError(
            f"port {port} on {host} cannot be used ({error.strerror}); {free} is free: --port {free}"
        ) from error


def _next_free(host: str, port: int) -> int | None:
    for other in range(port + 1, min(port + FURTHER, 2**16)):
        try:
            _listening(host, other).close()
        except OSError:
            continue
        return other
    return None


def _listening(host: str, port: int) -> socket.socket:
    family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(place)
        made.listen(2048)
    except OSError:
        made.close()
        raise
    return made


def address(listening: socket.socket) -> str:
    """The URL of a socket."""
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"
