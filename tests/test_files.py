"""Files are written whole or not at all, by every writer of weights and people."""

import errno
import os
import stat

import pytest
import torch

from photomaker.encoders.adapter_file import write_adapter
from photomaker.files import atomic
from photomaker.types import Identity

WRITERS = {
    "identity": lambda path, value: Identity("painter", {"ids": torch.full((1, 4), value)}, {}).save(path),
    "adapter": lambda path, value: write_adapter(path, {"section.weight": torch.full((4,), value)}, {}),
}


@pytest.fixture(params=WRITERS)
def written(request, tmp_path):
    path = tmp_path / "a.safetensors"
    WRITERS[request.param](path, 1.0)
    return path, WRITERS[request.param]


def test_a_full_disk_keeps_the_old_file_and_leaves_no_part(written, monkeypatch):
    path, write = written
    before = path.read_bytes()

    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Exception, match="No space left on device"):
        write(path, 2.0)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_a_person_is_for_the_user_alone_and_an_adapter_for_all_who_may_read(written, request):
    path, _ = written
    mask = os.umask(0)
    os.umask(mask)
    private = "identity" in request.node.name
    assert stat.S_IMODE(path.stat().st_mode) == (0o600 if private else 0o666 & ~mask)


def test_an_interruption_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic(tmp_path / "a.bin") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []
