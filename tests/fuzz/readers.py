"""Every reader of what comes from outside, with good files to start from; a new reader is one line in `READERS`."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from tests import tiny

from photomaker import config
from photomaker.dataset import listing
from photomaker.encoders import read_adapter
from photomaker.encoders.anydoor import read_anydoor
from photomaker.encoders.fastcomposer import read_fastcomposer
from photomaker.encoders.flashface import read_flashface
from photomaker.encoders.ip_adapter import read_ip_adapter
from photomaker.encoders.mixing import mix
from photomaker.encoders.photoverse import read_photoverse
from photomaker.images import FORMATS, open_photo
from photomaker.metadata import KINDS
from photomaker.methods.custom_diffusion import CustomDiffusion
from photomaker.methods.hypernetwork import Hypernetwork
from photomaker.methods.textual_inversion import TextualInversion
from photomaker.outside import read_file
from photomaker.pipelines.drawing.extra_checks import check_lora_file
from photomaker.studio.orders.batch import read_orders
from photomaker.studio.orders.styles import styles
from photomaker.studio.pictures.saving import file_of
from photomaker.studio.provenance import certificates
from photomaker.studio.provenance.inspection import inspect
from photomaker.studio.provenance.manifest import Seal, installed
from photomaker.types import Identity, Request, Sample
from photomaker.weights import read_config, read_pickle, read_tensors


@dataclass(frozen=True)
class Reader:
    """A reader.

    Attributes:
        name: What it reads.
        suffix: Of its files.
        seeds: Good files, and hostile ones.
        read: Reads a file; only our errors may come out.
    """

    name: str
    suffix: str
    seeds: tuple[bytes, ...]
    read: Callable[[Path], object]


class Runs:
    """What a pickle that runs code looks like: reading it would make a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.place),)


ROOT = Path(__file__).parents[2]


def readers(folder: Path, marker: Path) -> list[Reader]:
    """All of them.

    Args:
        folder: For the good files and tiny models.
        marker: What hostile pickles would make.
    """
    hostile = _saved({"id_encoder": Runs(marker)}), pickle.dumps(Runs(marker))
    base = tiny.tiny_pipeline(folder)
    adapter, adapter_v2 = (
        path.read_bytes() for path in (tiny.tiny_adapter(folder), tiny.tiny_adapter_v2(folder))
    )
    photos = tuple(Reader(f"photo {name}", f".{name.lower()}", _photos(name), open_photo) for name in FORMATS)
    word = {"clip_l": torch.zeros(1, 32), "clip_g": torch.zeros(1, 48)}
    words, hyper, custom = (kind.open(base) for kind in (TextualInversion, Hypernetwork, CustomDiffusion))
    return [
        *photos,
        Reader(
            "photo HEIC", ".heic", ((ROOT / "tests" / "photos" / "portrait.heic").read_bytes(),), open_photo
        ),
        Reader("identity", ".safetensors", _identities(folder), _use_identity),
        Reader(
            "adapter", ".safetensors", (adapter, adapter_v2), lambda path: read_adapter(path).build_encoder()
        ),
        Reader(
            "adapter .bin",
            ".bin",
            (_official(adapter), *hostile),
            lambda path: read_adapter(path).build_encoder(),
        ),
        Reader("ip-adapter", ".safetensors", (tiny.tiny_ip_adapter(folder).read_bytes(),), read_ip_adapter),
        Reader(
            "ip-adapter .bin", ".bin", (_sections(tiny.tiny_ip_adapter(folder)), *hostile), read_ip_adapter
        ),
        Reader("anydoor", ".ckpt", (tiny.tiny_anydoor(folder).read_bytes(),), read_anydoor),
        Reader("flashface", ".ckpt", (tiny.tiny_flashface(folder).read_bytes(),), read_flashface),
        Reader("fastcomposer", ".bin", (tiny.tiny_fastcomposer(folder).read_bytes(),), read_fastcomposer),
        Reader("photoverse", ".safetensors", (tiny.tiny_photoverse(folder).read_bytes(),), read_photoverse),
        Reader("LoRA", ".safetensors", _loras(folder), lambda path: check_lora_file(path, 80)),
        Reader("textual inversion", ".safetensors", (save(word),), words.load_published),
        Reader("textual inversion .bin", ".bin", (_saved(word), *hostile), words.load_published),
        Reader("hypernetwork", ".pt", (_saved(_hyper()), *hostile), hyper.load_published),
        Reader("custom diffusion", ".bin", (_saved(_delta(custom)), *hostile), custom.load_published),
        Reader("weights", ".safetensors", (adapter,), lambda path: (read_tensors(path), read_config(path))),
        Reader("pickle", ".bin", (_saved(word), *hostile), read_pickle),
        Reader("settings", ".yaml", _settings(), _use_settings),
        Reader("orders", ".yaml", (_ORDERS,), read_orders),
        Reader("styles", ".yaml", (b"crayon:\n  prompt: 'a {subject}'\n  negative: x\n",), styles),
        Reader(
            "JSON of ours",
            ".json",
            (b'{"a": [1, {"b": "c"}], "n": 1e3}',),
            lambda path: read_file(path, "delete it"),
        ),
        Reader(
            "URL list .csv",
            ".csv",
            (b"name,url\nada,https://a.example/1.jpg\nben,https://b.example/2.jpg\n",),
            _listed,
        ),
        Reader("URL list .tsv", ".tsv", (b"name\turl\nada\thttps://a.example/1.jpg\n",), _listed),
        Reader(
            "URL list .jsonl",
            ".jsonl",
            (b'{"name": "ada", "url": "https://a.example/1.jpg"}\n' * 3,),
            _listed,
        ),
        Reader("URL list .parquet", ".parquet", (_parquet(),), _listed),
        Reader("tar", ".tar", (_tar(),), _tarred),
        *([Reader("signed picture", ".png", _signed(folder), inspect)] if installed() else []),
    ]


# ---- good files


def _photos(kind: str) -> tuple[bytes, ...]:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)
    found = []
    for mode in ("RGB", "L", "P", "RGBA", "CMYK", "1"):
        data = io.BytesIO()
        try:
            Image.fromarray(pixels).convert(mode).save(data, kind)
        except (OSError, ValueError):
            continue
        found.append(data.getvalue())
    return tuple(found)


def _signed(folder: Path) -> tuple[bytes, ...]:
    """A PNG, a JPEG and a WebP with manifests; the reader looks at what they are, not at the name."""
    pem = folder / "certificate.pem"
    pem.write_bytes(certificates._made())
    seal = Seal.open(pem, pem)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8))
    sample = Sample(picture, Request("a man img"), notes={"consent": "Ada, today, for tests"})
    return tuple(file_of(sample, kind, {"model": "small"}, seal=seal) for kind in KINDS)


def _identities(folder: Path) -> tuple[bytes, ...]:
    features = {
        "id_features": torch.randn(3, 80),
        "weights": torch.ones(3),
        "face_embeddings": torch.randn(3, 8),
    }
    notes = {"photos": [{"name": "a.png", "sha256": "0" * 64}], "class_word": "woman", "encoder_sha256": None}
    made = []
    for place, tensors in enumerate((features, {"id_features": torch.randn(1, 2, 80)})):
        path = Identity("photomaker-v1", tensors, notes).save(folder / f"identity-{place}.safetensors")
        made.append(path.read_bytes())
    return tuple(made)


def _official(adapter: bytes) -> bytes:
    from safetensors.torch import load

    nested: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in load(adapter).items():
        section, _, rest = name.partition(".")
        nested.setdefault(section, {})[rest] = tensor
    return _saved(nested)


def _sections(path: Path) -> bytes:
    return _saved(dict(read_ip_adapter(path).sections()))


def _loras(folder: Path) -> tuple[bytes, ...]:
    return tuple(tiny.tiny_style_lora(folder, layout).read_bytes() for layout in ("diffusers", "kohya"))


def _hyper() -> dict[object, object]:
    state = {"linear.0.weight": torch.zeros(160, 80), "linear.0.bias": torch.zeros(160)}
    state |= {"linear.1.weight": torch.zeros(80, 160), "linear.1.bias": torch.zeros(80)}
    return {80: (state, state), "name": "ada", "layer_structure": [1, 2, 1], "activation_func": "linear"}


def _delta(custom: CustomDiffusion) -> dict[str, object]:
    own = {
        name: one.detach().clone()
        for name, one in custom.pipeline.unet.named_parameters()
        if name.endswith("attn2.to_k.weight")
    }
    widths = (
        custom.pipeline.text_encoder.config.hidden_size,
        custom.pipeline.text_encoder_2.config.hidden_size,
    )
    return {"unet": own, "modifier_token": {"<new1>": [torch.zeros(width) for width in widths]}}


def _saved(content: object) -> bytes:
    data = io.BytesIO()
    torch.save(content, data)
    return data.getvalue()


_ORDERS = b"""
people: {ada: photos/ada, ben: [b.png, c.png]}
words: {ada: woman}
orders:
  - prompts: ["a photo of a {word} img", a man img]
    people: ada
    style: [none, sketch]
    guidance: [1.5, 3]
    seeds: [1, 2]
    n: 2
  - {prompts: a man img, people: ben, pairs: true, loras: [x.safetensors:0.5]}
"""


def _settings() -> tuple[bytes, ...]:
    folder = Path(__file__).parents[2] / "examples" / "configs"
    return tuple(path.read_bytes() for path in sorted(folder.glob("*.yaml")))


def _parquet() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = io.BytesIO()
    pq.write_table(
        pa.table({"name": ["ada", "ben"], "url": ["https://a.example/1.jpg", "https://b.example/2.jpg"]}),
        data,
    )
    return data.getvalue()


def _tar() -> bytes:
    data = io.BytesIO()
    picture = io.BytesIO()
    Image.new("RGB", (32, 32)).save(picture, "JPEG")
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in (
            ("000.jpg", picture.getvalue()),
            ("000.json", json.dumps({"name": "ada"}).encode()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


# ---- what is done with a file


def _use_identity(path: Path) -> None:
    """Read, say, mix and save again."""
    identity = Identity.load(path)
    repr(identity)
    if "id_features" in identity.tensors:
        mix([(identity, 0.5), (identity, 0.5)])
    identity.save(path.with_name("again.safetensors"))


def _use_settings(path: Path) -> None:
    """As a training's and as a build's."""
    from photomaker.dataset.settings import BuildSettings
    from photomaker.errors import SettingsError
    from photomaker.training.plan import TrainSettings

    for kind in (TrainSettings, BuildSettings):
        try:
            config.read(path, kind)
        except SettingsError:
            continue


def _listed(path: Path) -> None:
    out = path.with_name("listed")
    shutil.rmtree(out, ignore_errors=True)
    source = listing.Input(urls=path)
    listing.check(source)
    listing.write(out, source, 10)


def _tarred(path: Path) -> None:
    inside, out = path.with_name("tars"), path.with_name("listed")
    for folder in (inside, out):
        shutil.rmtree(folder, ignore_errors=True)
    inside.mkdir()
    path.replace(inside / "00000.tar")
    source = listing.Input(img2dataset=inside)
    listing.check(source)
    listing.write(out, source, 10)
