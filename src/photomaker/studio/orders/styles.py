"""Style presets, which wrap a prompt: shipped ones, and those of a user's file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import MappingProxyType

from photomaker import config
from photomaker.checks import text
from photomaker.errors import SettingsError

SHIPPED = Path(__file__).with_name("styles.yaml")
NONE = "none"
SUBJECT = "{subject}"
_MEDIUM = re.compile(
    r"^\s*(?:an?\s+|the\s+)?(?:[\w-]+\s+){0,2}?"
    r"(?:photo|photograph|picture|portrait|image|painting|drawing|sketch|watercolour|watercolor|illustration|pixel art)"
    r"(?:\s+(?:photo|photograph|portrait|painting|drawing))?\s+of\s+",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Preset:
    """A style in a file.

    Attributes:
        prompt: The resulting prompt; `{subject}` is the prompt without its medium.
        negative: What the pictures should not show.
        bundled: The prompt for the bundled small model; None if it cannot draw this style.
    """

    prompt: str
    negative: str = ""
    bundled: str | None = None


@dataclass(frozen=True)
class Style:
    """A named style."""

    name: str
    preset: Preset

    def applied(self, prompt: str, negative: str | None, bundled: bool = False) -> tuple[str, str | None]:
        """A prompt and a negative prompt in this style.

        Args:
            prompt: With its trigger; a leading medium such as "a photo of" is replaced by the style's.
            negative: Additional negative prompt; None is nothing.
            bundled: Whether the model is the bundled small one.

        Raises:
            SettingsError: The bundled model cannot draw it.
        """
        subject = _MEDIUM.sub("", prompt.strip(), count=1)
        if not bundled:
            both = [part for part in (negative, self.preset.negative) if part]
            return self.preset.prompt.replace(SUBJECT, subject), ", ".join(both) or None
        if self.preset.bundled is None:
            raise SettingsError(
                f"the bundled model cannot draw the style {self.name!r}; choose one that `photomaker styles` marks for "
                "it, or give --base and --adapter"
            )
        return self.preset.bundled.replace(SUBJECT, subject), negative


def styles(more: Path | None = None) -> Mapping[str, Style]:
    """The shipped styles, and those of a user's file, which may override them.

    Args:
        more: YAML in the format of the shipped file: names, each with `prompt` and optionally `negative` and `bundled`.

    Raises:
        SettingsError: The file cannot be read, or a style lacks its prompt or `{subject}`.
    """
    return _shipped() if more is None else {**_shipped(), **_read(more)}


@cache
def _shipped() -> Mapping[str, Style]:
    return MappingProxyType(_read(SHIPPED))


def _read(path: Path) -> dict[str, Style]:
    made = {}
    for name, values in config.table(path).items():
        where = f"the style {name} in {path}"
        if not isinstance(values, dict):
            raise SettingsError(f"{where} is {values!r}; write `prompt: ...` below its name")
        preset = config.make(values, Preset, where)
        for template in (preset.prompt, preset.bundled):
            if template is not None and template.count(SUBJECT) != 1:
                raise SettingsError(
                    f"{where} has {template!r}; write {SUBJECT} once, where the prompt belongs"
                )
        made[str(name).strip().lower()] = Style(str(name).strip().lower(), preset)
    return made


def find_style(name: str, known: Mapping[str, Style]) -> Style | None:
    """A style by its name in any case; None for `none`.

    Raises:
        SettingsError: There is no such style.
    """
    wanted = " ".join(text("style", name, "give the name of a style, or none").lower().split())
    if wanted == NONE:
        return None
    if wanted not in known:
        near = get_close_matches(wanted, [*known, NONE], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}, {NONE}"
        raise SettingsError(f"there is no style {name!r}; {hint}")
    return known[wanted]
