"""`photomaker doctor`: what is installed, what will be used, and what is missing."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from photomaker import weights
from photomaker.apps import terminal
from photomaker.errors import PhotoMakerError

_EXTRA = re.compile(r"""^([A-Za-z0-9_.-]+).*extra\s*==\s*['"]([\w-]+)['"]""")
PURPOSES = {
    "data": "`photomaker dataset build`: tables, downloads, reports",
    "words": "captions parsed and compared by spaCy and sentence-transformers",
    "scale": "building datasets on a Ray cluster",
    "train": "training the small model and adapters",
    "eval": "`photomaker evaluate`: intervals, plots, peak memory",
    "faces": "faces and likeness on real photographs (dlib)",
    "provenance": "signed records in pictures of how they were made",
    "insightface": "the face embeddings that V2 and FaceID adapters read (InsightFace)",
    "dev": "the tests, ruff and mypy",
}
LICENCES = (
    ("this code", "Apache-2.0"),
    ("bundled weights", "Apache-2.0; trained from scratch on people drawn by code"),
    ("SDXL base models, not included", "CreativeML Open RAIL++-M"),
    ("official PhotoMaker adapters, not included", "Apache-2.0"),
    ("dlib and its weights, extra faces", "Boost; weights CC0"),
    ("InsightFace model packs, not included", "non-commercial research only"),
)


@dataclass(frozen=True)
class Finding:
    """One line of the report; `good` is None if something optional is missing."""

    what: str
    value: str
    good: bool | None = True
    remedy: str = ""

    @property
    def mark(self) -> str:
        """The mark before the line."""
        return {True: "ok", False: "FAULT", None: "-"}[self.good]


def run() -> bool:
    """Print the report.

    Returns:
        Whether everything that `photomaker generate` needs is in order.
    """
    sections: dict[str, Callable[[], Iterator[Finding]]] = {
        "Installed": installed,
        "Extras": extras,
        "Runs on": machine,
        "Bundled model": bundled,
    }
    good = True
    for title, look in sections.items():
        with terminal.waiting(f"checking: {title.lower()}"):
            found = list(look())
        rows = [(one.mark, one.what, one.value, one.remedy) for one in found]
        terminal.table(title, ("", "what", "found", "remedy"), rows)
        good &= all(one.good is not False for one in found)
    terminal.table("Licences", ("of", "licence"), LICENCES)
    terminal.say("all in order" if good else "something is wrong; see the lines marked FAULT")
    return good


def installed() -> Iterator[Finding]:
    """Python and the required libraries."""
    yield Finding("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    needed = [line for line in requires("photomaker") or () if "extra ==" not in line]
    for name in ["photomaker", *(re.split(r"[^\w.-]", line)[0] for line in needed)]:
        found = _version(name)
        remedy = "" if found else install_line()
        yield Finding(name, found or "missing", found is not None, remedy)
    yield torchvision()


def torchvision() -> Finding:
    """A torchvision that does not match torch breaks transformers, diffusers and peft; it is not needed."""
    if find_spec("torchvision") is None:
        return Finding("torchvision", "absent, and not needed")
    # in a separate process: a failed import would leave half-registered operators behind in this one
    tried = subprocess.run(
        [sys.executable, "-c", "import torchvision"], capture_output=True, text=True, check=False
    )
    if tried.returncode == 0:
        return Finding("torchvision", f"{_version('torchvision')}, works; not needed")
    reason = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
    return Finding(
        "torchvision", f"broken: {reason}", False, f"{sys.executable} -m pip uninstall torchvision"
    )


def extras() -> Iterator[Finding]:
    """Which optional parts are complete."""
    wanted: dict[str, list[str]] = {name: [] for name in PURPOSES}
    for line in requires("photomaker") or ():
        found = _EXTRA.match(line)
        if found and found[2] in wanted and found[1] != "photomaker":
            wanted[found[2]].append(found[1])
    for name, packages in wanted.items():
        missing = [package for package in packages if _version(package) is None]
        if missing:
            yield Finding(
                f"{name}: {PURPOSES[name]}", f"lacks {', '.join(missing)}", None, install_line(name)
            )
        else:
            yield Finding(f"{name}: {PURPOSES[name]}", "complete")


def machine() -> Iterator[Finding]:
    """The device and precision that will be chosen, the processors and the memory."""
    import torch

    from photomaker.studio.device import choose

    try:
        place = choose()
        yield Finding("device", f"{place.device} ({place.reason})")
        yield Finding("precision", place.dtype)
    except PhotoMakerError as error:
        yield Finding("device", str(error), False)
    yield Finding("processors", f"{os.cpu_count()}, torch uses {torch.get_num_threads()}")
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        yield Finding("memory", f"{total / 2**30:.1f} GB")


def bundled() -> Iterator[Finding]:
    """Whether every bundled file is as released."""
    try:
        files = weights.manifest()
    except PhotoMakerError as error:
        yield Finding("manifest", "missing or damaged", False, str(error))
        return
    for part in sorted({name.split("/")[0] for name in files}):
        yield _part(part, sum(facts["bytes"] for name, facts in files.items() if name.split("/")[0] == part))


def _part(part: str, size: int) -> Finding:
    try:
        weights.bundled(part)
    except PhotoMakerError as error:
        return Finding(part, "missing or altered", False, str(error))
    return Finding(part, f"{size / 1e6:.1f} MB, sha256 verified")


def install_line(extra: str = "") -> str:
    """The command that installs the package into this environment, with an extra if one is named."""
    suffix = f"[{extra}]" if extra else ""
    checkout = Path(__file__).parents[3]
    if (checkout / "constraints.txt").is_file():
        return f"{_python()} -m pip install -c constraints.txt -e '.{suffix}'"
    return f"{_python()} -m pip install 'photomaker{suffix}'"


def _python() -> str:
    """This interpreter, as typed in a shell."""
    try:
        return str(Path(sys.executable).relative_to(Path.cwd()))
    except ValueError:
        return sys.executable


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
