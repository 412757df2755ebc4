"""Synthetic people: factors, distributions, a renderer, captions and datasets. Everything comes from seeds."""

from photomaker.synthetic.distributions import TEST, TRAIN, VALIDATION, people, person, view, with_class
from photomaker.synthetic.factors import (
    CLOTHES,
    COLOURS,
    EYEWEAR,
    HATS,
    PERSON_CLASSES,
    SCENES,
    STYLES,
    Person,
    View,
)
from photomaker.synthetic.renderer import Picture, render

__all__ = [
    "CLOTHES",
    "COLOURS",
    "EYEWEAR",
    "HATS",
    "PERSON_CLASSES",
    "SCENES",
    "STYLES",
    "TEST",
    "TRAIN",
    "VALIDATION",
    "Person",
    "Picture",
    "View",
    "people",
    "person",
    "render",
    "view",
    "with_class",
]
