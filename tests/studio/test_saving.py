"""Pictures on disk."""

import os

import pytest
from PIL import Image

from photomaker.errors import OutputError
from photomaker.studio.pictures.saving import check_file, check_folder, save_samples
from photomaker.types import Request, Sample, Sampling


def sample(seed=0, likeness=0.5):
    return Sample(Image.new("RGB", (8, 8)), Request("a man img", Sampling(seed=seed, merge=0.2)), likeness)


def test_files_are_numbered_on_and_never_replaced(tmp_path):
    (tmp_path / "0003.png").write_text("mine")
    (tmp_path / "notes.png").write_text("mine too")
    paths = save_samples([sample(1), sample(2)], tmp_path)
    assert [path.name for path in paths] == ["0004.png", "0005.png"]
    assert (tmp_path / "0003.png").read_text() == "mine"


def test_a_number_taken_meanwhile_is_passed_over(tmp_path, monkeypatch):
    from photomaker.studio.pictures import saving

    real = saving.write_whole

    def late(path, data, **more):
        if path.name == "0001.png" and not path.exists():
            path.write_text("somebody was faster")
        return real(path, data, **more)

    monkeypatch.setattr(saving, "write_whole", late)
    assert [path.name for path in save_samples([sample()], tmp_path)] == ["0002.png"]
    assert (tmp_path / "0001.png").read_text() == "somebody was faster"


def test_a_file_says_what_it_is(tmp_path):
    (path,) = save_samples([sample(7)], tmp_path / "new" / "folder", {"model_hash": "abc"})
    with Image.open(path) as image:
        image.load()
        text = image.text
    assert (text["prompt"], text["seed"], text["merge"]) == ("a man img", "7", "0.2")
    assert (text["likeness"], text["model_hash"]) == ("0.500", "abc")
    assert "guidance" not in text


def test_checking_a_folder_leaves_nothing(tmp_path):
    check_folder(tmp_path / "not" / "yet")
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is not a folder"):
        check_folder(tmp_path / "file")
    with pytest.raises(OutputError, match="is not a folder"):
        check_folder(tmp_path / "file" / "below")
    with pytest.raises(OutputError, match="cannot write to /proc"):
        check_folder("/proc/self/pictures")
    with pytest.raises(OutputError, match="is a folder"):
        check_file(tmp_path)
