"""The waiting line: fair between callers, bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from photomaker.errors import QueueFull
from photomaker.studio.desk.queue import Line

jobs = st.lists(st.sampled_from("abc"), max_size=20)


def filled(owners):
    line = Line(most=100, each=100)
    for number, owner in enumerate(owners):
        line.add(owner, f"{owner}{number}")
    return line


def taken(line):
    return list(iter(line.take, None))


def test_callers_take_turns_and_each_keeps_an_order():
    assert taken(filled("aaabbc")) == ["a0", "b3", "c5", "a1", "b4", "a2"]


def test_who_comes_later_waits_for_one_turn_of_each_and_not_for_all_their_jobs():
    line = filled("a" * 50)
    line.add("b", "late")
    assert taken(line).index("late") == 1


def test_a_job_that_goes_on_comes_before_its_callers_others():
    line = filled("aab")
    assert line.take() == "a0"
    line.add("a", "a0", front=True)
    assert taken(line) == ["b2", "a0", "a1"]


def test_a_newcomer_comes_before_who_had_a_turn_and_waits_again():
    line = filled("a")
    assert line.take() == "a0"
    line.add("a", "a0", front=True)
    line.add("b", "new")
    assert line.place("new") == 1
    assert taken(line) == ["new", "a0"]


@given(jobs)
def test_the_place_of_a_job_is_when_it_is_taken(owners):
    line = filled(owners)
    places = {f"{owner}{number}": line.place(f"{owner}{number}") for number, owner in enumerate(owners)}
    assert {job: number for number, job in enumerate(taken(line), 1)} == places


@given(jobs, st.data())
def test_what_is_taken_out_is_never_taken(owners, data):
    line = filled(owners)
    if owners:
        number = data.draw(st.integers(0, len(owners) - 1))
        gone = f"{owners[number]}{number}"
        line.remove(gone)
        line.remove(gone)
        assert line.place(gone) is None
        assert len(line) == len(owners) - 1
        assert gone not in taken(line)


def test_a_caller_has_a_bound_of_their_own():
    line = Line(most=10, each=2)
    line.add("a", "1")
    line.add("a", "2")
    with pytest.raises(
        QueueFull, match="2 of your jobs are waiting, which is the limit; try again in 7 s"
    ) as error:
        line.check("a", 7)
    assert error.value.retry_after == 7
    line.check("b", 7)


def test_a_full_line_still_takes_one_job_of_who_has_none():
    line = Line(most=2, each=2)
    for number in range(2):
        line.add("a", str(number))
    line.check("b", 1)
    line.add("b", "3")
    with pytest.raises(QueueFull, match="3 jobs are waiting"):
        line.check("b", 1)
