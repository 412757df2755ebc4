"""The door to the comparison: what is asked for, and what is refused before any model is opened."""

from pathlib import Path

import pytest

from photomaker.apps import benchmark
from photomaker.config import read
from photomaker.errors import SettingsError
from photomaker.evaluation.plans.compare.settings import ComparisonSettings, Entry, prompts_of
from photomaker.faces.plugins import PlugIn
from photomaker.registry import names

PAPER = Path(__file__).parents[2] / "examples" / "configs" / "benchmark_paper.yaml"


def test_an_unknown_method_gets_a_suggestion(shell):
    line = shell.refused("benchmark", "--methods", "photomakr", "--out", shell.folder / "b")
    assert "there is no method 'photomakr'; did you mean 'photomaker'?" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--people", "1"), "people is 1; give a whole number from 2"),
        (("--methods", "photomaker,photomaker"), "'photomaker' is named twice"),
        (("--gallery", "10"), "gallery is 10 for 50 people"),
        (("--prompts", "15"), "prompts is 15 and the list world has 14"),
        (("--config", "nowhere.yaml"), "cannot read the settings file nowhere.yaml"),
        (("--set", "people=3"), "give one with --config"),
        (("--readme", "nowhere.md"), "cannot read nowhere.md"),
    ],
)
def test_what_is_out_of_range_is_told_in_one_line(shell, words, said):
    methods = () if "--methods" in words else ("--methods", "photomaker")
    assert said in shell.refused("benchmark", *methods, "--out", shell.folder / "b", *words)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("photos: nowhere", "there is no folder nowhere"),
        (
            "methods: [{name: photomaker, options: {rank: 4}}]",
            "photomaker takes no rank; it can be opened with base",
        ),
        (
            "methods: [{name: photomaker, mrege: 1}]",
            "there is no setting methods.mrege in c.yaml; did you mean methods.merge?",
        ),
        ("poeple: 3", "did you mean people?"),
        ("judge: {inception: nowhere.pth}", "there is no file nowhere.pth"),
        ("judge: {lpips_heads: alex.pth}", "LPIPS needs two files"),
        ("prompt_list: nowhere.txt", "cannot read the prompts nowhere.txt"),
    ],
)
def test_a_settings_file_that_will_not_do_is_told_in_one_line(shell, text, said):
    (shell.folder / "c.yaml").write_text(text)
    assert said in shell.refused("benchmark", "--config", "c.yaml", "--out", "b")


def test_a_folder_that_holds_something_else_is_refused(shell, monkeypatch):
    folder = shell.folder / "b" / "methods_rows"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"version": 99}')
    line = shell.refused("benchmark", "--methods", "photomaker", "--out", "b")
    assert "is from version 99 of the benchmark, but this is 1; choose another --out" in line


def test_the_papers_protocol_can_be_read():
    settings = read(PAPER, ComparisonSettings)
    assert (settings.people, settings.references, settings.seeds, settings.steps) == (25, 4, 4, 50)
    assert len(prompts_of(settings)) == 40
    assert settings.judge.recogniser == PlugIn("insightface", "antelopev2")
    assert settings.methods[0].registered == "photomaker"


def test_options_go_over_the_file_and_methods_keep_what_it_says(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(
        "people: 9\nseeds: 3\nmethods: [{name: mine, method: photomaker, merge: 0.4}, {name: photomaker}]"
    )
    settings = benchmark.settings_of(
        {"methods": "mine, other", "seeds": 4}, file, ["steps=7", "tuned_people=2", "curve_people=0"]
    )
    assert settings.methods == (Entry("mine", "photomaker", merge=0.4), Entry("other"))
    assert (settings.people, settings.seeds, settings.steps) == (9, 4, 7)


def test_without_a_word_all_known_methods_are_compared():
    settings = benchmark.settings_of({})
    listed = [entry.name for entry in settings.methods]
    assert listed[:2] == ["photomaker", "photomaker_same_budget"]
    # a method without bundled weights cannot be measured on the bundled base
    unbundled = {"instantid", "pulid", "flashface", "anydoor"}
    bundled = {*names("method")} - unbundled
    assert sorted(listed) == sorted([*bundled, "photomaker_same_budget"])
    plain = [entry.name for entry in benchmark.settings_of({"base": "somewhere"}).methods]
    assert [name for name in plain if name not in unbundled] == [
        name for name in listed if name != "photomaker_same_budget"
    ]
    assert (settings.people, settings.prompts, settings.seeds) == (50, 10, 2)
    assert benchmark.settings_of({"people": 5, "gallery": 5}).tuned_people == 5
    with pytest.raises(SettingsError, match="tuned_people is 8"):
        benchmark.settings_of({"people": 5, "tuned_people": 8})


def test_the_command_in_the_results_names_no_folder_of_anybodys():
    words = [
        "benchmark",
        "--out",
        "/home/ada/b",
        "--processes=4",
        "--config",
        "/home/ada/my paper.yaml",
        "--seeds",
        "2",
    ]
    assert benchmark.command(words) == "photomaker benchmark --config 'my paper.yaml' --seeds 2"
