"""Carries tasks out, in this process or in several, and keeps every result for a run that continues."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from PIL import Image

from photomaker.errors import OutputError, PhotoError
from photomaker.evaluation.judge import BundledJudge, Judge, Measured
from photomaker.evaluation.references import FaceReferences
from photomaker.evaluation.settings import DTYPES, BenchmarkSettings
from photomaker.evaluation.tasks import Contexts, Followed, Photos, Pictures, Task, key
from photomaker.evaluation.world import SyntheticWorld, World
from photomaker.processes import pool
from photomaker.types import PLAIN, Extras, Identity, Reference, Request, Structure
from photomaker.weights import bundled, model_hash

if TYPE_CHECKING:
    from photomaker.methods.base import Method

Progress = Callable[[str, int, int], None]
"""Called with the stage, the tasks done and the tasks there are."""

POSES_TRIED = 10
LABEL, MORE = "label_", "more_"
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
"""How models are called on a hub: owner and name."""


def open_method(settings: BenchmarkSettings) -> Method:
    """Open the method that is measured, by its name in the registry.

    Raises:
        PhotoMakerError: The method is unknown or its weights are not usable.
    """
    import torch

    from photomaker import registry

    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = settings.dtype
    if dtype == "auto":
        dtype = "bf16" if device.startswith("cuda") else "fp32"
    return registry.find("method", settings.method).open(
        base=settings.base, adapter=settings.adapter, device=device, dtype=getattr(torch, DTYPES[dtype])
    )


def mix_identities(parts: Sequence[tuple[Identity, float]]) -> Identity:
    """A new person between several, photo by photo; see `photomaker.encoders.mixing.mix`."""
    from photomaker.encoders.mixing import mix

    return mix(parts, "blend")


def structure_of(model: str, picture: Image.Image, landmarks: np.ndarray, scale: float) -> Structure:
    """The structure of a picture with a face, as a ControlNet follows it.

    Args:
        model: The ControlNet, as a folder or `bundled`.
        picture: What is followed.
        landmarks: [5, 2] of the face.
        scale: How closely.
    """
    from photomaker import registry

    made: Structure = registry.find("structure", "noted")(model, picture, landmarks, scale)
    return made


def model_hashes(settings: BenchmarkSettings) -> dict[str, str]:
    """Hashes of base and adapter; a base on a hub is named instead, a folder or file never is.

    Raises:
        SettingsError: The method is unknown; that is found out here, before anything is opened.
        WeightsError: The bundled model, or a file or folder named in the settings, is missing.
    """
    from photomaker import registry

    registry.find("method", settings.method)
    base = settings.base if settings.base is not None else bundled("base")
    adapter = settings.adapter if settings.adapter is not None else bundled("adapter/photomaker.safetensors")
    return {"base": base_name(base), "adapter": model_hash(adapter)}


def base_name(base: str | Path) -> str:
    """What a base model is called in results: its name on a hub, or the hash of its folder.

    Raises:
        WeightsError: The folder is missing.
    """
    on_hub = isinstance(base, str) and HUB_NAME.fullmatch(base) and not Path(base).exists()
    return str(base) if on_hub else model_hash(base)


@dataclass(frozen=True)
class Tools:
    """How a process gets what it works with: module-level functions, so that they reach other processes.

    Attributes:
        world: Opens the source of real photos.
        judge: Opens what measures pictures.
        references: Opens what prepares photos, with a person's name, for a method.
        method: Opens the method.
        mix: Mixes identities with their weights.
        models: Hashes of the models behind the method: names to a few hexadecimal digits.
        follow: Draws the structure of a picture for a ControlNet.
    """

    world: Callable[[], World] = SyntheticWorld
    judge: Callable[[], Judge] = BundledJudge.open
    references: Callable[[], Callable[[Sequence[Image.Image], str], list[Reference]]] = FaceReferences.open
    method: Callable[[BenchmarkSettings], Method] = open_method
    mix: Callable[[Sequence[tuple[Identity, float]]], Identity] = mix_identities
    models: Callable[[BenchmarkSettings], Mapping[str, str]] = model_hashes
    follow: Callable[[str, Image.Image, np.ndarray, float], Structure] = structure_of


@dataclass(frozen=True)
class Made:
    """Pictures of one task.

    Attributes:
        pictures: The pictures.
        seconds: How long generating took; 0 for real ones.
        refused: Whether the method could do nothing with the photos; the pictures are grey then.
        followed: [5, 2] landmarks that the pictures were to have.
    """

    pictures: list[Image.Image]
    seconds: float = 0.0
    refused: bool = False
    followed: np.ndarray | None = None


class Worker:
    """Makes and measures the pictures of one task at a time; opens what it needs when it first needs it."""

    def __init__(self, settings: BenchmarkSettings, tools: Tools) -> None:
        """Open nothing yet."""
        self._settings = settings
        self._tools = tools

    @cached_property
    def world(self) -> World:
        """Where real photos come from."""
        return self._tools.world()

    @cached_property
    def judge(self) -> Judge:
        """Who measures."""
        return self._tools.judge()

    @cached_property
    def prepare(self) -> Callable[[Sequence[Image.Image], str], list[Reference]]:
        """Turns photos into references."""
        return self._tools.references()

    @cached_property
    def method(self) -> Method:
        """What is measured."""
        return self._tools.method(self._settings)

    def make(self, task: Task) -> Made:
        """Make the pictures of a task."""
        match task:
            case Photos():
                return Made(self.world.photos(task.person, task.role, task.count))
            case Contexts():
                states = [dict(pairs) for pairs in task.states]
                made = [
                    self.world.context(task.person, seed, stated, task.as_class)
                    for seed, stated in zip(task.seeds, states, strict=True)
                ]
                return Made(made)
            case Pictures():
                return self._generate(task)
            case Followed():
                return self._follow(task)

    def measure(self, task: Task, path: Path) -> Path:
        """Carry a task out and keep its result in a file."""
        made = self.make(task)
        measured = self.judge.measure(made.pictures)
        # Nothing was drawn, so nothing that a prompt states can be seen, whatever a classifier says of plain grey.
        arrays: dict[str, Any] = {
            LABEL + name: np.full_like(words, "") if made.refused else words
            for name, words in measured.labels.items()
        }
        arrays |= {MORE + name: values for name, values in measured.more.items()}
        if made.followed is not None:
            apart = self.judge.landmarks(made.pictures) - made.followed
            arrays[f"{MORE}landmark_error"] = np.linalg.norm(apart, axis=-1).mean(-1).astype(np.float32)
        if isinstance(task, Pictures | Followed):
            arrays["pictures"] = np.stack([np.asarray(picture.convert("RGB")) for picture in made.pictures])
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=path.stem, suffix=".part", delete=False
        ) as part:
            np.savez_compressed(
                part, embeddings=measured.embeddings, seconds=np.float64(made.seconds), **arrays
            )
        Path(part.name).replace(path)
        return path

    def identity(self, task: Pictures) -> Identity:
        """The identity a task asks for, fitted or mixed."""
        fitted = [self.method.fit(self._references(person, task.references)) for person in task.people]
        return self._tools.mix(list(zip(fitted, task.weights, strict=True))) if task.weights else fitted[0]

    def _references(self, person: int, count: int) -> list[Reference]:
        return self.prepare(self.world.photos(person, "references", count), f"person {person}")

    def _follow(self, task: Followed) -> Made:
        """Pictures of one person in one pose; a real picture without a face gives way to the next."""
        person, first = task.pose
        for seed in range(first, first + POSES_TRIED):
            picture = self.world.context(person, seed, {})
            (landmarks,) = self.judge.landmarks([picture])
            if np.isfinite(landmarks).all():
                break
        else:
            raise PhotoError(f"person {person} shows no face in {POSES_TRIED} pictures; choose other people")
        extras = PLAIN
        if task.scale:
            extras = Extras(controls=(self._tools.follow(task.control, picture, landmarks, task.scale),))
        return replace(self._generate(task.pictures, extras), followed=landmarks)

    def _generate(self, task: Pictures, extras: Extras = PLAIN) -> Made:
        requests = [
            Request(prompt, task.sampling(seed), extras=extras)
            for prompt, seed in zip(task.prompts, task.seeds, strict=True)
        ]
        try:
            identity = self.identity(task)
        except PhotoError:
            # A method that can do nothing with these photos has no likeness for them; the run continues.
            return Made([Image.new("RGB", (128, 128), (127, 127, 127))] * len(requests), refused=True)
        start = time.perf_counter()
        pictures = self.method.generate(identity, requests)
        return Made(pictures, time.perf_counter() - start)


class Workshop:
    """Carries out lists of tasks. Used as a context manager, it ends its processes."""

    def __init__(
        self,
        settings: BenchmarkSettings,
        tools: Tools,
        folder: Path,
        fingerprint: str,
        progress: Progress | None,
    ) -> None:
        """Prepare; `folder` keeps results and `fingerprint` stands for the models that make them."""
        self._settings = settings
        self._tools = tools
        self._folder = folder
        self._fingerprint = fingerprint
        self._progress = progress or Bar()
        self._pool: ProcessPoolExecutor | None = None
        self._stack = ExitStack()
        self._worker = Worker(settings, tools)
        prepare(folder, keep=settings.resume)

    def __enter__(self) -> Self:
        """Set this process's threads, where it does the work itself."""
        import torch

        self._threads = torch.get_num_threads()
        if self._settings.processes == 1:
            torch.set_num_threads(self._settings.threads)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the other processes, without waiting for tasks that have not begun; give back the threads."""
        import torch

        torch.set_num_threads(self._threads)
        self._stack.__exit__(kind, error, trace)

    @property
    def world(self) -> World:
        """Where real photos come from, in this process."""
        return self._worker.world

    def measure(self, stage: str, tasks: Sequence[Task]) -> list[Measured]:
        """Carry tasks out, as far as their results are not kept already.

        Args:
            stage: What is being done, for the progress bar.
            tasks: The tasks.

        Returns:
            One measurement a task, in their order.

        Raises:
            PhotoMakerError: What the method raises for a mistake of the caller's.
        """
        missing = {self._path(task): task for task in tasks if not self._path(task).exists()}
        done = len(tasks) - len(missing)
        self._progress(stage, done, len(tasks))
        for count, _ in enumerate(self._carry_out(missing), start=done + 1):
            self._progress(stage, count, len(tasks))
        return [read(self._path(task)) for task in tasks]

    def pictures(self, task: Task) -> list[Image.Image]:
        """The pictures of a task that has been measured, or of real photos."""
        if not isinstance(task, Pictures | Followed):
            return self._worker.make(task).pictures
        with np.load(self._path(task)) as file:
            return [Image.fromarray(pixels) for pixels in file["pictures"]]

    def _path(self, task: Task) -> Path:
        return self._folder / f"{key(task, self._fingerprint)}.npz"

    def _carry_out(self, missing: Mapping[Path, Task]) -> Iterator[Path]:
        if self._settings.processes == 1:
            yield from (self._worker.measure(task, path) for path, task in missing.items())
            return
        if missing and self._pool is None:
            self._pool = self._stack.enter_context(
                pool(self._settings.processes, _begin, self._settings, self._tools)
            )
        if self._pool is not None:
            for finished in as_completed(
                [self._pool.submit(_measure, task, path) for path, task in missing.items()]
            ):
                yield finished.result()


def read(path: Path) -> Measured:
    """Read a kept result."""
    with np.load(path) as file:
        labels = {name.removeprefix(LABEL): file[name] for name in file.files if name.startswith(LABEL)}
        more = {name.removeprefix(MORE): file[name] for name in file.files if name.startswith(MORE)}
        return Measured(file["embeddings"], labels, float(file["seconds"]), more)


def prepare(folder: Path, *, keep: bool) -> None:
    """Make the folder for results, and empty it unless what is there should be kept.

    Raises:
        OutputError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.parent.joinpath(".gitignore").write_text("*\n", encoding="utf-8")
        for path in [] if keep else [*folder.glob("*.npz"), *folder.glob("*.part")]:
            path.unlink()
    except OSError as error:
        raise OutputError(
            f"cannot write to {folder}: {error.strerror}; choose another output folder"
        ) from error


class Bar:
    """Progress as bars on the terminal, one a stage."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._bars: dict[str, Any] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """See `Progress`."""
        from tqdm import tqdm

        if stage not in self._bars:
            # What was found done is not a measure of speed, so the bar begins there.
            self._bars[stage] = tqdm(desc=stage, total=total, initial=done, unit="person")
        bar = self._bars[stage]
        bar.update(done - bar.n)
        if done >= total:
            self._bars.pop(stage).close()


_PROCESS: dict[str, Worker] = {}
"""The worker of this process, where it is one of a pool's: a pool calls functions, not methods."""


def _begin(settings: BenchmarkSettings, tools: Tools) -> None:
    import torch

    torch.set_num_threads(settings.threads)
    _PROCESS["worker"] = Worker(settings, tools)


def _measure(task: Task, path: Path) -> Path:
    return _PROCESS["worker"].measure(task, path)
