"""Captions in natural, varied English for a person in a view."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from photomaker.classes import CLASS_WORDS
from photomaker.synthetic.factors import (
    BEARDS,
    CLOTHES,
    COLOURS,
    EYE_COLOURS,
    EYEWEAR,
    HAIR_COLOURS,
    HAIRSTYLES,
    HATS,
    PERSON_CLASSES,
    Person,
)
from photomaker.synthetic.marks import MARKS, marks_of

SCENE_PHRASES: Mapping[str, tuple[str, ...]] = {
    "studio": ("in a studio", "in front of a grey wall", "in front of a plain background"),
    "beach": ("on the beach", "on a sandy beach", "at the beach"),
    "snow": ("in the snow", "in a snowy landscape", "in the falling snow"),
    "forest": ("in a forest", "in the forest", "in the woods"),
    "city": ("in the city", "in a city", "in front of tall buildings"),
    "desert": ("in the desert", "in a sandy desert"),
    "space": ("in space", "in outer space", "among the stars"),
    "sunset": ("at sunset", "in front of a sunset", "with a sunset behind"),
    "library": ("in a library", "in front of bookshelves", "in the library"),
    "kitchen": ("in a kitchen", "in the kitchen"),
    "meadow": ("in a meadow", "in a field of flowers", "on a flower meadow"),
    "mountains": ("in the mountains", "in front of mountains", "on a mountain"),
    "night": ("in the city at night", "at night in the city", "in front of city lights at night"),
    "sea": ("under water", "in the sea", "under the sea"),
}

STYLE_PHRASES: Mapping[str, tuple[str, ...]] = {
    "photo": ("a photo of", "a photo of", "a portrait photo of", "a photograph of", "a picture of"),
    "sketch": ("a sketch of", "a pencil sketch of", "a pencil drawing of"),
    "painting": ("a painting of", "an oil painting of"),
    "pixel art": ("pixel art of", "a pixel art portrait of"),
    "watercolour": ("a watercolour of", "a watercolour painting of", "a watercolour portrait of"),
}

_JOINTS = ("a", "an", "and", "with", "wearing", "skin", "hair", "eyes", "many freckles")
"""What `caption` and `traits` write around the phrases."""
_WORDS = re.compile(r"[^\W\d_]+")
_SKIN = ("very pale", "pale", "fair", "tan", "brown", "dark", "very dark")
_HAIR_WORDS = {
    "cropped": ("cropped", "very short"),
    "short": ("short",),
    "parted": ("parted", "side parted"),
    "swept": ("swept back", "slicked back"),
    "curly": ("curly",),
    "round": ("afro", "round curly"),
    "bob": ("bob cut",),
    "fringe": ("fringe cut",),
    "long": ("long straight", "long"),
    "wavy": ("long wavy", "wavy"),
    "tied": ("tied up", "tied back"),
    "receding": ("receding",),
}
_BEARD_WORDS = {
    "stubble": "stubble",
    "moustache": "a moustache",
    "goatee": "a goatee",
    "beard": "a full beard",
}
_MOLES = (
    "",
    "a mole on the left cheek",
    "a mole on the right cheek",
    "a mole above the lip",
    "a mole on the chin",
)
_SCALES: Mapping[str, tuple[str, str, str]] = {
    "face_width": ("a narrow face", "", "a wide face"),
    "face_length": ("a short face", "", "a long face"),
    "jaw": ("a soft jaw", "", "a square jaw"),
    "chin": ("a round chin", "", "a pointed chin"),
    "cheeks": ("hollow cheeks", "", "full cheeks"),
    "eye_spacing": ("close set eyes", "", "wide set eyes"),
    "eye_size": ("small eyes", "", "big eyes"),
    "eye_tilt": ("drooping eyes", "", "slanted eyes"),
    "eye_height": ("high eyes", "", "low eyes"),
    "brow_thickness": ("thin eyebrows", "", "thick eyebrows"),
    "brow_tilt": ("sad eyebrows", "", "angry eyebrows"),
    "brow_height": ("low eyebrows", "", "raised eyebrows"),
    "nose_length": ("a short nose", "", "a long nose"),
    "nose_width": ("a narrow nose", "", "a wide nose"),
    "mouth_width": ("a small mouth", "", "a wide mouth"),
    "mouth_height": ("a high mouth", "", "a low mouth"),
    "lips": ("thin lips", "", "full lips"),
    "ear_size": ("small ears", "", "large ears"),
    "hairline": ("a low forehead", "", "a high forehead"),
    "hair_volume": ("flat hair", "", "thick hair"),
}


def _pick(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]


def traits(person: Person, rng: np.random.Generator) -> list[str]:
    """What one could say about a person's looks, each as a phrase that follows "with"."""
    tone = "grey" if person.is_old else HAIR_COLOURS[person.hair_colour]
    found = [
        f"{_SKIN[min(int(person.skin * len(_SKIN)), len(_SKIN) - 1)]} skin",
        f"{_pick(rng, _HAIR_WORDS[HAIRSTYLES[person.hairstyle]])} {tone} hair",
        f"{EYE_COLOURS[person.eye_colour]} eyes",
    ]
    for name, (low, middle, high) in _SCALES.items():
        value = getattr(person, name)
        found.append(low if value < -0.33 else high if value > 0.33 else middle)
    freckles = marks_of(person)["freckles"]
    found += ["" if freckles == MARKS["freckles"][0] else freckles]
    found += [_BEARD_WORDS.get(BEARDS[person.beard], ""), _MOLES[person.mole]]
    return [phrase for phrase in found if phrase]


def _listed(phrases: Sequence[str]) -> str:
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]


def article(noun: str) -> str:
    """The noun with "a" or "an" before it."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _called(person: Person, word: str | None, trigger: str | None) -> str:
    """What stands for a person: article, class word and trigger."""
    return article(word or person.person_class) + (f" {trigger}" if trigger else "")


def _looks_and_worn(
    person: Person, a: Mapping[str, str], rng: np.random.Generator, describe: float, clothing: float
) -> tuple[list[str], list[str]]:
    """A phrase on looks and one on what is worn, each in a list that is empty where there is nothing to say."""
    looks = [phrase for phrase in traits(person, rng) if rng.random() < describe] if describe else []
    rng.shuffle(looks)
    worn = [f"{article(a['clothing_colour'])} {a['clothing']}"] if rng.random() < clothing else []
    if a["hat"] != "none":
        worn.append(f"{article(a['hat_colour'])} {a['hat']}")
    if a["eyewear"] != "none":
        worn.append(a["eyewear"])
    rng.shuffle(worn)
    return ["with " + _listed(looks)] if looks else [], ["wearing " + _listed(worn)] if worn else []


def caption(
    person: Person,
    attributes: Mapping[str, str],
    rng: np.random.Generator,
    describe: float = 0.0,
    trigger: str | None = None,
    word: str | None = None,
) -> str:
    """Write a caption.

    Args:
        person: Who is in the picture, in the class shown there.
        attributes: What the picture shows: style, scene, clothing, clothing_colour, hat, hat_colour, eyewear.
        rng: Where the choice of words comes from.
        describe: Chance 0..1 that each trait of the person's looks is mentioned.
        trigger: A word to put after the class word, or None.
        word: The class word to write, such as "person"; None is the class shown.

    Returns:
        One sentence without a full stop, such as "a photo of a woman wearing a red cap and glasses in
        the snow".
    """
    a = attributes
    subject = _called(person, word, trigger)
    looks, worn = _looks_and_worn(person, a, rng, describe, 0.7)
    parts = [*looks, *worn]
    mention = 0.9 if a["style"] == "photo" else 0.75
    if rng.random() < mention:
        parts.append(_pick(rng, SCENE_PHRASES[a["scene"]]))
    if looks and rng.random() < 0.5:  # long descriptions may be cut off at the end, so they go there as well
        parts = [*parts[1:], parts[0]]
    return " ".join([_pick(rng, STYLE_PHRASES[a["style"]]), subject, *parts])


def caption_of_two(
    people: Sequence[Person],
    attributes: Sequence[Mapping[str, str]],
    rng: np.random.Generator,
    describe: float = 0.0,
    triggers: Sequence[str | None] = (None, None),
    words: Sequence[str | None] = (None, None),
) -> str:
    """Write a caption that says who is where.

    Args:
        people: Who is on the left and on the right, in the classes shown there.
        attributes: What each wears, and the style and scene that both share; see `caption`.
        rng: Where the choice of words comes from.
        describe: Chance 0..1 that each trait of a person's looks is mentioned.
        triggers: A word to put after each class word, or None.
        words: The class words to write; None is the class shown.

    Returns:
        One sentence without a full stop, such as "a photo of a woman wearing a red cap on the left and an old man on
        the right in the snow".
    """
    found = []
    for at, (person, a, side) in enumerate(zip(people, attributes, ("left", "right"), strict=True)):
        looks, worn = _looks_and_worn(person, a, rng, describe, 0.6)
        found.append(" ".join([_called(person, words[at], triggers[at]), *looks, *worn, f"on the {side}"]))
    if rng.random() < 0.2:
        found.reverse()
    mention = 0.9 if attributes[0]["style"] == "photo" else 0.75
    place = [_pick(rng, SCENE_PHRASES[attributes[0]["scene"]])] if rng.random() < mention else []
    return " ".join([_pick(rng, STYLE_PHRASES[attributes[0]["style"]]), " and ".join(found), *place])


AFAR_PHRASES = ("seen from afar", "in the distance", "far away")
"""What a caption may say of somebody who is small in the picture."""


def vocabulary() -> frozenset[str]:
    """Every word that a caption can hold, in lower case, and the class words that stand for those in captions."""
    grouped = (*SCENE_PHRASES.values(), *STYLE_PHRASES.values(), *_HAIR_WORDS.values(), *_SCALES.values())
    phrases = [phrase for group in grouped for phrase in group]
    phrases += [
        *_SKIN,
        *_BEARD_WORDS.values(),
        *_MOLES,
        *EYE_COLOURS,
        *HAIR_COLOURS,
        *PERSON_CLASSES,
        *CLASS_WORDS,
    ]
    phrases += [*CLOTHES, *COLOURS, *HATS, *EYEWEAR, *_JOINTS]
    return frozenset(word for phrase in phrases for word in _WORDS.findall(phrase.lower()))
