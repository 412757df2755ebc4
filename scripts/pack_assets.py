"""Write the manifest of the bundled weights: the SHA-256 and size of every file, all within the bound.

python scripts/pack_assets.py                     # src/photomaker/assets/small
python scripts/pack_assets.py --check             # change nothing; fail if the manifest is not true
python scripts/pack_assets.py --from runs/export  # copy a folder there first
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from photomaker.files import atomic
from photomaker.weights import COMPARED, LIMIT, MANIFEST, MODEL_LIMIT, SMALL, sha256

WANTED = (
    "base/model_index.json",
    "adapter/photomaker.safetensors",
    "faces/analyser.safetensors",
    "faces/recogniser.safetensors",
    "evaluation/recogniser.safetensors",
    "evaluation/attributes.safetensors",
    f"{COMPARED}/photomaker_same_budget.safetensors",
    f"{COMPARED}/fastcomposer.safetensors",
    f"{COMPARED}/ip_adapter.safetensors",
    f"{COMPARED}/photoverse.safetensors",
)
WHOLE = (
    (f"{COMPARED}/pulid.safetensors",),
    (
        f"{COMPARED}/instantid/ip-adapter.safetensors",
        f"{COMPARED}/instantid/ControlNetModel/config.json",
        f"{COMPARED}/instantid/ControlNetModel/diffusion_pytorch_model.safetensors",
    ),
    (
        f"{COMPARED}/controlnet/config.json",
        f"{COMPARED}/controlnet/diffusion_pytorch_model.safetensors",
        f"{COMPARED}/controlnet/structure.json",
    ),
)
"""Files that ship together or not at all."""


def describe(root: Path) -> dict[str, dict[str, str | int]]:
    """Relative path -> hash and size of every file below `root`, the manifest itself left out."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {
        path.relative_to(root).as_posix(): {"sha256": sha256(path), "bytes": path.stat().st_size}
        for path in files
    }


def faults(files: dict[str, dict[str, str | int]]) -> list[str]:
    """What stands in the way of shipping these files."""
    sizes = {name: int(facts["bytes"]) for name, facts in files.items()}
    model = sum(size for name, size in sizes.items() if not name.startswith(f"{COMPARED}/"))
    found = [f"{name} is missing" for name in WANTED if name not in files]
    for group in WHOLE:
        there = [name for name in group if name in files]
        found += [f"{name} is missing" for name in group if there and name not in files]
    found += [
        f"{name} must not be shipped"
        for name in files
        if Path(name).suffix in {".bin", ".pt", ".ckpt", ".part"}
    ]
    for said, total, limit in (
        ("the model is", model, MODEL_LIMIT),
        ("all files are", sum(sizes.values()), LIMIT),
    ):
        if total > limit:
            found.append(f"{said} {total:,} bytes, more than {limit:,}")
    return found


def report(files: dict[str, dict[str, str | int]]) -> None:
    """Print the size of each part."""
    parts: dict[str, int] = {}
    for name, facts in files.items():
        part = "/".join(name.split("/")[:2])
        parts[part] = parts.get(part, 0) + int(facts["bytes"])
    for part, size in sorted(parts.items(), key=lambda one: -one[1]):
        print(f"{size / 1e6:8.3f} MB  {part}")
    print(f"{sum(parts.values()) / 1e6:8.3f} MB  together, of {LIMIT / 1e6:.0f} MB")


def main(argv: list[str] | None = None) -> int:
    """Run the script; the status is 1 where something must not be shipped so."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=SMALL, help="folder of the bundled weights")
    parser.add_argument("--from", dest="source", type=Path, help="folder to copy there first")
    parser.add_argument("--check", action="store_true", help="change nothing")
    parser.add_argument("--partial", action="store_true", help="do not mind parts that are missing")
    options = parser.parse_args(argv)
    if options.source and not options.check:
        shutil.copytree(options.source, options.root, dirs_exist_ok=True)
    if not options.root.is_dir():
        print(f"there is no folder {options.root}", file=sys.stderr)
        return 1
    files = describe(options.root)
    report(files)
    found = [fault for fault in faults(files) if not (options.partial and fault.endswith("is missing"))]
    text = json.dumps({"files": files}, indent=1, sort_keys=True) + "\n"
    manifest = options.root / MANIFEST
    if options.check and (not manifest.is_file() or manifest.read_text(encoding="utf-8") != text):
        found.append(f"{manifest} does not describe the files; run this script without --check")
    for fault in found:
        print(fault, file=sys.stderr)
    if not found and not options.check:
        with atomic(manifest) as file:
            file.write(text.encode())
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
