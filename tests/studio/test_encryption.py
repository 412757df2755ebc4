"""Identities under a passphrase: nothing lost, half-written or replaced, and one sentence for each mistake."""

import os
import stat

import pytest
import torch

from photomaker.errors import IdentityError, PhotoError, SettingsError
from photomaker.images import open_photo
from photomaker.studio.provenance import encryption
from photomaker.types import Identity

PASSPHRASE = "correct horse"


@pytest.fixture(scope="module")
def encrypted():
    """The bytes of an encrypted identity, and those of the plain one; to encrypt takes a second by design."""
    pyrage = pytest.importorskip("pyrage")
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Identity("m", {"a": torch.ones(2)}, {"consent": "Ada"}).save(Path(folder, "a.safetensors"))
        made = encryption.encrypt(path, PASSPHRASE)
        assert made.name == "a.safetensors.age"
        assert stat.S_IMODE(made.stat().st_mode) == 0o600
        assert path.is_file()
        # a format that others read
        assert pyrage.passphrase.decrypt(made.read_bytes(), PASSPHRASE) == path.read_bytes()
        return made.read_bytes(), path.read_bytes()


@pytest.fixture
def locked(encrypted, tmp_path):
    path = tmp_path / "a.safetensors.age"
    path.write_bytes(encrypted[0])
    return path


def test_there_and_back(locked, encrypted):
    plain = encryption.decrypt(locked, PASSPHRASE)
    assert plain == locked.with_suffix("")
    assert plain.read_bytes() == encrypted[1]
    assert stat.S_IMODE(plain.stat().st_mode) == 0o600
    assert Identity.load(plain).notes == {"consent": "Ada"}
    assert b"consent" not in encrypted[0]


def test_a_wrong_passphrase(locked):
    with pytest.raises(IdentityError, match="the passphrase does not open"):
        encryption.decrypt(locked, "wrong horse")
    assert os.listdir(locked.parent) == [locked.name]


def test_a_damaged_file(locked, encrypted):
    whole = encrypted[0]
    for damaged in (whole[:-5], whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:], whole[:40]):
        locked.write_bytes(damaged)
        with pytest.raises(IdentityError, match="is damaged and cannot be opened"):
            encryption.decrypt(locked, PASSPHRASE)
    assert os.listdir(locked.parent) == [locked.name]


def test_a_file_that_would_take_for_ever_is_refused(locked, encrypted):
    import re

    locked.write_bytes(re.sub(rb" (\d+)\n", b" 40\n", encrypted[0], count=1))
    with pytest.raises(IdentityError, match="is damaged and cannot be opened"):
        encryption.decrypt(locked, PASSPHRASE)


def test_nothing_is_replaced(locked, tmp_path):
    there = tmp_path / "a.safetensors"
    there.write_text("mine")
    with pytest.raises(SettingsError, match="is never replaced"):
        encryption.decrypt(locked, PASSPHRASE)
    with pytest.raises(SettingsError, match="is never replaced"):
        encryption.encrypt(there, PASSPHRASE, locked)
    assert there.read_text() == "mine"


def test_a_full_disk_leaves_nothing(locked, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encryption, "atomic", full)
    with pytest.raises(IdentityError, match="No space left"):
        encryption.decrypt(locked, PASSPHRASE)
    assert os.listdir(locked.parent) == [locked.name]


def test_what_is_no_encrypted_identity(tmp_path):
    (tmp_path / "a.age").write_text("text")
    with pytest.raises(IdentityError, match="is not an encrypted identity"):
        encryption.decrypt(tmp_path / "a.age", PASSPHRASE)
    with pytest.raises(IdentityError, match="there is no identity file"):
        encryption.decrypt(tmp_path / "none.age", PASSPHRASE)
    with pytest.raises(SettingsError, match=r"does not end in .age; name the plain file with --out"):
        encryption.decrypt(tmp_path / "a.txt", PASSPHRASE)


def test_what_cannot_be_encrypted(locked, tmp_path):
    with pytest.raises(IdentityError, match="is an encrypted identity"):
        encryption.encrypt(locked, PASSPHRASE)
    plain = Identity("m", {"a": torch.ones(2)}).save(tmp_path / "b.safetensors")
    with pytest.raises(SettingsError, match="has 5 characters, which is easy to guess; give 8 or more"):
        encryption.encrypt(plain, "short")


def test_a_file_for_a_key_is_told(tmp_path):
    pyrage = pytest.importorskip("pyrage")
    key = pyrage.x25519.Identity.generate()
    (tmp_path / "a.age").write_bytes(pyrage.encrypt(b"x", [key.to_public()]))
    with pytest.raises(IdentityError, match="encrypted with a key, not with a passphrase"):
        encryption.decrypt(tmp_path / "a.age", PASSPHRASE)


def test_an_encrypted_file_where_an_identity_or_photo_is_wanted(locked):
    with pytest.raises(IdentityError, match=r"run `photomaker identity decrypt .*a.safetensors.age` first"):
        Identity.load(locked)
    with pytest.raises(PhotoError, match=r"is encrypted; run `photomaker identity decrypt`"):
        open_photo(locked)


def test_passphrase_files(tmp_path):
    path = tmp_path / "secret"
    path.write_text("correct horse\nsecond line")
    assert encryption.passphrase_from(path) == "correct horse"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="it is not text"):
        encryption.passphrase_from(path)
    path.write_text("\n")
    with pytest.raises(SettingsError, match=r"first line .* is empty"):
        encryption.passphrase_from(path)
    with pytest.raises(SettingsError, match="No such file"):
        encryption.passphrase_from(tmp_path / "none")


def test_without_the_library_it_says_what_to_install(locked, monkeypatch):
    monkeypatch.setattr(encryption, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="pip install"):
        encryption.decrypt(locked, PASSPHRASE)
