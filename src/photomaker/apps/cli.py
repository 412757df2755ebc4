"""The command line `photomaker`. Heavy libraries are imported when a command runs, so that `--help` answers at once."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from photomaker.apps.options import (
    Adapter,
    Base,
    Changes,
    Config,
    Device,
    Dtype,
    FaceBackend,
    Faces,
    Format,
    Gallery,
    Host,
    MethodName,
    Mixing,
    Model,
    More,
    NoProvenance,
    PassphraseFile,
    Photos,
    Precision,
    Processes,
    Replicated,
    Results,
    Samples,
    ScoredSplit,
    Seeds,
    Split,
    Styles,
    Threads,
    Ttl,
    Unseen,
    Without,
    composed,
    names,
)
from photomaker.errors import PhotoMakerError, SettingsError

MISTAKE, INTERRUPTED = 2, 130
RARELY = (100_000, 50, 50)
"""Thresholds of Python's garbage collector."""


class Door(TyperGroup):
    """Turns mistakes of the user's into one line and status 2, and Ctrl-C into status 130."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer keeps its classes to itself
        """Run the command."""
        from photomaker.processes import interruptible

        try:
            with interruptible():
                return super().invoke(ctx)
        except PhotoMakerError as error:
            typer.echo(f"photomaker: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(MISTAKE) from error
        except KeyboardInterrupt as error:
            typer.echo("photomaker: interrupted; whole files stay, nothing half-written is left", err=True)
            raise typer.Exit(INTERRUPTED) from error


app = typer.Typer(
    cls=Door,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A few photos of a person in, new pictures of that person out.",
)
identity_app = typer.Typer(
    no_args_is_help=True, help="Make, show, mix and encrypt identities: people as small files."
)
app.add_typer(identity_app, name="identity")
photos_app = typer.Typer(no_args_is_help=True, help="Check a person's photos before drawing.")
app.add_typer(photos_app, name="photos")
provenance_app = typer.Typer(
    no_args_is_help=True, help="Read a picture's record of how it was made, and check it."
)
app.add_typer(provenance_app, name="provenance")
dataset_app = typer.Typer(
    no_args_is_help=True, help="Build datasets to train with: people, photos, masks, captions."
)
app.add_typer(dataset_app, name="dataset")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"photomaker {version('photomaker')}")
        raise typer.Exit


@app.callback()
def root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """A few photos of a person in, new pictures of that person out."""


_WITH_ORDERS = frozenset(
    {
        "orders", "changes", "out", "sheet", "preview", "styles", "method", "kind", "no_provenance", "certificate",
        "key", "provenance_prompt",
    }
) | names(Model, Replicated)  # fmt: skip
"""Parameters of `generate` that go with a file of orders; all others stand in it."""


def _stated(ctx: typer.Context) -> dict[str, str]:
    """The parameters that were typed, each with its option."""
    typed = (one for one in ctx.command.params if one.name and ctx.get_parameter_source(one.name) is not None)
    return {
        str(one.name): one.opts[0] if one.param_type_name == "option" else "photos"
        for one in typed
        if getattr(ctx.get_parameter_source(str(one.name)), "name", "") == "COMMANDLINE"
    }


@app.command()
@composed
def generate(
    ctx: typer.Context,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="For example 'a photo of a woman img in the snow'; repeat for more."),
    ] = None,
    photos: Photos = None,
    more: More = None,
    identity: Annotated[
        list[Path] | None,
        typer.Option(help="Saved identity, instead of photos; repeat for more people."),
    ] = None,
    person: Annotated[
        list[str] | None,
        typer.Option(help="NAME=PHOTOS or NAME=IDENTITY; repeat for each person."),
    ] = None,
    pairs: Annotated[
        bool,
        typer.Option(
            "--pairs",
            help="Pair the first person with the first prompt, and so on, instead of every person with every prompt.",
        ),
    ] = False,
    n: Annotated[
        int | None,
        typer.Option(
            "-n", min=1, help="Pictures for each person and prompt. (default: 4, or one for each --seed)"
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the pictures, or a file name ending in .png, .jpg or .webp for a single one; no file "
            "is ever replaced."
        ),
    ] = Path("out"),
    kind: Annotated[
        Format | None,
        typer.Option("--format", help="File format. (default: the ending of --out, or png)"),
    ] = None,
    negative: Annotated[str | None, typer.Option(help="What the pictures should not show.")] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(
            help="Seed of the first picture, each next adds 1; or repeat it, one for each picture. (default: 0)"
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="portrait, landscape, square, or WIDTHxHEIGHT such as 640x480. (default: the model's own)"
        ),
    ] = None,
    style: Annotated[str, typer.Option(help="Style preset; `photomaker styles` lists them.")] = "none",
    styles: Styles = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="Sampling scheduler: euler, euler a, dpm++ 2m karras, unipc, ddim, lcm, ... (default: the model's own)"
        ),
    ] = None,
    speed: Annotated[
        str,
        typer.Option(
            help="exact, fast (less work, nearly the same), turbo (a few steps), or auto; see docs/speed.md."
        ),
    ] = "exact",
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 20,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale. (default: the model's own)")] = None,
    guidance_start: Annotated[
        float, typer.Option(help="Share of the steps, 0 to 1, after which guidance begins.")
    ] = 0.0,
    guidance_stop: Annotated[
        float,
        typer.Option(
            help="Share of the steps, 0 to 1, after which guidance ends; steps without it are faster."
        ),
    ] = 1.0,
    merge: Annotated[
        float | None,
        typer.Option(
            help="Share of the steps, 0 to 1, after which the person joins: lower for more of the person, higher for "
            "more of the prompt. (default: the model's own)"
        ),
    ] = None,
    best_of: Annotated[
        int,
        typer.Option(
            min=1, help="Draw this many times as many pictures, and keep those with the highest likeness."
        ),
    ] = 1,
    lora: Annotated[
        list[str] | None,
        typer.Option(help="FILE or FILE:WEIGHT of another LoRA; repeat for more."),
    ] = None,
    start: Annotated[str | None, typer.Option(help="Picture to start from (image to image).")] = None,
    strength: Annotated[
        float, typer.Option(help="How much of the start picture to redraw, above 0 to 1.")
    ] = 0.6,
    mask: Annotated[
        str | None,
        typer.Option(help="Mask of the start picture's size: white is redrawn, black stays as it is."),
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(
            help="ControlNet as MODEL=PICTURE or MODEL=PICTURE:SCALE; MODEL=landmarks@PICTURE, edges@ or mask@ takes "
            "that from the picture; repeat for more."
        ),
    ] = None,
    t2i: Annotated[
        str | None, typer.Option("--t2i", help="T2I-Adapter as MODEL=PICTURE or MODEL=PICTURE:SCALE.")
    ] = None,
    style_picture: Annotated[
        str | None, typer.Option(help="PICTURE or PICTURE:SCALE whose look to copy, by an IP-Adapter.")
    ] = None,
    style_adapter: Annotated[
        str | None,
        typer.Option(help="IP-Adapter for --style-picture: file or hub id. (default: the bundled one)"),
    ] = None,
    together: Annotated[
        bool,
        typer.Option(
            "--together",
            help="Put all people into each picture; the prompt has 'img' after each class word.",
        ),
    ] = False,
    layout: Annotated[
        list[str] | None,
        typer.Option(
            help="Where a person is: left, middle, right, a box 0,0,0.5,1 or a mask; repeat in the order of the people."
        ),
    ] = None,
    pose: Annotated[
        str | None,
        typer.Option(
            help="InstantID: PICTURE or PICTURE:SCALE whose face sets position and pose; or photo, draft, none."
        ),
    ] = None,
    redraw: Annotated[
        str,
        typer.Option(
            help="Redraw small faces larger: off, auto (below a quarter of the model's side), or a limit in pixels."
        ),
    ] = "off",
    sheet: Annotated[bool, typer.Option("--sheet", help="Also write a labelled contact sheet.")] = False,
    preview: Annotated[
        Path | None, typer.Option(help="PNG that shows the picture being drawn, replaced at every step.")
    ] = None,
    orders: Annotated[
        Path | None,
        typer.Option(help="YAML file of many orders, instead of prompt and people; see docs/using.md."),
    ] = None,
    changes: Changes = None,
    *,
    replicated: Replicated,
    no_provenance: NoProvenance = False,
    certificate: Annotated[
        Path | None,
        typer.Option(help="PEM file of the certificate to sign with. (default: one made at the first use)"),
    ] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of the certificate's private key.")] = None,
    provenance_prompt: Annotated[
        bool, typer.Option("--provenance-prompt", help="Put the prompt into the signed manifest too.")
    ] = False,
    method: MethodName = None,
    model: Model,
) -> None:
    """Make pictures of the person in some photos.

    Example: photomaker generate --photos examples/ada --prompt "a photo of a woman img in the snow" -n 4 --out out/
    """
    from photomaker.apps.generate import Asked, Output, run, run_orders
    from photomaker.apps.signing import Signing
    from photomaker.types import Sampling

    engine = model.settings() | {"styles": styles}
    signing = Signing(not no_provenance, certificate, key, provenance_prompt)
    output = Output(out, sheet, preview, None if kind is None else kind.value, signing)
    stated = _stated(ctx)
    if orders is not None:
        beside = [option for name, option in stated.items() if name not in _WITH_ORDERS]
        run_orders(orders, changes or (), output, beside, method, replicated.elsewhere(), **engine)
        return
    for name, needed in (
        ("changes", "orders"), ("executor", "orders"), ("replicas", "orders"), ("cluster", "orders"),
        ("strength", "start"),
    ):  # fmt: skip
        if name in stated and needed not in stated:
            raise SettingsError(f"{stated[name]} needs --{needed}; give that too")
    sampling = Sampling(
        steps=steps, guidance=guidance, merge=merge, seed=(seed or [0])[0], scheduler=scheduler,
        guidance_start=guidance_start, guidance_stop=guidance_stop,
    )  # fmt: skip
    asked = Asked(
        tuple(prompt or ()), (*(photos or ()), *(more or ())), tuple(identity or ()), tuple(person or ()), pairs, n,
        tuple(seed or ()), best_of, sampling, size, style, negative, tuple(lora or ()), start, strength, mask,
        tuple(control or ()), t2i, style_picture, style_adapter, redraw, together,
        tuple(layout or ()), pose, speed,
    )  # fmt: skip
    run(asked, output, method, **engine)


@photos_app.command("check")
def photos_check(
    places: Annotated[
        list[Path], typer.Argument(help="Folders and photos of one person.", metavar="PHOTO...")
    ],
    faces: Faces = FaceBackend.AUTO,
    json: Annotated[Path | None, typer.Option(help="JSON file to write the report to.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="PNG to write: the photos with their verdicts.")] = None,
) -> None:
    """Say which photos to keep, which to drop, why, and what to do about it."""
    from photomaker.apps.photos import check

    check(places, faces.value, json, sheet)


@identity_app.command("make")
@composed
def identity_make(
    out: Annotated[Path, typer.Option(help="File to write, for example ada.safetensors.")],
    photos: Photos = None,
    more: More = None,
    method: MethodName = None,
    class_word: Annotated[
        str | None,
        typer.Option(help="Class word that a tuned method trains the person with, such as woman."),
    ] = None,
    consent: Annotated[
        str | None,
        typer.Option(help="Who agreed, when, and to what; kept in the identity and in every picture."),
    ] = None,
    *,
    model: Annotated[Model, Without(("memory",))],
) -> None:
    """Make an identity from photos and save it; use it instead of the photos from then on."""
    from photomaker.apps.identities import make

    engine = model.settings()
    del engine["memory"]  # one person is read with any plan
    make([*(photos or ()), *(more or ())], out, method, class_word, consent, **engine)


@identity_app.command("show")
def identity_show(file: Annotated[Path, typer.Argument(help="An identity file.")]) -> None:
    """Show what an identity file holds."""
    from photomaker.apps.identities import show

    show(file)


@identity_app.command("mix")
def identity_mix(
    first: Annotated[Path, typer.Argument(help="First identity; share 0 gives it unchanged.")],
    second: Annotated[Path, typer.Argument(help="Second identity; share 1 gives it unchanged.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    share: Annotated[float, typer.Option(help="Share of the second person, 0 to 1.")] = 0.5,
    how: Annotated[
        Mixing,
        typer.Option(help="blend interpolates the features; proportion takes photos of both in proportion."),
    ] = Mixing.BLEND,
) -> None:
    """Mix two people into a new one."""
    from photomaker.apps.identities import mix

    mix(first, second, out, share, how.value)


@identity_app.command("encrypt")
def identity_encrypt(
    file: Annotated[Path, typer.Argument(help="An identity file.")],
    out: Annotated[Path | None, typer.Option(help="File to write. (default: FILE.age)")] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Encrypt an identity with a passphrase (age)."""
    from photomaker.apps.identities import encrypt

    encrypt(file, out, passphrase_file)


@identity_app.command("decrypt")
def identity_decrypt(
    file: Annotated[Path, typer.Argument(help="An encrypted identity file.")],
    out: Annotated[Path | None, typer.Option(help="File to write. (default: FILE without .age)")] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Decrypt an encrypted identity."""
    from photomaker.apps.identities import decrypt

    decrypt(file, out, passphrase_file)


@provenance_app.command("show")
def provenance_show(
    file: Annotated[Path, typer.Argument(help="A picture.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    trust: Annotated[Path | None, typer.Option(help="PEM file of certificates that you trust.")] = None,
    original: Annotated[
        Path | None,
        typer.Option(help="Signed picture to compare with, if the copy has lost its manifest."),
    ] = None,
) -> None:
    """Show how a picture was made, according to its metadata, and whether it was changed since.

    Status 0: unchanged, signed by a known certificate; 4: unchanged, signed by an unknown one; 1: altered;
    3: no manifest; 2: it cannot be read.
    """
    from photomaker.apps.provenance import show

    raise typer.Exit(show(file, json, trust, original))


@app.command("styles")
def list_styles(
    more: Annotated[Path | None, typer.Option("--styles", help="YAML file with your own styles.")] = None,
) -> None:
    """List the style presets."""
    from photomaker.apps.styles import run

    run(more)


@app.command()
@composed
def serve(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8765,
    data: Annotated[
        Path, typer.Option(help="Folder for people, pictures and jobs; it is kept when the server stops.")
    ] = Path("photomaker-data"),
    token_file: Annotated[
        Path | None, typer.Option(help="File with one token on each line; each token is a separate caller.")
    ] = None,
    ttl: Ttl = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=PATH of a LoRA, ControlNet or adapter that callers may use; repeat for more."
        ),
    ] = None,
    max_upload: Annotated[int, typer.Option(min=1, help="Largest request in megabytes.")] = 64,
    max_photos: Annotated[int, typer.Option(min=1, help="Most photos of a person.")] = 16,
    max_megapixels: Annotated[int, typer.Option(min=1, max=134, help="Largest photo in megapixels.")] = 50,
    max_pictures: Annotated[int, typer.Option(min=1, help="Most pictures of a job.")] = 64,
    max_steps: Annotated[int, typer.Option(min=1, max=1000, help="Denoising steps.")] = 100,
    max_side: Annotated[
        int, typer.Option(min=8, help="Side of the largest square that may be drawn.")
    ] = 2048,
    max_waiting: Annotated[int, typer.Option(min=1, help="Most waiting jobs of all callers.")] = 256,
    max_waiting_each: Annotated[int, typer.Option(min=1, help="Most waiting jobs of one caller.")] = 64,
    no_provenance: NoProvenance = False,
    *,
    replicated: Replicated,
    styles: Styles = None,
    method: MethodName = None,
    model: Model,
) -> None:
    """Serve people and pictures over HTTP, to this machine only by default; see docs/serve.md.

    Example: photomaker serve --port 8765 --data photomaker-data
    """
    from photomaker.apps.serve import Served, run, seconds_of
    from photomaker.apps.signing import Signing
    from photomaker.studio.limits import Limits
    from photomaker.studio.opening import PHOTOMAKER

    limits = Limits(
        upload_bytes=max_upload << 20, photos=max_photos, pixels=max_megapixels * 10**6, pictures=max_pictures,
        steps=max_steps, drawn_pixels=max_side**2, waiting=max_waiting, waiting_each=max_waiting_each,
    )  # fmt: skip
    engine = model.settings() | {"styles": styles}
    living = None if ttl is None else seconds_of(ttl)
    elsewhere, signing = replicated.elsewhere(), Signing(not no_provenance)
    run(
        Served(
            host, port, data, token_file, limits, living, tuple(allow or ()), method or PHOTOMAKER, engine, elsewhere,
            signing,
        )
    )  # fmt: skip


@app.command()
@composed
def ui(
    host: Host = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port; if it is in use, the next free one is taken.")
    ] = 7860,
    data: Annotated[
        Path, typer.Option(help="Folder for people and pictures; `serve` can use the same one.")
    ] = Path("photomaker-data"),
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with one token on each line; give each visitor their own."),
    ] = None,
    visitors: Annotated[
        bool,
        typer.Option(
            "--visitors",
            help="Let everybody in without a token; each visitor has a separate page, deleted after an hour.",
        ),
    ] = False,
    ttl: Ttl = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser.")] = False,
    no_provenance: NoProvenance = False,
    *,
    replicated: Replicated,
    styles: Styles = None,
    method: MethodName = None,
    model: Model,
) -> None:
    """Make pictures on a page in the browser; see docs/ui.md.

    Example: photomaker ui
    """
    from photomaker.apps.serve import Served, seconds_of
    from photomaker.apps.signing import Signing
    from photomaker.apps.ui import UPLOAD, Shown, run
    from photomaker.studio.limits import Limits
    from photomaker.studio.opening import PHOTOMAKER

    engine = model.settings() | {"styles": styles}
    living = None if ttl is None else seconds_of(ttl)
    limits = Limits(upload_bytes=UPLOAD)
    elsewhere, signing = replicated.elsewhere(), Signing(not no_provenance)
    served = Served(
        host, port, data, token_file, limits, living, (), method or PHOTOMAKER, engine, elsewhere, signing
    )
    run(Shown(served, not no_browser, visitors))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Gallery to write; an existing one is replaced.")] = Path(
        "out/gallery.png"
    ),
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the pictures.")] = 0,
    device: Device = "auto",
    dtype: Dtype = Precision.AUTO,
    no_provenance: NoProvenance = False,
) -> None:
    """Draw a gallery of two bundled people from their photos."""
    from photomaker.apps.demo import run
    from photomaker.types import Sampling

    run(out, Sampling(steps=steps, seed=seed), device, dtype.value, not no_provenance)


@app.command()
def doctor() -> None:
    """Show what is installed, what will be used, and what is missing."""
    from photomaker.apps.doctor import run

    raise typer.Exit(0 if run() else 1)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Adapter file, .bin or .safetensors.")],
    target: Annotated[Path, typer.Argument(help="File to write; the ending chooses the format.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Convert a PhotoMaker .bin to .safetensors or back, and check that every number is the same."""
    from photomaker.apps.convert import run

    run(source, target, overwrite)


@app.command()
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
    from photomaker.apps.evaluate import run

    given = dict(locals())
    run({name: value for name, value in given.items() if name != "run" and value is not None})


@app.command()
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
    from photomaker.apps.speed import run

    run({name: value for name, value in given.items() if name != "run" and value is not None})


@app.command()
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


@app.command()
def train(
    config: Config,
    changes: Changes = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start again instead of continuing from the last checkpoint.")
    ] = False,
    export_only: Annotated[
        bool, typer.Option("--export-only", help="Export from the checkpoints, train nothing.")
    ] = False,
) -> None:
    """Train an adapter for an SDXL model, or continue a training that was stopped.

    In several processes: torchrun --nproc-per-node 8 --no-python photomaker train config.yaml
    """
    from photomaker.apps.train import run

    run(config, changes or (), fresh, export_only)


@app.command()
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


@app.command()
def bench(
    size: Annotated[
        list[int] | None, typer.Option(help="Side of the pictures; repeat for more. (default: 512, 1024)")
    ] = None,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 4,
    rounds: Annotated[int, typer.Option(help="How many times each variant is timed.")] = 2,
    photos: Annotated[int, typer.Option(help="Photos of the identity.")] = 4,
    device: Device = "auto",
    out: Annotated[Path, typer.Option(help="Folder of the result files.")] = Path("benchmarks"),
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


@app.command("bench-train")
def bench_train(
    side: Annotated[int, typer.Option(help="Side of the pictures.")] = 512,
    batch: Annotated[int, typer.Option(help="Pictures in each step.")] = 1,
    steps: Annotated[int, typer.Option(help="Steps to time, after one warm-up step.")] = 2,
    rank: Annotated[int, typer.Option(help="Rank of the LoRA.")] = 64,
    device: Device = "auto",
    out: Annotated[Path, typer.Option(help="Folder of the result files.")] = Path("benchmarks"),
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


@app.command()
def people(
    out: Annotated[Path, typer.Option(help="Folder for the pictures and the contact sheet.")] = Path(
        "out/people"
    ),
    count: Annotated[int, typer.Option(min=1, help="Number of people.")] = 8,
    views: Annotated[int, typer.Option(min=1, help="Pictures of each person.")] = 4,
    split: Annotated[Split, typer.Option(help="Which split the people come from.")] = Split.TEST,
    start: Annotated[int, typer.Option(min=0, help="Number of the first person in the split.")] = 0,
    style: Annotated[
        str | None, typer.Option(help="photo, sketch, painting, pixel art, watercolour. (default: any)")
    ] = None,
    size: Annotated[int, typer.Option(min=32, max=1024, help="Width of a picture in pixels.")] = 128,
    sheet_only: Annotated[bool, typer.Option("--sheet-only", help="Write only the contact sheet.")] = False,
) -> None:
    """Draw synthetic people, as the bundled model was trained on."""
    from photomaker.apps.people import Cast, run

    run(out, Cast(split.value, start, count, views, style, size), sheet_only)


@dataset_app.command("build")
def dataset_build(
    config: Config,
    changes: Changes = None,
    stages: Annotated[
        str | None,
        typer.Option(
            help="Stages to run, separated by commas, or FROM:TO, for example detect:segment. (default: all)"
        ),
    ] = None,
    fresh: Annotated[str | None, typer.Option(help="Do this stage and all later ones again.")] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Use the paper's thresholds.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check the settings and show what would be done.")
    ] = False,
) -> None:
    """Build a dataset, or continue an interrupted build; writes shards, an index and a report."""
    from photomaker.apps.dataset import build

    build(config, changes or (), _names(stages), fresh, paper, dry_run)


@dataset_app.command("report")
def dataset_report(out: Annotated[Path, typer.Argument(help="Folder of a build.")]) -> None:
    """Write the report of a build again; the build may be unfinished."""
    from photomaker.apps.dataset import report

    report(out)


@dataset_app.command("stages")
def dataset_stages(config: Config, changes: Changes = None) -> None:
    """Show the progress of each stage of a build."""
    from photomaker.apps.dataset import stages

    stages(config, changes or ())


@dataset_app.command("rehearse")
def dataset_rehearse(
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("out/rehearsal"),
    people: Annotated[int, typer.Option(help="People to plant.")] = 40,
    photos: Annotated[int, typer.Option(help="Files of each person.")] = 10,
    size: Annotated[int, typer.Option(help="Height of the planted photos in pixels, 72 to 1024.")] = 384,
    groups: Annotated[
        int, typer.Option(help="People to measure the verification rules on; 0 skips this.")
    ] = 40,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    served: Annotated[
        bool,
        typer.Option("--served", help="Download the photos from a local server that fails in many ways."),
    ] = False,
    port: Annotated[int, typer.Option(help="Port of that server.")] = 8799,
    measured: Annotated[
        Path | None,
        typer.Option(help="Earlier rehearsal.json whose figures for the rules are reused."),
    ] = None,
) -> None:
    """Build a dataset of synthetic people with planted mistakes, and measure how well the builder finds them."""
    from photomaker.apps.rehearse import Rehearsal, run

    run(out, Rehearsal(people, photos, size, groups, workers, served, port, measured))


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def main() -> None:
    """Run the command line."""
    # imports make millions of objects that stay: looking through them again and again took a seventh of the start
    gc.set_threshold(*RARELY)
    # Said at import, to nobody's use: that image processors run without torchvision.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    app(prog_name="photomaker")


if __name__ == "__main__":
    main()
