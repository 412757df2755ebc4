"""The commands that measure: likeness, methods side by side, ablations, time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from photomaker.apps.options import (
    Adapter,
    Base,
    BenchFolder,
    Changes,
    Device,
    Dtype,
    Gallery,
    Precision,
    Processes,
    Results,
    Samples,
    ScoredSplit,
    Seeds,
    Steps,
    Threads,
    Unseen,
)


def evaluate(
    method: Annotated[str | None, typer.Option(help="Name of the method.")] = None,
    base: Base = None,
    adapter: Adapter = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the result files. (default: the method's)")
    ] = None,
    out: Results = None,
    split: ScoredSplit = None,
    people: Annotated[int | None, typer.Option(help="People scored. (default: 100)")] = None,
    prompts: Annotated[int | None, typer.Option(help="Use the first N prompts. (default: all)")] = None,
    seeds: Seeds = None,
    references: Annotated[
        int | None, typer.Option(help="Reference photos that the method gets. (default: 4)")
    ] = None,
    unseen: Unseen = None,
    gallery: Gallery = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps. (default: 20)")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale. (default: chosen by the sweep)")
    ] = None,
    merge: Annotated[
        float | None, typer.Option(help="Merge step as a share, 0 to 1. (default: chosen by the sweep)")
    ] = None,
    merges: Annotated[
        str | None, typer.Option(help="Merge steps to sweep over, separated by commas.")
    ] = None,
    guidances: Annotated[
        str | None, typer.Option(help="Guidance scales to sweep over, separated by commas.")
    ] = None,
    sweep_people: Annotated[
        int | None, typer.Option(help="People of the sweep, never scored. (default: 20)")
    ] = None,
    accuracy_bar: Annotated[
        float | None, typer.Option(help="Prompt accuracy that the sweep must keep.")
    ] = None,
    pairs: Annotated[int | None, typer.Option(help="Pairs of people to mix. (default: 30)")] = None,
    parts: Annotated[
        str | None,
        typer.Option(help="Parts of the benchmark, separated by commas. (default: all but structure)"),
    ] = None,
    control: Annotated[
        str | None, typer.Option(help="Folder of a ControlNet, for the part structure.")
    ] = None,
    control_scale: Annotated[
        float | None, typer.Option(help="How closely to follow it. (default: 1)")
    ] = None,
    processes: Processes = None,
    threads: Threads = None,
    device: Device = "auto",
    dtype: Dtype = Precision.AUTO,
    samples: Samples = None,
    resume: Annotated[bool, typer.Option(help="Continue an interrupted run.")] = True,
) -> None:
    """Measure likeness, prompt accuracy and more on people no network was trained on; writes JSON, tables and plots."""
    from photomaker.apps.measuring import evaluate as run

    given = dict(locals())
    run({name: value for name, value in given.items() if name != "run" and value is not None})


def speed(
    people: Annotated[int | None, typer.Option(help="People scored. (default: 50)")] = None,
    prompts: Annotated[int | None, typer.Option(help="Prompts, from the first on. (default: 10)")] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Pictures for each person and prompt. (default: 2)")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="test, or validation while you are still choosing settings.")
    ] = None,
    ways: Annotated[
        str | None,
        typer.Option(help='Variants, separated by semicolons, such as "fast;unipc 10". (default: all)'),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="How many times each variant is timed. (default: 5)")
    ] = None,
    pictures: Annotated[int | None, typer.Option(help="Pictures in each timed batch. (default: 1)")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the results; continues a stopped run. (default: benchmarks)"),
    ] = None,
    processes: Annotated[int | None, typer.Option(help="Number of processes. (default: 2)")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of each process. (default: 1)")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps. (default: auto)")] = None,
    dtype: Annotated[
        Precision | None,
        typer.Option(help="Precision; auto is bf16 on a GPU and fp32 on a CPU. (default: auto)"),
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Bootstrap resamples. (default: 2000)")] = None,
) -> None:
    """Measure what skipping work costs in likeness, prompt accuracy and sharpness; writes a table and a plot.

    Example: photomaker speed --people 4 --prompts 2 --seeds 1 --split validation --ways fast --out out/speed
    """
    given = dict(locals())
    from photomaker.apps.measuring import speed as run

    run({name: value for name, value in given.items() if name != "run" and value is not None})


def benchmark(
    methods: Annotated[
        str | None,
        typer.Option(help="Methods, separated by commas. (default: the config's, or all)"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings file, YAML; see examples/configs/benchmark_paper.yaml.")
    ] = None,
    changes: Changes = None,
    people: Annotated[int | None, typer.Option(help="People scored. (default: 50)")] = None,
    tuned_people: Annotated[
        int | None, typer.Option(help="People for tuned methods, the first of the scored ones. (default: 8)")
    ] = None,
    prompts: Annotated[int | None, typer.Option(help="Use the first N prompts. (default: 10)")] = None,
    seeds: Seeds = None,
    references: Annotated[
        int | None, typer.Option(help="Reference photos that each method gets. (default: 4)")
    ] = None,
    unseen: Unseen = None,
    gallery: Gallery = None,
    curve_people: Annotated[
        int | None,
        typer.Option(help="People for the curves over photos and merge step; 0 for no curves. (default: 20)"),
    ] = None,
    pairs: Annotated[
        int | None, typer.Option(help="Pairs of people to mix; 0 for no mixing. (default: 10)")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps, the same for all. (default: 20)")
    ] = None,
    split: ScoredSplit = None,
    base: Annotated[
        str | None, typer.Option(help="Base model of all methods. (default: the bundled small model)")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the results; an interrupted run there continues. (default: benchmarks)"),
    ] = None,
    processes: Processes = None,
    threads: Threads = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps. (default: auto)")] = None,
    dtype: Annotated[
        Precision | None,
        typer.Option(help="Precision; auto is bf16 on a GPU and fp32 on a CPU. (default: auto)"),
    ] = None,
    samples: Samples = None,
    readme: Annotated[
        list[Path] | None,
        typer.Option(help="Markdown page whose figures between the markers are updated; repeat for more."),
    ] = None,
) -> None:
    """Measure methods side by side on the same people, photos, prompts and noise; writes tables and plots.

    Example: photomaker benchmark --methods photomaker --people 10 --out out/benchmark
    """
    from photomaker.apps.benchmark import run

    given = dict(locals())
    apart = ("run", "config", "changes", "readme")
    options = {name: value for name, value in given.items() if name not in apart and value is not None}
    run(options, config, changes or (), readme or ())


def ablate(
    data: Annotated[
        Path | None, typer.Option(help="Folder of synthetic people to train on. (default: draw some)")
    ] = None,
    out: Results = None,
    axes: Annotated[
        str | None,
        typer.Option(
            help="Any of stacking, mask, noise, target, photos, class_word, separated by commas. (default: all)"
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Trainings for each variant. (default: 3)")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of each training. (default: 200)")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures in each step. (default: 16)")] = None,
    precision: Annotated[
        str | None, typer.Option(help="Precision of training: bf16 or fp32. (default: bf16)")
    ] = None,
    new_lora: Annotated[
        bool | None, typer.Option("--new-lora", help="Start without the bundled LoRA; takes many more steps.")
    ] = None,
    train_people: Annotated[int | None, typer.Option(help="People to train on. (default: 800)")] = None,
    views: Annotated[
        int | None, typer.Option(help="Pictures of each person, if people are drawn. (default: 10)")
    ] = None,
    people: Annotated[int | None, typer.Option(help="People scored. (default: 24)")] = None,
    prompts: Annotated[int | None, typer.Option(help="Use the first N prompts. (default: 6)")] = None,
    sampling_steps: Annotated[int | None, typer.Option(help="Denoising steps. (default: 12)")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale. (default: 2)")] = None,
    merge: Annotated[float | None, typer.Option(help="Merge step as a share, 0 to 1. (default: 0.1)")] = None,
    counts: Annotated[
        str | None, typer.Option(help="Numbers of photos, separated by commas. (default: 1,2,3,4,6,8)")
    ] = None,
    dtype: Annotated[Precision | None, typer.Option(help="Precision of drawing. (default: bf16)")] = None,
    processes: Annotated[int | None, typer.Option(help="Trainings at the same time. (default: 2)")] = None,
    samples: Samples = None,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="Rehearse with a tiny model; the figures mean nothing.")
    ] = False,
) -> None:
    """Train adapters that each differ in one choice of the method, and compare them; continues an interrupted run."""
    from photomaker.apps.ablate import open_door

    given = dict(locals())
    settings = {
        name: value
        for name, value in given.items()
        if name not in ("open_door", "tiny") and value is not None
    }
    open_door(settings, tiny)


def bench(
    size: Annotated[
        list[int] | None, typer.Option(help="Side of the pictures; repeat for more. (default: 512, 1024)")
    ] = None,
    steps: Steps = 4,
    rounds: Annotated[int, typer.Option(help="How many times each variant is timed.")] = 2,
    photos: Annotated[int, typer.Option(help="Photos of the identity.")] = 4,
    device: Device = "auto",
    out: BenchFolder = Path("benchmarks"),
    compiled: Annotated[
        bool, typer.Option("--compile", help="Also time compiled blocks; needs a C++ compiler.")
    ] = False,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="Rehearse with a tiny model, in seconds; the figures mean nothing.")
    ] = False,
) -> None:
    """Time full-size SDXL with and without an identity, on random weights; takes about 10 GB of memory."""
    from photomaker.apps.bench import run, settings_of
    from photomaker.studio.device import choose

    place = choose(device, "bf16")
    run(settings_of(size or (512, 1024), steps, rounds, photos, place.device, tiny, compiled), out)


def bench_train(
    side: Annotated[int, typer.Option(help="Side of the pictures.")] = 512,
    batch: Annotated[int, typer.Option(help="Pictures in each step.")] = 1,
    steps: Annotated[int, typer.Option(help="Steps to time, after one warm-up step.")] = 2,
    rank: Annotated[int, typer.Option(help="Rank of the LoRA.")] = 64,
    device: Device = "auto",
    out: BenchFolder = Path("benchmarks"),
    way: Annotated[
        list[int] | None, typer.Option(help="Number of a variant, from 0; repeat for more. (default: all)")
    ] = None,
    tiny: Annotated[
        bool,
        typer.Option("--tiny", help="Rehearse with a tiny model, in a minute; the figures mean nothing."),
    ] = False,
) -> None:
    """Time training steps of full-size SDXL and of diffusers' LoRA training, on random weights."""
    from photomaker.apps.bench import Sizes
    from photomaker.apps.bench_train import TrainBenchSettings, run
    from photomaker.studio.device import choose

    sizes = Sizes.tiny() if tiny else Sizes()
    place = choose(device, "bf16")
    run(TrainBenchSettings(side, batch, steps, rank, place.device, sizes, tuple(way or ())), out)
