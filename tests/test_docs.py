"""The documentation says what the code and the figures say, and its commands parse."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import photomaker
from photomaker.evaluation.plans.compare import pages

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "scripts"
PAGES = [
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "examples/**/*.md", "integrations/**/*.md")
    for path in sorted(ROOT.glob(pattern))
]
BLOCK = re.compile(r"^ *```(?:bash|sh)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def typed(page: str) -> Iterator[list[str]]:
    """The words of each call of photomaker in the blocks that people are told to type."""
    for body in BLOCK.findall(text_of(page)):
        for line in body.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["photomaker"]:
                yield words[1:]


@pytest.fixture(scope="module")
def program():
    import typer

    from photomaker.apps.cli import app

    return typer.main.get_command(app)


def parse(command, words: list[str]) -> None:
    """Parse as the command line does, down to the command, and run nothing."""
    path = "photomaker"
    while True:
        if {"--help", "-h"} & set(words):
            return
        context = command.make_context(path, list(words))
        inner = getattr(command, "commands", None)
        if inner is None:
            return
        words = [*getattr(context, "_protected_args", getattr(context, "protected_args", [])), *context.args]
        path, words = words[0], words[1:]
        command = inner[path]


@pytest.mark.parametrize("page", [page for page in PAGES if any(typed(page))])
def test_every_command_in_the_documents_parses(program, page):
    for words in typed(page):
        print("photomaker", shlex.join(words))  # noqa: T201 - shown where it does not parse
        parse(program, words)


@pytest.mark.parametrize("line", ["generate --fotos a", "generat", "serve --port many", "people --count 0"])
def test_a_wrong_command_is_noticed(program, line):
    with pytest.raises(Exception, match=r"."):
        parse(program, shlex.split(line))


def test_pages_with_commands_are_found():
    found = {page for page in PAGES if any(typed(page))}
    assert {
        "README.md",
        "CONTRIBUTING.md",
        "docs/using.md",
        "docs/training.md",
        "docs/first_steps.md",
    } <= found


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings, as the site makes them."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), flags=re.M)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", head) for head in heads]
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", head).strip().lower()) for head in plain}


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_to_is_there(page):
    for target in LINK.findall(re.sub(r"`[^`]*`", "", text_of(page))):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.exists(), target
        assert not anchor or file.suffix != ".md" or anchor in anchors(file.read_text("utf-8")), target


def test_the_drawing_of_the_rooms_is_what_the_code_says():
    found = subprocess.run(
        [sys.executable, str(SCRIPTS / "draw_rooms.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr


def in_nav(entry: object) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    for inner in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
        yield from in_nav(inner)


def test_every_page_has_a_place_in_the_site():
    nav = yaml.safe_load(text_of("mkdocs.yml"))["nav"]
    pages = {page for page in PAGES if page.startswith(("docs/", "benchmarks/")) or "/" not in page}
    assert set(in_nav(nav)) == pages
    assert [next(iter(one)) for one in nav[1:]] == ["First steps", "How to", "Reference", "How it works"]


def test_the_front_page_of_the_documents_names_every_page():
    linked = {target.partition("#")[0] for target in LINK.findall(text_of("docs/README.md"))}
    ours = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert {page for page in ours if not page.startswith("methods/")} - {"README.md"} <= linked


def test_the_figures_of_the_readme_are_those_of_the_tables():
    document = json.loads(text_of("benchmarks/methods.json"))
    assert pages.summary(document) in text_of("README.md")
    # a JSON file has lost the order of the rows
    shown = text_of("docs/benchmark.md").partition(pages.START)[2].partition(pages.END)[0]
    assert sorted(shown.split("\n")) == sorted(f"\n{pages.short_table(document)}\n".split("\n"))


def shown_by() -> list[str]:
    return re.findall(r"`(python -m pytest [^`]*)`", text_of("docs/how_we_know.md"))


@pytest.mark.parametrize("line", shown_by())
def test_the_tests_that_show_a_claim_exist(line):
    words = shlex.split(line)[3:]
    at = words.index("-k") if "-k" in words else len(words)
    files = [
        file
        for place in words[:at]
        for file in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("test_*.py"))
    ]
    names = [
        name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
    ]
    wanted = words[at + 1].split(" or ") if at < len(words) else [""]
    assert all(any(part in name for name in names) for part in wanted), line


def test_the_version_stands_everywhere_alike():
    version = tomllib.loads(text_of("pyproject.toml"))["project"]["version"]
    assert photomaker.__version__ == version
    assert f"\n## {version}\n" in text_of("CHANGELOG.md")


@pytest.fixture
def built(tmp_path):
    (tmp_path / "other.html").write_text('<h2 id="here">A</h2>')
    return tmp_path


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('<a href="other.html#here">x</a><img src="data:image/png;base64,x">', []),
        ('<a href="none.html">x</a>', ["page.html links to none.html, which is not there"]),
        ('<a href="other.html#gone">x</a>', ["page.html links to other.html#gone, where no such place is"]),
        ('<img src="none.png">', ["page.html links to none.png, which is not there"]),
        ('<link rel="stylesheet" href="https://fonts.x/a.css">', ["page.html fetches https://fonts.x/a.css"]),
        ('<a href="https://arxiv.org">x</a>', []),
    ],
)
def test_the_checker_of_the_site_finds_what_is_broken(built, monkeypatch, body, said):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import build_docs

    (built / "page.html").write_text(body)
    assert list(build_docs.broken(built)) == said
