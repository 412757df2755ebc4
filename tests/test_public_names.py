"""`import photomaker` is light, and every public name is there."""

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import photomaker


def test_importing_the_package_imports_no_heavy_library():
    code = "import photomaker, sys; print(sorted({'torch', 'numpy', 'PIL', 'diffusers'} & set(sys.modules)))"
    source = str(Path(photomaker.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": source}
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", photomaker.__all__)
def test_every_public_name_is_there(name):
    assert getattr(photomaker, name).__name__ == name
    assert name in dir(photomaker)


def test_a_name_that_needs_an_extra_says_so():
    if find_spec("insightface"):
        pytest.skip("insightface is installed")
    with pytest.raises(ImportError, match=r"pip install 'photomaker\[insightface\]'"):
        photomaker.FaceAnalysis2  # noqa: B018


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(photomaker.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        (node.module, alias.name)
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {(module, name) for name, module in photomaker._MODULE_OF.items()}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Photomaker'"):
        photomaker.Photomaker  # noqa: B018


def test_nobody_is_advised_to_install_torchvision():
    code = "from photomaker import PhotoMakerStableDiffusionXLPipeline"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torchvision" not in done.stdout + done.stderr
