"""Arrays kept on disk: shared by processes that start at the same moment, and never computed twice."""

from __future__ import annotations

import numpy as np
import pytest

from photomaker.errors import OutputError
from photomaker.training.data import array_cache

ROWS = 40


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(array_cache, "CHUNK", 10)


def numbers(rows):
    return {"squares": (rows[:, None] ** 2 + 1).astype(np.float16)}


def share(folder, process):
    return array_cache.computed(folder, {"squares": (ROWS, 1)}, numbers, array_cache.Share(process, 2))[
        "squares"
    ]


def test_a_process_that_comes_second_keeps_what_the_first_has_written(tmp_path, monkeypatch):
    made = np.lib.format.open_memmap

    def made_meanwhile(*given, **named):
        """The second process has found no file; before it makes one, the first makes its own and fills its share."""
        monkeypatch.setattr(np.lib.format, "open_memmap", made)
        share(tmp_path / "kept", 0)
        return made(*given, **named)

    monkeypatch.setattr(np.lib.format, "open_memmap", made_meanwhile)
    found = share(tmp_path / "kept", 1)
    assert np.array_equal(found, numbers(np.arange(ROWS))["squares"])
    assert not list((tmp_path / "kept").glob("*.part"))


def test_what_was_computed_is_not_computed_again(tmp_path):
    for process in (0, 1):
        share(tmp_path / "kept", process)
    found = array_cache.computed(
        tmp_path / "kept", {"squares": (ROWS, 1)}, lambda rows: pytest.fail("computed again")
    )
    assert np.array_equal(found["squares"], numbers(np.arange(ROWS))["squares"])


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="free some space or choose another folder"):
        share(tmp_path / "file" / "kept", 0)
