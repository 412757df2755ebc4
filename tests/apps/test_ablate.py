"""`photomaker ablate`: settings and mistakes, what is done again after a stop, and figures from beginning to end."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.evaluation.fakes import TOOLS
from typer.testing import CliRunner

from photomaker.apps.ablate import SyntheticTrainer
from photomaker.apps.cli import app
from photomaker.errors import PhotoMakerError, SettingsError
from photomaker.evaluation.plans.ablate import figures as ablation
from photomaker.evaluation.plans.ablate.plan import OUTPUT, Kept, Variant, run
from photomaker.evaluation.plans.ablate.settings import SHIPPED, AblationSettings, Job
from photomaker.evaluation.plans.grid import Scores
from photomaker.evaluation.running.runner import Runner
from photomaker.evaluation.running.store import Store
from photomaker.synthetic import VALIDATION
from photomaker.synthetic.dataset import WorldPlan, write_world

LIKENESS = {"reference": 0.4, "average": 0.32, "linear": 0.36, "no_mask": 0.44, SHIPPED: 0.6}
"""Of 0.8 that real pictures reach."""


def known(job: Job, people: int, photos: int) -> Scores:
    """Scores whose figures are known: seed s is 0.02 s better, each photo 0.01."""
    stated = np.full((people, 8), 2.0)
    likeness = LIKENESS[job.variant] + 0.02 * job.seed + 0.01 * (photos - 4)
    spread = np.linspace(-0.1, 0.1, people)
    return Scores(
        likeness + spread,
        np.full(people, 0.8),
        np.full(people, 0.06),
        np.full(people, 3.0),
        0.5 * stated,
        stated,
    )


class PlanAlone(SyntheticTrainer):
    """Takes the plan of the people for the people, since nothing is trained."""

    def check(self, settings: AblationSettings, root: Path) -> None:
        pass

    prepare = check


TRAINER = PlanAlone()


def pretend(kept: Kept, job: Job) -> bool:
    """Does a job at once, and leaves a line about it."""
    settings = kept.settings
    with (settings.out / "carried.txt").open("a") as file:
        file.write(f"{job.called}\n")
    counts = settings.counts_of(job.variant)
    ablation.write_scores(kept.scores(job), {count: known(job, settings.people, count) for count in counts})
    return True


def refuse(kept: Kept, job: Job) -> bool:
    if job.variant == "reference":
        raise SettingsError("the reference is refused; take another")
    return pretend(kept, job)


def stop(kept: Kept, job: Job) -> bool:
    return job.variant != "average" and pretend(kept, job)


def crash(kept: Kept, job: Job) -> bool:
    raise RuntimeError("out of order")


def train_until_asked(kept: Kept, job: Job) -> bool:
    """As a training does that writes a checkpoint when it is asked to end."""
    folder = kept.training(job)
    (folder / "began").touch()
    try:
        time.sleep(60)
    finally:
        (folder / "checkpoint").touch()
    return True


def finished(settings: AblationSettings, carry=pretend):
    return run(settings, TRAINER, TOOLS, carry=carry)


def variants(settings: AblationSettings, jobs: list[Job], carry) -> tuple[Kept, list[Variant]]:
    kept = Kept(settings, TRAINER, TOOLS)
    return kept, [Variant(job, kept, carry) for job in jobs]


@pytest.fixture
def settings(tmp_path: Path) -> AblationSettings:
    """Two axes on fakes; the data is a plan alone, since nothing is trained."""
    data = tmp_path / "people"
    data.mkdir()
    (data / "plan.json").write_text("{}")
    return AblationSettings(
        data=data,
        out=tmp_path / "out",
        axes=("stacking", "photos"),
        people=5,
        prompts=2,
        processes=1,
        samples=20,
        counts=(1, 4, 8),
    )


def carried(settings: AblationSettings) -> list[str]:
    path = settings.out / "carried.txt"
    lines = path.read_text().splitlines() if path.is_file() else []
    path.unlink(missing_ok=True)
    return sorted(lines)


def test_the_figures_are_those_of_the_scores(settings: AblationSettings) -> None:
    result = finished(settings)
    found = json.loads(result.json.read_text())
    variants = found["variants"]
    assert list(variants) == ["average", "linear", "reference"]
    assert variants["reference"]["figures"]["likeness"]["value"] == pytest.approx(0.42 / 0.8)
    assert variants["reference"]["by_seed"]["likeness"] == pytest.approx([0.5, 0.525, 0.55])
    assert variants["average"]["difference"]["likeness"]["value"] == pytest.approx(-0.1)
    assert (
        variants["reference"]["figures"]["likeness"]["low"]
        < 0.525
        < variants["reference"]["figures"]["likeness"]["high"]
    )
    assert variants["reference"]["figures"]["copy_paste"]["value"] == pytest.approx(0.02)
    assert variants["linear"]["figures"]["prompt_accuracy"]["value"] == pytest.approx(0.5)
    assert list(found["photos"]) == ["1", "4", "8"]
    assert found["photos"]["8"]["difference"]["likeness"]["value"] == pytest.approx(0.07 / 0.8)
    assert "difference" not in found["photos"]["1"]
    assert found["shipped"]["figures"]["likeness"]["value"] == pytest.approx(0.75)
    page = result.markdown.read_text()
    assert "75.0 %" in page and "200 steps of 16 pictures" in page
    assert "over the 5 people" in page and "3 training seeds" in page
    assert {path.name for path in result.plots} == {"ablation_stacking.png", "ablation_photos.png"}
    assert all(
        path.read_bytes().startswith(b"\x89PNG") and f"]({path.name})" in page for path in result.plots
    )
    assert found["command"] == (
        "photomaker ablate --axes stacking,photos --people 5 --prompts 2 --counts 1,4,8 --samples 20"
    )


def test_what_is_done_is_not_done_again_and_what_has_changed_is(settings: AblationSettings) -> None:
    first = finished(settings)
    assert len(carried(settings)) == 1 + 3 * 3
    second = finished(settings)
    assert carried(settings) == []
    assert second.document["variants"] == first.document["variants"]
    Kept(settings, TRAINER, TOOLS).scores(Job("linear", 2)).unlink()
    finished(settings)
    assert carried(settings) == ["linear, seed 2"]
    finished(replace(settings, seeds=4))
    assert carried(settings) == ["average, seed 3", "linear, seed 3", "reference, seed 3"]
    finished(replace(settings, counts=(1, 2)))
    assert all(
        line.startswith("reference") or "shipped" in line or "seed" in line for line in carried(settings)
    )
    finished(replace(settings, seeds=1, steps=20))
    assert carried(settings) == ["average, seed 0", "linear, seed 0", "reference, seed 0"]
    finished(replace(settings, seeds=1, axes=("mask",)))
    assert "no mask, seed 0" in carried(settings)


def test_more_people_to_score_are_scored_but_nothing_is_trained_again(settings: AblationSettings) -> None:
    kept, more = (
        Kept(one, TRAINER, TOOLS) for one in (settings, replace(settings, people=7, sampling_steps=4))
    )
    job = Job("linear", 1)
    assert kept.training(job) == more.training(job) and kept.pictures(job) == more.pictures(job)
    assert kept.scores(job) != more.scores(job)
    for change in (
        {"steps": 7},
        {"batch_size": 3},
        {"train_people": 10},
        {"precision": "fp32"},
        {"new_lora": True},
    ):
        assert Kept(replace(settings, **change), TRAINER, TOOLS).training(job) != kept.training(job), change
    assert kept.training(Job("linear", 0)) != kept.training(job) != kept.training(Job("average", 1))


def test_a_run_that_was_stopped_goes_on(settings: AblationSettings) -> None:
    with pytest.raises(KeyboardInterrupt):
        finished(settings, stop)
    assert not (settings.out / "ablation.md").exists()
    done = carried(settings)
    assert done == ["reference, seed 0", "the shipped adapter"]
    finished(settings)
    assert not set(carried(settings)) & set(done)


def test_jobs_in_processes_of_their_own_report_how_far_they_are_and_hand_a_refusal_on(
    settings: AblationSettings,
) -> None:
    settings = replace(settings, processes=2)
    settings.out.mkdir()
    told = []
    kept, one = variants(settings, [Job(SHIPPED)], pretend)
    with Runner(settings, TOOLS, Store(kept.root), lambda *said: told.append(said)) as runner:
        runner.run("x", one, lasting=True, gauge=lambda: (one[0].progress(), 5))
        _, refused = variants(settings, [Job("reference")], refuse)
        with pytest.raises(PhotoMakerError, match="the reference is refused; take another"):
            runner.run("y", refused, lasting=True)
    assert ablation.read_scores(kept.scores(Job(SHIPPED)))[4].likeness.mean() == pytest.approx(0.6)
    first = [one for one in told if one[0] == "x"]
    assert set(first) <= {("x", 0, 5), ("x", 5, 5)} and first[-1] == ("x", 5, 5)


def test_a_training_in_a_process_of_its_own_keeps_what_it_has_when_the_run_is_stopped(
    settings: AblationSettings,
) -> None:
    settings = replace(settings, processes=2)
    jobs = [Job("linear"), Job("average")]
    kept, both = variants(settings, jobs, train_until_asked)

    def stop_once_it_runs() -> tuple[int, int]:
        if any((kept.training(job) / "began").exists() for job in jobs):
            raise KeyboardInterrupt
        return 0, 2

    with (
        Runner(settings, TOOLS, Store(kept.root), lambda *_: None) as runner,
        pytest.raises(KeyboardInterrupt),
    ):
        runner.run("x", both, lasting=True, gauge=stop_once_it_runs)
    folders = [kept.training(job) for job in jobs]
    assert [(one / "began").exists() for one in folders] == [(one / "checkpoint").exists() for one in folders]


def test_a_crash_is_told_with_where_it_says_why(settings: AblationSettings) -> None:
    kept, (one,) = variants(replace(settings, processes=2), [Job("linear", 1)], crash)
    with pytest.raises(PhotoMakerError, match=rf"linear, seed 1 failed; .*{OUTPUT} tells why"):
        one.carry_out(None, None)
    assert "RuntimeError: out of order" in (kept.training(one.job) / OUTPUT).read_text()
    _, (asked,) = variants(replace(settings, processes=2), [Job("average")], stop)
    with pytest.raises(KeyboardInterrupt):
        asked.carry_out(None, None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": 0}, "seeds is 0; give a whole number from 1"),
        ({"axes": ("masks",)}, "no axis 'masks'; did you mean mask?"),
        ({"axes": ("colour",)}, "no axis 'colour'; give some of stacking, mask"),
        ({"axes": ()}, "axes are empty"),
        ({"axes": ("mask", "mask")}, "each once"),
        ({"counts": (2, 1)}, "counts are 2, 1; give"),
        ({"counts": (0, 1)}, "from 1 up, in ascending order"),
        ({"people": 1}, "people is 1"),
        ({"merge": 1.5}, "merge has 1.5"),
        ({"precision": "fp8"}, "precision is 'fp8'"),
    ],
)
def test_impossible_settings_are_refused(change: dict, words: str) -> None:
    with pytest.raises(SettingsError, match=words.replace("?", r"\?")):
        AblationSettings(**change)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--axes", "stackin"], "there is no axis 'stackin'; did you mean stacking?"),
        (["--seeds", "0"], "seeds is 0"),
        (["--data", "nowhere"], "nowhere has no dataset"),
        (["--counts", "one,two"], "counts is 'one,two'; give numbers"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line_and_write_nothing(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["ablate", *words], prog_name="photomaker")
    assert result.exit_code == 2, result.output
    assert said in result.stderr and len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_every_variant_is_on_an_axis_and_every_axis_has_its_variants() -> None:
    from photomaker.training.ablation import VARIANTS  # heavy: other processes load this file too

    assert set(AblationSettings().variants) == set(VARIANTS)
    assert AblationSettings(axes=("photos",)).variants == ("reference",)
    assert AblationSettings(axes=("mask",)).counts_of("reference") == (4,)
    assert AblationSettings().counts_of("reference") == (1, 2, 3, 4, 6, 8)
    assert AblationSettings().counts_of("no_mask") == (4,)


def test_people_who_are_scored_are_not_trained_on(tmp_path: Path) -> None:
    write_world(tmp_path / "scored", WorldPlan(VALIDATION - 1, 2, 2))
    settings = AblationSettings(data=tmp_path / "scored", out=tmp_path / "out", train_people=2)
    with pytest.raises(SettingsError, match="start at number 999999 and reach the validation people"):
        run(settings, SyntheticTrainer(), TOOLS, carry=pretend)
    with pytest.raises(SettingsError, match=r"3 people are requested, but .* has 2"):
        run(replace(settings, train_people=3), SyntheticTrainer(), TOOLS, carry=pretend)
    assert not (tmp_path / "out").exists()


@pytest.mark.bundled
def test_the_rehearsal_runs_everything_from_drawn_people_to_the_page(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["ablate", "--tiny", "--axes", "class_word", "--out", str(tmp_path)], prog_name="photomaker"
    )
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "ablation.json").read_text())
    assert list(found["variants"]) == ["no_class_word", "reference"]
    assert found["shipped"]["figures"]["likeness"]["value"] > 0.3
    assert (tmp_path / "ablation_class_word.png").is_file()
