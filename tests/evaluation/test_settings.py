"""Settings are checked before anything is opened, and each message says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from photomaker.errors import SettingsError
from photomaker.evaluation.plans.evaluate.plan import command
from photomaker.evaluation.plans.evaluate.settings import EvaluationSettings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"people": 1}, "people is 1; give a whole number from 2"),
        ({"people": 2.5}, "people is 2.5"),
        ({"prompts": 99}, "prompts is 99; give a whole number from 1 to 14"),
        ({"seeds": 0}, "seeds is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"people": 50, "gallery": 20}, "gallery is 20 for 50 people; give at least as many"),
        ({"split": "train"}, "split is 'train'; choose test or validation"),
        ({"parts": ("main", "all")}, "parts are main, all; choose from sweep, main"),
        ({"parts": ()}, "parts are empty"),
        ({"dtype": "int8"}, "dtype is 'int8'; choose auto, fp32"),
        ({"name": "../x"}, "plain file name"),
        ({"merge": 1.5}, "merge has 1.5; give a share from 0 to 1"),
        ({"merges": (0.1, -1.0)}, "merges has -1.0"),
        ({"merges": ()}, "merges is empty"),
        ({"guidance": float("nan")}, "guidance has nan"),
        ({"guidances": (-1.0,)}, "guidance has -1.0"),
        ({"accuracy_bar": 95.0}, "accuracy_bar has 95.0"),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        EvaluationSettings(**values)
    assert "\n" not in str(caught.value)


def test_defaults_are_what_the_figures_ask_for() -> None:
    settings = EvaluationSettings()
    assert (settings.people, settings.seeds, settings.references, settings.gallery) == (100, 2, 4, 200)
    assert settings.prompts >= 12
    assert settings.pairs >= 30
    assert settings.title == "photomaker"


def test_settings_are_chosen_on_the_other_split() -> None:
    assert EvaluationSettings().sweep_split == "validation"
    assert EvaluationSettings(split="validation").sweep_split == "test"


def test_the_command_names_what_differs_and_no_folder() -> None:
    settings = EvaluationSettings(
        people=20, base="/somewhere/secret/sdxl", parts=("main", "cost"), processes=1
    )
    assert command(settings) == "photomaker evaluate --base sdxl --people 20 --parts main,cost"
