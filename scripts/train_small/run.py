"""Train the whole bundled model, stage by stage; a finished stage is skipped, a stopped one goes on.

python scripts/train_small/run.py                 # everything, two one-thread processes on a CPU
python scripts/train_small/run.py --only base,adapter
python scripts/train_small/run.py --quick          # a few steps of each, to see that everything runs

On two cores of an AMD EPYC (Zen 5, bfloat16 instructions, no GPU) one core trains the autoencoder on 70 pictures a
second, the UNet on 55, the adapter on 45, the image tower on 300, the recognisers on 400 to 500, the attribute
classifier on 580 and the analyser on 200, and draws 70; docs/small_model.md tells what the bundled weights were given.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / "examples" / "configs"
log = logging.getLogger("train-small")


@dataclass(frozen=True)
class Stage:
    """One program with its options.

    Attributes:
        name: Name of the stage and of its folder under the runs folder.
        program: File name of the program, or `photomaker` for one of its commands.
        options: Its options; `{data}` and `{runs}` stand for the folders.
        done: A file under the runs folder (or the data folder) that exists when the stage is finished.
        parallel: Whether torchrun may start it in several processes.
        quick: Options that replace the steps in a rehearsal.
    """

    name: str
    program: str
    options: str
    done: str
    parallel: bool = True
    quick: str = "--steps 4 --batch 4 --save-every 0"


QUICK = "--set loop.steps=4 --set loop.batch_size=4 --set loop.save_every=0"

COMPARED = (
    ("same_budget", "train_small_same_budget"),
    ("ip_adapter", "train_small_ip_adapter"),
    ("fastcomposer", "train_small_fastcomposer"),
    ("photoverse", "train_small_photoverse"),
    ("instantid", "train_small_instantid"),
    ("pulid", "train_small_pulid"),
)
"""Stage and settings file of what PhotoMaker is compared with."""

REWARD = (
    "--set data.folder={data} --set data.composed={data}-composed --set data.cache={runs}/latents "
    "--set base.model={runs}/base_reward/export --set encoder.start={runs}/adapter/export/photomaker.safetensors "
    "--set recipe.lr=3.0e-4 --set recipe.fusion_lr=1.5e-4 --set recipe.vision=none --set recipe.plain_captions=1.0 "
    "--set recipe.attention=0 --set reward.steps=10 --set reward.fewest=4 --set reward.merge=0.1 "
    "--set reward.tower=0.3 --set reward.realism=0.03 --set reward.prompt=0.02 "
    "--set reward.classifier={runs}/attributes_b/export/attributes.safetensors "
    "--set loop.steps=400 --set loop.batch_size=8 --set loop.warmup=10 --set loop.ema_decay=0.95 "
    "--set loop.save_every=100 --set loop.log_every=10 --set loop.seed=5 --set loop.preview_every=0"
)
"""Finishing by reward: settings over those of a method's own training."""

OWN = {"pulid": " --set reward.semantic=0.6 --set reward.layout=0.1 --set reward.through=2"}
"""What a method's own finishing has beside: PuLID's alignment."""

STRUCTURES = ("landmarks", "edges", "mask", "depth")
"""A ControlNet each; the first is `controlnet`, the one that ships."""

STAGES = (
    Stage("world", "world.py", "--out {data} --people {people} --views 10", "", False, ""),
    Stage("composed", "world.py", "--out {data}-composed --people {people} --views 3 --composed", "", False, ""),
    Stage("tokenizers", "tokenizer.py", "--data {data} --out {runs}/tokenizers",
          "tokenizers/export/tokenizer_2/tokenizer_config.json", False, "--captions 2000"),
    Stage("autoencoder", "autoencoder.py", "--data {data} --composed {data}-composed --out {runs}/autoencoder "
          "--steps 6000 --batch 16 --lr 1.5e-3 --noise 0.1", "autoencoder/done.json"),
    # the same, around faces: where people look
    Stage("autoencoder_faces", "autoencoder.py", "--data {data} --composed {data}-composed --init "
          "{runs}/autoencoder/export --out {runs}/autoencoder_faces --steps 4000 --batch 16 --lr 8e-4 --noise 0.07 "
          "--perceptual 1.0 --window 96 --seed 1", "autoencoder_faces/done.json"),
    Stage("base", "base.py", "--data {data} --composed {data}-composed --out {runs}/base "
          "--autoencoder {runs}/autoencoder_faces/export --tokenizers {runs}/tokenizers/export "
          "--latents {runs}/latents --steps 16000 --batch 32 --lr 8e-4 --text-lr 5e-4 --ema 0.999 --face-weight 4",
          "base/done.json"),
    *(
        Stage(name, program, f"--data {{data}} --out {{runs}}/{name} --people {people} --val-people 7000:7200{more}",
              f"{name}/done.json", quick="--steps 4 --batch-size 4 --people 0:16 --val-people 16:24")
        for name, program, people, more in (
            ("recogniser_a", "recogniser.py", "0:3600", " --architecture conv"),
            ("recogniser_b", "recogniser.py", "3600:7000", " --architecture mixer"),
            ("attributes", "attributes.py", "0:7000", ""),
            # of another shape, for rewards: what scores is in no loop
            ("attributes_b", "attributes.py", "0:7000", " --channels 48,64,80 --looks 3 --seed 7"),
            ("marks", "marks.py", "0:7000", ""),
            ("analyser", "analyser.py", "0:7000", ""),
        )
    ),
    # the third recogniser sees people that no other network sees, and is for the last table alone
    Stage("last_people", "world.py", "--out {data}-last --start 10000 --people {last} --views 10", "", False, ""),
    Stage("recogniser_c", "recogniser.py", "--data {data}-last --val-data {data} --out {runs}/recogniser_c "
          "--architecture next --people 0:{last} --val-people 7000:7200", "recogniser_c/done.json",
          quick="--steps 4 --batch-size 4 --people 0:16 --val-people 16:24"),
    Stage("id_tower", "id_tower.py", "--data {data} --out {runs}/id_tower --steps 6000 --batch 32 "
          "--teacher {runs}/recogniser_a/export/recogniser.safetensors",
          "id_tower/done.json"),
    Stage("base_reward", "photomaker", f"train {CONFIGS}/train_small_base_reward.yaml --set out={{runs}}/base_reward "
          "--set data.folder={data} --set data.composed={data}-composed --set data.cache={runs}/latents "
          "--set base.model={runs}/base/export --set encoder.start={runs}/id_tower/export --set reward.prompt=0.05 "
          "--set reward.classifier={runs}/attributes_b/export/attributes.safetensors", "base_reward/done.json",
          quick=QUICK),
    Stage("adapter", "photomaker", f"train {CONFIGS}/train_small.yaml --set out={{runs}}/adapter "
          "--set data.folder={data} --set data.composed={data}-composed --set data.cache={runs}/latents "
          "--set base.model={runs}/base_reward/export --set encoder.start={runs}/id_tower/export "
          "--set loop.batch_size=24 --set loop.warmup=200 --set loop.seed=0 --set loop.preview_every=0 "
          "--set recipe.lr=1.0e-3 --set recipe.fusion_lr=1.0e-3 --set recipe.diffusion.face=2.0", "adapter/done.json",
          quick=QUICK),
    # the methods that it is compared with, and the adapter once more, all for as long and from the same image tower
    *(
        Stage(name, "photomaker", f"train {CONFIGS}/{config}.yaml --set out={{runs}}/{name} --set data.folder={{data}} "
              "--set data.composed={data}-composed --set data.cache={runs}/latents "
              "--set base.model={runs}/base_reward/export "
              "--set encoder.start={runs}/adapter/export/photomaker.safetensors", f"{name}/done.json",
              quick=QUICK)
        for name, config in COMPARED
    ),
    # all are finished by the same reward for as long
    *(
        Stage(f"{name}_reward", "photomaker", f"train {CONFIGS}/{config}.yaml --set out={{runs}}/{name}_reward "
              f"--set start={{runs}}/{name} " + REWARD + OWN.get(name, ""), f"{name}_reward/done.json", quick=QUICK)
        for name, config in (("adapter", "train_small"), *COMPARED)
    ),
    *(
        Stage(name, "photomaker", f"train {CONFIGS}/train_small_controlnet.yaml --set out={{runs}}/{name} "
              "--set data.folder={data} --set data.cache={runs}/latents --set base.model={runs}/base_reward/export "
              f"--set controlnet.drawing.structure={structure}", f"{name}/done.json", quick=QUICK)
        for structure, name in zip(
            STRUCTURES, ("controlnet", *(f"controlnet_{one}" for one in STRUCTURES[1:])), strict=True)
    ),
)  # fmt: skip


def command(stage: Stage, folders: dict[str, str], processes: int, quick: bool) -> list[str]:
    """The command line of a stage."""
    start = [sys.executable]
    if stage.parallel and processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    options = stage.options.format(**folders).split()
    program = ["-m", "photomaker.apps.cli"] if stage.program == "photomaker" else [str(HERE / stage.program)]
    return [*start, *program, *options, *(stage.quick.split() if quick else [])]


def finished(stage: Stage, folders: dict[str, str]) -> bool:
    """Whether a stage needs no more work; drawing decides for itself."""
    return bool(stage.done) and (Path(folders["runs"]) / stage.done).exists()


def main(argv: list[str] | None = None) -> int:
    """Run the stages in order; stop at the first that fails."""
    parser = argparse.ArgumentParser(description="Train the bundled small model.")
    parser.add_argument("--data", default="data/people", help="folder of the synthetic people")
    parser.add_argument("--runs", default="runs", help="folder of the trainings")
    parser.add_argument("--people", type=int, default=7_200)
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--only", default="", help="names of stages, with commas; default: all")
    parser.add_argument("--quick", action="store_true", help="a rehearsal of a few steps with few people")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    people = "24" if args.quick else str(args.people)
    folders = {"data": args.data, "runs": args.runs, "people": people, "last": "24" if args.quick else "2400"}
    wanted = [name for name in args.only.split(",") if name]
    unknown = set(wanted) - {stage.name for stage in STAGES}
    if unknown:
        log.error(
            "no stage is called %s; there are %s", ", ".join(unknown), ", ".join(s.name for s in STAGES)
        )
        return 2
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for stage in STAGES:
        if wanted and stage.name not in wanted:
            continue
        if finished(stage, folders):
            log.info("%s: finished, skipped", stage.name)
            continue
        line = command(stage, folders, args.processes, args.quick)
        log.info("%s: %s", stage.name, " ".join(line))
        code = subprocess.run(line, env=environment, check=False).returncode
        if code:
            log.error("%s stopped with exit code %d; the same command goes on from there", stage.name, code)
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
