"""What the nodes touch of ComfyUI, in miniature: folders, a bar, a MODEL and a CLIP on the tiny random weights."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch


class Stopped(Exception):
    """ComfyUI's way to end a node that the user stopped."""


def folders(root: Path) -> ModuleType:
    """`folder_paths` over a folder."""
    module = ModuleType("folder_paths")
    module.models_dir = str(root / "models")
    listed = {name: root / "models" / name for name in ("photomaker", "diffusers")}
    for place in (*listed.values(), root / "input"):
        place.mkdir(parents=True, exist_ok=True)
    module.get_filename_list = lambda kind: sorted(path.name for path in listed[kind].iterdir())
    module.get_full_path_or_raise = lambda kind, name: str(listed[kind] / name)
    module.get_folder_paths = lambda kind: [str(listed[kind])]
    module.get_input_directory = lambda: str(root / "input")
    return module


class Bar:
    """Keeps what a bar was told."""

    told: list

    def __init__(self, total):
        self.told = []
        Bar.last = self

    def update_absolute(self, value, total, preview):
        self.told.append((value, total, preview))


def install(monkeypatch, root: Path) -> SimpleNamespace:
    """Put the stand-ins where the nodes import from; `stopped` of the answer may be set."""
    state = SimpleNamespace(stopped=False, patches=[], bar=Bar, root=root)
    utils, sd, lora, management = (
        ModuleType(f"comfy.{name}") for name in ("utils", "sd", "lora", "model_management")
    )
    utils.ProgressBar = Bar
    management.processing_interrupted = lambda: state.stopped
    management.InterruptProcessingException = Stopped
    management.get_torch_device = management.text_encoder_offload_device = lambda: torch.device("cpu")

    def load_lora_for_models(model, clip, weights, strength, strength_clip):
        state.patches.append((weights, strength))
        assert clip is None
        assert strength_clip == 0
        return SimpleNamespace(model=model.model, patched=True), None

    sd.load_lora_for_models = load_lora_for_models
    lora.model_lora_keys_unet = lambda model, found: {
        **found,
        **{
            f"unet.{name}".removesuffix(".0.weight")
            .removesuffix(".weight")
            .replace(".to_", ".processor.to_"): name
            for name in model.state_dict()
            if ".attn" in name
        },
    }
    modules = {"comfy": ModuleType("comfy"), "folder_paths": folders(root)}
    for module in (utils, sd, lora, management):
        modules[module.__name__] = module
        setattr(modules["comfy"], module.__name__.partition(".")[2], module)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return state


class StandInTokenizer:
    """What the nodes read of ComfyUI's `SDTokenizer`."""

    def __init__(self, tokenizer, width, pad):
        self.tokenizer = tokenizer
        self.max_length, self.embedding_directory = 77, "models/embeddings"
        self.start_token, self.end_token, self.pad_token = tokenizer.bos_token_id, tokenizer.eos_token_id, pad
        self.width = width

    def _try_get_embedding(self, name):
        return (torch.ones(2, self.width), "") if name == "known" else (None, "")


class StandInClip:
    """ComfyUI's CLIP on the text encoders of a diffusers pipeline."""

    def __init__(self, pipe):
        self.pipe = pipe
        both = ((pipe.tokenizer, pipe.text_encoder), (pipe.tokenizer_2, pipe.text_encoder_2))
        own = [StandInTokenizer(one, encoder.config.hidden_size, one.pad_token_id) for one, encoder in both]
        self.tokenizer = SimpleNamespace(clip_l=own[0], clip_g=own[1])
        self.cond_stage_model = SimpleNamespace(clip_l=None, clip_g=None)
        self.asked = []

    def encode_from_tokens(self, tokens, return_pooled):
        assert return_pooled is True
        self.asked.append(tokens)
        hidden, pooled = [], None
        for name, encoder in zip("lg", (self.pipe.text_encoder, self.pipe.text_encoder_2), strict=True):
            assert all(len(chunk) == 77 for chunk in tokens[name])
            assert all(weight == 1.0 for chunk in tokens[name] for _, weight in chunk)
            ids = [[0 if torch.is_tensor(one) else one for one, _ in chunk] for chunk in tokens[name]]
            output = encoder(torch.tensor(ids), output_hidden_states=True)
            hidden.append(output.hidden_states[-2].reshape(1, 77 * len(ids), -1))
            pooled = output[0][:1]
        return torch.cat(hidden, -1), pooled

    def add_hooks_to_dict(self, options):
        return options
