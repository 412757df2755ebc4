"""Build the wheel, install it into an empty environment, and draw a first picture from it alone.

python scripts/try_wheel.py

The wheel stays in `dist/`. Nothing of the checkout is in reach of the environment but the photos in `examples/`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROMPT = "a photo of a woman img in the snow"
FOUND = "import photomaker; print(photomaker.__file__)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; the status is 1 where the wheel draws nothing by itself."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="folder of the wheel")
    options = parser.parse_args(argv)
    wheel = build(options.dist)
    print(f"{wheel.name}: {wheel.stat().st_size / 2**20:.1f} MiB")
    with tempfile.TemporaryDirectory() as folder:
        desk = Path(folder)
        python = install(wheel, desk / "venv")
        where = said([str(python), "-c", FOUND], desk)
        if not Path(where).is_relative_to(desk):
            print(f"photomaker was imported from {where}, not from the wheel", file=sys.stderr)
            return 1
        words = [
            "generate",
            "--photos",
            str(ROOT / "examples" / "ada"),
            "--prompt",
            PROMPT,
            "-n",
            "1",
            "--out",
            "ada.png",
        ]
        print(said([str(python.parent / "photomaker"), *words], desk))
        size = (desk / "ada.png").stat().st_size
    print(f"the wheel alone drew a picture of {size} bytes")
    return 0


def build(dist: Path) -> Path:
    """Build the wheel and give its place."""
    called(["uv", "build", "--quiet", "--wheel", "--out-dir", str(dist), str(ROOT)], ROOT)
    return max(dist.glob("photomaker-*.whl"), key=lambda path: path.stat().st_mtime)


def install(wheel: Path, venv: Path) -> Path:
    """Make an empty environment, install the wheel with the checked versions, and give its Python."""
    called(["uv", "venv", "--quiet", "--python", sys.executable, str(venv)], ROOT)
    python = venv / "bin" / "python"
    constraints = ["-c", str(ROOT / "constraints.txt")]
    called(["uv", "pip", "install", "--quiet", "--python", str(python), *constraints, str(wheel)], ROOT)
    return python


def called(words: Sequence[str], folder: Path) -> None:
    """Run a command of uv, which lies beside this Python or on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(words, cwd=folder, env=os.environ | {"PATH": path}, check=True)


def said(words: Sequence[str], folder: Path) -> str:
    """What a command prints, in an environment in which this checkout is not on Python's path."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    clean["HF_HUB_OFFLINE"] = "1"
    return subprocess.run(
        words, cwd=folder, env=clean, check=True, capture_output=True, text=True
    ).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
