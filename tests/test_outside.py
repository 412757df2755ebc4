"""JSON and YAML from outside: whatever they hold, one kind of error."""

import time

import pytest
import yaml

from photomaker.errors import OutputError, SettingsError
from photomaker.outside import read_file, read_json, read_object, read_yaml


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "", "{", b"\xff", b"\xed\xa0\x80"]
)
def test_json_that_cannot_be_meant_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"\S|^$"):
        read_json(text)


def test_json_that_is_meant_is_read():
    assert read_json('[1, {"a": null}]') == [1, {"a": None}]
    assert read_object(b'{"a": 1}') == {"a": 1}
    with pytest.raises(ValueError, match="holds a list"):
        read_object("[1]")


def test_a_damaged_file_is_told_with_its_name_and_the_remedy(tmp_path):
    path = tmp_path / "plan.json"
    for content in (b"{", b"[1]", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(SettingsError, match=r"plan.json is damaged or cannot be read; delete it"):
            read_file(path, "delete it")
    with pytest.raises(OutputError, match=r"none.json is damaged or cannot be read"):
        read_file(tmp_path / "none.json", "x", OutputError)
    path.write_text('{"a": 2}')
    assert read_file(path, "x") == {"a": 2}


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 5000,
        "a: " + "[" * 5000 + "]" * 5000,
        "{" * 300_000,
        "- " * 5000,
        "a: " + "9" * 5000,
        "a: 2020-99-99",
        "a: &a [*a]",
        "\n".join(["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]),
    ],
    ids=["open", "deep", "many", "dashes", "digits", "date", "itself", "laughs"],
)
def test_yaml_that_cannot_be_meant_is_refused_in_no_time(text):
    start = time.perf_counter()
    with pytest.raises((ValueError, yaml.YAMLError)):
        read_yaml(text)
    assert time.perf_counter() - start < 3


def test_yaml_that_is_meant_is_read():
    assert read_yaml("a: &x [1, 2]\nb: *x\nc: {d: '[[['}") == {"a": [1, 2], "b": [1, 2], "c": {"d": "[[["}}
