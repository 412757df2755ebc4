"""The user's data folder on each system, and where the user names another."""

import sys
from pathlib import Path

import pytest

from photomaker.studio.desk import folders


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    for name in (folders.HOME, "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("system", "folder"),
    [
        ("linux", ".local/share/photomaker"),
        ("darwin", "Library/Application Support/photomaker"),
        ("win32", "AppData/Local/photomaker"),
    ],
)
def test_what_the_system_has_for_such_data(system, folder, bare, monkeypatch):
    monkeypatch.setattr(sys, "platform", system)
    assert folders.data_folder() == bare / folder


def test_what_the_environment_names(bare, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(bare / "data"))
    assert folders.data_folder() == bare / "data" / "photomaker"
    monkeypatch.setenv(folders.HOME, str(bare / "mine"))
    assert folders.data_folder() == bare / "mine"
    assert not (bare / "mine").exists()
