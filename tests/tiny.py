"""A random SDXL pipeline and PhotoMaker adapter of a few megabytes, made in code, for tests of plumbing.

`tiny_pipeline(folder)` and `tiny_adapter(folder)` write into `folder` what is not there yet and return the path, so
that a session-wide temporary folder serves as a cache:

    @pytest.fixture(scope="session")
    def base(tmp_path_factory):
        return tiny_pipeline(tmp_path_factory.mktemp("tiny"))
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

WIDTH_1, WIDTH_2 = 32, 48
WIDTH = WIDTH_1 + WIDTH_2
VISION = {
    "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
    "patch_size": 8, "image_size": 32, "projection_dim": WIDTH_1, "projection_dim_2": WIDTH_2,
}  # fmt: skip
IMAGE_SIZE = 64
LORA_RANK = 4

WORDS = [
    "a", "an", "the", "of", "in", "on", "with", "and", "at", "by", "for", "is", "his", "her", "img", "man",
    "woman", "boy", "girl", "old", "person", "photo", "portrait", "painting", "sketch", "watercolor", "pixel",
    "art", "wearing", "sunglasses", "glasses", "red", "blue", "green", "black", "cap", "hat", "shirt", "coat",
    "snow", "beach", "city", "park", "sea", "smiling", "drawing", "picture", "standing", "young", "hair", "best",
    "quality", "worst", "bad", "half", "body",
]  # fmt: skip


def _byte_alphabet() -> list[str]:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(rest))]


def _apply(pieces: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    while True:
        pairs = [pair for pair in itertools.pairwise(pieces) if pair in ranks]
        if not pairs:
            return pieces
        best = min(pairs, key=ranks.__getitem__)
        place = next(i for i in range(len(pieces)) if tuple(pieces[i : i + 2]) == best)
        pieces = [*pieces[:place], "".join(best), *pieces[place + 2 :]]


def _byte_pairs() -> tuple[dict[str, int], list[str]]:
    """A CLIP vocabulary in which every word of WORDS is one token and other words fall apart."""
    alphabet = _byte_alphabet()
    vocabulary = alphabet + [letter + "</w>" for letter in alphabet]
    ranks: dict[tuple[str, str], int] = {}
    for word in WORDS:
        pieces = _apply([*word[:-1], word[-1] + "</w>"], ranks)
        while len(pieces) > 1:
            ranks[(pieces[0], pieces[1])] = len(ranks)
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
            vocabulary.append(pieces[0])
    vocabulary = [*dict.fromkeys(vocabulary), "<|startoftext|>", "<|endoftext|>"]
    return {token: number for number, token in enumerate(vocabulary)}, [" ".join(pair) for pair in ranks]


def _write_tokenizer(folder: Path, pad: str) -> int:
    folder.mkdir(parents=True)
    vocabulary, merges = _byte_pairs()
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    start, end = "<|startoftext|>", "<|endoftext|>"
    names = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": pad}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return len(vocabulary)


def _is_embedding(name: str) -> bool:
    return "embedding" in name and "patch" not in name and "linear" not in name


def _randomise(module: torch.nn.Module, seed: int, attention_gain: float = 1.0) -> torch.nn.Module:
    """Weights large enough that prompts, photos and LoRA visibly change the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name or "layrnorm" in name:
                parameter.copy_((1.0 if name.endswith("weight") else 0.0) + 0.1 * noise)
            elif parameter.dim() == 1 or _is_embedding(name):
                parameter.copy_((0.05 if name.endswith("bias") else 0.5) * noise)
            else:
                gain = attention_gain if "attn2" in name else 1.0
                parameter.copy_(noise * gain / math.sqrt(math.prod(parameter.shape[1:])))
    return module


def _text_encoders(vocabulary: int) -> tuple[torch.nn.Module, torch.nn.Module]:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    # eos_token_id=2 is what the SDXL repositories ship: the pooled state is taken at the largest token id
    common = {
        "vocab_size": vocabulary,
        "max_position_embeddings": 77,
        "num_hidden_layers": 3,
        "intermediate_size": 64,
    }
    common |= {"num_attention_heads": 2, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    one = CLIPTextModel(
        CLIPTextConfig(hidden_size=WIDTH_1, projection_dim=WIDTH_1, hidden_act="quick_gelu", **common)
    )
    two = CLIPTextModelWithProjection(
        CLIPTextConfig(hidden_size=WIDTH_2, projection_dim=WIDTH_2, hidden_act="gelu", **common)
    )
    return _randomise(one, 1), _randomise(two, 2)


def tiny_unet() -> torch.nn.Module:
    """A UNet with two resolutions, cross-attention in one, and SDXL's `text_time` conditioning."""
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=IMAGE_SIZE // 8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4), transformer_layers_per_block=(1, 1), cross_attention_dim=WIDTH, norm_num_groups=8,
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * 6 + WIDTH_2,
    )  # fmt: skip
    return _randomise(unet, 3, attention_gain=1.5)


def tiny_pipeline(folder: Path) -> Path:
    """Write (once) a diffusers SDXL folder into `folder` and return its path."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTokenizer

    path = Path(folder) / "base"
    if (path / "model_index.json").is_file():
        return path
    vocabulary = _write_tokenizer(path / "tokenizer", "<|endoftext|>")
    _write_tokenizer(path / "tokenizer_2", "!")
    text_encoder, text_encoder_2 = _text_encoders(vocabulary)
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1,
        norm_num_groups=4, sample_size=IMAGE_SIZE, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, force_upcast=True,
    )  # fmt: skip
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        timestep_spacing="leading",
    )
    pipeline = StableDiffusionXLPipeline(
        vae=_randomise(vae, 4), text_encoder=text_encoder, text_encoder_2=text_encoder_2, unet=tiny_unet(),
        tokenizer=CLIPTokenizer.from_pretrained(path / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(path / "tokenizer_2"), scheduler=scheduler,
        add_watermarker=False,
    )  # fmt: skip
    pipeline.save_pretrained(path)
    return path


def _id_encoder_state() -> dict[str, torch.Tensor]:
    from torch import nn
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    sizes = {name: value for name, value in VISION.items() if name != "projection_dim_2"}
    encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes))
    encoder.visual_projection_2 = nn.Linear(VISION["hidden_size"], WIDTH_2, bias=False)

    def mlp(width_in: int) -> nn.Module:
        layers = {
            "layernorm": nn.LayerNorm(width_in),
            "fc1": nn.Linear(width_in, WIDTH),
            "fc2": nn.Linear(WIDTH, WIDTH),
        }
        return nn.ModuleDict(layers)

    encoder.fuse_module = nn.ModuleDict(
        {"mlp1": mlp(2 * WIDTH), "mlp2": mlp(WIDTH), "layer_norm": nn.LayerNorm(WIDTH)}
    )
    return {f"id_encoder.{name}": tensor for name, tensor in _randomise(encoder, 5).state_dict().items()}


def _lora_state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(6)
    state = {}
    for name, module in tiny_unet().named_modules():
        if not name.endswith(("attn1", "attn2")):
            continue
        for part, linear in {
            "q": module.to_q,
            "k": module.to_k,
            "v": module.to_v,
            "out": module.to_out[0],
        }.items():
            prefix = f"lora_weights.unet.{name}.processor.to_{part}_lora"
            down = torch.randn(LORA_RANK, linear.in_features, generator=generator) / math.sqrt(
                linear.in_features
            )
            up = 0.7 * torch.randn(linear.out_features, LORA_RANK, generator=generator) / math.sqrt(LORA_RANK)
            state |= {f"{prefix}.down.weight": down, f"{prefix}.up.weight": up}
    return state


def tiny_adapter(folder: Path) -> Path:
    """Write (once) a PhotoMaker v1 adapter for `tiny_pipeline` into `folder` and return the file's path."""
    path = Path(folder) / "photomaker.safetensors"
    if not path.is_file():
        tensors = {
            name: tensor.contiguous() for name, tensor in {**_id_encoder_state(), **_lora_state()}.items()
        }
        save_file(tensors, path, metadata={"format": "pt", "config": json.dumps({"version": "v1", **VISION})})
    return path


def tiny_controlnet(folder: Path, seed: int = 7) -> Path:
    """Write (once) a ControlNet for `tiny_pipeline` into `folder`, one that has something to say; return its path."""
    from diffusers import ControlNetModel

    path = Path(folder) / f"controlnet-{seed}"
    if not path.is_dir():
        net = ControlNetModel.from_unet(tiny_unet(), conditioning_embedding_out_channels=(4, 8, 8, 8))
        _randomise(net, seed)
        net.save_pretrained(path)
    return path


def tiny_t2i_adapter(folder: Path) -> Path:
    """Write (once) a T2I-Adapter for `tiny_pipeline` into `folder` and return its path."""
    from diffusers import T2IAdapter

    path = Path(folder) / "t2i"
    if not path.is_dir():
        adapter = T2IAdapter(
            channels=list(tiny_unet().config.block_out_channels), num_res_blocks=1, downscale_factor=16,
            adapter_type="full_adapter_xl",
        )  # fmt: skip
        _randomise(adapter, 8)
        adapter.save_pretrained(path)
    return path


def tiny_style_lora(folder: Path, layout: str = "diffusers", width: int | None = None) -> Path:
    """Write (once) a LoRA of another kind than PhotoMaker's, in diffusers' layout or kohya's; return the file's path.

    `width` makes one for another base, whose text embeddings are so wide.
    """
    path = Path(folder) / f"style-{layout}-{width}.safetensors"
    generator = torch.Generator().manual_seed(11)
    tensors = {}
    for name, module in tiny_unet().named_modules():
        if not name.endswith("attn2"):
            continue
        for part in ("to_k", "to_v"):
            linear = getattr(module, part)
            down = torch.randn(2, width or linear.in_features, generator=generator)
            up = torch.randn(linear.out_features, 2, generator=generator)
            if layout == "kohya":
                base = f"lora_unet_{name.replace('.', '_')}_{part}"
                tensors |= {f"{base}.lora_down.weight": down, f"{base}.lora_up.weight": up}
                tensors[f"{base}.alpha"] = torch.tensor(2.0)
            else:
                base = f"unet.{name}.{part}"
                tensors |= {f"{base}.lora_A.weight": down, f"{base}.lora_B.weight": up}
    save_file(tensors, path)
    return path


V2 = {
    "id_embeddings_dim": 16,
    "num_tokens": 2,
    "resampler_depth": 2,
    "resampler_head": 20,
    "resampler_ff": 2,
    "resampler_ratio": 4,
}


def tiny_adapter_v2(folder: Path) -> Path:
    """Write (once) a PhotoMaker v2 adapter for `tiny_pipeline` into `folder` and return the file's path."""
    from photomaker.encoders.resampler import QFormerPerceiver

    path = Path(folder) / "photomaker-v2.safetensors"
    if not path.is_file():
        resampler = QFormerPerceiver(V2["id_embeddings_dim"], WIDTH, V2["num_tokens"], VISION["hidden_size"],
                                     V2["resampler_depth"], V2["resampler_head"], V2["resampler_ff"])  # fmt: skip
        own = {
            f"id_encoder.qformer_perceiver.{name}": tensor
            for name, tensor in _randomise(resampler, 7).state_dict().items()
        }
        tensors = {**_id_encoder_state(), **own, **_lora_state()}
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            path,
            metadata={"format": "pt", "config": json.dumps({"version": "v2", **VISION, **V2})},
        )
    return path


FACE = 16
"""Width of a face embedding of the tiny FaceID adapters."""


def tiny_ip_adapter(folder: Path, form: str = "base") -> Path:
    """Write (once) an IP-Adapter in the published layout for `tiny_pipeline`: base, plus, faceid or faceid-plus."""
    from torch import nn

    from photomaker.encoders.ip_adapter import ImageProjection, ImageResampler
    from photomaker.encoders.resampler import FacePerceiverResampler

    path = Path(folder) / f"ip-adapter_{form}.safetensors"
    if path.is_file():
        return path
    hidden = VISION["hidden_size"]

    def face_tokens() -> nn.Module:
        layers = nn.Sequential(nn.Linear(FACE, 2 * FACE), nn.GELU(), nn.Linear(2 * FACE, 4 * WIDTH))
        return nn.ModuleDict({"proj": layers, "norm": nn.LayerNorm(WIDTH)})

    if form == "base":
        projection: nn.Module = ImageProjection(hidden, WIDTH)
    elif form == "plus":
        projection = ImageResampler(hidden, WIDTH, queries=3, hidden=64)
    else:
        projection = face_tokens()
        if form == "faceid-plus":
            reader = FacePerceiverResampler(dim=WIDTH, heads=1, embedding_dim=hidden, output_dim=WIDTH)
            projection.add_module("perceiver_resampler", reader)
    tensors = {f"image_proj.{name}": one for name, one in _randomise(projection, 8).state_dict().items()}
    generator, unet = torch.Generator().manual_seed(9), tiny_unet()
    for number, name in enumerate(unet.attn_processors):
        layer = unet.get_submodule(name.removesuffix(".processor"))
        for part in ("k", "v") if "attn2" in name else ():
            weight = torch.randn(getattr(layer, f"to_{part}").weight.shape, generator=generator)
            tensors[f"ip_adapter.{number}.to_{part}_ip.weight"] = 1.5 * weight / math.sqrt(WIDTH)
        linears = {"q": layer.to_q, "k": layer.to_k, "v": layer.to_v, "out": layer.to_out[0]}
        for part, linear in linears.items() if form.startswith("faceid") else ():
            prefix = f"ip_adapter.{number}.to_{part}_lora"
            tensors[f"{prefix}.down.weight"] = torch.randn(2, linear.in_features, generator=generator) / 8
            tensors[f"{prefix}.up.weight"] = torch.randn(linear.out_features, 2, generator=generator) / 8
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"}
    )
    return path


def tiny_instantid(folder: Path) -> Path:
    """Write (once) an InstantID checkpoint in the published layout for `tiny_pipeline`; return its `ip-adapter.bin`."""
    from diffusers import ControlNetModel

    from photomaker.encoders.ip_adapter import ImageResampler

    path = Path(folder) / "InstantID" / "ip-adapter.bin"
    if path.is_file():
        return path
    unet = tiny_unet()
    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8, 8, 8))
    _randomise(net, 14)
    with torch.no_grad():  # heard beside text and photo, and not instead of them
        for part in (*net.controlnet_down_blocks, net.controlnet_mid_block):
            part.weight *= 0.1
    net.save_pretrained(path.parent / "ControlNetModel")
    resampler = _randomise(ImageResampler(FACE, WIDTH, queries=16, hidden=64), 15)
    layers, generator = {}, torch.Generator().manual_seed(16)
    for number, name in enumerate(unet.attn_processors):
        layer = unet.get_submodule(name.removesuffix(".processor"))
        for part in ("k", "v") if "attn2" in name else ():
            weight = torch.randn(getattr(layer, f"to_{part}").weight.shape, generator=generator)
            layers[f"{number}.to_{part}_ip.weight"] = 1.5 * weight / math.sqrt(WIDTH)
    torch.save({"image_proj": dict(resampler.state_dict()), "ip_adapter": layers}, path)
    return path


class FakeFaces:
    """Stands for a recogniser: a face in the middle of every picture that is not black, embedded by its colours."""

    def __init__(self) -> None:
        """As InsightFace's: name and licence, and the width of an embedding."""
        self.notes, self.width = {"face_models": "fake"}, FACE

    def see(self, photos: Any, faces: Any) -> list[Any]:
        """See `photomaker.methods.instantid.Faces`."""
        return [self._one(photo, face) for photo, face in zip(photos, faces, strict=True)]

    def _one(self, photo: Any, face: Any) -> Any:
        import numpy as np

        from photomaker.faces import Seen
        from photomaker.types import Face

        pixels = np.asarray(photo.convert("RGB"), dtype=np.float32)
        if not pixels.any():
            return None
        corners = np.array([[-0.15, -0.15], [0.15, -0.15], [0, 0], [-0.1, 0.15], [0.1, 0.15]]) + 0.5
        points = (corners * photo.size).astype(np.float32)
        found = face or Face((0.0, 0.0, float(photo.width), float(photo.height)), 1.0, points)
        return Seen(np.resize(pixels.mean((0, 1)) / 64 - 2, FACE).astype(np.float32), found)


def open_tiny_instantid(base: Path, folder: Path, **settings: Any) -> Any:
    """InstantID on the tiny base, by its own `open`, with faces seen by `FakeFaces`."""
    import pytest

    from photomaker.methods import instantid

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(instantid, "opened_faces", lambda _place: FakeFaces())
        file = settings.pop("adapter", None) or tiny_instantid(folder)
        return instantid.InstantID.open(base, file, device="cpu", **settings)


def tiny_pulid(folder: Path, version: int = 2) -> Path:
    """Write (once) a PuLID file in the published layout, 1.1 or 1, that reads two layers of the tiny tower."""
    from photomaker.encoders.pulid import FormerSizes, IDEncoder, IDFormer

    path = Path(folder) / f"pulid-{version}.safetensors"
    if path.is_file():
        return path
    hidden = VISION["hidden_size"]
    sizes = FormerSizes(FACE + hidden, hidden, 2, 64, 32, 2, 4, 2, WIDTH)
    first = IDEncoder(FACE + hidden, hidden, 2, (24, 40), 32, WIDTH, 3)
    encoder = _randomise(IDFormer(sizes) if version > 1 else first, 17)
    tensors = {f"id_adapter.{name}": one for name, one in encoder.state_dict().items()}
    generator, unet = torch.Generator().manual_seed(18), tiny_unet()
    for number, name in enumerate(unet.attn_processors):
        layer = unet.get_submodule(name.removesuffix(".processor"))
        for part in ("k", "v") if "attn2" in name else ():
            weight = torch.randn(getattr(layer, f"to_{part}").weight.shape, generator=generator)
            tensors[f"id_adapter_attn_layers.{number}.id_to_{part}.weight"] = weight / math.sqrt(WIDTH)
    config = json.dumps({"layers": [-1, -2], "recogniser": "fake", "mode": "plain"})
    save_file({name: one.contiguous() for name, one in tensors.items()}, path, metadata={"config": config})
    return path


def open_tiny_pulid(base: Path, folder: Path, **settings: Any) -> Any:
    """PuLID on the tiny base, by its own `open`, with faces seen by `FakeFaces`."""
    import pytest

    from photomaker.methods import pulid

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pulid, "opened_faces", lambda _place: FakeFaces())
        file = settings.pop("adapter", None) or tiny_pulid(folder)
        settings = {"image_encoder": tiny_adapter(folder), **settings}
        return pulid.PuLID.open(base, file, device="cpu", **settings)


def tiny_fastcomposer(folder: Path, width: int = WIDTH) -> Path:
    """Write (once) a FastComposer checkpoint in the published layout, a `.bin`, and return its path."""
    from diffusers import AutoencoderKL
    from transformers import CLIPVisionConfig

    from photomaker.encoders.fastcomposer import FastComposerEncoder

    path = Path(folder) / f"fastcomposer_{width}.bin"
    if path.is_file():
        return path
    sizes = {name: value for name, value in VISION.items() if name != "projection_dim_2"}
    encoder = FastComposerEncoder(CLIPVisionConfig(**(sizes | {"projection_dim": width})))
    state = dict(_randomise(encoder, 10).state_dict())
    # what the original library saved beside the weights
    state["image_encoder.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    unet, other = tiny_unet().state_dict(), _randomise(tiny_unet(), 11, attention_gain=1.5).state_dict()
    state |= {f"unet.{name}": 0.7 * unet[name] + 0.3 * other[name] for name in unet}
    state |= {f"text_encoder.{name}": tensor for name, tensor in _text_encoders(600)[0].state_dict().items()}
    state |= {
        f"vae.{name}": tensor
        for name, tensor in AutoencoderKL(norm_num_groups=4, block_out_channels=(8,)).state_dict().items()
    }
    torch.save(state, path)
    return path


def tiny_photoverse(folder: Path) -> Path:
    """Write (once) a PhotoVerse file for `tiny_pipeline` that reads two layers of the tiny tower."""
    from photomaker.encoders.photoverse import PhotoVerseAdapters

    path = Path(folder) / "photoverse.safetensors"
    if path.is_file():
        return path
    adapters = _randomise(PhotoVerseAdapters(2, VISION["hidden_size"], WIDTH, 32), 12)
    tensors, generator, unet = dict(adapters.state_dict()), torch.Generator().manual_seed(13), tiny_unet()
    for name in (name for name in unet.attn_processors if name.endswith("attn2.processor")):
        layer = name.removesuffix(".processor")
        channels = unet.get_submodule(layer).to_k.out_features
        shapes = {"lora_A": (LORA_RANK, WIDTH), "lora_B": (channels, LORA_RANK)}
        shapes = {f"to_{part}.{side}": shape for part in "kv" for side, shape in shapes.items()}
        for part, shape in (shapes | {"to_k_s": (channels, WIDTH), "to_v_s": (channels, WIDTH)}).items():
            tensors[f"attn.{layer}.{part}"] = torch.randn(shape, generator=generator) / math.sqrt(shape[1])
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        path,
        metadata={"format": "pt", "config": json.dumps({"layers": [-1, -2]})},
    )
    return path


def in_hub_cache(cache: Path, repository: str, *files: Path) -> Path:
    """Put files and folders into a hub cache as if they had been fetched; returns the snapshot's folder."""
    place, revision = cache / f"models--{repository.replace('/', '--')}", "0" * 40
    snapshot = place / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(revision, encoding="utf-8")
    for file in files:
        copy = shutil.copytree if file.is_dir() else shutil.copy
        copy(file, snapshot / file.name)
    return snapshot


def flashface_name(name: str) -> str:
    """The published name of a weight of `tiny_unet`, written down by hand."""
    parts = {
        "conv_in": "encoder.0",
        "time_embedding.linear_1": "time_embedding.0", "time_embedding.linear_2": "time_embedding.2",
        "add_embedding.linear_1": "y_embedding.0", "add_embedding.linear_2": "y_embedding.2",
        "conv_norm_out": "head.0", "conv_out": "head.2",
        "down_blocks.0.resnets.0": "encoder.1.0", "down_blocks.0.downsamplers.0.conv": "encoder.2",
        "down_blocks.1.resnets.0": "encoder.3.0", "down_blocks.1.attentions.0": "encoder.3.1",
        "mid_block.resnets.0": "middle.0", "mid_block.attentions.0": "middle.1", "mid_block.resnets.1": "middle.2",
        "up_blocks.0.resnets.0": "decoder.0.0", "up_blocks.0.attentions.0": "decoder.0.1",
        "up_blocks.0.resnets.1": "decoder.1.0", "up_blocks.0.attentions.1": "decoder.1.1",
        "up_blocks.0.upsamplers.0.conv": "decoder.1.2.1",
        "up_blocks.1.resnets.0": "decoder.2.0", "up_blocks.1.resnets.1": "decoder.3.0",
    }  # fmt: skip
    prefix = next(part for part in parts if name.startswith(part + "."))
    inside = name.removeprefix(prefix + ".")
    inner = {
        "norm1": "layer1.0", "conv1": "layer1.2", "time_emb_proj": "embedding.1", "norm2": "layer2.0",
        "conv2": "layer2.3", "conv_shortcut": "shortcut",
    }  # fmt: skip
    if ".attentions." in prefix:
        inner = {
            "norm": "norm1", "proj_in": "conv1", "proj_out": "conv2", "transformer_blocks.0.norm1": "blocks.0.norm1",
            "transformer_blocks.0.norm2": "blocks.0.norm2", "transformer_blocks.0.norm3": "blocks.0.norm3",
            "transformer_blocks.0.ff.net.0.proj": "blocks.0.ffn.0.proj",
            "transformer_blocks.0.ff.net.2": "blocks.0.ffn.2",
        }  # fmt: skip
        for ours, theirs in (("attn1", "self_attn"), ("attn2", "cross_attn")):
            for own, other in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "o")):
                inner[f"transformer_blocks.0.{ours}.{own}"] = f"blocks.0.{theirs}.{other}"
    own = next((one for one in inner if inside.startswith(one + ".")), None)
    return f"{parts[prefix]}.{inside if own is None else inner[own] + inside.removeprefix(own)}"


def tiny_flashface(folder: Path, notes: dict[str, Any] | None = None) -> Path:
    """Write (once) a FlashFace checkpoint for `tiny_unet`: the published `.ckpt`, or with notes what is made here."""
    path = Path(folder) / ("flashface.ckpt" if notes is None else "flashface.safetensors")
    if path.is_file():
        return path
    base, generator = tiny_unet().state_dict(), torch.Generator().manual_seed(18)
    other = _randomise(tiny_unet(), 17).state_dict()
    state = {}
    for name, tensor in base.items():
        theirs = flashface_name(name)
        own = 0.8 * tensor + 0.2 * other[name]
        if theirs.endswith(("conv1.weight", "conv2.weight")):
            own = own[..., None, None]  # 1x1 convolutions in the published model
        if theirs == "encoder.0.weight":
            own = torch.cat([own, 0.1 * torch.randn(own[:, :1].shape, generator=generator)], dim=1)
        state[theirs] = own
        coder = theirs.partition(".")[0]
        if coder in ("encoder", "middle", "decoder"):
            state[f"ori_{theirs}"] = own
            state[f"ref_{theirs}"] = tensor.reshape(own.shape) if theirs != "encoder.0.weight" else tensor
        if ".self_attn." in theirs and coder != "encoder":
            further = 0.5 * own + 0.5 * torch.randn(own.shape, generator=generator) / math.sqrt(own.shape[-1])
            for prefix in ("", "ori_"):
                state[prefix + theirs.replace(".self_attn.", ".self_attn.self_attn_first.")] = further
    if notes is None:
        torch.save(state, path)
    else:
        flat = {name: one.contiguous().clone() for name, one in state.items() if not name.startswith("ori_")}
        save_file(flat, path, metadata={"config": json.dumps(notes)})
    return path


def tiny_dino(folder: Path) -> Path:
    """Write (once) a DINOv2 of two layers in transformers' layout into `folder` and return its path."""
    from transformers import Dinov2Config, Dinov2Model

    path = Path(folder) / "dino"
    if not path.is_dir():
        config = Dinov2Config(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=32, patch_size=2,
            layerscale_value=1.0,
        )  # fmt: skip
        _randomise(Dinov2Model(config), 19).save_pretrained(path)
    return path


def anydoor_name(name: str) -> str:
    """Latent diffusion's name of a weight of `tiny_unet` or of its ControlNet, written down by hand."""
    parts = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
        "conv_norm_out": "out.0", "conv_out": "out.2",
        "down_blocks.0.resnets.0": "input_blocks.1.0", "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
        "down_blocks.1.resnets.0": "input_blocks.3.0", "down_blocks.1.attentions.0": "input_blocks.3.1",
        "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
        "up_blocks.0.resnets.0": "output_blocks.0.0", "up_blocks.0.attentions.0": "output_blocks.0.1",
        "up_blocks.0.resnets.1": "output_blocks.1.0", "up_blocks.0.attentions.1": "output_blocks.1.1",
        "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
        "up_blocks.1.resnets.0": "output_blocks.2.0", "up_blocks.1.resnets.1": "output_blocks.3.0",
        "controlnet_cond_embedding.conv_in": "input_hint_block.0",
        **{f"controlnet_cond_embedding.blocks.{j}": f"input_hint_block.{2 + 2 * j}" for j in range(6)},
        "controlnet_cond_embedding.conv_out": "input_hint_block.14",
        **{f"controlnet_down_blocks.{j}": f"zero_convs.{j}.0" for j in range(4)},
        "controlnet_mid_block": "middle_block_out.0",
    }  # fmt: skip
    prefix = next(part for part in parts if name.startswith(part + "."))
    inside = name.removeprefix(prefix + ".")
    inner = {
        "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
        "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
    }  # fmt: skip
    own = next((one for one in inner if ".resnets." in prefix and inside.startswith(one + ".")), None)
    return f"{parts[prefix]}.{inside if own is None else inner[own] + inside.removeprefix(own)}"


def tiny_anydoor(folder: Path, notes: dict[str, Any] | None = None) -> Path:
    """Write (once) an AnyDoor checkpoint for `tiny_unet`: the published `.ckpt`, or with notes what is made here."""
    from diffusers import ControlNetModel

    path = Path(folder) / ("anydoor.ckpt" if notes is None else "anydoor.safetensors")
    if path.is_file():
        return path
    unet = tiny_unet()
    net = _randomise(
        ControlNetModel.from_unet(
            unet, conditioning_embedding_out_channels=(4, 8, 8, 8), conditioning_channels=4
        ),
        20,
    )
    with torch.no_grad():
        for part in (*net.controlnet_down_blocks, net.controlnet_mid_block):
            part.weight *= 0.1
    base, other = unet.state_dict(), _randomise(tiny_unet(), 21).state_dict()
    state = {f"control_model.{anydoor_name(name)}": one for name, one in net.state_dict().items()}
    for name, one in base.items():
        doubles = name.startswith(("up_blocks", "conv_norm_out", "conv_out"))
        state[f"model.diffusion_model.{anydoor_name(name)}"] = (
            0.8 * one + 0.2 * other[name] if doubles else one
        )
    projector = _randomise(torch.nn.Linear(32, WIDTH), 22)
    state |= {f"cond_stage_model.projector.{name}": one for name, one in projector.state_dict().items()}
    if notes is None:  # with what is frozen, and what a trainer keeps beside the weights
        state["cond_stage_model.model.cls_token"] = torch.zeros(1, 1, 32)
        state["first_stage_model.quant_conv.weight"] = torch.zeros(8, 8, 1, 1)
        torch.save({"epoch": 1, "global_step": 10, "state_dict": state}, path)
    else:
        flat = {name: one.contiguous().clone() for name, one in state.items()}
        save_file(flat, path, metadata={"config": json.dumps(notes)})
    return path
