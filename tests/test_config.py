"""Settings files: read, changed on the command line, refused in one sentence."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from photomaker import config
from photomaker.errors import SettingsError


@dataclass(frozen=True)
class Inner:
    count: int = 3
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    out: Path
    inner: Inner = field(default_factory=Inner)
    other: Inner | None = None
    share: float = 0.5

    def __post_init__(self):
        if not 0 <= self.share <= 1:
            raise SettingsError(f"share is {self.share}; give a share from 0 to 1")


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "settings.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_tables_become_dataclasses(file):
    path = file("out: somewhere\ninner: {count: 5, names: [a, b]}\nother: {count: 1}\n")
    found = config.read(path, Outer)
    assert found == Outer(Path("somewhere"), Inner(5, ("a", "b")), Inner(1))
    assert config.make(config.plain(found), Outer) == found


def test_changes_go_over_the_file(file):
    path = file("out: here\ninner: {count: 5}\n")
    found = config.read(path, Outer, ["inner.count=7", "other.names=[x]", "share=1", "out=there"])
    assert found == Outer(Path("there"), Inner(7), Inner(names=("x",)), 1.0)


@pytest.mark.parametrize(
    ("text", "changes", "words"),
    [
        ("out: a\nshaer: 1\n", [], "no setting shaer in .* did you mean share"),
        ("out: a\ninner: {cuont: 1}\n", [], "did you mean inner.count"),
        ("out: a\nother: {zzz: 1}\n", [], "no setting other.zzz in .* known are count, names"),
        ("inner: {count: 1}\n", [], "lacks out; add it"),
        ("out: a\nshare: many\n", [], "share in .* is 'many'; input should be a valid number"),
        ("out: a\ninner: {count: 1.5}\n", [], "inner.count in .* is 1.5"),
        ("out: a\nshare: 2\n", [], "share is 2.0; give a share"),
        ("- a\n- b\n", [], "holds a list; write `name: value` lines"),
        ("out: [a\n", [], "not valid YAML at line 2"),
        ("out: !!python/object/apply:os.system [ls]\n", [], "not valid YAML"),
        ("out: a\n", ["share"], "'share' is not name=value"),
        ("out: a\n", ["out.a=1"], "out in the change 'out.a=1' is a value"),
        ("out: a\n", ["share=[1"], "value of the change 'share=\\[1' is not valid YAML"),
    ],
)
def test_mistakes_are_told_in_one_sentence(file, text, changes, words):
    with pytest.raises(SettingsError, match=words):
        config.read(file(text), Outer, changes)


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(SettingsError, match="No such file"):
        config.read(tmp_path / "none.yaml", Outer)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="it is not text"):
        config.read(tmp_path / "binary.yaml", Outer)


def test_a_huge_file_is_not_read(file, monkeypatch):
    monkeypatch.setattr(config, "LARGEST", 5)
    with pytest.raises(SettingsError, match="more than 5 bytes"):
        config.read(file("out: somewhere"), Outer)
