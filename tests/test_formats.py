"""docs/formats.md promises what the code does: the formats it names are those that are written and read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from photomaker import types
from photomaker.encoders import adapter_file
from photomaker.errors import IdentityError, OutputError, WeightsError
from photomaker.evaluation.report import files
from photomaker.evaluation.running import store as rows
from photomaker.types import Identity
from photomaker.weights import read_metadata

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
FEATURES = {"id_features": torch.ones(2, 8), "weights": torch.ones(2)}


@pytest.mark.parametrize(
    "shown",
    [
        f"`format: {types.FORMAT}`",
        f"`notes_format: {adapter_file.NOTES_FORMAT}`",
        f"`schema: {files.SCHEMA}`",
        f"`version: {rows.VERSION}`",
    ],
)
def test_the_page_names_the_formats_that_are_written(shown):
    assert PAGE.count(shown) == 1


def test_an_identity_of_format_1_is_read_as_long_as_the_promise_stands(tmp_path):
    path = tmp_path / "ada.safetensors"
    noted = {"format": "photomaker-identity-1", "method": "photomaker-v1", "notes": '{"consent": "Ada"}'}
    save_file(FEATURES, path, metadata=noted)
    identity = Identity.load(path)
    assert (identity.method, identity.notes) == ("photomaker-v1", {"consent": "Ada"})
    identity.save(tmp_path / "again.safetensors")
    assert read_metadata(tmp_path / "again.safetensors") == noted


def test_an_identity_of_a_later_format_is_refused_with_both_formats_named(tmp_path):
    path = tmp_path / "ada.safetensors"
    save_file(FEATURES, path, metadata={"format": "photomaker-identity-2", "method": "x", "notes": "{}"})
    with pytest.raises(
        IdentityError, match="of format photomaker-identity-2, but this version reads photomaker-ide"
    ):
        Identity.load(path)


def test_the_notes_of_an_adapter_say_their_format(tmp_path):
    path = adapter_file.write_adapter(tmp_path / "a.safetensors", {"a": torch.ones(1)}, {"rank": 4})
    assert read_metadata(path)["notes_format"] == adapter_file.NOTES_FORMAT
    assert adapter_file.noted_config(path) == {"rank": 4}


@pytest.mark.parametrize(("noted", "read"), [({}, {}), ({"config": '{"rank": 4}'}, {"rank": 4})])
def test_adapters_without_a_format_are_read_as_before(tmp_path, noted, read):
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", metadata=noted)
    assert adapter_file.noted_config(tmp_path / "a.safetensors") == read


def test_the_notes_of_a_later_format_are_refused(tmp_path):
    save_file(
        {"a": torch.ones(1)}, tmp_path / "a.safetensors", metadata={"notes_format": "photomaker-adapter-2"}
    )
    with pytest.raises(
        WeightsError, match="photomaker-adapter-2, but this version reads photomaker-adapter-1"
    ):
        adapter_file.noted_config(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["photomaker", "ablation"])
def test_published_results_are_of_the_schema(name):
    assert json.loads((ROOT / "benchmarks" / f"{name}.json").read_text())["schema"] == files.SCHEMA


def test_rows_of_another_version_are_refused(tmp_path):
    store = rows.Store(tmp_path)
    (tmp_path / "stamp.json").write_text(json.dumps({"version": rows.VERSION + 1}))
    with pytest.raises(
        OutputError, match=f"from version {rows.VERSION + 1} of the benchmark, but this is {rows.VERSION}"
    ):
        store.claim("stamp.json", {"version": rows.VERSION}, "delete it")
