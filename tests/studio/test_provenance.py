"""Pictures are signed where they are saved, and what is done to them afterwards is told for what it is."""

import os
import re
import stat

import pytest
from PIL import Image
from tests.studio import signed as made

from photomaker.errors import PhotoError, ProvenanceError, SettingsError
from photomaker.images import open_photo
from photomaker.metadata import BY_MODEL, EDITED_BY_MODEL
from photomaker.studio.desk import folders
from photomaker.studio.pictures import saving
from photomaker.studio.provenance import certificates, manifest
from photomaker.studio.provenance.inspection import State, inspect
from photomaker.studio.provenance.manifest import Seal
from photomaker.types import Extras, Request, Sample, Start

pytest.importorskip("c2pa")
pytest.importorskip("cryptography")
KINDS = ("png", "jpeg", "webp")


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """A data folder of one's own for each test."""
    folder = tmp_path_factory.mktemp("data")
    monkeypatch.setenv(folders.HOME, str(folder))
    return folder


@pytest.fixture(params=KINDS)
def picture(request, tmp_path):
    """A signed picture of each kind."""
    path = tmp_path / f"signed{made.SUFFIXES[request.param]}"
    return saving.save_named(made.sample(consent="Ada, today, for tests"), path, made.ABOUT)


def kind_of(path):
    return next(kind for kind, suffix in made.SUFFIXES.items() if suffix == path.suffix)


# ---- what is written


def test_pictures_are_signed_by_default(picture):
    found = inspect(picture)
    assert found.state is State.KNOWN, found.sentence
    assert "this machine signed it, which does not prove who made it" in found.sentence
    assert dict(found.manifest) == {
        "signed by": "self-made certificate (photomaker)",
        "tool": "photomaker 0.1.0",
        "c2pa.created": "trainedAlgorithmicMedia",
        "model": "small",
        "model_hash": "abc123",
        "method": "photomaker",
        "likeness of a person": "used",
        "consent": "noted",
        "consent notes": "Ada, today, for tests",
    }
    assert found.mark == BY_MODEL
    assert (found.text["prompt"], found.text["seed"]) == ("a photo of a man img", "7")
    assert found.text["provenance"] == "C2PA manifest"


def test_the_pixels_are_those_of_an_unsigned_file(picture, tmp_path):
    plain = saving.save_named(made.sample(), tmp_path / f"plain{picture.suffix}", made.ABOUT, seal=False)
    assert made.pixels(picture).tobytes() == made.pixels(plain).tobytes()
    found = inspect(plain)
    assert found.state is State.UNSIGNED
    assert "no manifest; its text says that photomaker made it" in found.sentence
    assert found.mark == BY_MODEL
    assert "provenance" not in found.text


def test_the_prompt_is_told_where_it_is_asked_for(tmp_path):
    plain = saving.save_named(made.sample(), tmp_path / "a.png")
    asked = saving.save_named(made.sample(), tmp_path / "b.png", seal=Seal.open(prompt=True))
    assert "prompt" not in inspect(plain).manifest
    assert inspect(asked).manifest["prompt"] == "a photo of a man img"


@pytest.mark.parametrize("notes", [{}, {"consent": "Ada, today\nnot noted"}])
def test_consent_that_nobody_noted_is_told(notes, tmp_path):
    found = inspect(saving.save_named(made.sample(**notes), tmp_path / "a.png"))
    assert found.manifest["consent"] == ("partly noted" if notes else "not noted")
    assert found.manifest.get("consent notes") == ("Ada, today" if notes else None)


def test_a_picture_drawn_into_another_says_so(tmp_path):
    request = Request("a man img", extras=Extras(start=Start(made.drawing())))
    found = inspect(saving.save_named(Sample(made.drawing(), request), tmp_path / "a.png"))
    assert found.mark == EDITED_BY_MODEL
    assert found.manifest["c2pa.created"] == "compositeWithTrainedAlgorithmicMedia"


def test_sheets_are_signed_too(tmp_path):
    path = saving.save_sheet(made.drawing(), tmp_path / "sheet.png", made.ABOUT)
    assert inspect(path).state is State.KNOWN


def test_signed_pictures_are_photos_as_before(picture):
    assert open_photo(picture).image.size == made.drawing().size


# ---- by what


def test_the_own_certificate_is_made_once_and_is_private(home, tmp_path):
    first = inspect(saving.save_named(made.sample(), tmp_path / "a.png"))
    path = certificates.own_file()
    before = path.read_bytes()
    assert home in path.parents
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == [path.name]
    assert inspect(saving.save_named(made.sample(), tmp_path / "b.png")).manifest == first.manifest
    assert path.read_bytes() == before
    path.chmod(0o644)
    certificates.own_certificate()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_certificate_of_the_users_own(tmp_path, monkeypatch):
    pem = made.other_certificate(tmp_path, monkeypatch)
    path = saving.save_named(made.sample(), tmp_path / "a.png", seal=Seal.open(pem, pem))
    assert not certificates.own_file().exists()
    found = inspect(path)
    assert found.state is State.UNKNOWN
    assert "unknown here: anybody can create one in any name" in found.sentence
    trusted = inspect(path, trust=pem)
    assert trusted.state is State.KNOWN
    assert "whose certificate is trusted here" in trusted.sentence


@pytest.mark.parametrize("kind", ["P-384", "Ed25519", "RSA"])
def test_keys_of_other_kinds_sign(kind, tmp_path, monkeypatch):
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    makers = {
        "P-384": lambda *_: ec.generate_private_key(ec.SECP384R1()),
        "Ed25519": lambda *_: ed25519.Ed25519PrivateKey.generate(),
        "RSA": lambda *_: rsa.generate_private_key(65537, 2048),
    }
    authority, key = ec.generate_private_key(ec.SECP256R1()), makers[kind]()
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    chain = [certificates._issued(key, authority, False), certificates._issued(authority, authority, True)]
    (tmp_path / "chain.pem").write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in chain))
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    seal = Seal.open(tmp_path / "chain.pem", tmp_path / "key.pem")
    path = saving.save_named(made.sample(), tmp_path / "a.png", seal=seal)
    assert inspect(path, trust=tmp_path / "chain.pem").state is State.KNOWN


def test_certificates_that_cannot_sign_are_refused(tmp_path, monkeypatch):
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    pem = made.other_certificate(tmp_path, monkeypatch)
    other = made.other_certificate(tmp_path / "second", monkeypatch)
    (tmp_path / "text.pem").write_text("no certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (tmp_path / "locked.pem").write_bytes(locked)
    authority = re.findall(rb"-----BEGIN CERT.*?-----END CERT\w*-----", pem.read_bytes(), re.DOTALL)[1]
    (tmp_path / "authority.pem").write_bytes(authority)
    for certificate, secret, message in (
        (pem, tmp_path / "none.pem", "cannot read .*none.pem: No such file"),
        (tmp_path / "text.pem", pem, "text.pem has no valid PEM certificate"),
        (pem, tmp_path / "text.pem", "text.pem has no valid PEM private key"),
        (pem, other, "does not match the first certificate"),
        (pem, tmp_path / "locked.pem", "is protected by a passphrase"),
        (tmp_path / "authority.pem", pem, "does not match the first certificate"),
    ):
        with pytest.raises(ProvenanceError, match=message) as caught:
            Seal.open(certificate, secret)
        assert "\n" not in str(caught.value)
    with pytest.raises(SettingsError, match="is given without --key"):
        Seal.open(pem)


def test_a_certificate_that_is_not_for_signing_documents_is_refused(tmp_path):
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    itself = certificates._issued(key, key, True)  # an authority, which signs certificates only
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "ca.pem").write_bytes(itself.public_bytes(Encoding.PEM) + secret)
    with pytest.raises(ProvenanceError, match=r"C2PA does not accept the certificate .*ca.pem .*self-signed"):
        Seal.open(tmp_path / "ca.pem", tmp_path / "ca.pem")


def test_an_expired_certificate_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(certificates, "YEARS", 0)
    with pytest.raises(ProvenanceError, match=r"is valid from .* which does not include today"):
        certificates.own_certificate()


def test_a_picture_is_never_lost_because_it_cannot_be_signed(tmp_path):
    path = certificates.own_file()
    path.parent.mkdir(parents=True)
    path.write_text("damaged")
    with pytest.warns(
        UserWarning, match="without a manifest: .*certificate.pem has no valid PEM certificate"
    ):
        first = saving.save_named(made.sample(), tmp_path / "a.png", made.ABOUT)
    saving.save_named(made.sample(), tmp_path / "b.png", made.ABOUT)  # said once
    assert inspect_without_own(first).state is State.UNSIGNED


def inspect_without_own(path):
    certificates.own_file().unlink()
    return inspect(path)


def test_a_signature_that_fails_late_loses_no_picture(tmp_path, monkeypatch):
    seal = Seal.open()

    def fails(*_):
        raise ProvenanceError(
            "the picture cannot be signed (a token was pulled out); give another certificate"
        )

    monkeypatch.setattr(Seal, "signed", fails)
    with pytest.warns(UserWarning, match="a picture is saved without a manifest"):
        path = saving.save_named(made.sample(), tmp_path / "a.png", made.ABOUT, seal=seal)
    assert "provenance" not in inspect(path).text


def test_without_the_extra_pictures_are_saved_as_before(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "find_spec", lambda name: None)
    path = saving.save_named(made.sample(), tmp_path / "a.png", made.ABOUT)
    with Image.open(path) as image:
        image.load()
        assert "provenance" not in image.text
    with pytest.raises(ProvenanceError, match=r"pip install 'photomaker\[provenance\]'"):
        inspect(path)
    with pytest.raises(ProvenanceError, match=r"pip install 'photomaker\[provenance\]'"):
        Seal.open()


def test_many_threads_sign_at_once(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda k: saving.save_named(made.sample(), tmp_path / f"{k}.png"), range(24)))
    assert all(inspect(path).state is State.KNOWN for path in paths)


# ---- what was done to a file since


def altered(picture, change, **options):
    """The file with other pixels and the manifest that it had."""
    pixels = change(made.pixels(picture))
    again = made.encoded_as(pixels, kind_of(picture), **options)
    path = picture.with_name(f"altered{picture.suffix}")
    path.write_bytes(made.with_manifest_of(picture.read_bytes(), again))
    return inspect(path)


def one_pixel(pixels):
    red, green, blue = pixels.getpixel((3, 3))
    pixels.putpixel((3, 3), (255 - red, 255 - green, 255 - blue))
    return pixels


def test_one_pixel_changed(tmp_path):
    picture = saving.save_named(made.sample(), tmp_path / "a.png")
    found = altered(picture, one_pixel)
    assert found.state is State.ALTERED
    assert found.sentence == (
        "it was changed after signing: pixels were changed, in 1 of 64 fields of it (top left)"
    )
    assert found.manifest["tool"].startswith("photomaker")


def test_encoded_anew_with_the_manifest_kept(picture):
    lossless = {"png": {"compress_level": 1}}
    found = altered(picture, lambda pixels: pixels, **lossless.get(kind_of(picture), {"quality": 40}))
    assert found.state is State.ALTERED
    expected = (
        "its pixels are as they were signed, and the rest"
        if picture.suffix == ".png"
        else "it was re-encoded with loss"
    )
    assert expected in found.sentence


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda pixels: pixels.resize((48, 48), Image.Resampling.BOX),
            "resized: from 96 x 96 to 48 x 48 pixels",
        ),
        (lambda pixels: pixels.crop((0, 0, 48, 48)), "cropped, or another picture"),
        (lambda pixels: pixels.transpose(Image.Transpose.ROTATE_180), "another picture is in its place"),
    ],
)
def test_other_changes(change, said, tmp_path):
    picture = saving.save_named(made.sample(), tmp_path / "a.png")
    found = altered(picture, change)
    assert found.state is State.ALTERED
    assert said in found.sentence


def test_text_changed_in_the_file(tmp_path):
    picture = saving.save_named(made.sample(), tmp_path / "a.png", made.ABOUT)
    data = picture.read_bytes().replace(b"a photo of a man img", b"a photo of a cat img")
    pieces = [made.chunk(name, raw[8:-4]) if name == b"iTXt" else raw for name, raw in made.chunks(data)]
    picture.with_name("b.png").write_bytes(data[:8] + b"".join(pieces))
    found = inspect(picture.with_name("b.png"))
    assert found.state is State.ALTERED
    assert "its pixels are as they were signed, and the rest of the file" in found.sentence


def test_the_manifest_itself_changed(picture):
    data = picture.read_bytes()
    changed = data.replace(b"abc123", b"abd123")
    assert data.count(b"abc123") > changed.count(b"abc123")
    place = picture.with_name(f"forged{picture.suffix}")
    if picture.suffix == ".png":
        pieces = [made.chunk(name, raw[8:-4]) for name, raw in made.chunks(changed)]
        changed = changed[:8] + b"".join(pieces)
    place.write_bytes(changed)
    found = inspect(place)
    assert found.state is State.ALTERED
    assert "its manifest was altered after signing and cannot be trusted" in found.sentence


def test_a_damaged_manifest(tmp_path):
    picture = saving.save_named(made.sample(), tmp_path / "a.png")
    data = picture.read_bytes()
    pieces = [made.chunk(name, raw[8:108]) if name == b"caBX" else raw for name, raw in made.chunks(data)]
    picture.write_bytes(data[:8] + b"".join(pieces))
    found = inspect(picture)
    assert found.state is State.ALTERED
    assert found.sentence == "its manifest is damaged and cannot be read"


def test_the_manifest_of_another_picture(tmp_path):
    picture = saving.save_named(made.sample(), tmp_path / "a.png")
    other = made.encoded_as(Image.new("RGB", (96, 96), "red"), "png")
    (tmp_path / "b.png").write_bytes(made.with_manifest_of(picture.read_bytes(), other))
    assert "another picture is in its place" in inspect(tmp_path / "b.png").sentence


def test_the_manifest_taken_out(tmp_path):
    picture = saving.save_named(made.sample(), tmp_path / "a.png", made.ABOUT)
    data = picture.read_bytes()
    left = [raw for name, raw in made.chunks(data) if name != b"caBX"]
    picture.write_bytes(data[:8] + b"".join(left))
    found = inspect(picture)
    assert found.state is State.UNSIGNED
    assert "its text says that it was signed, but the manifest is gone" in found.sentence


def test_metadata_stripped_and_encoded_anew_beside_the_original(picture):
    bare = picture.with_name("bare.png")
    bare.write_bytes(made.encoded_as(made.pixels(picture), "png"))
    found = inspect(bare)
    assert found.state is State.UNSIGNED
    assert found.sentence.startswith("it has no record of its origin")
    assert (found.mark, dict(found.text), dict(found.manifest)) == (None, {}, {})
    beside = inspect(bare, original=picture)
    assert beside.sentence == (
        f"its metadata was stripped: the pixels are those that {picture.name} was signed with"
    )
    poor = picture.with_name("poor.jpg")
    poor.write_bytes(made.encoded_as(made.pixels(picture), "jpeg", quality=50))
    assert "it was re-encoded with loss" in inspect(poor, original=picture).sentence
    touched = picture.with_name("touched.png")
    touched.write_bytes(made.encoded_as(one_pixel(made.pixels(picture)), "png"))
    assert "pixels were changed, in 1 of 64 fields" in inspect(touched, original=picture).sentence
    with pytest.raises(ProvenanceError, match=r"bare.png has no valid manifest of photomaker"):
        inspect(touched, original=bare)


@pytest.mark.parametrize("broken", [b"", b"no picture", None])
def test_a_damaged_file(broken, picture):
    data = picture.read_bytes()
    picture.write_bytes(data[: len(data) // 2] if broken is None else broken)
    with pytest.raises(PhotoError, match=r"is an empty file|is not a picture or is damaged"):
        inspect(picture)
    with pytest.raises(PhotoError, match="there is no picture"):
        inspect(picture.with_name("none.png"))


# ---- others' manifests


def test_a_manifest_of_another_tool(tmp_path, monkeypatch):
    pem = made.other_certificate(tmp_path, monkeypatch)
    path = tmp_path / "a.png"
    path.write_bytes(made.signed_by_another_tool(pem, made.encoded_as(made.drawing(), "png")))
    found = inspect(path)
    assert found.state is State.UNKNOWN
    assert found.manifest["tool"] == "Brush [31m 3"  # no control characters
    assert (found.manifest["c2pa.created"], found.manifest["c2pa.edited"]) == ("digitalCapture", "-")
    changed = altered(path, one_pixel)
    assert changed.state is State.ALTERED
    assert "the manifest does not say how" in changed.sentence


def test_a_hostile_manifest_is_only_told(tmp_path, monkeypatch):
    pem = made.other_certificate(tmp_path, monkeypatch)
    strange = [
        {"label": "photomaker.pixels", "data": {"width": "x", "fields": 3, "look": None}},
        {"label": "photomaker.likeness", "data": {"consent": ["\x1b[2J"] * 5, "consent_notes": {"a": 1}}},
        {"label": "photomaker.model", "data": {"model": "m" * 100_000}},
    ]
    path = tmp_path / "a.png"
    path.write_bytes(made.signed_by_another_tool(pem, made.encoded_as(made.drawing(), "png"), strange))
    found = inspect(path)
    assert found.state is State.UNKNOWN
    assert len(found.manifest["model"]) < 2000
    assert "\x1b" not in "".join(found.manifest.values())
    assert altered(path, one_pixel).state is State.ALTERED


def test_nothing_is_fetched(tmp_path, monkeypatch):
    pem = made.other_certificate(tmp_path, monkeypatch)
    png = made.encoded_as(made.drawing(), "png")
    address = "http://127.0.0.1:9/manifest"
    (tmp_path / "a.png").write_bytes(made.signed_by_another_tool(pem, png, elsewhere=address))
    told = inspect(tmp_path / "a.png")
    assert told.state is State.UNSIGNED
    assert "is stored elsewhere and was not downloaded" in told.sentence
