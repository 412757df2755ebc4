"""`photomaker generate`: its options, and the order that they make."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from photomaker.apps.options import (
    Changes,
    Format,
    MethodName,
    Model,
    More,
    NoProvenance,
    Photos,
    Replicated,
    Steps,
    Styles,
    composed,
    names,
)
from photomaker.errors import SettingsError

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
    steps: Steps = 20,
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
