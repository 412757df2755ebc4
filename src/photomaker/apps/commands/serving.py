"""`photomaker serve` and `photomaker ui`: the engine over HTTP and on a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from photomaker.apps.options import (
    Host,
    MethodName,
    Model,
    NoProvenance,
    Replicated,
    Styles,
    Ttl,
    composed,
)


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
    from photomaker.studio.desk.limits import Limits
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
    from photomaker.studio.desk.limits import Limits
    from photomaker.studio.opening import PHOTOMAKER

    engine = model.settings() | {"styles": styles}
    living = None if ttl is None else seconds_of(ttl)
    limits = Limits(upload_bytes=UPLOAD)
    elsewhere, signing = replicated.elsewhere(), Signing(not no_provenance)
    served = Served(
        host, port, data, token_file, limits, living, (), method or PHOTOMAKER, engine, elsewhere, signing
    )
    run(Shown(served, not no_browser, visitors))
