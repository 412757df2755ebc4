"""`photomaker generate`: everything the user can have got wrong is looked at before a diffusion model is loaded."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from photomaker.apps import terminal
from photomaker.apps.identities import fitted
from photomaker.errors import SettingsError
from photomaker.registry import names
from photomaker.studio import Engine, Sitting, check_folder, check_prompt, save_samples
from photomaker.studio.engine import PHOTOMAKER
from photomaker.studio.photos import read_photos
from photomaker.types import Identity, Sample, Sampling


@dataclass(frozen=True)
class Order:
    """What `photomaker generate` was asked for; its options, as they were given."""

    prompt: str
    photos: tuple[Path, ...]
    identity: Path | None
    n: int
    out: Path
    negative: str | None
    sampling: Sampling
    best_of: int


def run(order: Order, method: str | None = None, **engine_options: Any) -> None:
    """Check, generate, save and report.

    Args:
        order: What was asked for.
        method: Name of the method; None is that of the saved identity, else PhotoMaker.
        **engine_options: Passed to `Engine.open`.

    Raises:
        PhotoMakerError: Something in the order cannot be done.
    """
    prompt = check_prompt(order.prompt, order.negative)
    if prompt != order.prompt.strip():
        terminal.note(f"the trigger word was put in: {prompt}")
    check_folder(order.out)
    if bool(order.photos) == (order.identity is not None):
        raise SettingsError("give either --photos or --identity: photos of the person, or a saved identity")
    loaded = None if order.identity is None else Identity.load(order.identity)
    photos = read_photos(order.photos) if order.photos else []
    engine = Engine.open(**engine_options, method=method or _method_of(loaded), image_encoder=loaded is None)
    who: Identity | Sitting
    if loaded is not None:
        who = loaded
    else:
        who = engine.choose(photos)
        terminal.notes(who.notes)
    started = time.perf_counter()
    samples = _generate(engine, who, prompt, order)
    seconds = time.perf_counter() - started
    _report(samples, save_samples(samples, order.out, engine.about), seconds)


def _method_of(identity: Identity | None) -> str:
    """The method that made a saved identity; one that is not known is left to PhotoMaker to refuse."""
    # an identity names its version or form too: photomaker-v1, ip_adapter-plus
    name = "" if identity is None else identity.method.partition("-")[0]
    return name if name in names("method") else PHOTOMAKER


def _generate(engine: Engine, who: Identity | Sitting, prompt: str, order: Order) -> list[Sample]:
    with terminal.waiting("loading the model"):
        plan = getattr(engine.method, "plan", None)
    identity = who if isinstance(who, Identity) else fitted(engine, who, engine.class_word(prompt))
    if plan is not None and plan.name != "max-speed":
        terminal.note(plan.line())
    with terminal.progress("generating") as progress:
        return engine.generate(
            identity,
            prompt,
            n=order.n,
            sampling=order.sampling,
            negative=order.negative,
            best_of=order.best_of,
            progress=progress,
        )


def _report(samples: list[Sample], paths: list[Path], seconds: float) -> None:
    rows = [
        (str(path), str(sample.request.sampling.seed), terminal.likeness(sample.likeness))
        for path, sample in zip(paths, samples, strict=True)
    ]
    terminal.table(
        f"{len(rows)} pictures in {seconds:.1f} s", ("file", "seed", "likeness"), rows, ("seed", "likeness")
    )
