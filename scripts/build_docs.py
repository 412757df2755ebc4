"""Build the documentation as a site into build/docs/site and check every link; needs `pip install 'photomaker[docs]'`.

python scripts/build_docs.py
python scripts/build_docs.py --serve     # and show it on http://127.0.0.1:8000

The pages keep the places that they have in the repository, so that a relative link works on the site as it does there.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "docs"
PAGES, SITE = BUILD / "pages", BUILD / "site"
PAGE_PATTERNS = ("*.md", "docs/**/*.md", "benchmarks/*.md")
STYLE = "docs/site.css"
COMMANDS = "docs/reference/command_line.md"
LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")
LOADED = {"script": "src", "img": "src", "link": "href", "source": "src", "iframe": "src"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; the status is 1 where a page cannot be built or a link leads nowhere."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serve", action="store_true", help="show the site on port 8000 of this machine")
    options = parser.parse_args(argv)
    stage(PAGES)
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean"],
        cwd=ROOT,
        env=environment,
        check=False,
    )
    if built.returncode:
        return 1
    faults = list(broken(SITE))
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{len(list(SITE.rglob('*.html')))} pages in {SITE}; open {SITE / 'index.html'}")
    if options.serve and not faults:
        show(SITE)
    return 1 if faults else 0


def stage(target: Path) -> None:
    """Copy the pages and what they link to, each to its place below a folder that is made anew."""
    shutil.rmtree(target, ignore_errors=True)
    pages = sorted({path for pattern in PAGE_PATTERNS for path in ROOT.glob(pattern)})
    linked = {found for page in pages for found in links(page) if found.is_file()}
    for path in {*pages, *linked, ROOT / STYLE}:
        place = target / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    with (target / COMMANDS).open("a", encoding="utf-8") as page:
        page.write("\n".join(commands()))


def links(page: Path) -> Iterator[Path]:
    """The files of the repository that a page links to."""
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            yield (page.parent / unquote(target)).resolve()


def commands() -> Iterator[str]:
    """Every command of the command line with its help, as Markdown."""
    import typer

    from photomaker.apps.cli import app

    yield from _command(typer.main.get_command(app), ("photomaker",))


def _command(command: object, path: tuple[str, ...]) -> Iterator[str]:
    name = " ".join(path)
    inner = getattr(command, "commands", None)
    yield f"\n## `{name}`\n\n{' '.join(str(getattr(command, 'help', '') or '').split())}\n"
    if inner is None:
        yield "| option | meaning | default |\n|---|---|---|"
        yield from (
            _option(one) for one in getattr(command, "params", ()) if not getattr(one, "hidden", False)
        )
        return
    for child, found in sorted(inner.items()):
        yield from _command(found, (*path, child))


def _option(option: object) -> str:
    names = getattr(option, "opts", []) + getattr(option, "secondary_opts", [])
    if getattr(option, "param_type_name", "") == "argument":
        names = [str(getattr(option, "metavar", None) or getattr(option, "name", "")).upper()]
    choices = getattr(getattr(option, "type", None), "choices", ())
    said = " ".join(str(getattr(option, "help", "") or "").split()).replace("|", "\\|")
    if choices:
        said += f" One of {_coded(getattr(one, 'value', one) for one in choices)}."
    default = getattr(option, "default", None)
    shown = (
        "" if default in (None, False, ()) or callable(default) else f"`{getattr(default, 'value', default)}`"
    )
    if getattr(option, "required", False):
        shown = "must be given"
    return f"| {_coded(names)} | {said} | {shown} |"


def _coded(words: Iterable[object]) -> str:
    return ", ".join(f"`{word}`" for word in words)


class Page(HTMLParser):
    """What a built page loads, links to, and can be linked to at."""

    def __init__(self, text: str) -> None:
        """Read a page."""
        super().__init__()
        self.loads: list[str] = []
        self.leads: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one element."""
        given = dict(attrs)
        self.places |= {str(given[name]) for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.leads.append(str(given["href"]))
        elif tag in LOADED and given.get(LOADED[tag]) and given.get("rel") != "canonical":
            self.loads.append(str(given[LOADED[tag]]))


def broken(site: Path) -> Iterator[str]:
    """Say of every page what it links to that is not there, and what it would fetch from elsewhere."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(site)
        if path.name == "404.html":
            continue  # its links start at the root of a server
        yield from (f"{name} fetches {url}" for url in page.loads if urlsplit(url).netloc)
        for url in (*page.loads, *page.leads):
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                yield f"{name} links to {url}, which is not there"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].places:
                yield f"{name} links to {url}, where no such place is"


def show(site: Path) -> None:
    """Serve the site to this machine until Ctrl-C."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 8000), handler) as server:
        print("http://127.0.0.1:8000, Ctrl-C ends it")
        server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
