"""The command line `photomaker`. Heavy libraries are imported when a command runs, so that `--help` answers at once."""

from __future__ import annotations

import gc
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

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


class Precision(StrEnum):
    """Precisions that a model can run in."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class FaceBackend(StrEnum):
    """What finds and compares faces."""

    AUTO = "auto"
    DLIB = "dlib"
    AURAFACE = "auraface"
    INSIGHTFACE = "insightface"
    BUNDLED = "bundled"
    NONE = "none"


class Where(StrEnum):
    """What draws."""

    LOCAL = "local"
    RAY = "ray"


class Memory(StrEnum):
    """Memory plans."""

    AUTO = "auto"
    MAX_SPEED = "max-speed"
    BALANCED = "balanced"
    LOWEST = "lowest"


class Format(StrEnum):
    """Kinds of files that pictures are written as."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"


class Mixing(StrEnum):
    """How two people are mixed."""

    BLEND = "blend"
    PROPORTION = "proportion"


class Split(StrEnum):
    """Where synthetic people are taken from; no model was trained on validation and test people."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


app = typer.Typer(
    cls=Door,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A few photos of a person in, new pictures of that person out.",
)
identity_app = typer.Typer(
    no_args_is_help=True, help="Make, look at and mix identities: people as small files."
)
app.add_typer(identity_app, name="identity")
photos_app = typer.Typer(no_args_is_help=True, help="Look at a person's photos before anything is drawn.")
app.add_typer(photos_app, name="photos")
provenance_app = typer.Typer(no_args_is_help=True, help="Read and check what pictures say of their making.")
app.add_typer(provenance_app, name="provenance")
dataset_app = typer.Typer(
    no_args_is_help=True, help="Build datasets to train with: people, photos, masks, captions."
)
app.add_typer(dataset_app, name="dataset")

Photos = Annotated[
    list[Path] | None,
    typer.Option("--photos", "-p", help="Folder or picture of the person; may be given several times."),
]
More = Annotated[list[Path] | None, typer.Argument(metavar="[PHOTO]...", help="More photos of the person.")]
Base = Annotated[
    Path | None,
    typer.Option(help="SDXL model as a diffusers folder or hub id. (default: the bundled small model)"),
]
Adapter = Annotated[
    Path | None,
    typer.Option(help="PhotoMaker weights that fit --base: a file or hub id. (default: the bundled ones)"),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[Precision, typer.Option(help="Precision; auto is bf16 or fp16 on a GPU and fp32 on a CPU.")]
MemoryPlan = Annotated[
    Memory, typer.Option("--memory", help="What to keep on the device; auto is the fastest plan that fits.")
]
Faces = Annotated[
    FaceBackend,
    typer.Option(
        help="What finds faces and measures likeness; auto is bundled with the bundled model, else dlib where it is "
        "installed."
    ),
]

FaceModels = Annotated[
    str | None,
    typer.Option(
        "--face-models",
        help="For V2 adapters: folder of ONNX models, or InsightFace pack. (default: buffalo_l)",
    ),
]

Variant = Annotated[
    str | None,
    typer.Option(
        "--variant", help="Form of the base's weights to load, such as fp16. (default: the plain one)"
    ),
]

Executor = Annotated[
    Where, typer.Option("--executor", help="local draws in this process, ray by replicas on a Ray cluster.")
]
ReplicaCount = Annotated[
    int | None, typer.Option("--replicas", min=1, help="With ray: engines. (default: one a device)")
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster", help="With ray: address of a running cluster, such as auto. (default: this machine)"
    ),
]

MethodName = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="Name of the method; docs/methods.md lists them. (default: photomaker, or the identity's)",
    ),
]

NoProvenance = Annotated[
    bool,
    typer.Option(
        "--no-provenance", help="Put no signed manifest into pictures, only IPTC's mark and the text."
    ),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(help="Text file with the passphrase in its first line. (default: it is asked for)"),
]

Config = Annotated[Path, typer.Argument(help="Settings file, YAML; see examples/configs.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a setting, for example run.workers=2; may be given several times."),
]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"photomaker {version('photomaker')}")
        raise typer.Exit


@app.callback()
def root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version and leave.")
    ] = False,
) -> None:
    """A few photos of a person in, new pictures of that person out."""


_WITH_ORDERS = frozenset(
    {
        "orders", "changes", "out", "sheet", "preview", "styles", "method", "base", "adapter", "device", "dtype",
        "faces", "memory", "face_models", "variant", "kind", "no_provenance", "certificate", "key",
        "provenance_prompt", "executor", "replicas", "cluster",
    }
)  # fmt: skip
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
def generate(
    ctx: typer.Context,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="For example 'a photo of a woman img in the snow'; may be given several times."),
    ] = None,
    photos: Photos = None,
    more: More = None,
    identity: Annotated[
        list[Path] | None,
        typer.Option(help="A saved identity, in the place of photos; several are several people."),
    ] = None,
    person: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=PHOTOS or NAME=IDENTITY of one of several people; may be given several times."
        ),
    ] = None,
    pairs: Annotated[
        bool,
        typer.Option(
            "--pairs", help="The first person with the first prompt, and so on, not each with each."
        ),
    ] = False,
    n: Annotated[
        int | None,
        typer.Option("-n", min=1, help="Pictures of each person and prompt. (default: 4, or the seeds)"),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the pictures, or for one picture a name ending in .png, .jpg or .webp; no file is ever "
            "replaced."
        ),
    ] = Path("out"),
    kind: Annotated[
        Format | None,
        typer.Option("--format", help="What pictures are written as. (default: png, or what --out says)"),
    ] = None,
    negative: Annotated[str | None, typer.Option(help="What the pictures shall not show.")] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(
            help="Seed of the first picture, each next one adds 1; or one for each picture. (default: 0)"
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="portrait, landscape, square, or width and height: 640x480. (default: the model's own)"
        ),
    ] = None,
    style: Annotated[
        str, typer.Option(help="Style preset, or none; `photomaker styles` lists them.")
    ] = "none",
    styles: Annotated[Path | None, typer.Option(help="YAML file with styles of your own.")] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="euler, euler a, dpm++ 2m karras, unipc, ddim, lcm and so on. (default: the model's own)"
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
        float, typer.Option(help="Share of the steps, 0 to 1, before guidance begins.")
    ] = 0.0,
    guidance_stop: Annotated[
        float, typer.Option(help="Share of the steps after which guidance ends; steps without it are faster.")
    ] = 1.0,
    merge: Annotated[
        float | None,
        typer.Option(
            help="Share of the steps, 0 to 1, before the person joins the prompt. (default: the model's own)"
        ),
    ] = None,
    best_of: Annotated[
        int, typer.Option(min=1, help="Draw so many times -n, keep those most like the person.")
    ] = 1,
    lora: Annotated[
        list[str] | None,
        typer.Option(help="FILE or FILE:WEIGHT of a further LoRA; may be given several times."),
    ] = None,
    start: Annotated[str | None, typer.Option(help="Picture to start from.")] = None,
    strength: Annotated[float, typer.Option(help="How much of it is drawn anew, above 0 to 1.")] = 0.6,
    mask: Annotated[
        str | None, typer.Option(help="Mask of its size: white is drawn anew, black stays as it is.")
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(
            help="MODEL=PICTURE or MODEL=PICTURE:SCALE of a ControlNet; may be given several times."
        ),
    ] = None,
    t2i: Annotated[str | None, typer.Option("--t2i", help="The same of a T2I-Adapter.")] = None,
    style_picture: Annotated[
        str | None, typer.Option(help="PICTURE or PICTURE:SCALE whose look is taken over, by an IP-Adapter.")
    ] = None,
    style_adapter: Annotated[
        str | None, typer.Option(help="That IP-Adapter's file or hub id. (default: the bundled one)")
    ] = None,
    together: Annotated[
        bool,
        typer.Option(
            "--together", help="All the people in each picture; the prompt has 'img' behind each class word."
        ),
    ] = False,
    layout: Annotated[
        list[str] | None,
        typer.Option(
            help="Where each of them is: left, middle, right, a box 0,0,0.5,1 or a mask; one for each, in their order."
        ),
    ] = None,
    pose: Annotated[
        str | None,
        typer.Option(
            help="PICTURE or PICTURE:SCALE with a face whose place and turn are taken over, or photo, draft, none."
        ),
    ] = None,
    redraw: Annotated[
        str,
        typer.Option(
            help="Draw small faces again, larger: off, auto (below a quarter of the model's side), or pixels."
        ),
    ] = "off",
    sheet: Annotated[bool, typer.Option("--sheet", help="A labelled sheet of all pictures as well.")] = False,
    preview: Annotated[
        Path | None, typer.Option(help="PNG that shows, step by step, what is being drawn; it is replaced.")
    ] = None,
    orders: Annotated[
        Path | None,
        typer.Option(help="YAML file of many orders, in the place of prompt and people; see docs/using.md."),
    ] = None,
    changes: Changes = None,
    executor: Executor = Where.LOCAL,
    replicas: ReplicaCount = None,
    cluster: Cluster = None,
    no_provenance: NoProvenance = False,
    certificate: Annotated[
        Path | None,
        typer.Option(help="PEM file of the certificate to sign by. (default: one that is made at first use)"),
    ] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of its private key.")] = None,
    provenance_prompt: Annotated[
        bool, typer.Option("--provenance-prompt", help="Tell the prompt in the signed manifest too.")
    ] = False,
    method: MethodName = None,
    base: Base = None,
    adapter: Adapter = None,
    device: Device = "auto",
    dtype: Dtype = Precision.AUTO,
    faces: Faces = FaceBackend.AUTO,
    memory: MemoryPlan = Memory.AUTO,
    face_models: FaceModels = None,
    variant: Variant = None,
) -> None:
    """Make pictures of the person in some photos.

    Example: photomaker generate --photos examples/ada --prompt "a photo of a woman img in the snow" -n 4 --out out/
    """
    from photomaker.apps.elsewhere import Elsewhere
    from photomaker.apps.generate import Asked, Output, run, run_orders
    from photomaker.apps.signing import Signing
    from photomaker.types import Sampling

    engine = {
        "base": base, "adapter": adapter, "device": device, "dtype": dtype.value, "faces": faces.value,
        "memory": memory.value, "face_models": face_models, "variant": variant, "styles": styles,
    }  # fmt: skip
    signing = Signing(not no_provenance, certificate, key, provenance_prompt)
    output = Output(out, sheet, preview, None if kind is None else kind.value, signing)
    stated = _stated(ctx)
    if orders is not None:
        beside = [option for name, option in stated.items() if name not in _WITH_ORDERS]
        elsewhere = Elsewhere.of(executor.value, replicas, cluster)
        run_orders(orders, changes or (), output, beside, method, elsewhere, **engine)
        return
    for name, needed in (
        ("changes", "orders"), ("executor", "orders"), ("replicas", "orders"), ("cluster", "orders"),
        ("strength", "start"),
    ):  # fmt: skip
        if name in stated and needed not in stated:
            raise SettingsError(
                f"{stated[name]} is given without --{needed}, to which it belongs; give that too"
            )
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
        list[Path], typer.Argument(help="Folders and pictures of one person.", metavar="PHOTO...")
    ],
    faces: Faces = FaceBackend.AUTO,
    json: Annotated[Path | None, typer.Option(help="JSON file to write the report to.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="PNG to write: the photos with their verdicts.")] = None,
) -> None:
    """Say which photos will serve, which will not, why, and what to do about it."""
    from photomaker.apps.photos import check

    check(places, faces.value, json, sheet)


@identity_app.command("make")
def identity_make(
    out: Annotated[Path, typer.Option(help="File to write, for example ada.safetensors.")],
    photos: Photos = None,
    more: More = None,
    method: MethodName = None,
    class_word: Annotated[
        str | None,
        typer.Option(help="What a method that is tuned for each person calls this one, such as woman."),
    ] = None,
    consent: Annotated[
        str | None,
        typer.Option(help="Who agreed, when, and to what; kept with the person and told by every picture."),
    ] = None,
    base: Base = None,
    adapter: Adapter = None,
    device: Device = "auto",
    dtype: Dtype = Precision.AUTO,
    faces: Faces = FaceBackend.AUTO,
    face_models: FaceModels = None,
    variant: Variant = None,
) -> None:
    """Make an identity of photos and save it; it stands for the photos from then on."""
    from photomaker.apps.identities import make

    engine = {"base": base, "adapter": adapter, "device": device, "dtype": dtype.value, "faces": faces.value}
    given = [*(photos or ()), *(more or ())]
    make(given, out, method, class_word, consent, **engine, face_models=face_models, variant=variant)


@identity_app.command("show")
def identity_show(file: Annotated[Path, typer.Argument(help="An identity file.")]) -> None:
    """Say what an identity file holds."""
    from photomaker.apps.identities import show

    show(file)


@identity_app.command("mix")
def identity_mix(
    first: Annotated[Path, typer.Argument(help="Identity file that share 0 gives.")],
    second: Annotated[Path, typer.Argument(help="Identity file that share 1 gives.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    share: Annotated[float, typer.Option(help="Share of the second person, 0 to 1.")] = 0.5,
    how: Annotated[
        Mixing, typer.Option(help="Interpolate features, or take photos in proportion.")
    ] = Mixing.BLEND,
) -> None:
    """Make a new person between two."""
    from photomaker.apps.identities import mix

    mix(first, second, out, share, how.value)


@identity_app.command("encrypt")
def identity_encrypt(
    file: Annotated[Path, typer.Argument(help="An identity file.")],
    out: Annotated[Path | None, typer.Option(help="File to write. (default: FILE.age)")] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Write an identity as an encrypted file (age), to be opened by a passphrase."""
    from photomaker.apps.identities import encrypt

    encrypt(file, out, passphrase_file)


@identity_app.command("decrypt")
def identity_decrypt(
    file: Annotated[Path, typer.Argument(help="An encrypted identity file.")],
    out: Annotated[Path | None, typer.Option(help="File to write. (default: FILE without .age)")] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Write an encrypted identity as a plain file."""
    from photomaker.apps.identities import decrypt

    decrypt(file, out, passphrase_file)


@provenance_app.command("show")
def provenance_show(
    file: Annotated[Path, typer.Argument(help="A picture.")],
    json: Annotated[bool, typer.Option("--json", help="Say it as JSON.")] = False,
    trust: Annotated[
        Path | None, typer.Option(help="PEM file of certificates that you trust beside this machine's own.")
    ] = None,
    original: Annotated[
        Path | None, typer.Option(help="A signed picture, to compare a copy with that lost its manifest.")
    ] = None,
) -> None:
    """Read and check what a picture says of its making, and what was done to it since.

    Status 0: unchanged, signed by a known certificate; 4: unchanged, signed by an unknown one; 1: altered;
    3: no manifest; 2: it cannot be read.
    """
    from photomaker.apps.provenance import show

    raise typer.Exit(show(file, json, trust, original))


@app.command("styles")
def list_styles(
    more: Annotated[Path | None, typer.Option("--styles", help="YAML file with styles of your own.")] = None,
) -> None:
    """List the style presets."""
    from photomaker.apps.styles import run

    run(more)


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; another than this machine's own needs --token-file.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8765,
    data: Annotated[
        Path, typer.Option(help="Folder in which people, pictures and jobs are kept; it outlives the server.")
    ] = Path("photomaker-data"),
    token_file: Annotated[
        Path | None, typer.Option(help="File with a token on each line; each is a caller of their own.")
    ] = None,
    ttl: Annotated[
        str | None, typer.Option(help="Delete what is older: 30m, 24h, 7d. (default: all is kept)")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=PATH of a LoRA, ControlNet or adapter that callers may ask for; may be given several times."
        ),
    ] = None,
    max_upload: Annotated[int, typer.Option(min=1, help="Megabytes of a request.")] = 64,
    max_photos: Annotated[int, typer.Option(min=1, help="Photos of a person.")] = 16,
    max_megapixels: Annotated[int, typer.Option(min=1, max=134, help="Megapixels of a photo.")] = 50,
    max_pictures: Annotated[int, typer.Option(min=1, help="Pictures of a job.")] = 64,
    max_steps: Annotated[int, typer.Option(min=1, max=1000, help="Denoising steps.")] = 100,
    max_side: Annotated[int, typer.Option(min=8, help="Side of the largest square that is drawn.")] = 2048,
    max_waiting: Annotated[int, typer.Option(min=1, help="Jobs that wait, of all callers.")] = 256,
    max_waiting_each: Annotated[int, typer.Option(min=1, help="Jobs that wait, of one caller.")] = 64,
    no_provenance: NoProvenance = False,
    executor: Executor = Where.LOCAL,
    replicas: ReplicaCount = None,
    cluster: Cluster = None,
    styles: Annotated[Path | None, typer.Option(help="YAML file with styles of your own.")] = None,
    method: MethodName = None,
    base: Base = None,
    adapter: Adapter = None,
    device: Device = "auto",
    dtype: Dtype = Precision.AUTO,
    faces: Faces = FaceBackend.AUTO,
    memory: MemoryPlan = Memory.AUTO,
    face_models: FaceModels = None,
    variant: Variant = None,
) -> None:
    """Serve people and pictures over HTTP, to this machine alone unless told otherwise; see docs/serve.md.

    Example: photomaker serve --port 8765 --data photomaker-data
    """
    from photomaker.apps.elsewhere import Elsewhere
    from photomaker.apps.serve import Served, run, seconds_of
    from photomaker.apps.signing import Signing
    from photomaker.studio.limits import Limits
    from photomaker.studio.opening import PHOTOMAKER

    limits = Limits(
        upload_bytes=max_upload << 20, photos=max_photos, pixels=max_megapixels * 10**6, pictures=max_pictures,
        steps=max_steps, drawn_pixels=max_side**2, waiting=max_waiting, waiting_each=max_waiting_each,
    )  # fmt: skip
    engine = {
        "base": base, "adapter": adapter, "device": device, "dtype": dtype.value, "faces": faces.value,
        "memory": memory.value, "face_models": face_models, "variant": variant, "styles": styles,
    }  # fmt: skip
    living = None if ttl is None else seconds_of(ttl)
    elsewhere, signing = Elsewhere.of(executor.value, replicas, cluster), Signing(not no_provenance)
    run(
        Served(
            host, port, data, token_file, limits, living, tuple(allow or ()), method or PHOTOMAKER, engine, elsewhere,
            signing,
        )
    )  # fmt: skip


@app.command()
def ui(
    host: Annotated[
        str, typer.Option(help="Address to listen on; another than this machine's own needs --token-file.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port; where it is in use, the next free one is taken.")
    ] = 7860,
    data: Annotated[
        Path, typer.Option(help="Folder in which people and pictures are kept; the same as `serve` has.")
    ] = Path("photomaker-data"),
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with a token on each line; visitors type one, and each has their own."),
    ] = None,
    visitors: Annotated[
        bool,
        typer.Option(
            "--visitors",
            help="Let everybody in without a token, each with a page of their own that is deleted after an hour.",
        ),
    ] = False,
    ttl: Annotated[
        str | None, typer.Option(help="Delete what is older: 30m, 24h, 7d. (default: all is kept)")
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Open no browser.")] = False,
    no_provenance: NoProvenance = False,
    executor: Executor = Where.LOCAL,
    replicas: ReplicaCount = None,
    cluster: Cluster = None,
    styles: Annotated[Path | None, typer.Option(help="YAML file with styles of your own.")] = None,
    method: MethodName = None,
    base: Base = None,
    adapter: Adapter = None,
    device: Device = "auto",
    dtype: Dtype = Precision.AUTO,
    faces: Faces = FaceBackend.AUTO,
    memory: MemoryPlan = Memory.AUTO,
    face_models: FaceModels = None,
    variant: Variant = None,
) -> None:
    """Show a page on which pictures are made in a browser; see docs/ui.md.

    Example: photomaker ui
    """
    from photomaker.apps.elsewhere import Elsewhere
    from photomaker.apps.serve import Served, seconds_of
    from photomaker.apps.signing import Signing
    from photomaker.apps.ui import UPLOAD, Shown, run
    from photomaker.studio.limits import Limits
    from photomaker.studio.opening import PHOTOMAKER

    engine = {
        "base": base, "adapter": adapter, "device": device, "dtype": dtype.value, "faces": faces.value,
        "memory": memory.value, "face_models": face_models, "variant": variant, "styles": styles,
    }  # fmt: skip
    living = None if ttl is None else seconds_of(ttl)
    limits = Limits(upload_bytes=UPLOAD)
    elsewhere, signing = Elsewhere.of(executor.value, replicas, cluster), Signing(not no_provenance)
    served = Served(
        host, port, data, token_file, limits, living, (), method or PHOTOMAKER, engine, elsewhere, signing
    )
    run(Shown(served, not no_browser, visitors))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Gallery to write; an older one is replaced.")] = Path(
        "out/gallery.png"
    ),
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the pictures.")] = 0,
    device: Device = "auto",
    dtype: Dtype = Precision.AUTO,
    no_provenance: NoProvenance = False,
) -> None:
    """Make a gallery of two bundled people from their photos."""
    from photomaker.apps.demo import run
    from photomaker.types import Sampling

    run(out, Sampling(steps=steps, seed=seed), device, dtype.value, not no_provenance)


@app.command()
def doctor() -> None:
    """Say what is installed, what will be used, and what is missing for what."""
    from photomaker.apps.doctor import run

    raise typer.Exit(0 if run() else 1)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Adapter file, .bin or .safetensors.")],
    target: Annotated[Path, typer.Argument(help="File to write; its ending names the form.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Turn a PhotoMaker .bin into .safetensors, or back, and compare every number."""
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
    out: Annotated[
        Path | None, typer.Option(help="Folder of the result files. (default: benchmarks)")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="test, or validation while something is still chosen.")
    ] = None,
    people: Annotated[int | None, typer.Option(help="People scored. (default: 100)")] = None,
    prompts: Annotated[
        int | None, typer.Option(help="How many prompts, from the first on. (default: all)")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Pictures a person and prompt. (default: 2)")] = None,
    references: Annotated[int | None, typer.Option(help="Photos that the method gets. (default: 4)")] = None,
    unseen: Annotated[
        int | None, typer.Option(help="Photos that it never gets, to score by. (default: 6)")
    ] = None,
    gallery: Annotated[
        int | None, typer.Option(help="People among whom one is found. (default: 200)")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps. (default: 20)")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale. (default: what the sweep chooses)")
    ] = None,
    merge: Annotated[
        float | None, typer.Option(help="Merge share, 0 to 1. (default: what the sweep chooses)")
    ] = None,
    merges: Annotated[str | None, typer.Option(help="Merge shares to sweep over, with commas.")] = None,
    guidances: Annotated[str | None, typer.Option(help="Guidance scales to sweep over, with commas.")] = None,
    sweep_people: Annotated[
        int | None, typer.Option(help="People of the sweep, never scored. (default: 20)")
    ] = None,
    accuracy_bar: Annotated[
        float | None, typer.Option(help="Prompt accuracy that the sweep must keep.")
    ] = None,
    pairs: Annotated[int | None, typer.Option(help="Pairs of people that are mixed. (default: 30)")] = None,
    parts: Annotated[
        str | None, typer.Option(help="Parts of the benchmark, with commas. (default: all)")
    ] = None,
    processes: Annotated[int | None, typer.Option(help="Processes at work. (default: 2)")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of each process. (default: 1)")] = None,
    device: Device = "auto",
    dtype: Dtype = Precision.AUTO,
    samples: Annotated[int | None, typer.Option(help="Bootstrap resamples. (default: 2000)")] = None,
    resume: Annotated[bool, typer.Option(help="Go on where an interrupted run stopped.")] = True,
) -> None:
    """Measure likeness, prompt accuracy and more on people nothing was trained on; writes JSON, tables and plots."""
    from photomaker.apps.evaluate import run

    given = dict(locals())
    run({name: value for name, value in given.items() if name != "run" and value is not None})


@app.command()
def speed(
    people: Annotated[int | None, typer.Option(help="People scored. (default: 50)")] = None,
    prompts: Annotated[int | None, typer.Option(help="Prompts, from the first on. (default: 10)")] = None,
    seeds: Annotated[int | None, typer.Option(help="Pictures a person and prompt. (default: 2)")] = None,
    split: Annotated[
        str | None, typer.Option(help="test, or validation while something is still chosen.")
    ] = None,
    ways: Annotated[
        str | None,
        typer.Option(help='Ways to draw, with semicolons, such as "fast;unipc 10". (default: all)'),
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="How often each way is timed. (default: 5)")] = None,
    pictures: Annotated[int | None, typer.Option(help="Pictures timed together. (default: 1)")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the results; goes on where a run stopped. (default: benchmarks)"),
    ] = None,
    processes: Annotated[int | None, typer.Option(help="Processes at work. (default: 2)")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of each process. (default: 1)")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps. (default: auto)")] = None,
    dtype: Annotated[
        Precision | None,
        typer.Option(help="Precision; auto is bf16 on a GPU and fp32 on a CPU. (default: auto)"),
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Bootstrap resamples. (default: 2000)")] = None,
) -> None:
    """Measure what drawing with less work costs in likeness, prompt accuracy and sharpness; writes a table and a plot.

    Example: photomaker speed --people 4 --prompts 2 --seeds 1 --split validation --ways fast --out out/speed
    """
    given = dict(locals())
    from photomaker.apps.speed import run

    run({name: value for name, value in given.items() if name != "run" and value is not None})


@app.command()
def benchmark(
    methods: Annotated[
        str | None,
        typer.Option(
            help="Names of the methods, with commas. (default: the config's, or all that are known)"
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings file, YAML; see examples/configs/benchmark_paper.yaml.")
    ] = None,
    changes: Changes = None,
    people: Annotated[int | None, typer.Option(help="People scored. (default: 50)")] = None,
    tuned_people: Annotated[
        int | None, typer.Option(help="Of these, for methods that tune weights for each person. (default: 8)")
    ] = None,
    prompts: Annotated[int | None, typer.Option(help="Prompts, from the first on. (default: 10)")] = None,
    seeds: Annotated[int | None, typer.Option(help="Pictures a person and prompt. (default: 2)")] = None,
    references: Annotated[int | None, typer.Option(help="Photos that a method gets. (default: 4)")] = None,
    unseen: Annotated[
        int | None, typer.Option(help="Photos that it never gets, to score by. (default: 6)")
    ] = None,
    gallery: Annotated[
        int | None, typer.Option(help="People among whom one is found. (default: 200)")
    ] = None,
    curve_people: Annotated[
        int | None,
        typer.Option(help="People of the curves over photos and merge step; 0 for none. (default: 20)"),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps, the same for all. (default: 20)")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="test, or validation while something is still chosen.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Base model of all methods. (default: the bundled small model)")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the results; goes on where a run stopped. (default: benchmarks)"),
    ] = None,
    processes: Annotated[int | None, typer.Option(help="Processes at work. (default: 2)")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of each process. (default: 1)")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps. (default: auto)")] = None,
    dtype: Annotated[
        Precision | None,
        typer.Option(help="Precision; auto is bf16 on a GPU and fp32 on a CPU. (default: auto)"),
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Bootstrap resamples. (default: 2000)")] = None,
    readme: Annotated[
        Path | None, typer.Option(help="Text file whose table between the markers is written anew.")
    ] = None,
) -> None:
    """Measure methods side by side on the same people, photos, prompts and noise; writes tables and plots.

    Example: photomaker benchmark --methods photomaker --people 10 --out out/benchmark
    """
    from photomaker.apps.benchmark import run

    given = dict(locals())
    apart = ("run", "config", "changes", "readme")
    options = {name: value for name, value in given.items() if name not in apart and value is not None}
    run(options, config, changes or (), readme)


@app.command()
def train(
    config: Config,
    changes: Changes = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start again instead of going on from the last checkpoint.")
    ] = False,
    export_only: Annotated[
        bool, typer.Option("--export-only", help="Export from the checkpoints, train nothing.")
    ] = False,
) -> None:
    """Train a PhotoMaker adapter around an SDXL model, or go on with a training that was stopped.

    In several processes: torchrun --nproc-per-node 8 --no-python photomaker train config.yaml
    """
    from photomaker.apps.train import run

    run(config, changes or (), fresh, export_only)


@app.command()
def ablate(
    data: Annotated[
        Path | None, typer.Option(help="Folder of synthetic people to train on. (default: some are drawn)")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the result files. (default: benchmarks)")
    ] = None,
    axes: Annotated[
        str | None,
        typer.Option(
            help="Of stacking, mask, noise, target, photos, class_word, with commas. (default: all)"
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Trainings of each variant. (default: 3)")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of a training. (default: 200)")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures a step. (default: 16)")] = None,
    precision: Annotated[str | None, typer.Option(help="Of training: bf16 or fp32. (default: bf16)")] = None,
    new_lora: Annotated[
        bool | None, typer.Option("--new-lora", help="Start without the bundled LoRA; takes many more steps.")
    ] = None,
    train_people: Annotated[int | None, typer.Option(help="People trained on. (default: 800)")] = None,
    views: Annotated[
        int | None, typer.Option(help="Pictures of each, where they are drawn. (default: 10)")
    ] = None,
    people: Annotated[int | None, typer.Option(help="People scored. (default: 24)")] = None,
    prompts: Annotated[
        int | None, typer.Option(help="How many prompts, from the first on. (default: 6)")
    ] = None,
    sampling_steps: Annotated[int | None, typer.Option(help="Denoising steps. (default: 12)")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale. (default: 2)")] = None,
    merge: Annotated[float | None, typer.Option(help="Merge share, 0 to 1. (default: 0.1)")] = None,
    counts: Annotated[
        str | None, typer.Option(help="Numbers of photos, with commas. (default: 1,2,3,4,6,8)")
    ] = None,
    dtype: Annotated[Precision | None, typer.Option(help="Precision of drawing. (default: bf16)")] = None,
    processes: Annotated[int | None, typer.Option(help="Trainings at a time. (default: 2)")] = None,
    samples: Annotated[int | None, typer.Option(help="Bootstrap resamples. (default: 2000)")] = None,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="A rehearsal in which no figure means anything.")
    ] = False,
) -> None:
    """Train adapters that differ in one choice of the method each, and compare them; goes on where it stopped."""
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
        list[int] | None, typer.Option(help="Side of the pictures; may be given twice. (default: 512, 1024)")
    ] = None,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 4,
    rounds: Annotated[int, typer.Option(help="How often each way is timed.")] = 2,
    photos: Annotated[int, typer.Option(help="Photos of the identity.")] = 4,
    device: Device = "auto",
    out: Annotated[Path, typer.Option(help="Folder of the result files.")] = Path("benchmarks"),
    compiled: Annotated[
        bool, typer.Option("--compile", help="Time compiled blocks too; needs a C++ compiler.")
    ] = False,
    tiny: Annotated[bool, typer.Option("--tiny", help="A rehearsal with a tiny model, in seconds.")] = False,
) -> None:
    """Time full-size SDXL with an identity beside plain diffusers, on random weights; takes about 10 GB of memory."""
    from photomaker.apps.bench import run, settings_of
    from photomaker.studio.device import choose

    place = choose(device, "bf16")
    run(settings_of(size or (512, 1024), steps, rounds, photos, place.device, tiny, compiled), out)


@app.command("bench-train")
def bench_train(
    side: Annotated[int, typer.Option(help="Side of the pictures.")] = 512,
    batch: Annotated[int, typer.Option(help="Pictures a step.")] = 1,
    steps: Annotated[int, typer.Option(help="Steps timed, after one that is not.")] = 2,
    rank: Annotated[int, typer.Option(help="Rank of the LoRA.")] = 64,
    device: Device = "auto",
    out: Annotated[Path, typer.Option(help="Folder of the result files.")] = Path("benchmarks"),
    way: Annotated[
        list[int] | None, typer.Option(help="Number of a way, from 0; may be given often. (default: all)")
    ] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="A rehearsal with a tiny model, in a minute.")] = False,
) -> None:
    """Time training steps on full-size SDXL with random weights, beside diffusers' LoRA training."""
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
    views: Annotated[int, typer.Option(min=1, help="Pictures of each.")] = 4,
    split: Annotated[Split, typer.Option(help="Which people.")] = Split.TEST,
    start: Annotated[int, typer.Option(min=0, help="Number of the first person within the split.")] = 0,
    style: Annotated[
        str | None, typer.Option(help="photo, sketch, painting, pixel art, watercolour. (default: any)")
    ] = None,
    size: Annotated[int, typer.Option(min=32, max=1024, help="Width of a picture in pixels.")] = 128,
    sheet_only: Annotated[bool, typer.Option("--sheet-only", help="Write the contact sheet alone.")] = False,
) -> None:
    """Draw synthetic people, the world that the bundled model was trained on."""
    from photomaker.apps.people import Cast, run

    run(out, Cast(split.value, start, count, views, style, size), sheet_only)


@dataset_app.command("build")
def dataset_build(
    config: Config,
    changes: Changes = None,
    stages: Annotated[
        str | None,
        typer.Option(
            help="Stages to run, with commas, or from:to, for example detect:segment. (default: all)"
        ),
    ] = None,
    fresh: Annotated[
        str | None, typer.Option(help="Forget this stage and what follows, and do them again.")
    ] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Take the paper's thresholds.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the settings, say what is to do.")
    ] = False,
) -> None:
    """Build a dataset, or go on where a run stopped; writes shards, an index and a report."""
    from photomaker.apps.dataset import build

    build(config, changes or (), _names(stages), fresh, paper, dry_run)


@dataset_app.command("report")
def dataset_report(out: Annotated[Path, typer.Argument(help="Folder of a build.")]) -> None:
    """Write the report of a build again, also of one that is not finished."""
    from photomaker.apps.dataset import report

    report(out)


@dataset_app.command("stages")
def dataset_stages(config: Config, changes: Changes = None) -> None:
    """Say how far each stage of a build is."""
    from photomaker.apps.dataset import stages

    stages(config, changes or ())


@dataset_app.command("rehearse")
def dataset_rehearse(
    out: Annotated[Path, typer.Option(help="Folder of the rehearsal.")] = Path("out/rehearsal"),
    people: Annotated[int, typer.Option(help="Planted people.")] = 40,
    photos: Annotated[int, typer.Option(help="Files of each.")] = 10,
    size: Annotated[int, typer.Option(help="Height of the planted photos in pixels, 72 to 1024.")] = 384,
    groups: Annotated[
        int, typer.Option(help="People that the rules of verification are measured on; 0 leaves this out.")
    ] = 40,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    served: Annotated[
        bool,
        typer.Option(
            "--served", help="Download the photos from a server on loopback that fails in many ways."
        ),
    ] = False,
    port: Annotated[int, typer.Option(help="Port of that server.")] = 8799,
    measured: Annotated[
        Path | None,
        typer.Option(help="An earlier rehearsal.json, of which the figures of the rules are kept."),
    ] = None,
) -> None:
    """Build a dataset of synthetic people with all that goes wrong planted in it, and say how right it came out."""
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
