"""Model files are what was released, or are refused; reading them runs nothing."""

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from photomaker import weights
from photomaker.errors import WeightsError


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """A bundled model of three small files."""
    root = tmp_path / "small"
    files = {
        "base/unet/model.bin": b"unet",
        "base/model_index.json": b"{}",
        "adapter/photomaker.safetensors": b"adapter",
    }
    listing = {}
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
        listing[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (root / "manifest.json").write_text(json.dumps({"files": listing}))
    monkeypatch.setattr(weights, "SMALL", root)
    return root


def test_files_and_folders_are_found(bundle):
    assert weights.bundled("base") == bundle / "base"
    assert weights.bundled("base/") == bundle / "base"
    assert weights.bundled("adapter/photomaker.safetensors") == bundle / "adapter/photomaker.safetensors"


def test_an_altered_file_is_refused_with_a_remedy(bundle):
    (bundle / "base/unet/model.bin").write_bytes(b"uNet")
    with pytest.raises(WeightsError, match=r"model\.bin is altered .*git checkout"):
        weights.bundled("base")
    assert weights.bundled("adapter/photomaker.safetensors")


def test_a_missing_file_is_refused(bundle):
    (bundle / "base/unet/model.bin").unlink()
    with pytest.raises(WeightsError, match=r"model\.bin is missing"):
        weights.bundled("base")


def test_a_part_that_is_not_listed_is_refused_even_if_it_is_there(bundle):
    (bundle / "extra.bin").write_bytes(b"?")
    with pytest.raises(WeightsError, match=r"no part 'extra.bin' .it has adapter, base"):
        weights.bundled("extra.bin")
    with pytest.raises(WeightsError, match="no part 'bas'"):
        weights.bundled("bas")


def test_the_hash_of_parts_changes_with_them_alone(bundle):
    def hashes():
        return [weights.bundled_hash(*parts) for parts in (("base",), ("adapter",), ("base", "adapter"))]

    before, listing = hashes(), json.loads((bundle / "manifest.json").read_text())
    listing["files"]["adapter/photomaker.safetensors"]["sha256"] = "0" * 64
    (bundle / "manifest.json").write_text(json.dumps(listing))
    assert [one == other for one, other in zip(before, hashes(), strict=True)] == [True, False, False]
    assert weights.bundled_hash("adapter") == weights.bundled_hash("adapter/photomaker.safetensors")
    assert weights.bundled_hash("bas") not in before


@pytest.mark.parametrize("content", ["", "[]", '{"files": 3}'])
def test_a_damaged_manifest_is_refused(bundle, content):
    (bundle / "manifest.json").write_text(content)
    with pytest.raises(WeightsError, match="damaged"):
        weights.bundled("base")


def test_without_a_manifest_there_is_no_model(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "SMALL", tmp_path)
    with pytest.raises(WeightsError, match="the bundled model is missing"):
        weights.bundled("base")


def test_a_part_is_verified_once(bundle, monkeypatch):
    weights.bundled("base")
    monkeypatch.setattr(weights, "sha256", lambda path: pytest.fail(f"read {path} again"))
    weights.bundled("base")


def test_hashing_reads_a_stream(tmp_path):
    data = bytes(range(256)) * 10_000
    (tmp_path / "a").write_bytes(data)
    assert weights.sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()
    with pytest.raises(WeightsError, match="cannot read"):
        weights.sha256(tmp_path / "b")


def test_the_model_hash_depends_on_names_and_contents(bundle, monkeypatch):
    first = weights.model_hash(bundle / "base")
    assert first == weights.model_hash(bundle / "base")
    assert len(first) == 16
    (bundle / "base/model_index.json").write_bytes(b"{ }")
    assert weights.model_hash(bundle / "base") != first
    (bundle / "base/model_index.json").rename(bundle / "base/other.json")
    assert weights.model_hash(bundle / "base") not in {first}
    with pytest.raises(WeightsError, match="no model file or folder"):
        weights.model_hash(bundle / "none")


def test_the_hash_of_a_large_file_sees_its_size_and_both_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_WHOLE", 10)
    monkeypatch.setattr(weights, "_CHUNK", 4)
    hashes = set()
    for content in (b"head-middle-tail", b"Head-middle-tail", b"head-middle-taiL", b"head-midddle-tail"):
        (tmp_path / "m").write_bytes(content)
        hashes.add(weights.model_hash(tmp_path / "m"))
    assert len(hashes) == 4


def test_both_layouts_of_an_adapter_read_the_same(tmp_path):
    tensors = {"id_encoder": {"a.weight": torch.ones(2)}, "lora_weights": {"b": torch.zeros(3)}}
    torch.save(tensors, tmp_path / "a.bin")
    save_file(
        {"id_encoder.a.weight": torch.ones(2), "lora_weights.b": torch.zeros(3)}, tmp_path / "a.safetensors"
    )
    for name in ("a.bin", "a.safetensors"):
        sections = weights.read_sections(tmp_path / name)
        assert set(sections) == {"id_encoder", "lora_weights"}
        assert torch.equal(sections["id_encoder"]["a.weight"], torch.ones(2))


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path):
    torch.save({"id_encoder": Trap(tmp_path / "sprung")}, tmp_path / "a.bin")
    (tmp_path / "b.bin").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    for name in ("a.bin", "b.bin"):
        with pytest.raises(WeightsError, match="damaged or holds more than tensors"):
            weights.read_tensors(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_what_is_no_model_file_is_refused(tmp_path):
    for name in ("a.bin", "a.safetensors"):
        (tmp_path / name).write_bytes(b"not a model")
        with pytest.raises(WeightsError, match=r"a\.(bin|safetensors) .*download it again"):
            weights.read_tensors(tmp_path / name)
    with pytest.raises(WeightsError, match="no model file"):
        weights.read_tensors(tmp_path / "none.safetensors")
    torch.save([torch.ones(1)], tmp_path / "list.bin")
    with pytest.raises(WeightsError, match="holds a list"):
        weights.read_tensors(tmp_path / "list.bin")
    torch.save({"a": 3}, tmp_path / "number.bin")
    with pytest.raises(WeightsError, match="holds a int under a"):
        weights.read_tensors(tmp_path / "number.bin")


def test_a_truncated_file_is_refused(tmp_path):
    save_file({"a": torch.ones(100)}, tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(data[:-50])
    with pytest.raises(WeightsError, match="damaged"):
        weights.read_tensors(tmp_path / "a.safetensors")


def test_the_sizes_of_a_model_come_with_it(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", metadata={"config": '{"width": 3}'})
    assert weights.read_config(tmp_path / "a.safetensors") == {"width": 3}
    save_file({"a": torch.ones(1)}, tmp_path / "b.safetensors")
    with pytest.raises(WeightsError, match="sizes"):
        weights.read_config(tmp_path / "b.safetensors")
