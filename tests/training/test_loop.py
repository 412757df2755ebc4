"""The loop: it learns, resumes exactly, survives a kill, averages, and two processes equal one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.utils import DistributedType
from torch import Tensor, nn

from photomaker.errors import SettingsError, WeightsError
from photomaker.training.running.loop import (
    Average,
    Recipe,
    RowOrder,
    TrainSettings,
    checkpoints,
    export_checkpoint,
    rate_factor,
    train,
)


class Line(Recipe):
    """Fits a small network to a fixed map; `noisy` draws from both generators and from dropout."""

    name = "line"

    def __init__(self, noisy: bool = True, delay: float = 0.0) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Linear(4, 16), nn.GELU(), nn.Dropout(0.1 if noisy else 0.0), nn.Linear(16, 2)
        )
        self.unused = nn.Linear(3, 3)
        self.data = torch.randn(50, 4)
        self.answers = self.data[:, :2] * 2 - 1
        self.noisy, self.delay = noisy, delay

    def modules(self) -> dict[str, nn.Module]:
        return {"net": self.net, "unused": self.unused}

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [
            {"params": list(self.net.parameters()), "lr": 1e-2},
            {"params": list(self.unused.parameters()), "lr": 1.0},
        ]

    @property
    def rows(self) -> np.ndarray:
        return np.arange(50)

    def loss(
        self, rows: np.ndarray, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        time.sleep(self.delay)
        x = self.data[rows]
        if self.noisy:
            x = x + 0.1 * torch.randn(x.shape, generator=generator) * rng.random()
        loss = (self.net(x) - self.answers[rows]).square().mean()
        return loss, {"first_row": float(rows[0])}

    def validate(self, rng: np.random.Generator, generator: torch.Generator) -> dict[str, float]:
        return {"error": float((self.net(self.data) - self.answers).square().mean())}

    def export(self, folder: Path) -> None:
        torch.save(self.net.state_dict(), folder / "net.pt")


def lines(out: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "samples_per_second"} for row in rows]


SETTINGS = TrainSettings(steps=40, batch_size=8, warmup=5, save_every=10, log_every=5, ema_decay=0.9)


def test_loss_falls_and_export_holds_the_average(tmp_path: Path) -> None:
    recipe = Line()
    figures = train(recipe, SETTINGS, tmp_path)
    log = lines(tmp_path)
    assert log[-2]["loss"] < 0.5 * log[0]["loss"]
    assert figures["finished"] == 1
    exported = torch.load(tmp_path / "export" / "net.pt")
    state = torch.load(checkpoints(tmp_path)[-1])
    assert torch.equal(exported["0.weight"], state["average"]["net.0.weight"])
    assert torch.equal(recipe.net[0].weight, state["weights"]["net.0.weight"])
    assert not torch.equal(exported["0.weight"], state["weights"]["net.0.weight"])
    assert len(checkpoints(tmp_path)) == SETTINGS.keep
    assert json.loads((tmp_path / "done.json").read_text())["step"] == 40


def test_resume_is_exact(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(Line(), SETTINGS, whole)

    class Stops(Line):
        def loss(self, *args: Any) -> tuple[Tensor, dict[str, float]]:
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls == 27:
                raise KeyboardInterrupt
            return super().loss(*args)

    with pytest.raises(KeyboardInterrupt):
        train(Stops(), SETTINGS, parts)
    assert lines(parts)[-1]["step"] == 25  # later than the checkpoint of step 20: must be rewritten
    train(Line(), SETTINGS, parts)
    assert lines(whole) == lines(parts)
    a, b = torch.load(checkpoints(whole)[-1]), torch.load(checkpoints(parts)[-1])
    for group in ("weights", "average"):
        assert all(torch.equal(a[group][name], b[group][name]) for name in a[group])


def test_a_stop_request_saves_and_can_go_on(tmp_path: Path) -> None:
    class Asks(Line):
        def loss(self, *args: Any) -> tuple[Tensor, dict[str, float]]:
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls == 13:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().loss(*args)

    assert train(Asks(), SETTINGS, tmp_path)["finished"] == 0
    assert checkpoints(tmp_path)[-1].name in {"step_00000013.pt", "step_00000020.pt"}
    assert train(Line(), SETTINGS, tmp_path)["finished"] == 1


def test_without_resume_it_starts_again(tmp_path: Path) -> None:
    train(Line(), SETTINGS, tmp_path)
    first = lines(tmp_path)
    train(Line(), SETTINGS, tmp_path, resume=False)
    assert lines(tmp_path) == first


def test_export_from_a_checkpoint(tmp_path: Path) -> None:
    train(Line(), SETTINGS, tmp_path)
    wanted = torch.load(tmp_path / "export" / "net.pt")
    got = torch.load(export_checkpoint(Line(), SETTINGS, tmp_path) / "net.pt")
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    with pytest.raises(WeightsError, match="no checkpoint"):
        export_checkpoint(Line(), SETTINGS, tmp_path / "elsewhere")


def test_the_best_checkpoint_outlives_the_last_ones(tmp_path: Path) -> None:
    class Worsens(Line):
        def validate(self, *_: Any) -> dict[str, float]:
            self.times = getattr(self, "times", 0) + 1
            return {"loss": abs(self.times - 2)}

    train(Worsens(), SETTINGS, tmp_path)
    best = tmp_path / "checkpoints" / "best.pt"
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000030.pt", "step_00000040.pt"]
    assert torch.load(best)["step"] == 20
    exported = torch.load(export_checkpoint(Line(), replace(SETTINGS, export="best"), tmp_path) / "net.pt")
    assert torch.equal(exported["0.weight"], torch.load(best)["average"]["net.0.weight"])
    best.unlink()
    checkpoints(tmp_path)[-1].unlink()
    (tmp_path / "checkpoints" / "step_00000030.pt").rename(tmp_path / "checkpoints" / "step_00000020.pt")
    state = torch.load(tmp_path / "checkpoints" / "step_00000020.pt") | {"step": 20}
    torch.save(state, tmp_path / "checkpoints" / "step_00000020.pt")
    train(Worsens(), SETTINGS, tmp_path)  # as if it had been killed before marking step 20
    assert best.is_file()


def test_accumulated_slices_equal_a_larger_one(tmp_path: Path) -> None:
    whole = TrainSettings(steps=10, batch_size=8, ema_decay=0, log_every=1)
    train(Line(noisy=False), whole, tmp_path / "whole")
    train(Line(noisy=False), replace(whole, batch_size=2, accumulate=4), tmp_path / "slices")
    a, b = (torch.load(checkpoints(tmp_path / name)[-1])["weights"] for name in ("whole", "slices"))
    assert all(torch.allclose(a[name], b[name], atol=1e-5) for name in a)
    one, other = lines(tmp_path / "whole"), lines(tmp_path / "slices")
    assert [row["loss"] for row in one if "loss" in row] == pytest.approx(
        [row["loss"] for row in other if "loss" in row], rel=1e-4
    )


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (DistributedType.DEEPSPEED, "configured for DEEPSPEED, which this training does not support"),
        (DistributedType.FSDP, "set fsdp_version: 2"),
    ],
)
def test_other_ways_to_cut_up_a_model_are_refused(
    kind: DistributedType, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accelerate.Accelerator.distributed_type", kind)
    with pytest.raises(SettingsError, match=message):
        train(Line(), SETTINGS, tmp_path)


def test_damaged_or_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    train(Line(), SETTINGS, tmp_path)
    other = Line()
    other.net[0] = nn.Linear(4, 16, bias=False)
    with pytest.raises(WeightsError, match="a different size"):
        train(other, SETTINGS, tmp_path)
    checkpoints(tmp_path)[-1].write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="damaged"):
        train(Line(), SETTINGS, tmp_path)


def test_average() -> None:
    live = {"w": torch.zeros(2)}
    average = Average(live, decay=0.9)
    live["w"] += 1
    average.update(step=0)  # warm-up: decay 0.1
    assert torch.allclose(average.shadow["w"], torch.full((2,), 0.9))
    with average.swapped():
        assert torch.allclose(live["w"], torch.full((2,), 0.9))
    assert torch.equal(live["w"], torch.ones(2))
    for step in range(1000, 1200):
        average.update(step)
    assert torch.allclose(average.shadow["w"], torch.ones(2))


def test_epochs_show_every_row_once() -> None:
    rows = np.arange(100, 123)
    order = RowOrder(rows, np.zeros(23, int), 8, seed=1)
    seen = np.concatenate([order(step) for step in range(23)])
    for epoch in range(8):
        assert sorted(seen[epoch * 23 : (epoch + 1) * 23]) == rows.tolist()
    assert not np.array_equal(seen[:23], seen[23:46])
    assert np.array_equal(RowOrder(rows, np.zeros(23, int), 8, seed=1)(11), order(11))
    assert len(RowOrder(np.arange(3), np.zeros(3, int), 8, seed=1)(0)) == 8


def test_a_step_has_rows_of_one_group_and_all_rows_have_their_turn() -> None:
    groups = np.repeat([4, 7, 9], [40, 20, 4])
    order = RowOrder(np.arange(64), groups, 4, seed=0)
    steps = [order(step) for step in range(16 * 4)]
    assert all(len(set(groups[rows])) == 1 for rows in steps)
    seen = np.bincount(np.concatenate(steps), minlength=64)
    assert set(seen) == {4}
    assert [set(groups[rows]).pop() for rows in steps[:16]] != sorted(groups[rows][0] for rows in steps[:16])
    again = RowOrder(np.arange(64), groups, 4, seed=0)
    assert all(np.array_equal(again(step), steps[step]) for step in (63, 5, 40))


@pytest.mark.parametrize("schedule", ["cosine", "constant", "linear_decay"])
def test_rate(schedule: Any) -> None:
    settings = TrainSettings(steps=100, batch_size=1, warmup=10, schedule=schedule)
    rates = [rate_factor(step, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == 1.0 and rates.index(1.0) in (9, 10)
    assert rates[-1] == 1.0 if schedule == "constant" else rates[-1] < 0.03


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("ema_decay", 1.0),
        ("clip", -1.0),
        ("schedule", "x"),
        ("precision", "fp8"),
    ],
)
def test_settings_are_checked(field: str, value: Any) -> None:
    values: dict[str, Any] = {"steps": 1, "batch_size": 1, field: value}
    with pytest.raises(SettingsError, match=str(value)):
        TrainSettings(**values)


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_loop import Line, TrainSettings, train
train(Line(noisy={noisy}, delay={delay}), TrainSettings(steps=40, batch_size={batch}, warmup=5, save_every=1,
      log_every=5, ema_decay=0.9), Path({out!r}))
"""


def script(tmp_path: Path, **values: Any) -> str:
    path = tmp_path / "run.py"
    path.write_text(SCRIPT.format(here=str(Path(__file__).parent), **values))
    return str(path)


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_a_kill_leaves_a_checkpoint_that_goes_on_exactly(tmp_path: Path) -> None:
    train(
        Line(),
        TrainSettings(steps=40, batch_size=8, warmup=5, save_every=1, log_every=5, ema_decay=0.9),
        tmp_path / "a",
    )
    out = tmp_path / "b"
    command = [sys.executable, script(tmp_path, noisy=True, delay=0.05, batch=8, out=str(out))]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not checkpoints(out) or checkpoints(out)[-1].name < "step_00000012.pt":
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (out / "done.json").exists()
    train(
        Line(), TrainSettings(steps=40, batch_size=8, warmup=5, save_every=1, log_every=5, ema_decay=0.9), out
    )
    a, b = torch.load(checkpoints(tmp_path / "a")[-1]), torch.load(checkpoints(out)[-1])
    assert all(torch.equal(a["weights"][name], b["weights"][name]) for name in a["weights"])


def test_two_processes_equal_one(tmp_path: Path) -> None:
    settings = TrainSettings(steps=40, batch_size=8, warmup=5, save_every=1, log_every=5, ema_decay=0.9)
    train(Line(noisy=False), settings, tmp_path / "one")
    out = tmp_path / "two"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run(
        [*command, script(tmp_path, noisy=False, delay=0, batch=4, out=str(out))],
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    a, b = torch.load(checkpoints(tmp_path / "one")[-1]), torch.load(checkpoints(out)[-1])
    for name in a["weights"]:
        assert torch.allclose(a["weights"][name], b["weights"][name], atol=1e-4), name


def test_a_training_by_the_clock_has_as_many_steps_as_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from photomaker.training.running import loop

    clock = iter([0.0, 6.0, *[6.0] * 100])  # 30 steps took 6 seconds: 45 fit into 9
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))
    settings = TrainSettings(steps=1000, batch_size=8, warmup=5, save_every=0, ema_decay=0.9, seconds=9.0)
    assert train(Line(), settings, tmp_path)["finished"] == 1
    assert torch.load(checkpoints(tmp_path)[-1])["step"] == 45
