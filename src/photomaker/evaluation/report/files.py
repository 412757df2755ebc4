"""What a run leaves behind: files, each whole or not there, and what they say of the run."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from photomaker.errors import OutputError

SCHEMA = 1
CACHE = ".cache"
"""Folder, beside the results, of what an interrupted run finds again."""

PACKAGES = ("photomaker", "torch", "diffusers", "transformers", "peft", "numpy")


@dataclass(frozen=True)
class Result:
    """What a run wrote.

    Attributes:
        files: The figures for programs (`.json`), the tables for people (`.md`), and whatever else there is.
        plots: PNG files beside them.
        document: The content of the JSON file.
    """

    files: tuple[Path, ...]
    plots: tuple[Path, ...]
    document: Mapping[str, Any]

    @property
    def json(self) -> Path:
        """The figures for programs."""
        return self.files[0]

    @property
    def markdown(self) -> Path:
        """The tables for people."""
        return self.files[1]

    @property
    def reached(self) -> bool:
        """Whether every measured figure reaches what it must, where that is said."""
        return all(row["reaches_must"] for row in self.document.get("verdicts", ()))


def publish(
    stem: Path, document: Mapping[str, Any], pages: Mapping[str, str], images: Mapping[str, bytes]
) -> Result:
    """Write the files of a run.

    Args:
        stem: Folder and name that all files begin with.
        document: Becomes the JSON file.
        pages: Ending to text of the other files, Markdown (`md`) first.
        images: File names to PNG bytes.

    Raises:
        OutputError: They cannot be written there.
    """
    plots = tuple(write(stem.parent / name, data) for name, data in images.items())
    texts = {"json": as_json(document), **pages}
    files = tuple(write(stem.parent / f"{stem.name}.{end}", text) for end, text in texts.items())
    return Result(files, plots, document)


def heading(command: str, processes: int, threads: int) -> dict[str, Any]:
    """What every document says of its run."""
    return {"command": command, "machine": machine(processes, threads), "versions": versions()}


def command(name: str, settings: Any, defaults: Any, without: Sequence[str], comma: str = ",") -> str:  # noqa: ANN401
    """The command line that makes the figures: what differs from the defaults, models by name and no folders.

    Args:
        name: Of the command.
        settings: Its settings, a dataclass.
        defaults: The settings without any option.
        without: Settings that are not said.
        comma: Between the values of a list.
    """
    words = [f"photomaker {name}"]
    for option, value in asdict(settings).items():
        if option in without or value == getattr(defaults, option):
            continue
        given = Path(value).name if option in ("base", "adapter", "control") else value
        shown = comma.join(map(str, given)) if isinstance(given, tuple) else str(given)
        words.append(f"--{option.replace('_', '-')} " + (f'"{shown}"' if " " in shown else shown))
    return " ".join(words)


def machine(processes: int, threads: int) -> dict[str, Any]:
    """What the run ran on, without names of people or hosts."""
    import torch

    found = {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "processes": processes,
        "threads": threads,
        "python": platform.python_version(),
    }
    if torch.cuda.is_available():
        found["accelerator"] = torch.cuda.get_device_name()
    return found


def machine_line(document: Mapping[str, Any]) -> str:
    """What a run ran on and how long, for its page."""
    ran = document["machine"]
    return (
        f"machine: {ran['processor']}, {ran['cores']} cores; processes: {ran['processes']}, threads of each: "
        f"{ran['threads']}"
        + (f", {ran['accelerator']}" if "accelerator" in ran else "")
        + f"; {document['seconds'] / 60:.0f} minutes, less what a resumed run found done"
    )


def _processor() -> str:
    """The processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of the packages that decide how a picture looks."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of the checkout that this package runs from, `+` behind it where files were changed."""
    where = Path(__file__).resolve().parent
    try:
        said = [
            subprocess.run(
                ["git", "-C", str(where), *words], capture_output=True, text=True, check=True, timeout=20
            )
            for words in (
                ["rev-parse", "--short=12", "HEAD"],
                ["status", "--porcelain", "--", str(where.parents[1])],
            )
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return said[0].stdout.strip() + ("+" if said[1].stdout.strip() else "")


def write(path: Path, content: str | bytes) -> Path:
    """Write a file so that it is whole or not there.

    Raises:
        OutputError: It cannot be written.
    """
    from photomaker.files import atomic

    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as file:
            file.write(data)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another output folder") from error
    return path


def as_json(result: Mapping[str, Any]) -> str:
    """JSON text with sorted keys, six digits, and no `NaN`, which JSON does not know."""
    return json.dumps(_rounded(result), indent=2, sort_keys=True, allow_nan=False, default=str) + "\n"


def _rounded(value: Any) -> Any:  # noqa: ANN401 - any JSON data
    if isinstance(value, Mapping):
        return {str(name): _rounded(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(inner) for inner in value]
    if isinstance(value, float):
        return round(value, 6)
    return value
