"""Rooms import one way only: an arrow never points up or sideways."""

import ast
from pathlib import Path

import pytest

import photomaker

ROOT = Path(photomaker.__file__).parent
FLOOR = {
    "types",
    "errors",
    "registry",
    "files",
    "images",
    "weights",
    "hub",
    "config",
    "classes",
    "checks",
    "outside",
    "processes",
    "colours",
    "bfloat16",
    "metadata",
    "cluster",
    "speeds",
    "__init__",
}
ONE = FLOOR | {"synthetic", "faces", "prompts", "encoders"}
ALLOWED = {
    "types": {"errors", "checks", "files", "outside"},
    "files": set(),
    "errors": set(),
    "checks": {"errors"},
    "registry": {"errors", "types"},
    "classes": set(),
    "colours": set(),
    "metadata": {"outside"},
    "images": {"errors", "types", "colours", "files", "metadata", "outside"},
    "outside": {"errors"},
    "processes": set(),
    "bfloat16": set(),
    "cluster": {"errors"},
    "speeds": {"checks", "errors", "types"},
    "weights": {"errors", "types", "outside"},
    "hub": {"errors"},
    "config": {"errors", "checks", "outside"},
    "synthetic": FLOOR,
    "faces": FLOOR,
    "prompts": FLOOR,
    "encoders": FLOOR,
    "pipelines": FLOOR | {"prompts", "encoders"},
    "dataset": FLOOR | {"faces"},
    "training": FLOOR | {"synthetic", "faces", "prompts", "encoders", "pipelines", "dataset"},
    "methods": FLOOR | {"faces", "prompts", "encoders", "pipelines", "training"},
    "evaluation": ONE | {"methods"},
    "studio": ONE | {"pipelines", "dataset", "training", "methods", "evaluation"},
    "apps": ONE | {"pipelines", "dataset", "training", "methods", "evaluation", "studio"},
}
# public names are imported from all rooms there, for type checkers and when they are first used
EXEMPT = {"__init__"}


def room_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path):
    """Modules of the package that a file imports anywhere, also inside functions."""
    package = ".".join(("photomaker", *path.relative_to(ROOT).parts[:-1]))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1])
            yield f"{base}.{node.module}" if node.module else base
        elif isinstance(node, ast.ImportFrom) and node.module == "photomaker":
            yield from (f"photomaker.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def arrows():
    for path in sorted(ROOT.rglob("*.py")):
        if room_of(path) in EXEMPT:
            continue
        for module in imported(path):
            parts = module.split(".")
            if parts[0] == "photomaker" and len(parts) > 1 and parts[1] != room_of(path):
                yield path.relative_to(ROOT).as_posix(), room_of(path), parts[1]


def test_every_room_has_a_place_in_the_table():
    rooms = {room_of(path) for path in ROOT.rglob("*.py")} - EXEMPT
    assert rooms <= set(ALLOWED)


def test_no_arrow_points_up_or_sideways():
    wrong = [f"{path} imports {target}" for path, room, target in arrows() if target not in ALLOWED[room]]
    assert not wrong


def test_the_table_has_no_circle():
    """Rooms can be sorted so that each only imports earlier ones."""
    left = {room: targets & set(ALLOWED) for room, targets in ALLOWED.items()}
    while left:
        free = [room for room, targets in left.items() if not targets & set(left)]
        assert free, f"circle among {sorted(left)}"
        left = {room: targets for room, targets in left.items() if room not in free}


SHARED_BY_METHODS = {f"photomaker.methods.{name}" for name in ("base", "pretrained", "tuned")}


def test_a_method_never_imports_another():
    wrong = [
        f"{path.name} imports {module}"
        for path in (ROOT / "methods").glob("*.py")
        for module in imported(path)
        if module.startswith("photomaker.methods.") and module not in SHARED_BY_METHODS
    ]
    assert not wrong


def test_evaluation_imports_methods_by_name_only():
    wrong = [
        f"{path.name} imports {module}"
        for path in (ROOT / "evaluation").rglob("*.py")
        for module in imported(path)
        if module.startswith("photomaker.methods") and module != "photomaker.methods.base"
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from photomaker.apps import cli", "photomaker.apps"),
        ("import photomaker.apps.cli", "photomaker.apps.cli"),
        ("def f():\n    from photomaker import apps", "photomaker.apps"),
        ("from ..apps import cli", "photomaker.apps"),
    ],
)
def test_the_test_itself_sees_every_kind_of_import(source, found, monkeypatch, tmp_path):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "errors").mkdir()
    (tmp_path / "errors" / "bad.py").write_text(source)
    assert list(imported(tmp_path / "errors" / "bad.py")) == [found]
