"""What tests of several rooms share: the tiny random model, made once a session, and pictures of noise."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a mistaken look-up then fails at once
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")


@pytest.fixture(scope="session", autouse=True)
def data_home(tmp_path_factory):
    """The user's data folder, in which the certificate that signs pictures is made, is not the tests'."""
    folder = tmp_path_factory.mktemp("data_home")
    os.environ["PHOTOMAKER_HOME"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="session")
def tiny_base(tiny_folder):
    from tests.tiny import tiny_pipeline

    return tiny_pipeline(tiny_folder)


@pytest.fixture(scope="session")
def tiny_adapter_file(tiny_folder):
    from tests.tiny import tiny_adapter

    return tiny_adapter(tiny_folder)


@pytest.fixture(scope="session")
def tiny_adapter_v2_file(tiny_folder):
    from tests.tiny import tiny_adapter_v2

    return tiny_adapter_v2(tiny_folder)


@pytest.fixture(scope="session")
def photos():
    """Five pictures of different sizes and colours."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    sizes = [(40, 40), (48, 36), (36, 52), (64, 40), (40, 64)]
    ranges = [(0, 80), (170, 256), (60, 140), (0, 256), (120, 200)]
    return [
        Image.fromarray(rng.integers(*span, (*size, 3), dtype=np.uint8))
        for span, size in zip(ranges, sizes, strict=True)
    ]
