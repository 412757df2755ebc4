"""Parts of the page as HTML; all text from visitors is escaped."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape

from photomaker.apps.page.actions import IDEAS, Coaching, Example, Reading
from photomaker.apps.page.files import Links
from photomaker.apps.page.progress import Progress
from photomaker.apps.page.texts import LANGUAGES, known, say
from photomaker.studio.desk.records import Person, Picture

FEW = 4
"""Up to this many pictures are shown in two columns."""
NEARLY = 75
"""Highest percentage shown if it is not the person; the share can be higher if the photos are very different."""
_TRIGGER = re.compile(r"\s+img\b")


def head(number: str, title: str) -> str:
    """The heading of a column."""
    badge = f'<span class="pm-number" aria-hidden="true">{number}</span>' if number else ""
    return f'<h2 class="pm-head">{badge}{escape(title)}</h2>'


def brand(language: str) -> str:
    """The head of the page."""
    return f"<h1>{escape(say(language, 'title'))}</h1><p>{escape(say(language, 'claim'))}</p>"


def message(text: str, kind: str = "bad") -> str:
    """A sentence for the visitor; `kind` is bad, good or note."""
    if not text:
        return ""
    role = "alert" if kind == "bad" else "status"
    return f'<p class="pm-says pm-{kind}" role="{role}">{escape(text)}</p>'


# ---- who


def switch(language: str) -> str:
    """The languages, one of them chosen."""
    return "".join(
        f'<button type="button" data-act="speak" data-id="{code}" lang="{code}" '
        f'aria-pressed="{str(code == language).lower()}">{escape(name)}</button>'
        for code, name in LANGUAGES.items()
    )


def library(language: str, people: Sequence[Person], chosen: str, links: Links, portraits: set[str]) -> str:
    """The saved people as round portraits, and the text of the drop zone below."""
    drop = (
        f'<style>#pm-drop .wrap::before {{ content: "{say(language, "drop")}" }} '
        f'#pm-drop .wrap::after {{ content: "{say(language, "drop_hint")}" }}</style>'
    )
    if not people:
        return f'{drop}<p class="pm-quiet">{escape(say(language, "library_empty"))}</p>'
    cards = "".join(_person(language, one, one.id == chosen, links, one.id in portraits) for one in people)
    return f'{drop}<div class="pm-people" role="list">{cards}</div>'


def _person(language: str, one: Person, chosen: bool, links: Links, portrait: bool) -> str:
    name = escape(one.name or say(language, "unnamed"), quote=True)
    face = f'<img src="{links.to("portrait", one.id)}" alt="">' if portrait else "<i>?</i>"
    ask = escape(say(language, "ask_delete_person", name=one.name or say(language, "unnamed")), quote=True)
    away = escape(say(language, "delete_person", name=one.name or say(language, "unnamed")), quote=True)
    return (
        f'<div class="pm-person" role="listitem"><button type="button" class="pm-face" data-act="pick" '
        f'data-id="{one.id}" aria-pressed="{str(chosen).lower()}">{face}<span>{name}</span></button>'
        f'<button type="button" class="pm-x" data-act="delete" data-id="{one.id}" data-ask="{ask}" '
        f'aria-label="{away}" title="{away}">&times;</button></div>'
    )


def coaching(language: str, found: Coaching) -> str:
    """The coach's verdict on each photo and on all of them."""
    if not found.photos:
        return ""
    cards = []
    for number, one in enumerate(found.photos):
        said = "".join(
            f"<b>{escape(say(language, kind))}</b><span>{escape(say(language, kind + '!'))}</span>"
            for kind in one.kinds
            if known(kind)
        )
        good = f"<b>{escape(say(language, 'good_photo'))}</b>" if found.judged else ""
        away = escape(say(language, "remove_photo", name=one.name), quote=True)
        state = "good" if one.keep and not one.kinds else "fair" if one.keep else "poor"
        cards.append(
            f'<div class="pm-photo pm-{state}"><div class="pm-shot"><img src="{data_link(one.thumb)}" '
            f'alt="{escape(one.name, quote=True)}"><button type="button" class="pm-x" data-act="drop" '
            f'data-id="{number}" aria-label="{away}" title="{away}">&times;</button></div>'
            f"<p>{said or good}</p></div>"
        )
    return f'<div class="pm-photos">{"".join(cards)}</div>{_overall(language, found)}'


def _overall(language: str, found: Coaching) -> str:
    count, kept = len(found.photos), sum(one.keep for one in found.photos)
    if not found.judged:
        line = say(language, "not_judged")
    elif kept == count:
        line = say(
            language, "all_usable" if any(one.kinds for one in found.photos) else "all_good", count=count
        )
    else:
        line = say(language, "some_good" if kept else "none_good", kept=kept, count=count)
    more = " ".join(say(language, f"{kind}!") for kind in found.kinds if known(kind))
    return message(f"{line} {more}".strip(), "note" if kept < count or more else "good")


# ---- what


def reading(language: str, read: Reading | None, name: str) -> str:
    """How the prompt is read, with the class word marked."""
    if read is None:
        return ""
    if not read.word:
        return message(say(language, "read_none"), "note")
    key = "read_as" if name else "read_as_nobody"
    line = say(language, key, name=name, word=read.word)
    marked = f"{escape(read.before)}<mark>{escape(read.word)}</mark>{escape(read.after)}"
    unknown = ""
    if read.unknown:
        words = ", ".join(f"“{word}”" for word in read.unknown)
        unknown = message(say(language, "unknown_words", words=words), "note")
    return f'<p class="pm-read" role="status"><q>{marked}</q> {escape(line)}</p>{unknown}'


def ideas(language: str) -> str:
    """Example prompts."""
    chips = "".join(
        f'<button type="button" class="pm-chip" data-act="idea" data-id="{key}">{escape(say(language, key))}</button>'
        for key in IDEAS
    )
    return f'<div class="pm-chips"><span>{escape(say(language, "ideas"))}</span>{chips}</div>'


def start(language: str, id_: str, links: Links) -> str:
    """The start picture."""
    if not id_:
        return ""
    away = escape(say(language, "start_away"))
    return (
        f'<div class="pm-start"><img src="{links.to("small", id_)}" alt=""><div><b>{escape(say(language, "start"))}</b>'
        f'<button type="button" class="pm-link" data-act="away">{away}</button></div></div>'
    )


# ---- pictures


def empty(language: str, examples: Sequence[Example], faces: dict[str, str]) -> str:
    """Shown before there are pictures: examples to try with one click."""
    line = f"<p>{escape(say(language, 'empty'))}</p>"
    if not examples:
        return f'<div class="pm-empty">{line}</div>'
    cards = []
    for one in examples:
        shots = "".join(f'<img src="{faces[name]}" alt="">' for name in one.people)
        cards.append(
            f'<button type="button" class="pm-example" data-act="example" data-id="{one.name}">'
            f'<span class="pm-pair">{shots}</span><span>{escape(say(language, one.name))}</span></button>'
        )
    return (
        f'<div class="pm-empty">{line}<p class="pm-quiet">{escape(say(language, "try"))}</p>'
        f'<div class="pm-examples">{"".join(cards)}</div>'
        f'<p class="pm-quiet pm-small">{escape(say(language, "small_model"))}</p></div>'
    )


def status(language: str, told: Progress | None, compared: bool = False) -> str:
    """The progress, as a line with a bar."""
    if told is None:
        return ""
    if told.ended is not None:
        return _ended(language, told, compared) + "".join(
            message(_sentence(one), "note") for one in told.notes
        )
    share = round(100 * told.share)
    if told.place is not None and told.place > 1:
        line = say(language, "waiting", place=told.place - 1)
    elif not told.steps and not told.pictures:
        line = say(language, "preparing")
    else:
        line = say(language, "drawing" if told.total > 1 else "drawing_one", total=told.total, share=share)
    return (
        f'<div class="pm-progress"><p role="status">{escape(line)}</p><div class="pm-bar" role="progressbar" '
        f'aria-valuemin="0" aria-valuemax="100" aria-valuenow="{share}"><i style="width:{max(3, share)}%"></i>'
        "</div></div>"
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _ended(language: str, told: Progress, compared: bool) -> str:
    assert told.ended is not None
    if told.ended.state == "cancelled":
        return message(say(language, "cancelled"), "note")
    if told.ended.state == "failed":
        return message(say(language, "failed", reason=told.ended.reason.rstrip(".")))
    key = "done_compared" if compared else "done_one" if told.total == 1 else "done"
    return message(say(language, key, count=len(told.pictures)), "good")


def drawing(language: str, told: Progress, links: Links, labels: Sequence[str] = ()) -> str:
    """Finished pictures, previews of current ones, and placeholders for the others."""
    cards = [_card(language, one, links, "", False, _at(labels, at)) for at, one in enumerate(told.pictures)]
    cards += [
        f'<div class="pm-card pm-coming"><span class="pm-pic"><img src="{data_link(one)}" alt=""></span></div>'
        for one in told.previews
    ]
    lacking = told.total - len(cards) if told.ended is None else 0
    cards += ['<div class="pm-card pm-coming"><span class="pm-pic"></span></div>'] * max(0, lacking)
    return _grid(cards)


def pictures(
    language: str, shown: Sequence[Picture], links: Links, picked: str = "", labels: Sequence[str] = ()
) -> str:
    """Finished pictures with their verdicts."""
    best = len(shown) > 1 and not labels and shown[0].likeness is not None
    return _grid(
        [
            _card(language, one, links, picked, best and not at, _at(labels, at))
            for at, one in enumerate(shown)
        ]
    )


def _at(labels: Sequence[str], at: int) -> str:
    return labels[at] if at < len(labels) else ""


def _grid(cards: Sequence[str]) -> str:
    many = " pm-many" if len(cards) > FEW else " pm-one" if len(cards) == 1 else ""
    return f'<div class="pm-grid{many}">{"".join(cards)}</div>'


def _card(language: str, one: Picture, links: Links, picked: str, best: bool, label: str) -> str:
    badge = f'<em class="pm-best">{escape(say(language, "best"))}</em>' if best else ""
    told = f'<em class="pm-label">{escape(label)}</em>' if label else ""
    name = escape(say(language, "picture_of", name=one.person or "?", prompt=plain(one.prompt)), quote=True)
    return (
        f'<button type="button" class="pm-card" data-act="pick" data-id="{one.id}" aria-label="{name}" '
        f'aria-pressed="{str(one.id == picked).lower()}"><span class="pm-pic"><img src="{links.to("small", one.id)}" '
        f'alt="">{badge}{told}</span>{verdict(language, one)}</button>'
    )


def verdict(language: str, one: Picture) -> str:
    """A likeness in a few words."""
    if one.likeness is None:
        return f'<span class="pm-verdict pm-none">{escape(say(language, "unmeasured"))}</span>'
    share = None if one.share is None else min(100, round(100 * one.share))
    word = say(language, "same" if one.same else "other") if one.same is not None else ""
    if share is not None and (one.same is not False or share < NEARLY):
        text = " · ".join(part for part in (word, f"{share} %") if part)
    else:
        text = word or f"{one.likeness:.2f}"
    hint = "" if share is None else say(language, "share_of", share=share)
    kind = {True: "good", False: "fair", None: "none"}[one.same]
    return f'<span class="pm-verdict pm-{kind}" title="{escape(hint, quote=True)}">{escape(text)}</span>'


def plain(prompt: str) -> str:
    """A prompt without its trigger."""
    return _TRIGGER.sub("", prompt)


def chosen(language: str, one: Picture, links: Links) -> str:
    """The chosen picture, large, with its details."""
    file = links.to("picture", one.id)
    name = re.sub(r"[^\w-]+", "-", f"{one.person or 'picture'}-{one.seed}").strip("-")
    close, ask = (escape(say(language, key), quote=True) for key in ("close", "ask_delete_picture"))
    return (
        f'<div class="pm-chosen"><a href="{file}" target="_blank" class="pm-large"><img src="{file}" '
        f'alt="{escape(plain(one.prompt), quote=True)}"></a><div class="pm-facts">'
        f'<button type="button" class="pm-x" data-act="close" aria-label="{close}" title="{close}">&times;</button>'
        f"<h3>{escape(one.person or say(language, 'unnamed'))}</h3><p>{escape(plain(one.prompt))}</p>"
        f"<p>{verdict(language, one)}</p>"
        f'<p class="pm-quiet">{escape(say(language, "number", seed=one.seed))} · {one.width} &times; {one.height}</p>'
        f'<p class="pm-row"><a class="pm-button" href="{file}" download="{escape(name, quote=True)}.png">'
        f"{escape(say(language, 'download'))}</a>"
        f'<button type="button" class="pm-button pm-quietly" data-act="delete" data-id="{one.id}" data-ask="{ask}">'
        f"{escape(say(language, 'delete_picture'))}</button></p></div></div>"
    )


def history(language: str, earlier: Sequence[Picture], links: Links) -> str:
    """Earlier pictures, small."""
    if not earlier:
        return f'<p class="pm-quiet">{escape(say(language, "history_empty"))}</p>'
    cards = "".join(
        f'<button type="button" class="pm-thumb" data-act="pick" data-id="{one.id}" title="{_about(one)}" '
        f'aria-label="{_about(one)}"><img src="{links.to("small", one.id)}" alt="" loading="lazy"></button>'
        for one in earlier
    )
    return f'<div class="pm-thumbs">{cards}</div>'


def _about(one: Picture) -> str:
    return escape(f"{one.person}: {plain(one.prompt)} ({one.seed})", quote=True)


def data_link(picture: bytes) -> str:
    """A JPEG as a data URL."""
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
