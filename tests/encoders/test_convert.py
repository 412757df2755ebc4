"""Both file forms of an adapter hold the same numbers."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from photomaker.encoders import read_adapter
from photomaker.encoders.convert import convert_adapter
from photomaker.errors import OutputError, SettingsError, WeightsError


@pytest.mark.parametrize("file", ["tiny_adapter_file", "tiny_adapter_v2_file"])
def test_there_and_back_again(file, request, tmp_path):
    first = request.getfixturevalue(file)
    plain = tmp_path / "plain.safetensors"
    # as released: no notes; the width of a resampler's head is then the released one or the whole width
    save_file(load_file(first), plain, metadata={"format": "pt"})
    done = convert_adapter(plain, tmp_path / "new" / "adapter.bin")
    assert set(torch.load(tmp_path / "new/adapter.bin", weights_only=True)) == {"id_encoder", "lora_weights"}
    assert done.lost == ()
    back = convert_adapter(tmp_path / "new" / "adapter.bin", tmp_path / "again.safetensors")
    assert back.adapter.encoder_sha256() == read_adapter(first).encoder_sha256()
    tensors, wanted = load_file(tmp_path / "again.safetensors"), load_file(first)
    assert tensors.keys() == wanted.keys()
    assert all(torch.equal(tensors[name], wanted[name]) for name in wanted)
    assert back.source_sha256 == done.target_sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again.safetensors",
        "new",
        "plain.safetensors",
    ]


def test_notes_survive_between_safetensors(tiny_adapter_file, tmp_path):
    convert_adapter(tiny_adapter_file, tmp_path / "copy.safetensors")
    assert read_adapter(tmp_path / "copy.safetensors").config == read_adapter(tiny_adapter_file).config


def test_sizes_that_a_bin_cannot_tell(tiny_adapter_v2_file, tmp_path):
    with pytest.raises(WeightsError, match="resampler_head which a"):
        convert_adapter(tiny_adapter_v2_file, tmp_path / "a.bin")
    assert not list(tmp_path.iterdir())


def test_mistakes(tiny_adapter_file, tmp_path):
    with pytest.raises(SettingsError, match="ends in neither"):
        convert_adapter(tiny_adapter_file, tmp_path / "a.pt")
    (tmp_path / "a.bin").write_bytes(b"mine")
    with pytest.raises(SettingsError, match="exists already"):
        convert_adapter(tiny_adapter_file, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == b"mine"
    with pytest.raises(SettingsError, match="exists already"):
        convert_adapter(tiny_adapter_file, tiny_adapter_file, overwrite=True)
    with pytest.raises(WeightsError):
        convert_adapter(tmp_path / "a.bin", tmp_path / "b.safetensors")
    with pytest.raises(OutputError, match="cannot be written"):
        convert_adapter(tiny_adapter_file, tmp_path / "a.bin" / "b.safetensors")
    convert_adapter(tiny_adapter_file, tmp_path / "a.bin", overwrite=True)
    assert read_adapter(tmp_path / "a.bin").version == "v1"
