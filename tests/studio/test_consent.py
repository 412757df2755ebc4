"""Consent notes stay with a person, through mixing, into every picture."""

import pytest
import torch

from photomaker.errors import SettingsError
from photomaker.studio.engine import mix
from photomaker.studio.provenance.consent import (
    NOT_NOTED,
    checked,
    consents_of,
    joined,
    lines_of,
    noted,
    told_of,
    with_consent,
)
from photomaker.types import Identity

ADA, BEN = "Ada, 27 November 2026, for a birthday card", "Ben, today, for tests"


def person(note=None, value=1.0):
    made = Identity("photomaker-v1", {"id_features": torch.full((2, 3), value), "weights": torch.ones(2)})
    return made if note is None else with_consent(made, note)


def test_it_is_kept_and_survives_the_file(tmp_path):
    path = person(f"  {ADA} ").save(tmp_path / "ada.safetensors")
    assert consents_of(Identity.load(path).notes) == (ADA,)
    assert told_of(Identity.load(path)) == {"consent": ADA}


def test_who_has_none_has_none():
    assert consents_of(person().notes) == (None,)
    assert told_of(person()) == {}
    assert noted(None) == NOT_NOTED


@pytest.mark.parametrize("how", ["blend", "proportion"])
def test_both_notes_travel_through_mixing(how):
    both = mix(person(ADA), person(BEN, 2.0), 0.5, how)
    assert consents_of(both.notes) == (ADA, BEN)
    assert told_of(both) == {"consent": f"{ADA}\n{BEN}"}
    again = mix(both, person(value=3.0), 0.5, how)
    assert consents_of(again.notes) == (ADA, BEN, None)
    told = told_of(again)["consent"]
    assert (noted(told), lines_of(told)) == ("partly noted", (ADA, BEN))


def test_who_has_no_share_has_no_say():
    assert consents_of(mix(person(ADA), person(BEN), 0.0).notes) == (ADA,)


def test_people_together():
    from photomaker.encoders.together import together

    assert consents_of(together([person(ADA), person()]).notes) == (ADA, None)


def test_a_sheet_tells_those_of_its_pictures():
    assert joined([None, None]) == {}
    assert joined([ADA, ADA]) == {"consent": ADA}
    assert joined([ADA, None, f"{ADA}\n{BEN}"]) == {"consent": f"{ADA}\nnot noted\n{BEN}"}


@pytest.mark.parametrize("note", ["", "  ", "not noted", "two\nlines", "x" * 501, "\x1b[2J", 7, None])
def test_what_is_no_note_is_refused(note):
    with pytest.raises(SettingsError, match="the consent note"):
        checked(note)


@pytest.mark.parametrize(
    "notes",
    [
        {"consent": 7},
        {"sources": "x"},
        {"sources": [1, None, {"notes": 5}, {"notes": {"sources": 3}}]},
        {"together": [{"together": []}]},
        {"consent": "a\nb"},
    ],
)
def test_notes_that_nobody_vouches_for_are_only_data(notes):
    assert all(one is None or one == "a b" for one in consents_of(notes))


def test_a_mix_of_mixes_of_mixes_ends():
    notes = {"consent": ADA}
    for _ in range(300):
        notes = {"sources": [{"notes": notes}]}
    assert consents_of(notes) == (None,)
