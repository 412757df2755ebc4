"""Train the bundled model on a GPU within minutes: draws the people on the spot, trains, and packs what came out.

python scripts/gpu/train.py probe --seconds 540 --out out      # which autoencoder; writes a table and sheets
python scripts/gpu/train.py base --seconds 540 --out out       # autoencoder and base
python scripts/gpu/train.py methods --seconds 540 --out out --start out    # adapter, its finishing, other methods
python scripts/gpu/train.py base --rehearse --out out          # everything with few people, on a CPU

Each command draws the people first, with all cores, and shares the time that is left between its stages. Weights are
packed into `out/weights.tar.00`, `.01`, ... of at most 15 MiB; `--start` unpacks those of earlier commands, and so does
`cat out/weights.tar.* | tar x`.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from train_small.run import STAGES, command

HERE = Path(__file__).parent
PIECE = 15 * 2**20
"""Bytes of a packed file."""
AT_LEAST = 20.0
"""Seconds that a stage gets, however little is left."""
log = logging.getLogger("gpu")


@dataclass(frozen=True)
class Share:
    """A stage of `train_small.run` as a GPU trains it.

    Attributes:
        stage: Its name.
        share: Of the time for all stages of the command.
        options: Over those of the stage: larger batches, and higher rates for them.
        start: Seconds before its first step: imports, latents, captions.
    """

    stage: str
    share: float
    options: str = ""
    start: float = 15.0


BUNDLED = "--set base.model={runs}/base/export --set encoder.start=bundled"
FINISHED = (
    "--set base.model={runs}/base/export --set encoder.start={runs}/adapter/export/photomaker.safetensors "
    "--set reward.prompt=0 --set reward.classifier=null --set loop.batch_size=48 --set loop.save_every=0"
)
METHODS = ("same_budget", "ip_adapter", "fastcomposer", "photoverse", "instantid")
PLANS = {
    "base": (
        Share("autoencoder", 0.2, "--channels {channels} --batch 192 --lr 3e-3 --save-every 0"),
        Share("autoencoder_faces", 0.15, "--batch 192 --lr 1.6e-3 --save-every 0"),
        Share(
            "base",
            0.65,
            "--batch 512 --lr 1.6e-3 --text-lr 1e-3 --ema 0.998 --warmup 300 --save-every 0 --blocks {blocks} "
            "--variants 8 --workers {workers}",
            start=40.0,
        ),
    ),
    "methods": (
        Share("adapter", 0.35, f"{BUNDLED} --set encoder.anew=true --set loop.batch_size=384 --set loop.save_every=0"),
        Share("adapter_reward", 0.2, FINISHED),
        *(
            share
            for name in METHODS
            for share in (
                Share(
                    name,
                    0.06,
                    "--set base.model={runs}/base/export --set loop.batch_size=256 --set loop.save_every=0",
                ),
                Share(f"{name}_reward", 0.03, FINISHED),
            )
        ),
    ),
}  # fmt: skip
FEW = {"--batch": "4", "loop.batch_size": "4", "--variants": "2", "--workers": "2"}
"""What a rehearsal, of four steps a stage, has in the place of large batches."""


def main(argv: list[str] | None = None) -> int:
    """Carry out one command; what is finished is packed even where a later stage fails."""
    options = parser()
    args = options.parse_args(argv)
    known = [one.stage for one in PLANS.get(args.what, ())]
    unknown = [name for name in args.only.split(",") if name and known and name not in known]
    if unknown:
        options.error(f"{args.what} has no stage {unknown[0]}; give some of {', '.join(known)}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    end = time.monotonic() + args.seconds
    args.out.mkdir(parents=True, exist_ok=True)
    folders = {"data": str(args.work / "people"), "runs": str(args.work / "runs")}
    folders |= {"people": "24" if args.rehearse else str(args.people), "channels": str(args.channels)}
    folders |= {"blocks": args.blocks, "workers": str(os.cpu_count() or 1), "last": "0"}
    if args.start is not None:
        unpacked(args.start, Path(folders["runs"]))
    drawn(folders, composed=args.what != "probe")
    if args.what == "probe":
        return probe(args, folders, end)
    failed = trained(args, folders, end)
    packed(Path(folders["runs"]), args.out, ["tokenizers", *(one.stage for one in planned(args))])
    return int(failed)


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("what", choices=["probe", *PLANS])
    options.add_argument("--out", type=Path, required=True, help="folder of what is packed, and of the logs")
    options.add_argument("--start", type=Path, help="folder of what an earlier command packed")
    options.add_argument("--work", type=Path, default=Path("runs/gpu"), help="folder of people and runs")
    options.add_argument("--seconds", type=float, default=540.0, help="time for everything")
    options.add_argument("--people", type=int, default=7200)
    options.add_argument("--channels", type=int, default=8, help="of the latents")
    options.add_argument("--blocks", default="128,160", help="UNet channels at 16 x 16, 8 x 8")
    options.add_argument(
        "--only", default="", help="names of stages, with commas; default: all of the command"
    )
    options.add_argument("--rehearse", action="store_true", help="few people, few steps, small batches")
    return options


def drawn(folders: dict[str, str], composed: bool) -> None:
    """Draw the people, their compositions where they are wanted, and learn the words; what is there stays."""
    views = {"world": ["--views", "6"], "composed": ["--views", "2"], "tokenizers": []}
    for stage in STAGES:
        there = bool(stage.done) and (Path(folders["runs"]) / stage.done).exists()
        if stage.name in views and not there and (composed or stage.name == "world"):
            carried_out(stage.name, command(stage, folders, 1, False) + views[stage.name], 0.0)


def carried_out(name: str, line: list[str], seconds: float) -> bool:
    """Run a command line; whether it succeeded."""
    log.info("%s, %.0f s: %s", name, seconds, " ".join(line[1:]))
    start = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    code = subprocess.run(line, env=environment, check=False).returncode
    log.info("%s took %.0f s%s", name, time.monotonic() - start, f" and failed with {code}" if code else "")
    return not code


def options_of(share: Share, folders: dict[str, str], seconds: float, rehearse: bool) -> list[str]:
    """The options of a stage that a GPU changes, with its time."""
    steps, limit = ("4", 0) if rehearse else ("1000000", round(seconds))
    timed = f"--steps {steps} --seconds {limit}"
    if "--set loop." in share.options:
        timed = f"--set loop.steps={steps} --set loop.seconds={limit}"
    words = f"{share.options} {timed}".format(**folders).split()
    for at, word in enumerate(words if rehearse else []):
        name, _, value = word.partition("=")
        if name in FEW and value:
            words[at] = f"{name}={FEW[name]}"
        elif word in FEW:
            words[at + 1] = FEW[word]
    return words


def planned(args: argparse.Namespace) -> list[Share]:
    """The stages of the command, or those of them that were asked for."""
    wanted = [name for name in args.only.split(",") if name]
    return [one for one in PLANS[args.what] if not wanted or one.stage in wanted]


def trained(args: argparse.Namespace, folders: dict[str, str], end: float) -> bool:
    """Train the stages, each for its share of the time that is left; whether one failed."""
    known, plan, failed = {stage.name: stage for stage in STAGES}, planned(args), False
    for at, one in enumerate(plan):
        left, rest = end - time.monotonic(), plan[at:]
        free = left - sum(other.start for other in rest)
        seconds = max(AT_LEAST, free * one.share / sum(other.share for other in rest))
        line = command(known[one.stage], folders, 1, False) + options_of(one, folders, seconds, args.rehearse)
        failed |= not carried_out(one.stage, line, seconds)
    return failed


def probe(args: argparse.Namespace, folders: dict[str, str], end: float) -> int:
    """Try the candidates of `probe_autoencoder.py` for as long each."""
    sys.path.insert(0, str(HERE.parent / "train_small"))
    from train_small.probe_autoencoder import CANDIDATES

    names = [name for name in args.only.split(",") if name] or list(CANDIDATES)
    each = (end - time.monotonic()) / len(names) - 25.0  # scoring, imports, latents
    seconds = max(AT_LEAST, each / 2)
    line = [
        sys.executable,
        str(HERE.parent / "train_small" / "probe_autoencoder.py"),
        "--data",
        folders["data"],
    ]
    line += ["--out", str(args.work / "probe"), "--seconds", f"{seconds:.0f}", "--steps", "1000000"]
    line += ["--base-steps", "1000000", "--batch-times", "1" if args.rehearse else "12", "--variants", "4"]
    line += ["--workers", folders["workers"], "--photos", "8" if args.rehearse else "64"]
    # a process each: captions are made by forks, before anything is trained
    good = all([carried_out(name, [*line, "--only", name], seconds) for name in names])
    found = sorted((args.work / "probe").glob("*/s*.*"))  # scores.json and sheet.png
    with tarfile.open(args.out / "probe.tar", "w") as file:
        for path in found:
            file.add(path, f"{path.parent.name}/{path.name}")
    return int(not good)


def packed(runs: Path, out: Path, stages: Sequence[str]) -> list[Path]:
    """Pack the exports and logs of stages into files of at most `PIECE` bytes."""
    whole = out / "weights.tar"
    with tarfile.open(whole, "w") as file:
        for stage in stages:
            for name in ("export", "log.jsonl", "done.json"):
                if (runs / stage / name).exists():
                    file.add(runs / stage / name, f"{stage}/{name}")
    data = whole.read_bytes()
    whole.unlink()
    pieces = []
    for at in range(0, len(data), PIECE):
        pieces.append(out / f"weights.tar.{at // PIECE:02d}")
        pieces[-1].write_bytes(data[at : at + PIECE])
    log.info("packed %.1f MB into %d files", len(data) / 1e6, len(pieces))
    return pieces


def unpacked(folder: Path, runs: Path) -> None:
    """Unpack what `packed` wrote; nothing leaves the folder of the runs."""
    pieces = sorted(folder.glob("weights.tar.*"))
    if not pieces:
        sys.exit(f"{folder} has no weights.tar.00; give the folder that an earlier command wrote with --out")
    runs.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(b"".join(piece.read_bytes() for piece in pieces))) as file:
        file.extractall(runs, filter="data")


if __name__ == "__main__":
    if not torch.cuda.is_available():
        log.warning("there is no GPU: this takes many times as long")
    sys.exit(main())
