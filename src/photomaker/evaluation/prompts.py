"""The benchmark's prompts: their words, and what each states, so that a classifier can check it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from photomaker.errors import SettingsError

PHOTO = "photo"


@dataclass(frozen=True)
class BenchPrompt:
    """One prompt for any person.

    Attributes:
        name: Short name for tables.
        template: English text; `{c}` stands for the class phrase and the trigger, with its article.
        states: What the text states: attribute name to word, in the words of the synthetic people. The class,
            which every prompt states, is not listed.
    """

    name: str
    template: str
    states: Mapping[str, str]

    def text(self, person_class: str, trigger: str) -> str:
        """The prompt for a person of a class, for example `a photo of an old man img in the snow`."""
        article = "an" if person_class[0] in "aeiou" else "a"
        return self.template.format(c=f"{article} {person_class} {trigger}".rstrip())

    @property
    def is_photo(self) -> bool:
        """Whether it asks for a photo; only there does a recogniser of photos measure likeness."""
        return self.states["style"] == PHOTO


def _prompt(name: str, template: str, **states: str) -> BenchPrompt:
    return BenchPrompt(name, template, MappingProxyType(states))


PROMPTS: tuple[BenchPrompt, ...] = (
    _prompt("studio", "a photo of {c} in a studio", style="photo", scene="studio"),
    _prompt(
        "sunglasses", "a photo of {c} wearing sunglasses in the snow",
        style="photo", eyewear="sunglasses", scene="snow",
    ),
    _prompt(
        "cap", "a photo of {c} wearing a red cap in the forest",
        style="photo", hat="cap", hat_colour="red", scene="forest",
    ),
    _prompt(
        "sketch", "a sketch of {c} wearing a blue beanie",
        style="sketch", hat="beanie", hat_colour="blue",
    ),
    _prompt(
        "t-shirt", "a photo of {c} wearing a yellow t-shirt on the beach",
        style="photo", clothing="t-shirt", clothing_colour="yellow", scene="beach",
    ),
    _prompt(
        "suit", "a photo of {c} wearing a black suit in the city",
        style="photo", clothing="suit", clothing_colour="black", scene="city",
    ),
    _prompt("painting", "a painting of {c} wearing glasses", style="painting", eyewear="glasses"),
    _prompt(
        "cowboy", "a photo of {c} wearing a green cowboy hat in the desert",
        style="photo", hat="cowboy hat", hat_colour="green", scene="desert",
    ),
    _prompt(
        "hoodie", "a photo of {c} wearing a purple hoodie in space",
        style="photo", clothing="hoodie", clothing_colour="purple", scene="space",
    ),
    _prompt(
        "pixel art", "pixel art of {c} wearing an orange sweater",
        style="pixel art", clothing="sweater", clothing_colour="orange",
    ),
    _prompt(
        "library", "a photo of {c} wearing glasses in a library",
        style="photo", eyewear="glasses", scene="library",
    ),
    _prompt(
        "beret", "a photo of {c} wearing a white shirt and a blue beret at sunset",
        style="photo", clothing="shirt", clothing_colour="white", hat="beret", hat_colour="blue",
        scene="sunset",
    ),
    _prompt("watercolour", "a watercolour of {c} in a meadow", style="watercolour", scene="meadow"),
    _prompt(
        "everything", "a photo of {c} wearing sunglasses, a black top hat and a red sweater in the mountains",
        style="photo", eyewear="sunglasses", hat="top hat", hat_colour="black", clothing="sweater",
        clothing_colour="red", scene="mountains",
    ),
)  # fmt: skip
"""Photos and other styles are interleaved, so that a run with fewer prompts has some of each."""

ATTRIBUTES = (
    "scene", "hat", "hat_colour", "eyewear", "clothing", "clothing_colour", "style", "person_class",
)  # fmt: skip
"""Attributes that prompts state, in the order of the report."""

LISTS = ("world", "paper")
"""Lists of prompts that ship: those above, and the 40 of the paper."""


def prompt_list(name: str) -> tuple[BenchPrompt, ...]:
    """Prompts by the name of their list, or from a file of your own.

    Args:
        name: One of `LISTS`, or the path of a text file: one prompt a line, each with `{c}` once; lines that begin
            with # are left out. Such prompts state nothing that a classifier could check, and count as photos.

    Raises:
        SettingsError: The file cannot be read, is empty, or a line lacks `{c}`.
    """
    if name == "world":
        return PROMPTS
    path = Path(__file__).with_name("prompts_paper.txt") if name == "paper" else Path(name)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"cannot read the prompts {name}; give {' or '.join(LISTS)}, or a text file with one prompt a line"
        ) from error
    texts = [line for line in lines if line and not line.startswith("#")]
    for text in texts:
        if text.count("{c}") != 1 or "{" in text.replace("{c}", "") or "}" in text.replace("{c}", ""):
            raise SettingsError(f"the prompt {text!r} in {name} must hold {{c}} once and no other braces")
    if not texts:
        raise SettingsError(
            f"{name} holds no prompt; write one a line, such as: a photo of {{c}} in the snow"
        )
    return tuple(BenchPrompt(text.replace("{c}", "C"), text, _PLAIN) for text in texts)


_PLAIN: Mapping[str, str] = MappingProxyType({"style": PHOTO})
