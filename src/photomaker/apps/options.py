"""Options shared by several commands, each declared once, and how a command takes a group of them.

A group is a frozen dataclass whose fields are options. A command decorated with `composed` names the group as one
keyword-only parameter: the options appear at that place in the help, and the command gets them as one value.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import typer

if TYPE_CHECKING:
    from photomaker.apps.elsewhere import Elsewhere


class Precision(StrEnum):
    """Precisions that a model can run in."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class FaceBackend(StrEnum):
    """The face backend."""

    AUTO = "auto"
    DLIB = "dlib"
    AURAFACE = "auraface"
    INSIGHTFACE = "insightface"
    BUNDLED = "bundled"
    NONE = "none"


class Where(StrEnum):
    """Where pictures are drawn."""

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
    """The split of the synthetic people; no model was trained on validation and test people."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


Photos = Annotated[
    list[Path] | None,
    typer.Option("--photos", "-p", help="Folder or photo of the person; repeat for more."),
]
More = Annotated[list[Path] | None, typer.Argument(metavar="[PHOTO]...", help="More photos of the person.")]
Base = Annotated[
    Path | None,
    typer.Option(help="SDXL model as a diffusers folder or hub id. (default: the bundled small model)"),
]
Adapter = Annotated[
    Path | None,
    typer.Option(help="PhotoMaker weights for --base: a file or hub id. (default: the bundled ones)"),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[Precision, typer.Option(help="Precision; auto is bf16 or fp16 on a GPU and fp32 on a CPU.")]
MemoryPlan = Annotated[
    Memory,
    typer.Option(
        "--memory", help="Memory plan: what stays in the device's memory; auto is the fastest plan that fits."
    ),
]
Faces = Annotated[
    FaceBackend,
    typer.Option(
        help="Face backend, which also measures likeness; auto is bundled with the bundled model, else dlib if it is "
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
    typer.Option("--variant", help="Variant of the base's weight files, such as fp16. (default: none)"),
]

Executor = Annotated[
    Where,
    typer.Option("--executor", help="local draws in this process; ray draws in replicas on a Ray cluster."),
]
ReplicaCount = Annotated[
    int | None,
    typer.Option("--replicas", min=1, help="With ray: number of engines. (default: one for each device)"),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        help="With ray: address of a running cluster, such as auto. (default: start Ray on this machine)",
    ),
]

MethodName = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="Method; docs/methods.md lists them. (default: the identity's, or photomaker)",
    ),
]

NoProvenance = Annotated[
    bool,
    typer.Option(
        "--no-provenance",
        help="Do not sign pictures; only their text and IPTC mark record how they were made.",
    ),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(help="Text file with the passphrase in its first line. (default: ask for it)"),
]

Config = Annotated[Path, typer.Argument(help="Settings file, YAML; see examples/configs.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a setting, for example run.workers=2; repeat for more."),
]

Host = Annotated[
    str, typer.Option(help="Address to listen on; --token-file is required unless it is this machine's own.")
]
Ttl = Annotated[
    str | None,
    typer.Option(help="Delete everything older than this: 30m, 24h, 7d. (default: keep everything)"),
]
Styles = Annotated[Path | None, typer.Option(help="YAML file with your own styles.")]
Steps = Annotated[int, typer.Option(help="Denoising steps.")]
IdentityFile = Annotated[Path, typer.Argument(help="An identity file.")]
BenchFolder = Annotated[Path, typer.Option(help="Folder of the result files.")]
Results = Annotated[Path | None, typer.Option(help="Folder of the result files. (default: benchmarks)")]
ScoredSplit = Annotated[
    str | None, typer.Option(help="test, or validation while you are still choosing settings.")
]
Seeds = Annotated[int | None, typer.Option(help="Pictures for each person and prompt. (default: 2)")]
Unseen = Annotated[int | None, typer.Option(help="Unseen photos for scoring. (default: 6)")]
Gallery = Annotated[int | None, typer.Option(help="People in the retrieval gallery. (default: 200)")]
Processes = Annotated[int | None, typer.Option(help="Number of processes. (default: 2)")]
Threads = Annotated[int | None, typer.Option(help="Threads of each process. (default: 1)")]
Samples = Annotated[int | None, typer.Option(help="Bootstrap resamples. (default: 2000)")]


@dataclass(frozen=True)
class Without:
    """Names of a group's options that a command does not take; it gets their defaults."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Replicated:
    """Where pictures are drawn: in this process, or in replicas on a Ray cluster."""

    executor: Executor = Where.LOCAL
    replicas: ReplicaCount = None
    cluster: Cluster = None

    def elsewhere(self) -> Elsewhere | None:
        """The replicas asked for, or None for this process.

        Raises:
            SettingsError: An option of Ray is given without it.
        """
        from photomaker.apps.elsewhere import Elsewhere

        return Elsewhere.of(self.executor.value, self.replicas, self.cluster)


@dataclass(frozen=True)
class Model:
    """The model of a command: its weights, its device and the face backend."""

    base: Base = None
    adapter: Adapter = None
    device: Device = "auto"
    dtype: Dtype = Precision.AUTO
    faces: Faces = FaceBackend.AUTO
    memory: MemoryPlan = Memory.AUTO
    face_models: FaceModels = None
    variant: Variant = None

    def settings(self) -> dict[str, Any]:
        """The options as `Engine.open` takes them."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value.value if isinstance(value, StrEnum) else value for name, value in plain.items()}


def names(*groups: type) -> frozenset[str]:
    """The names of all options of some groups."""
    return frozenset(one.name for group in groups for one in fields(group))


def composed(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take groups of options; each group is passed to it as one value."""
    signature = inspect.signature(command, eval_str=True)
    found = {name: _group(one.annotation) for name, one in signature.parameters.items()}
    groups = {name: group for name, group in found.items() if group is not None}
    spread = [new for one in signature.parameters.values() for new in _spread(one, groups.get(one.name))]

    @wraps(command)
    def taken(**given: Any) -> None:
        for name, (group, left_out) in groups.items():
            own = names(group) - set(left_out)
            given[name] = group(**{option: given.pop(option) for option in sorted(own)})
        command(**given)

    # typer reads the options of a command from these two
    taken.__signature__ = signature.replace(parameters=spread)  # type: ignore[attr-defined]
    taken.__annotations__ = {one.name: one.annotation for one in spread}
    return taken


def _group(annotation: Any) -> tuple[type, tuple[str, ...]] | None:  # noqa: ANN401 - any annotation
    """The group behind a parameter and the names it omits; None for a plain option."""
    plain, *marks = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    if not (isinstance(plain, type) and is_dataclass(plain)):
        return None
    return plain, tuple(name for mark in marks if isinstance(mark, Without) for name in mark.names)


def _spread(
    parameter: inspect.Parameter, found: tuple[type, tuple[str, ...]] | None
) -> Iterator[inspect.Parameter]:
    """The parameters that replace this one for typer."""
    if found is None:
        yield parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        return
    group, left_out = found
    hints = get_type_hints(group, include_extras=True)
    for one in fields(group):
        if one.name not in left_out:
            yield _parameter(one, hints[one.name])


def _parameter(option: Field[Any], hint: Any) -> inspect.Parameter:  # noqa: ANN401 - any annotation
    default = inspect.Parameter.empty if option.default is MISSING else option.default
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
