"""`photomaker convert`: an adapter in the other file format."""

from __future__ import annotations

from pathlib import Path

from photomaker.apps import terminal


def run(source: Path, target: Path, overwrite: bool) -> None:
    """Convert the file and print what was written.

    Raises:
        PhotoMakerError: See `photomaker.encoders.convert.convert_adapter`.
    """
    with terminal.waiting(f"converting {source.name}"):
        from photomaker.encoders.convert import convert_adapter

        done = convert_adapter(source, target, overwrite)
    adapter = done.adapter
    numbers = sum(tensor.numel() for part in (adapter.id_encoder, adapter.lora) for tensor in part.values())
    rows = [
        ("version", adapter.version),
        ("ID encoder", f"{len(adapter.id_encoder)} tensors, content sha256 {adapter.encoder_sha256()}"),
        ("LoRA", f"{len(adapter.lora)} tensors"),
        ("numbers", f"{numbers:,}, all unchanged"),
        (f"sha256 of {source.name}", done.source_sha256),
        (f"sha256 of {target.name}", done.target_sha256),
    ]
    terminal.table(str(target), ("what", "value"), rows)
    if done.lost:
        terminal.say(f"a .bin file cannot hold the notes {', '.join(done.lost)}; they are left out")
