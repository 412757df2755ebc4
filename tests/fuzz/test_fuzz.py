"""Damaged files, any text as a prompt, any words on the command line: nothing but our errors comes out."""

import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests import tiny
from tests.fuzz.mutate import mutated
from tests.fuzz.readers import Runs, readers
from tests.fuzz.run import _tried
from tests.studio.fakes import FakeDetector, FakeMethod, FakeRecogniser, bundle, save

from photomaker.errors import PhotoMakerError, PromptError
from photomaker.prompts import expand_rows, insert_trigger, parse, read_weights
from photomaker.studio.orders.prompts import check_prompt

COUNT = 3000
QUICK = settings(max_examples=150, deadline=3000, derandomize=True, suppress_health_check=list(HealthCheck))


def test_damaged_files_at_every_reader():
    """In a process of its own, whose memory is measured; the count and the faults are printed."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", "--count", str(COUNT)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "PYTHONPATH": "src:.", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{COUNT} inputs in " in result.stdout


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    return readers(folder, folder / "code-was-run")


def test_good_files_are_read(table, tmp_path):
    """Else the fuzzing would try nothing."""
    for reader in table:
        path = tmp_path / f"good{reader.suffix}"
        path.write_bytes(reader.seeds[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(path)


def test_every_format_of_photos_is_among_them(table):
    assert {one.name for one in table if one.name.startswith("photo ")} == {
        f"photo {kind}" for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "HEIC")
    }


def test_a_fault_would_be_found(tmp_path):
    """The runner tells other errors, hangs and several lines apart from our errors."""
    from collections import Counter

    from tests.fuzz.readers import Reader

    def raising(error):
        def read(_):
            raise error

        return Reader("x", ".bin", (b"abc",), read)

    def hang(_):
        while True:
            pass

    counts = Counter()
    assert _tried(raising(PhotoMakerError("one sentence")), 1, tmp_path, counts) == ""
    assert "KeyError" in _tried(raising(KeyError("x")), 1, tmp_path, counts)
    assert "several lines" in _tried(raising(PhotoMakerError("a\nb")), 1, tmp_path, counts)
    assert "more than 3 s" in _tried(Reader("x", ".bin", (b"abc",), hang), 1, tmp_path, counts)
    assert counts == {"x: refused": 2}


def test_mutations_can_be_made_again_and_differ():
    data = bytes(range(256)) * 8
    made = [mutated(data, random.Random(seed)) for seed in range(50)]
    assert made == [mutated(data, random.Random(seed)) for seed in range(50)]
    assert len({*made, data}) > 45


def test_the_hostile_pickle_would_run(tmp_path):
    import pickle

    pickle.loads(pickle.dumps(Runs(tmp_path / "made")))
    assert (tmp_path / "made").is_dir()


# ---- prompts

PIECES = st.sampled_from(
    [
        "img",
        "man",
        "woman ",
        "a photo of ",
        "(",
        ")",
        "[",
        "]",
        ":1.2)",
        ":",
        "\\(",
        "\\",
        " ",
        "1e9",
        "-",
        "\n",
        "IMG",
        "😀",
    ]
)
PROMPTS = st.one_of(st.text(max_size=300), st.lists(PIECES, max_size=40).map("".join))


@QUICK
@given(PROMPTS)
def test_any_text_is_a_prompt_or_refused(text):
    for read in (read_weights, parse, insert_trigger, check_prompt):
        try:
            read(text)
        except PromptError as error:
            assert "\n" not in str(error) or "\n" in text


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    from transformers import CLIPTokenizer

    base = tiny.tiny_pipeline(tmp_path_factory.mktemp("tiny"))
    return tuple(CLIPTokenizer.from_pretrained(base / name) for name in ("tokenizer", "tokenizer_2"))


@QUICK
@given(PROMPTS)
def test_any_text_becomes_tokens_or_is_refused(tokenizers, text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expand_rows([text], [2], tokenizers, long=True)
        except PromptError:
            return


# ---- the command line

_SAID = "|0|-1|1.5|nan|a man img|img|ada|none|../x|x.png|/|ada=ada|=|:|euler|64x64"
_NAMES = (
    "prompt photos identity person pairs negative seed size style styles scheduler steps guidance merge best-of "
    "guidance-start lora start strength mask control t2i style-picture sheet orders set method base adapter "
    "device dtype faces memory variant nonsense"
)
VALUES = st.sampled_from([*_SAID.split("|"), "9" * 30])
OPTIONS = st.sampled_from([*(f"--{name}" for name in _NAMES.split()), "-n"])
LINES = st.lists(st.tuples(OPTIONS, VALUES).map(list), max_size=6).map(
    lambda pairs: [w for pair in pairs for w in pair]
)


@pytest.fixture
def world(tmp_path, monkeypatch):
    from photomaker import weights
    from photomaker.studio import opening

    (tmp_path / "ada").mkdir()
    save(tmp_path / "ada" / "a.png")
    monkeypatch.setattr(weights, "SMALL", bundle(tmp_path / "bundle"))
    monkeypatch.setattr(opening.Opened, "load", lambda _: FakeMethod())
    monkeypatch.setattr(
        opening, "open_backends", lambda _: opening.Backends(FakeDetector(), FakeRecogniser())
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@QUICK
@given(LINES, st.booleans())
def test_any_words_on_the_command_line_end_in_a_status_and_write_nothing_elsewhere(world, words, good):
    from typer.testing import CliRunner

    from photomaker.apps.cli import app

    before = outside(world)
    line = [
        "generate",
        *(["--prompt", "a man img", "--photos", "ada"] if good else []),
        *words,
        "--out",
        "out",
    ]
    result = CliRunner().invoke(app, line, prog_name="photomaker")
    assert result.exit_code in (0, 2), (line, result.output, result.exception)
    assert "Traceback" not in result.output
    assert outside(world) == before, line


def outside(folder):
    return {str(path) for path in folder.rglob("*") if "out" not in path.relative_to(folder).parts}
