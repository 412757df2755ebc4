"""Whatever is wrong with an order: one clear sentence, status 2, nothing written, no diffusion model loaded first."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from tests.studio import fakes


def bomb() -> bytes:
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def truncated() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()[:1500]


def test_no_photos(shell):
    assert "give either --photos or --identity" in shell.refused(*shell.generate())


def test_photos_and_an_identity(shell, ada):
    assert "give either" in shell.refused(*shell.generate("--identity", "x.safetensors", photos=[ada]))


def test_an_unknown_method(shell, ada):
    said = shell.refused(*shell.generate("--method", "ip_adaptor", photos=[ada]))
    assert "there is no method 'ip_adaptor'; did you mean 'ip_adapter'?" in said


def test_an_adapter_for_a_method_that_has_none(shell, ada):
    said = shell.refused(
        *shell.generate("--method", "dreambooth", "--adapter", "mine.safetensors", photos=[ada])
    )
    assert "dreambooth is tuned for each person and takes no adapter (mine.safetensors); leave it out" in said


def test_a_missing_path(shell):
    assert "there is no photo or folder nowhere" in shell.refused(*shell.generate(photos=["nowhere"]))


def test_an_empty_folder(shell, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "has no pictures" in shell.refused(*shell.generate(photos=[tmp_path / "empty"]))


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("note.jpg", b"hello", "is not a picture or is damaged"),
        ("zero.png", b"", "is an empty file"),
        ("cut.jpg", truncated(), "is not a picture or is damaged"),
        ("bomb.png", bomb(), "million"),
    ],
)
def test_a_photo_that_cannot_be_used_is_named(shell, ada, name, data, words):
    (ada / name).write_bytes(data)
    line = shell.refused(*shell.generate(photos=[ada]))
    assert name in line
    assert words in line


def test_no_photo_shows_a_face(shell, tmp_path):
    fakes.save(tmp_path / "wall.png", faces=0)
    assert "no face was found in wall.png" in shell.refused(*shell.generate(photos=[tmp_path / "wall.png"]))


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a castle in the snow", "class word"),
        ("", "the prompt is empty"),
        ("a man img and a woman img", "2 times"),
        ("img in the snow", "class word"),
    ],
)
def test_a_prompt_that_cannot_be_used(shell, ada, prompt, words):
    assert words in shell.refused(*shell.generate(photos=[ada], prompt=prompt))


def test_without_a_class_word_the_message_lists_some(shell, ada):
    line = shell.refused(*shell.generate(photos=[ada], prompt="a castle"))
    assert "woman" in line
    assert "boy" in line


def test_a_trigger_in_the_negative_prompt(shell, ada):
    assert "negative prompt" in shell.refused(*shell.generate("--negative", "ugly img", photos=[ada]))


@pytest.mark.parametrize("out", ["/proc/self/out", "file", "file/below"])
def test_an_output_folder_that_is_not_writable(shell, ada, tmp_path, out):
    (tmp_path / "file").touch()
    assert "cannot write to" in shell.refused(*shell.generate(photos=[ada], out=out))


def test_missing_weights(shell, ada):
    (shell.bundle / "base/unet/x.safetensors").unlink()
    assert "x.safetensors is missing" in shell.refused(*shell.generate(photos=[ada]))


def test_altered_weights(shell, ada):
    (shell.bundle / "adapter/photomaker.safetensors").write_bytes(b"z")
    line = shell.refused(*shell.generate(photos=[ada]))
    assert "is altered (sha256" in line
    assert "git checkout" in line


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--steps", 0), ("--guidance", -1), ("--guidance", "nan"), ("--merge", 1.5), ("--seed", -1),
        ("--device", "abacus"), ("--base", "/none"), ("--identity", "none.safetensors"),
    ],
)  # fmt: skip
def test_settings_out_of_range(shell, ada, option, value):
    photos = None if option == "--identity" else [ada]
    line = shell.refused(*shell.generate(option, value, photos=photos))
    assert str(value) in line or option == "--base"


def test_an_identity_file_that_is_none(shell, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"junk")
    assert "is not an identity file" in shell.refused(*shell.generate("--identity", "a.safetensors"))
    assert "is not an identity file" in shell.refused("identity", "show", "a.safetensors")
    assert "is not an identity file" in shell.refused(
        "identity", "mix", "a.safetensors", "a.safetensors", "--out", "b"
    )


def test_the_file_of_an_identity_cannot_be_written(shell, ada):
    assert "is a folder" in shell.refused("identity", "make", "--photos", ada, "--out", ada)


def test_a_demo_without_its_people_or_place(shell, tmp_path, monkeypatch):
    from photomaker import weights

    assert "is a folder" in shell.refused("demo", "--out", tmp_path)
    monkeypatch.setattr(weights, "ASSETS", tmp_path / "none")
    assert "ada are missing" in shell.refused("demo")


def test_unknown_people(shell):
    assert "style is 'cubist'" in shell.refused("people", "--style", "cubist", "--count", 1)


def test_evaluation_settings_out_of_range(shell):
    assert "people is 1" in shell.refused("evaluate", "--people", 1)
    assert "merges is 'a,b'" in shell.refused("evaluate", "--merges", "a,b")


# Photos that are unusual, and fine.


@pytest.mark.parametrize("kind", ["exif", "cmyk", "sixteen", "rgba", "animated"])
def test_unusual_photos_are_taken(shell, tmp_path, kind):
    folder = tmp_path / "unusual"
    folder.mkdir()
    face = fakes.picture(faces=1)
    if kind == "exif":
        exif = Image.Exif()
        exif[0x0112] = 6
        face.save(folder / "a.png", exif=exif)
    elif kind == "cmyk":
        Image.new("CMYK", (64, 64), (0, 255, 255, 254)).save(folder / "a.tif")
    elif kind == "sixteen":
        Image.fromarray(np.full((64, 64), 257, np.uint16)).save(folder / "a.png")
    elif kind == "rgba":
        Image.new("RGBA", (64, 64), (1, 0, 0, 255)).save(folder / "a.png")
    else:
        face.save(folder / "a.png", save_all=True, append_images=[fakes.picture(faces=0)])
    result = shell.run(*shell.generate("-n", 1, photos=[folder]))
    assert result.exit_code == 0, result.output
    assert ("only the first is used" in result.stderr) == (kind == "animated")


def test_a_photo_without_a_face_is_left_out_and_said(shell, ada):
    fakes.save(ada / "c.png", faces=0)
    result = shell.run(*shell.generate("-n", 1, photos=[ada]))
    assert result.exit_code == 0
    assert "note: no face was found in c.png" in result.stderr


def test_several_faces_are_said(shell, ada):
    fakes.save(ada / "c.png", faces=2)
    assert (
        "c.png shows 2 faces; the one in the other photos is used"
        in shell.run(*shell.generate("-n", 1, photos=[ada])).stderr
    )


def test_a_missing_trigger_is_put_in_and_said(shell, ada):
    result = shell.run(*shell.generate("-n", 1, photos=[ada], prompt="a photo of a woman in the snow"))
    assert result.exit_code == 0
    assert "a photo of a woman img in the snow" in result.stderr
