"""Small features that distinguish people and that soft pictures lose: moles, freckles, beards."""

from __future__ import annotations

from photomaker.synthetic.factors import BEARDS, Person

MARKS: dict[str, tuple[str, ...]] = {
    "mole": ("none", "left cheek", "right cheek", "upper lip", "chin"),
    "freckles": ("none", "freckles", "many freckles"),
    "beard": BEARDS,
}
"""Kinds of marks and their words; the first says that there is none."""
_FEW, _MANY = 0.1, 0.5


def marks_of(person: Person) -> dict[str, str]:
    """The word of each kind of mark that a person has."""
    many = int(person.freckles > _FEW) + int(person.freckles > _MANY)
    numbers = {"mole": person.mole, "freckles": many, "beard": person.beard}
    return {name: MARKS[name][number] for name, number in numbers.items()}
