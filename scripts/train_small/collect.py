"""Collect the trained parts in the layout that ships, with the settings the adapter is used with by default.

python scripts/train_small/collect.py --runs runs --out runs/bundle --guidance 3 --merge 0.1
python scripts/pack_assets.py --from runs/bundle
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

PARTS = {
    "recogniser_a/export/recogniser.safetensors": "faces/recogniser.safetensors",
    "analyser/export/analyser.safetensors": "faces/analyser.safetensors",
    "recogniser_b/export/recogniser.safetensors": "evaluation/recogniser.safetensors",
    "recogniser_c/export/recogniser.safetensors": "evaluation/recogniser_third.safetensors",
    "attributes/export/attributes.safetensors": "evaluation/attributes.safetensors",
    "marks/export/attributes.safetensors": "evaluation/marks.safetensors",
}

COMPARED = {
    "same_budget_reward/export/photomaker.safetensors": ("photomaker_same_budget", 2.0, 0.1),
    "ip_adapter_reward/export/ip_adapter.safetensors": ("ip_adapter", 2.0, 0.1),
    "fastcomposer_reward/export/fastcomposer.safetensors": ("fastcomposer", 2.0, 0.1),
    "photoverse_reward/export/photoverse.safetensors": ("photoverse", 2.0, 0.1),
    "pulid_reward/export/pulid.safetensors": ("pulid", 2.0, 0.1),
    "instantid_reward/export/ip-adapter.safetensors": ("instantid/ip-adapter", 2.0, 0.1),
}
"""Name of each method's weights, and the guidance and merge step that were best on validation people; those of PuLID
and InstantID are still to be chosen."""

NETS = {
    "instantid_reward/export/ControlNetModel": "methods/instantid/ControlNetModel",
    "controlnet/export": "methods/controlnet",
}
"""ControlNets in diffusers' layout."""
LATER = ("pulid", "instantid", "controlnet")
"""Trainings that may be missing: their weights are left out then."""


def trained(runs: Path, made: str) -> bool:
    """Whether something was trained, or may be missing; what may not be missing counts as trained."""
    return (runs / made).exists() or not made.startswith(LATER)


def lower_rank(tensors: dict[str, torch.Tensor], rank: int) -> dict[str, torch.Tensor]:
    """The adapter with LoRA pairs of at most this rank: the nearest ones, by singular values."""
    cut = dict(tensors)
    for name in (name for name in tensors if name.endswith(".down.weight")):
        upper = name.replace(".down.", ".up.")
        up, down = tensors[upper].float(), tensors[name].float()
        if len(down) <= rank:
            continue
        left, sizes, right = torch.linalg.svd(up @ down, full_matrices=False)
        root = sizes[:rank].sqrt()
        cut[upper] = (left[:, :rank] * root).half().contiguous()
        cut[name] = (root[:, None] * right[:rank]).half().contiguous()
        lost = float(sizes[rank:].square().sum() / sizes.square().sum())
        if lost > 0.01:
            print(f"{name}: rank {len(down)} to {rank} loses {lost:.1%} of the energy")
    return cut


def write_adapter(
    source: Path, target: Path, defaults: dict[str, float | str], rank: int | None = None
) -> None:
    """Copy an adapter, adding the settings for requests that leave them open; a rank cuts its LoRA."""
    with safe_open(source, framework="pt") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    config = json.loads(metadata["config"]) | {"defaults": defaults}
    if rank is not None:
        tensors = lower_rank(tensors, rank)
        config["rank"] = rank
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target, metadata={**metadata, "config": json.dumps(config, sort_keys=True)})


def forget_origin(folder: Path) -> None:
    """Take the paths of this machine out of the configurations."""
    for path in folder.rglob("config.json"):
        values = json.loads(path.read_text())
        if values.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("runs/bundle"))
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--merge", type=float, default=0.1)
    parser.add_argument("--background", choices=["keep", "grey"], default="grey")
    parser.add_argument("--rank", type=int, default=20, help="largest rank of the LoRA; more does not fit")
    given = parser.parse_args()
    shutil.copytree(given.runs / "base_reward/export", given.out / "base", dirs_exist_ok=True)
    forget_origin(given.out / "base")
    for made, shipped in PARTS.items():
        (given.out / shipped).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(given.runs / made, given.out / shipped)
    write_adapter(
        given.runs / "adapter_reward/export/photomaker.safetensors",
        given.out / "adapter/photomaker.safetensors",
        {"guidance": given.guidance, "merge": given.merge, "background": given.background},
        given.rank,
    )
    for made, shipped in NETS.items():
        if trained(given.runs, made):
            shutil.copytree(given.runs / made, given.out / shipped, dirs_exist_ok=True)
            forget_origin(given.out / shipped)
    for made, (name, guidance, merge) in COMPARED.items():
        if not trained(given.runs, made):
            continue
        defaults = {"guidance": guidance, "merge": merge, "background": given.background}
        write_adapter(given.runs / made, given.out / f"methods/{name}.safetensors", defaults)
