"""The pages of `photomaker bench` and `bench-train`, and how figures are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from photomaker.apps import terminal
from photomaker.apps.random_sdxl import RANK
from photomaker.evaluation.report.files import write
from photomaker.speeds import STUDENT, STUDENTS, TURBO

WORK_STEPS = 20
"""Steps of the picture whose operations are counted."""


def publish(out: Path, name: str, document: dict[str, Any], page: str) -> None:
    """Write figures as `NAME.json` and their page as `NAME.md`, and say the page."""
    write(out / f"{name}.json", json.dumps(document, indent=2) + "\n")
    write(out / f"{name}.md", page)
    for line in page.splitlines():
        terminal.say(line)


def markdown(document: dict[str, Any]) -> str:
    """The page for people."""
    settings, machine_ = document["settings"], document["machine"]
    parameters = sum(document["parameters"].values()) / 1e9
    tiny = bool(settings["sizes"]["encoder"])
    lines = [
        "# An identity on full-size SDXL, beside plain diffusers",
        "",
        *(["A REHEARSAL with a tiny model: none of the figures mean anything.", ""] if tiny else []),
        f"Made by `photomaker bench`: SDXL's architecture and a V2 adapter (LoRA of rank {RANK}) with random "
        f"{machine_.get('precision', 'bfloat16')} weights, {parameters:.2f} billion parameters; "
        f"{settings['steps']} steps, guidance 5, latents only; medians "
        f"of {settings['rounds']} rounds, the ways taking turns.",
        "",
        f"- machine: {machine_['processor']}, {machine_['cores']} cores, {machine_['threads']} threads, device "
        f"{machine_['device']}",
        f"- once for each identity, not for each picture: {document['once']['encode_identity']:.1f} s for "
        f"{settings['photos']} photos",
        "- peak memory: "
        + ", ".join(f"{value:.1f} GiB ({name})" for name, value in document["peak_gib"].items()),
        "",
    ]
    for found in document["pictures"]:
        side = found["side"]
        lines += [
            f"## {side} x {side}",
            "",
            "| way | seconds | over plain | largest difference of latents |",
            "|---|---|---|---|",
        ]
        for name, took in found["seconds"].items():
            difference = found["difference"].get(name)
            told = "" if difference is None else f"{difference:.2g}"
            lines.append(f"| {name} | {took:.2f} | {found['over_plain'][name]:.3f} | {told} |")
        lines += [
            "",
            f"The latents' deviation is {found['deviation']:.2g}. One row of one step is {found['unet_tflop']:.3g} "
            f"TFLOP, and a matrix product runs at {found['matmul_tflops']:.2f} TFLOP/s here, so that the UNet alone "
            f"takes at least {found['floor_seconds']:.3g} s.",
            "",
            f"Counted, a picture in {WORK_STEPS} steps is "
            + ", ".join(f"{work:.0f} TFLOP ({name})" for name, work in found["work_tflop"].items())
            + f"; {TURBO} always takes {STUDENTS[STUDENT].steps} steps.",
            "",
        ]
    return "\n".join(lines)
