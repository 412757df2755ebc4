"""`photomaker serve`: the HTTP server on a port, with a model behind it and a folder beneath."""

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
from photomaker.studio.desk import Desk
from photomaker.studio.engine import Engine
from photomaker.studio.limits import Limits

if TYPE_CHECKING:
    from fastapi import FastAPI

    from photomaker.apps.server import ServerSettings
    from photomaker.studio.workshop import Drawer

PORT = 8765
FURTHER = 100
"""Ports after a taken one among which a free one is looked for."""
GOODBYE = 10
"""Seconds that requests which are being answered are given when the server stops."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")


@dataclass(frozen=True)
class Served:
    """What `photomaker serve` was asked for.

    Attributes:
        host: Address to listen on.
        port: Port; 0 takes a free one.
        data: Folder of what is kept.
        token_file: File of tokens; None lets everybody on this machine in.
        limits: What callers may ask for.
        ttl: Seconds after which what was made is deleted; None keeps it.
        allow: NAME=PATH of each model that callers may ask for.
        method: Name of the method.
        engine: Options of `Engine.open`.
        elsewhere: Replicas that draw; None draws in this process.
        signing: What signs pictures.
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
    """Serve until somebody ends it; jobs that are being drawn then go back to the queue.

    Args:
        asked: What is asked for.

    Raises:
        PhotoMakerError: The address needs a token, the port is taken, the folder cannot be used, or the model cannot be
            opened.
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
            terminal.say(f"photomaker serves on {address(listening)}; end it by Ctrl-C")
            terminal.note(f"{desk.engine.profile.line}; what is made is kept in {asked.data}")
            if left:
                terminal.note(f"{left} jobs were left from last time and go on now")
            serve(app, desk, listening)
        finally:
            desk.close()
    waiting = desk.open_jobs
    terminal.say(f"stopped; {waiting} jobs wait and go on at the next start" if waiting else "stopped")


@contextmanager
def drawers_of(asked: Served) -> Iterator[Sequence[Drawer] | None]:
    """Replicas, started and ended here; None where this process draws."""
    if asked.elsewhere is None:
        yield None
        return
    options = {**asked.engine, "method": asked.method, "image_encoder": False}
    with asked.elsewhere.replicas(options) as replicas:
        yield replicas.drawers


def opened(
    asked: Served, allowed: Mapping[str, str] | None = None, drawers: Sequence[Drawer] | None = None
) -> Desk:
    """The desk that is served, its model not loaded yet.

    Raises:
        PhotoMakerError: The model cannot be opened, or the folder cannot be used.
    """
    engine = Engine.open(method=asked.method, **asked.engine)
    seal = asked.signing.sealing()
    return Desk(engine, asked.data, asked.limits, allowed, asked.ttl, drawers, seal=seal)


def application(desk: Desk, settings: ServerSettings) -> FastAPI:
    """The application around a desk.

    Raises:
        SettingsError: What it needs is not installed.
    """
    try:
        from photomaker.apps.server import create_app
    except ModuleNotFoundError as error:
        raise _lacking(error) from error
    return create_app(desk, settings)


def serve(app: FastAPI, desk: Desk, listening: socket.socket, goodbye: int = GOODBYE) -> None:
    """Answer requests until a signal comes, and those that are being answered for some seconds more."""
    import uvicorn

    class Server(uvicorn.Server):
        """Lets those go who listen to jobs, for they would not go by themselves."""

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
    except KeyboardInterrupt:  # uvicorn raises what it has caught again once it has stopped
        return


def settings_of(asked: Served) -> ServerSettings:
    """Who may come in.

    Raises:
        SettingsError: Others could come in and no token is asked for, or the tokens cannot be read.
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
            f"on {asked.host} others can reach the server, so it needs tokens: openssl rand -hex 32 > tokens, then "
            "--token-file tokens; or leave --host at 127.0.0.1"
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
    """Names and places of models that callers may ask for.

    Raises:
        SettingsError: One is not NAME=PATH, or there is nothing.
    """
    found = {}
    for text in allow:
        name, equals, place = text.partition("=")
        if not (equals and name and place):
            raise SettingsError(
                f"{text!r} is no NAME=PATH; write for example --allow canny=models/canny-sdxl"
            )
        if not Path(place).exists():
            raise SettingsError(f"there is no model {place}, which --allow calls {name}; check the path")
        found[name] = str(Path(place).resolve())
    return found


def seconds_of(text: str) -> float:
    """A time such as `90s`, `30m`, `24h` or `7d` in seconds.

    Raises:
        SettingsError: It is none.
    """
    match = _TIME.fullmatch(text.strip().lower())
    if match is None or float(match[1]) <= 0:
        raise SettingsError(f"the time to live is {text!r}; write for example 90s, 30m, 24h or 7d")
    return float(match[1]) * _UNITS[match[2]]


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        SettingsError: The port is taken, which names the next that is free; or the address is none of this machine's.
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
    """Where a browser finds a socket."""
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"
