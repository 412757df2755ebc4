"""How many small changes of the code its tests catch: mutmut over the rooms that decide what a picture is.

    pip install mutmut
    python scripts/mutation.py --folder /somewhere/to/work --children 2

Goes on where it was stopped. It takes hours for all rooms; `--only 'src/photomaker/prompts/*.py'` takes one.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = (
    "src/photomaker/encoders/*.py", "src/photomaker/prompts/*.py", "src/photomaker/pipelines/steps/merging.py",
    "src/photomaker/studio/*.py", "src/photomaker/evaluation/metrics.py", "src/photomaker/dataset/verify.py",
    "src/photomaker/types.py",
)  # fmt: skip
TESTS = (
    "tests/encoders", "tests/prompts", "tests/pipelines/test_merging.py", "tests/pipelines/test_calls.py",
    "tests/studio",
    "tests/evaluation/test_metrics.py", "tests/dataset/test_verify.py", "tests/test_identity_file.py",
    "tests/methods/test_photomaker.py", "tests/methods/test_ip_adapter.py", "tests/methods/test_fastcomposer.py",
    "tests/methods/test_photoverse.py", "tests/pipelines/test_v2.py", "tests/test_hub.py",
    "tests/apps/test_generate.py",
)  # fmt: skip
COPIED = ("src", "tests", "examples", "pyproject.toml", "scripts", "README.md", "LICENSE")
TABLE = "[tool.mutmut]"
NODE_ID = """

from _pytest.nodes import Node  # mutmut 3.8 reads what pytest 9.2 calls otherwise

if not hasattr(Node, "_nodeid"):
    Node._nodeid = property(lambda self: self.nodeid)
"""


def prepare(folder: Path, rooms: list[str], tests: list[str]) -> None:
    """A copy of the package with mutmut's settings."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    conftest = folder / "tests" / "conftest.py"
    conftest.write_text(conftest.read_text(encoding="utf-8") + NODE_ID, encoding="utf-8")
    settings = {
        "source_paths": ["src"], "only_mutate": rooms, "pytest_add_cli_args_test_selection": tests,
        "also_copy": ["src/photomaker", "examples", "scripts"], "process_isolation": "forkserver",
        "pytest_add_cli_args": ["-p", "no:cacheprovider", "-m", "not slow"], "timeout_multiplier": 3.0,
        "timeout_constant": 20.0,
        "use_git_change_detection": False, "mutate_only_covered_lines": True,
    }  # fmt: skip
    lines = [f"{name} = {_toml(value)}" for name, value in settings.items()]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project += "\n" + TABLE + "\n" + "\n".join(lines) + "\n"
    (folder / "pyproject.toml").write_text(project, encoding="utf-8")


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def report(folder: Path, environment: dict[str, str]) -> None:
    """Caught and survived by module, as a table."""
    told = subprocess.run(
        [sys.executable, "-m", "mutmut", "results", "--all", "true"], cwd=folder, env=environment,
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    counts: dict[str, Counter[str]] = {}
    for line in told.splitlines():
        found = re.match(r"\s*(\S+)\.x[ǁ_]\S*: (\w[\w ]*)", line)
        if found:
            counts.setdefault(found[1], Counter())[found[2]] += 1
    total = Counter[str]()
    for module, count in sorted(counts.items()):
        total += count
        print(f"{module:50} {_line(count)}")
    print(f"{'all':50} {_line(total)}")


def _line(count: Counter[str]) -> str:
    caught = (
        count["killed"]
        + count["timeout"]
        + count["segfault"]
        + count["suspicious"]
        + count["caught by type check"]
    )
    tried = caught + count["survived"]
    return f"{caught:5d} of {tried:5d} caught, {100 * caught / max(1, tried):5.1f} %"


def main() -> None:
    """Run mutmut and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the copy and the results are kept")
    parser.add_argument("--only", nargs="*", default=list(ROOMS))
    parser.add_argument("--tests", nargs="*", default=list(TESTS))
    parser.add_argument("--children", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="only say what was found so far")
    given = parser.parse_args()
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": "src:."}
    if not given.report:
        prepare(given.folder, given.only, given.tests)
        words = [sys.executable, "-m", "mutmut", "run", "--max-children", str(given.children)]
        subprocess.run(words, cwd=given.folder, env=environment, check=False)
    report(given.folder, environment)


if __name__ == "__main__":
    main()
