"""A polite downloader: limits for all and for each host, retries that wait, robots.txt and headers that refuse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass
from urllib.robotparser import RobotFileParser

from photomaker.dataset.base import PACE
from photomaker.errors import SettingsError

if TYPE_CHECKING:
    import aiohttp
    from multidict import CIMultiDictProxy

REFUSALS = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
"""Directives of `X-Robots-Tag` by which a server keeps a picture from being gathered."""

_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_MOVED = frozenset({301, 302, 303, 307, 308})
_HOPS = 5
_CHUNK = 1 << 16
_ROBOTS_BYTES = 500_000


@dataclass(frozen=True)
class Fetch:
    """Download settings; only `robots` and `agent` affect the result.

    Attributes:
        concurrency: Downloads at once, of all workers together, 1 or more.
        per_host: Downloads at once from one host, of all workers together, 1 or more.
        timeout: Seconds that one try may take in all, above 0.
        connect_timeout: Seconds that a connection may take, above 0.
        retries: Tries after the first, for timeouts, broken connections and the statuses 408, 425, 429, 500, 502, 503
            and 504; 0 or more.
        backoff: Seconds before the first retry; doubled each time; a `Retry-After` header may ask for more.
        patience: Longest wait in seconds that a server may ask for; a photo whose server asks for more is dropped.
        robots: Whether robots.txt and the headers that refuse are honoured.
        agent: Name under which robots.txt addresses us, and that servers see.

    Raises:
        SettingsError: A value is outside its range.
    """

    concurrency: int = field(default=32, metadata=PACE)
    per_host: int = field(default=4, metadata=PACE)
    timeout: float = field(default=30.0, metadata=PACE)
    connect_timeout: float = field(default=10.0, metadata=PACE)
    retries: int = field(default=3, metadata=PACE)
    backoff: float = field(default=1.0, metadata=PACE)
    patience: float = field(default=60.0, metadata=PACE)
    robots: bool = True
    agent: str = "photomaker"

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("concurrency", "per_host"):
            if getattr(self, name) < 1:
                raise SettingsError(f"gather.fetch.{name} is {getattr(self, name)}; give 1 or more")
        for name in ("timeout", "connect_timeout"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"gather.fetch.{name} is {getattr(self, name)}; give seconds above 0")
        for name in ("retries", "backoff", "patience"):
            if not getattr(self, name) >= 0:
                raise SettingsError(f"gather.fetch.{name} is {getattr(self, name)}; give 0 or more")

    def most_workers(self, workers: int) -> int:
        """How many of `workers` can share the limits so that each has one download at least."""
        return min(workers, self.concurrency, self.per_host)

    def shared(self, workers: int) -> Fetch:
        """The limits of one of `workers` processes, so that all of them together keep these."""
        return replace(self, concurrency=self.concurrency // workers, per_host=self.per_host // workers)


class Unfetched(Exception):
    """A photo that could not be had.

    Attributes:
        reason: Short fixed words.
        detail: What exactly.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        """Take the reason."""
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class _Again(Exception):
    """A try that failed and may go better later."""

    def __init__(self, end: Unfetched, wait: float = 0.0) -> None:
        super().__init__(end)
        self.end, self.wait = end, wait


class Host:
    """What is known of a server while a downloader lives: its limit, until when it wants rest, its robots.txt."""

    def __init__(self, limit: int) -> None:
        """Know nothing yet."""
        self.gate = asyncio.Semaphore(limit)
        self.reading = asyncio.Lock()
        self.rest_until = 0.0
        self.dead: Unfetched | None = None


class Downloader:
    """Gets files over one session; use `open_downloader`."""

    def __init__(
        self, session: aiohttp.ClientSession, settings: Fetch, robots: dict[str, RobotFileParser]
    ) -> None:
        """Take a session; `robots` keeps what robots.txt files said, scheme and host -> rules."""
        self._session, self._settings, self._robots = session, settings, robots
        self._gate = asyncio.Semaphore(settings.concurrency)
        self._hosts: dict[str, Host] = {}

    async def get(self, url: str, most: int) -> bytes:
        """Download a picture.

        Args:
            url: http or https.
            most: Bytes that it may have.

        Raises:
            Unfetched: It cannot or may not be had.
        """
        for hop in range(_HOPS + 1):
            host = self._host(url)
            if self._settings.robots and not await self._may(url, host):
                raise Unfetched("robots", f"robots.txt refuses {url}" if hop else "robots.txt")
            found = await self._patiently(url, host, most, picture=True)
            if isinstance(found, bytes):
                return found
            url = urljoin(url, found)
        raise Unfetched("too many redirects", f"more than {_HOPS}")

    def _host(self, url: str) -> Host:
        try:
            parts = urlsplit(url)
            name, _ = parts.hostname, parts.port
        except ValueError as error:
            raise Unfetched("bad address", url) from error
        if parts.scheme not in ("http", "https") or not name:
            raise Unfetched("bad address", f"{url!r} is not http or https")
        return self._hosts.setdefault(f"{parts.scheme}://{parts.netloc}", Host(self._settings.per_host))

    async def _may(self, url: str, host: Host) -> bool:
        parts = urlsplit(url)
        site = f"{parts.scheme}://{parts.netloc}"
        async with host.reading:
            if host.dead is not None:  # one look at a dead host is enough for all its photos
                raise host.dead
            if site not in self._robots:
                try:
                    self._robots[site] = await self._rules(f"{site}/robots.txt", host)
                except Unfetched as end:
                    host.dead = end
                    raise
        return self._robots[site].can_fetch(self._settings.agent, url)

    async def _rules(self, url: str, host: Host) -> RobotFileParser:
        """Rules of a host: all is free where there is no robots.txt, nothing if the server fails (RFC 9309)."""
        rules = RobotFileParser()
        try:
            lines = (await self._whole(url, host)).decode("utf-8", "replace").splitlines()
        except Unfetched as end:
            if not end.reason.startswith("http"):
                raise
            failed = end.reason.startswith("http 5") or end.reason == "http 429"
            lines = ["User-agent: *", "Disallow: /"] if failed else []
        rules.parse(lines)
        return rules

    async def _whole(self, url: str, host: Host) -> bytes:
        for _ in range(_HOPS + 1):
            found = await self._patiently(url, host, _ROBOTS_BYTES, picture=False)
            if isinstance(found, bytes):
                return found
            url = urljoin(url, found)
            host = self._host(url)
        raise Unfetched("too many redirects", "of robots.txt")

    async def _patiently(self, url: str, host: Host, most: int, picture: bool) -> bytes | str:
        """The content of a URL, or where it has moved; tries again where that may help."""
        settings = self._settings
        for attempt in range(settings.retries + 1):
            try:
                return await self._try(url, host, most, picture)
            except _Again as again:
                wait = max(again.wait, settings.backoff * 2**attempt)
                if attempt == settings.retries or again.wait > settings.patience:
                    raise again.end from again
                if again.wait:
                    host.rest_until = max(host.rest_until, time.monotonic() + again.wait)
                await asyncio.sleep(wait)
        raise AssertionError("the last try either returns or raises")

    async def _try(self, url: str, host: Host, most: int, picture: bool) -> bytes | str:
        async with host.gate:
            while (rest := host.rest_until - time.monotonic()) > 0:
                await asyncio.sleep(rest)
            return await self._answer(url, most, picture)

    async def _answer(self, url: str, most: int, picture: bool) -> bytes | str:
        import aiohttp

        async with self._gate:
            try:
                async with self._session.get(url, allow_redirects=False, proxy=_proxy(url)) as answer:
                    if answer.status in _MOVED and "Location" in answer.headers:
                        return answer.headers["Location"]
                    self._check(answer, most, picture)
                    content = bytearray()
                    async for chunk in answer.content.iter_chunked(_CHUNK):
                        content += chunk
                        if len(content) > most:
                            raise Unfetched("too large", f"more than {most} bytes")
                    return bytes(content)
            except TimeoutError as error:
                raise _Again(Unfetched("timeout", f"{self._settings.timeout:g} s")) from error
            except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
                raise Unfetched("bad address", url) from error
            except aiohttp.ClientPayloadError as error:
                raise _Again(Unfetched("broken off", "the answer ended early")) from error
            except (aiohttp.ClientError, OSError) as error:
                raise _Again(Unfetched("no connection", type(error).__name__)) from error

    def _check(self, answer: aiohttp.ClientResponse, most: int, picture: bool) -> None:
        if answer.status != 200:  # noqa: PLR2004 - "OK" of RFC 9110
            end = Unfetched(f"http {answer.status}", answer.reason or "")
            raise _Again(end, _asked_wait(answer.headers)) if answer.status in _AGAIN else end
        if (answer.content_length or 0) > most:
            raise Unfetched("too large", f"{answer.content_length} bytes")
        if not picture:
            return
        if self._settings.robots and (word := refusal(answer.headers, self._settings.agent)):
            raise Unfetched("no-AI header", word)
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if (
            kind
            and not kind.startswith("image/")
            and kind not in ("application/octet-stream", "binary/octet-stream")
        ):
            raise Unfetched("not an image", f"content type {kind}")


def refusal(headers: CIMultiDictProxy[str], agent: str) -> str:
    """The header by which a server refuses that a picture is gathered, or an empty text.

    Args:
        headers: Of the answer. `X-Robots-Tag` may stand several times and name an agent, which then it is for;
            `tdm-reservation: 1` reserves text and data mining.
        agent: Our name.
    """
    if headers.get("tdm-reservation", "").strip() == "1":
        return "tdm-reservation: 1"
    for line in headers.getall("X-Robots-Tag", ()):
        ours = True
        for item in line.split(","):
            named, colon, word = item.strip().rpartition(":")
            if colon:
                ours = named.strip().lower() in ("*", agent.lower())
            if ours and word.strip().lower() in REFUSALS:
                return f"X-Robots-Tag: {word.strip().lower()}"
    return ""


def _proxy(url: str) -> str | None:
    """The proxy that the environment names; aiohttp's own way would also send passwords of ~/.netrc."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def _asked_wait(headers: CIMultiDictProxy[str]) -> float:
    """Seconds that a `Retry-After` header asks for, 0 if there is none that can be read."""
    text = headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        then = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    now = datetime.now(UTC)
    return max(0.0, (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() - now.timestamp())


@asynccontextmanager
async def open_downloader(settings: Fetch, robots: dict[str, RobotFileParser]) -> AsyncIterator[Downloader]:
    """Open a downloader.

    Args:
        settings: Limits of this process.
        robots: What robots.txt files have said; filled as more is read.
    """
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=settings.timeout, connect=settings.connect_timeout)
    async with aiohttp.ClientSession(
        timeout=timeout,
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": settings.agent, "Accept": "image/*"},
    ) as session:
        yield Downloader(session, settings, robots)
