"""Signing, consent, encryption and kinds of files from the command line, with fakes behind them."""

import json

import pytest
from PIL import Image
from tests.studio import fakes
from tests.studio import signed as made

from photomaker.images import open_photo
from photomaker.metadata import text_of
from photomaker.studio.desk import folders
from photomaker.studio.provenance import certificates

pytest.importorskip("c2pa")


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("data")
    monkeypatch.setenv(folders.HOME, str(folder))
    return folder


def text(path):
    with Image.open(path) as picture:
        picture.load()
        return text_of(picture)


def drawn(shell, ada, *more, name="a.png", status=0):
    result = shell.run(*shell.generate("-n", 1, *more, photos=[ada], out=shell.folder / name))
    assert result.exit_code == status, result.output
    return shell.folder / name


def shown(shell, *words):
    result = shell.run("provenance", "show", *words)
    return result.exit_code, " ".join(result.stdout.split())


# ---- signing


def test_pictures_and_sheets_are_signed_by_default(shell, ada):
    result = shell.run(*shell.generate("-n", 2, "--sheet", photos=[ada]))
    assert result.exit_code == 0, result.output
    for name in ("0001.png", "0002.png", "0001-0002-sheet.png"):
        status, said = shown(shell, shell.folder / "out" / name)
        assert status == 0
        assert f"{name}: it is unchanged since this machine signed it" in said
        assert "likeness of a person │ used" in said
        assert "consent │ not noted" in said
        assert "IPTC mark │ trainedAlgorithmicMedia" in said


def test_no_provenance_leaves_the_mark_and_the_text(shell, ada):
    path = drawn(shell, ada, "--no-provenance", "--sheet")
    assert not certificates.own_file().exists()
    status, said = shown(shell, path)
    assert status == 3
    assert "it has no manifest; its text says that photomaker made it" in said
    assert "trainedAlgorithmicMedia" in said
    assert shown(shell, shell.folder / "a-sheet.png")[0] == 3


def test_as_json(shell, ada):
    path = drawn(shell, ada, "--provenance-prompt")
    status, said = shown(shell, path, "--json")
    told = json.loads(said)
    assert status == 0
    assert told["state"] == "unchanged, known certificate"
    assert told["manifest"]["prompt"] == told["text"]["prompt"] == "a photo of a woman img in the snow"


def test_a_certificate_of_the_users_own(shell, ada, monkeypatch):
    pem = made.other_certificate(shell.folder, monkeypatch)
    path = drawn(shell, ada, "--certificate", pem, "--key", pem)
    assert shown(shell, path)[0] == 4
    status, said = shown(shell, path, "--trust", pem)
    assert (status, "trusted here" in said) == (0, True)


def test_status_of_what_was_altered_and_compared(shell, ada):
    path = drawn(shell, ada)
    picture = made.pixels(path)
    bare, altered = shell.folder / "bare.png", shell.folder / "altered.png"
    picture.save(bare)
    picture.putpixel((0, 0), (200, 200, 200))
    altered.write_bytes(made.with_manifest_of(path.read_bytes(), made.encoded_as(picture, "png")))
    assert shown(shell, altered)[0] == 1
    status, said = shown(shell, bare, "--original", path)
    assert (status, "the pixels are those that a.png was signed with" in said) == (3, True)


def test_what_cannot_sign_is_told_before_any_model_runs(shell, ada):
    (shell.folder / "x.pem").write_text("x")
    order = shell.generate("-n", 1, photos=[ada])
    for words, message in (
        (("--certificate", "x.pem"), "x.pem is given without --key"),
        (("--key", "x.pem"), "x.pem is given without --certificate"),
        (("--certificate", "x.pem", "--key", "x.pem"), "x.pem has no valid PEM certificate"),
        (("--certificate", "none.pem", "--key", "x.pem"), "cannot read none.pem"),
        (
            ("--no-provenance", "--certificate", "x.pem"),
            "--certificate cannot be combined with --no-provenance",
        ),
        (
            ("--no-provenance", "--provenance-prompt"),
            "--provenance-prompt cannot be combined with --no-provenance",
        ),
    ):
        assert message in shell.refused(*order, *words)


def test_an_own_certificate_that_cannot_be_used_is_a_note(shell, ada):
    path = certificates.own_file()
    path.parent.mkdir(parents=True)
    path.write_text("damaged")
    result = shell.run(*shell.generate("-n", 1, photos=[ada]))
    assert result.exit_code == 0, result.output
    assert "note: pictures will have no manifest" in result.stderr
    assert "delete that file" in result.stderr
    assert "provenance" not in text(shell.folder / "out" / "0001.png")


def test_a_data_folder_that_cannot_be_written_is_a_note(shell, ada, monkeypatch):
    (shell.folder / "file").touch()
    monkeypatch.setenv(folders.HOME, str(shell.folder / "file" / "below"))
    result = shell.run(*shell.generate("-n", 1, photos=[ada]))
    assert result.exit_code == 0, result.output
    assert "the certificate for signing cannot be saved as" in result.stderr
    assert "set PHOTOMAKER_HOME" in result.stderr
    assert (shell.folder / "out" / "0001.png").is_file()


@pytest.mark.parametrize(("words", "status"), [((), 0), (("--no-provenance",), 3)])
def test_the_gallery_of_the_demo(shell, monkeypatch, words, status):
    from photomaker.apps import demo

    folder = shell.folder / "ada"
    folder.mkdir()
    for name in ("1.png", "2.png"):
        fakes.save(folder / name)
    monkeypatch.setattr(demo, "person_folder", lambda name: folder)
    result = shell.run("demo", "--out", "gallery.png", *words)
    assert result.exit_code == 0, result.output
    assert shown(shell, "gallery.png")[0] == status
    assert text("gallery.png")["model"] == "photomaker small"


def test_a_file_that_cannot_be_read_is_refused(shell):
    (shell.folder / "a.png").write_text("no picture")
    assert "is not a picture or is damaged" in shell.refused("provenance", "show", "a.png")
    assert "there is no picture none.png" in shell.refused("provenance", "show", "none.png")


def test_a_sheet_of_somebodys_photos_is_not_marked_as_generated(shell, ada, monkeypatch):
    from photomaker.apps import photos
    from photomaker.studio.photos.face_backends import Backends

    found = Backends(fakes.FakeDetector(), fakes.FakeRecogniser())
    monkeypatch.setattr(photos, "_backends", lambda *_: found)
    result = shell.run("photos", "check", ada, "--sheet", "sheet.png")
    assert result.exit_code == 0, result.output
    status, said = shown(shell, "sheet.png")
    assert (status, "IPTC" in said) == (3, False)


# ---- kinds of files


@pytest.mark.parametrize(("name", "kind"), [("a.jpg", "JPEG"), ("a.jpeg", "JPEG"), ("a.webp", "WEBP")])
def test_the_name_says_the_kind(shell, ada, name, kind):
    path = drawn(shell, ada, name=name)
    with Image.open(path) as picture:
        assert picture.format == kind
    assert text(path)["prompt"] == "a photo of a woman img in the snow"
    assert shown(shell, path)[0] == 0
    assert open_photo(path).image.size == (64, 64)


def test_the_option_says_the_kind_in_a_folder(shell, ada):
    folder = shell.folder / "out"
    for kind, names in (
        ("jpeg", ["0001.jpg"]),
        ("webp", ["0001.jpg", "0002.webp"]),
        ("png", ["0001.jpg", "0002.webp", "0003.png"]),
    ):
        result = shell.run(*shell.generate("-n", 1, "--format", kind, photos=[ada]))
        assert result.exit_code == 0, result.output
        assert sorted(path.name for path in folder.iterdir()) == names


def test_kinds_that_cannot_be(shell, ada):
    order = shell.generate("-n", 1, "--format", "jpeg", photos=[ada], out=shell.folder / "a.png")
    assert "the format is jpeg, but" in shell.refused(*order)
    order = shell.generate("-n", 1, photos=[ada], out=shell.folder / "a.gif")
    assert "pictures are written as PNG, JPEG or WebP" in shell.refused(*order)


def test_files_of_orders_take_the_options_too(shell, ada):
    (shell.folder / "orders.yaml").write_text(
        f"people: {{ada: {ada}}}\norders:\n  - prompts: a photo of a woman img\n    n: 2\n"
    )
    words = ("generate", "--orders", "orders.yaml", "--format", "jpeg", "--out", "out")
    for _ in range(2):  # the second time all are there
        result = shell.run(*words)
        assert result.exit_code == 0, result.output
    names = sorted(path.suffix for path in (shell.folder / "out").iterdir())
    assert names == [".jpg", ".jpg", ".png"]
    for path in (shell.folder / "out").iterdir():
        assert shown(shell, path)[0] == 0
    assert shell.run(*words[:-1], "plain", "--no-provenance").exit_code == 0
    assert {shown(shell, path)[0] for path in (shell.folder / "plain").iterdir()} == {3}


# ---- consent


def test_consent_travels_from_the_identity_into_pictures(shell, ada):
    for name, more in (("ada", ("--consent", "Ada, today, for tests")), ("ben", ())):
        result = shell.run("identity", "make", "-p", ada, "--out", f"{name}.safetensors", *more)
        assert result.exit_code == 0, result.output
    assert "consent │ Ada, today, for tests" in " ".join(
        shell.run("identity", "show", "ada.safetensors").stdout.split()
    )
    mixed = shell.run("identity", "mix", "ada.safetensors", "ben.safetensors", "--out", "m.safetensors")
    assert mixed.exit_code == 0, mixed.output
    said = " ".join(shell.run("identity", "show", "m.safetensors").stdout.split())
    assert "consent of 1 │ Ada, today, for tests" in said
    assert "consent of 2 │ not noted" in said
    for name, noted, line in (
        ("ada", "noted", "Ada, today, for tests"),
        ("m", "partly noted", "Ada, today, for tests\nnot noted"),
        ("ben", "not noted", None),
    ):
        result = shell.run(
            *shell.generate("--identity", f"{name}.safetensors", "-n", 1, "--sheet", out=f"{name}.png")
        )
        assert result.exit_code == 0, result.output
        assert text(f"{name}.png").get("consent") == line
        assert f"consent │ {noted} │" in shown(shell, f"{name}.png")[1]
        assert f"consent │ {noted} │" in shown(shell, f"{name}-sheet.png")[1]


def test_orders_tell_consent_and_what_the_engine_noted(shell, ada):
    shell.run("identity", "make", "-p", ada, "--out", "ada.safetensors", "--consent", "Ada, today, for tests")
    (shell.folder / "orders.yaml").write_text(
        "people: {ada: ada.safetensors}\norders:\n  - prompts: a photo of a woman img\n"
    )
    result = shell.run("generate", "--orders", "orders.yaml", "--out", "out")
    assert result.exit_code == 0, result.output
    (path,) = (shell.folder / "out").glob("01-*.png")
    assert text(path)["consent"] == "Ada, today, for tests"
    assert text(path)["person"] == "ada"


def test_a_consent_note_that_is_none_is_refused(shell, ada):
    words = ("identity", "make", "-p", ada, "--out", "x.safetensors", "--consent")
    assert "the consent note is ''" in shell.refused(*words, " ")
    assert "is longer than 500 characters" in shell.refused(*words, "x" * 501)


# ---- encryption


@pytest.fixture
def secret(tmp_path_factory):
    pytest.importorskip("pyrage")
    path = tmp_path_factory.mktemp("secret") / "passphrase"
    path.write_text("correct horse\n")
    return path


def test_encrypted_there_and_back(shell, ada, secret):
    shell.run("identity", "make", "-p", ada, "--out", "ada.safetensors")
    before = (shell.folder / "ada.safetensors").read_bytes()
    result = shell.run("identity", "encrypt", "ada.safetensors", "--passphrase-file", secret)
    assert result.exit_code == 0, result.output
    assert "ada.safetensors is still there" in result.stdout
    shell.loaded.clear()
    order = shell.generate("--identity", "ada.safetensors.age", "-n", 1)
    assert "run `photomaker identity decrypt ada.safetensors.age` first" in shell.refused(*order)
    order = shell.generate("--person", "ada=ada.safetensors.age", "-n", 1)
    assert "is encrypted; run `photomaker identity decrypt`" in shell.refused(*order)
    shown_ = shell.refused("identity", "show", "ada.safetensors.age")
    assert "is an encrypted identity" in shown_
    decrypt = ("identity", "decrypt", "ada.safetensors.age", "--passphrase-file", secret)
    assert "is never replaced" in shell.refused(*decrypt)
    (shell.folder / "ada.safetensors").unlink()
    secret.write_text("wrong horse\n")
    assert "the passphrase does not open" in shell.refused(*decrypt)
    secret.write_text("correct horse\n")
    assert shell.run(*decrypt).exit_code == 0
    assert (shell.folder / "ada.safetensors").read_bytes() == before


def test_a_passphrase_is_asked_for_twice_and_never_shown(shell, ada, monkeypatch):
    pytest.importorskip("pyrage")
    from photomaker.apps import identities

    shell.run("identity", "make", "-p", ada, "--out", "ada.safetensors")
    shell.loaded.clear()
    assert "give --passphrase-file" in shell.refused("identity", "encrypt", "ada.safetensors")
    answers = iter(["correct horse", "another horse", "correct horse", "correct horse"])
    monkeypatch.setattr(identities, "getpass", lambda prompt: next(answers))
    monkeypatch.setattr(identities, "_typed_at", lambda: True)
    assert "the two passphrases differ" in shell.refused("identity", "encrypt", "ada.safetensors")
    result = shell.run("identity", "encrypt", "ada.safetensors")
    assert result.exit_code == 0, result.output
    assert "horse" not in result.output
    assert (shell.folder / "ada.safetensors.age").is_file()
