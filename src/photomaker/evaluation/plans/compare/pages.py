"""The tables of a comparison as Markdown, CSV and LaTeX, and what the README and other pages show of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from photomaker.errors import OutputError
from photomaker.evaluation.plans.compare.columns import ALL_COLUMNS
from photomaker.evaluation.plans.compare.pictures import BASE, REAL
from photomaker.evaluation.report.files import write
from photomaker.evaluation.report.tables import Column, table

START, END = "<!-- methods-table:start -->", "<!-- methods-table:end -->"
SUMMARY_START, SUMMARY_END = "<!-- methods-summary:start -->", "<!-- methods-summary:end -->"
ARROWS = {"up": " ↑", "down": " ↓", "": ""}
TITLES = {
    "main": "Likeness, prompt, pictures",
    "second": "The same by the second recogniser",
    "attributes": "What prompts state and the classifier sees",
    "editing": "Editing and mixing",
    "cost": "Cost",
    "beside": "Beside {first}, on the same people",
}
PAGE_COLUMNS = {
    "likeness_first": "likeness, of real photos'",
    "likeness_second": "the same by the second recogniser",
    "prompt_accuracy": "prompt accuracy",
    "copy_paste_first": "copy-paste",
    "seconds_fit": "seconds to fit",
    "seconds": "seconds a picture",
    "identity_kib": "identity, KiB",
}
"""Columns of the short table and of the methods' own pages, with the headings that they have there."""
PAGE_START, PAGE_END = "<!-- figures:start -->", "<!-- figures:end -->"
BESIDE = {
    "likeness_first": "beside_likeness", "prompt_accuracy": "beside_prompt_accuracy", "seconds_fit": "beside_fit",
}  # fmt: skip
SPECIAL = {"%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}"}

Document = Mapping[str, Any]


def markdown(document: Document, plots: Sequence[str]) -> str:
    """The whole page.

    Args:
        document: What `run.compare` writes as JSON.
        plots: File names of the plots beside it.
    """
    blocks = [_opening(document)]
    for name, title in TITLES.items():
        shown = shown_columns(document, name)
        if shown:
            blocks += [f"## {title.format(first=_first(document))}", _table(document, shown)]
    blocks += [_notes(document), *_curves(document)]
    blocks += ["\n".join(f"![{Path(name).stem}]({name})" for name in plots)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _first(document: Document) -> str:
    """The first method, beside which the others are put."""
    return str(document["settings"]["methods"][0]["name"])  # a JSON file has lost the order of the rows


def shown_columns(document: Document, name: str) -> list[Column]:
    """The columns of one table that any method has a figure for."""
    return [
        one
        for one in ALL_COLUMNS
        if one.table == name and any(one.key in method["figures"] for method in document["methods"].values())
    ]


def as_csv(document: Document) -> str:
    """One line a method and column: method, column, value, low, high, people."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["method", "column", "value", "low", "high", "people"])
    for name, method in document["methods"].items():
        for one in ALL_COLUMNS:
            figure = method["figures"].get(one.key)
            values = ["", "", ""] if figure is None else [figure[end] for end in ("value", "low", "high")]
            lines.writerow([name, one.key, *values, "" if figure is None else figure["people"]])
    return text.getvalue()


def latex(document: Document) -> str:
    """The main table and the costs as two `tabular`, which need no package; intervals stand behind the figures."""
    parts = [f"% {document['command']}, commit {document['commit'] or 'unknown'}"]
    for name in ("main", "cost"):
        shown = shown_columns(document, name)
        head = " & ".join(["method", *(_escaped(one.title) + _arrow(one) for one in shown)])
        lines = [rf"\begin{{tabular}}{{l{'r' * len(shown)}}}", r"\hline", head + r" \\", r"\hline"]
        for method, found in document["methods"].items():
            cells = [_escaped(_shown(found["figures"].get(one.key), one)) for one in shown]
            lines.append(" & ".join([_escaped(method), *cells]) + r" \\")
        parts.append("\n".join([*lines, r"\hline", r"\end{tabular}"]))
    return "\n\n".join(parts) + "\n"


def short_table(document: Document) -> str:
    """The table of `docs/benchmark.md`, with the sentence that says what it is."""
    wanted = _page_columns()
    # rows of few people and of many compare here alone
    likeness = next(one for one in ALL_COLUMNS if one.key == BESIDE["likeness_first"])
    wanted.insert(2, replace(likeness, title=f"cosine beside {_first(document)}, same people"))
    have = {key for method in document["methods"].values() for key in method["figures"]}
    settings = document["settings"]
    people = sorted(
        {method["people"] for name, method in document["methods"].items() if name not in (REAL, BASE)}
    )
    counted = " or ".join(str(count) for count in people)
    return "\n\n".join(
        [
            _table(document, [one for one in wanted if one.key in have]),
            f"{counted} people, {settings['prompts_used']} prompts, {settings['seeds']} seeds, "
            f"{settings['references']} photos a person; 95 % intervals over people; "
            f"{_machine(document)}; made by `{document['command']}`.",
        ]
    )


def _page_columns() -> list[Column]:
    known = {one.key: one for one in ALL_COLUMNS}
    return [replace(known[key], title=title) for key, title in PAGE_COLUMNS.items()]


def method_figures(document: Document, name: str) -> str:
    """The table of a method's own page: its figures, and how they differ from the first method's on the same people."""
    method, known, first = document["methods"][name], {one.key: one for one in ALL_COLUMNS}, _first(document)
    lines = []
    for one in _page_columns():
        beside = BESIDE.get(one.key, "")
        said = _shown(method["figures"].get(beside), known[beside]) if beside else ""
        lines.append([one.title, _shown(method["figures"].get(one.key), one), said])
    heads = [f"on {method['people']} people", name, f"beside {first}"]
    if name == first:
        heads, lines = heads[:2], [line[:2] for line in lines]
    return table(heads, lines)


def method_page(page: Path, document: Document, name: str) -> str:
    """The text of a method's own page with its figures between the markers.

    Raises:
        OutputError: The file is missing or has no such markers.
    """
    before, after = split_page(page, PAGE_START, PAGE_END)
    return f"{before}{PAGE_START}\n{method_figures(document, name)}\n{PAGE_END}{after}"


def summary(document: Document) -> str:
    """The README's sentences: the first method, the best of those like it, the best of those tuned for each person."""
    first, methods = _first(document), document["methods"]
    own = methods[first]
    rivals = [name for name in methods if name not in (REAL, BASE, first) and not methods[name].get("tuned")]
    tuned = [name for name in methods if methods[name].get("tuned") and name != first]
    said = [
        f"On {own['people']} people that no network was trained on, `{first}` reaches "
        f"{_said(own, 'likeness_first')} of the likeness of real photos{_accuracy(own)}."
    ]
    if rivals:
        best = _most_alike(document, rivals)
        said.append(
            "Of the other methods that need no tuning for a person, "
            f"`{best}` is most like the person, with {_said(methods[best], 'likeness_first')}."
        )
    if tuned:
        best = _most_alike(document, tuned)
        said.append(
            f"Of the methods that are tuned for each person, measured on {methods[best]['people']} people, `{best}` "
            f"is most like the person: its cosine less that of `{first}` on the same people is "
            f"{_said(methods[best], 'beside_likeness')}, and it takes {_seconds(methods[best])} to fit a person "
            f"where `{first}` takes {_seconds(own)}."
        )
    return " ".join(said)


def _accuracy(method: Mapping[str, Any]) -> str:
    shown = _said(method, "prompt_accuracy")
    return f", with a prompt accuracy of {shown}" if shown else ""


def _seconds(method: Mapping[str, Any]) -> str:
    return f"{method['figures']['seconds_fit']['value']:.3g} s"


def _most_alike(document: Document, names: Sequence[str]) -> str:
    return max(names, key=lambda name: document["methods"][name]["figures"]["likeness_first"]["value"] or 0)


def _said(method: Mapping[str, Any], key: str) -> str:
    return _shown(method["figures"].get(key), next(one for one in ALL_COLUMNS if one.key == key))


def write_figures(page: Path, document: Document) -> Path:
    """Put table and sentences between their markers in a page; the rest of the file stays as it is.

    Args:
        page: A file that has the lines `START` and `END`, or `SUMMARY_START` and `SUMMARY_END`, once, in this order.
        document: What `run.compare` writes as JSON.

    Raises:
        OutputError: The file is missing or has no such markers, or cannot be written.
    """
    contents = {START: short_table, SUMMARY_START: summary}
    for opening, closing in places(page):
        before, after = split_page(page, opening, closing)
        write(page, f"{before}{opening}\n{contents[opening](document)}\n{closing}{after}")
    return page


def places(page: Path) -> list[tuple[str, str]]:
    """The pairs of markers that a page has.

    Raises:
        OutputError: The file is missing, or a pair is not there whole and once; a page without any lacks the table's.
    """
    pairs = [(SUMMARY_START, SUMMARY_END), (START, END)]
    text = _text(page, START)
    found = [pair for pair in pairs if pair[0] in text or pair[1] in text] or [(START, END)]
    for opening, closing in found:
        split_page(page, opening, closing)
    return found


def _text(page: Path, opening: str) -> str:
    try:
        return page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"cannot read {page}; name a text file that has the line {opening}") from error


def split_page(page: Path, opening: str = START, closing: str = END) -> tuple[str, str]:
    """What stands before and after two markers.

    Raises:
        OutputError: The file is missing or has no such markers.
    """
    before, start, rest = _text(page, opening).partition(opening)
    _, end, after = rest.partition(closing)
    if not start or not end or opening in rest or closing in after:
        raise OutputError(
            f"{page} must have the lines {opening} and {closing} once each, in this order; add them"
        )
    return before, after


def _opening(document: Document) -> str:
    settings = document["settings"]
    tuned = [name for name, method in document["methods"].items() if method.get("tuned")]
    lines = [
        "# Methods side by side",
        "",
        f"Made by `{document['command']}`, commit {document['commit'] or 'unknown'}. "
        "Every interval is a 95 % bootstrap interval over people.",
        "",
        f"- {settings['people']} people ({_source(settings)}), {settings['prompts_used']} prompts, "
        f"{settings['seeds']} seeds, {settings['references']} photos a person, {settings['steps']} steps",
        "- the same people, photos, prompts, noise seeds and steps for all; what a method leaves to its own defaults "
        "(guidance, merge step, how it tunes) was chosen on other people than these, none of whom any network saw",
        f"- machine: {_machine(document)}; {settings['processes']} processes, {settings['threads']} threads each",
    ]
    if tuned:
        lines.append(
            f"- {', '.join(tuned)}: tuned for each person, so measured on the first {settings['tuned_people']} people; "
            "ceiling and intervals are of the same people"
        )
    return "\n".join(lines)


def _source(settings: Mapping[str, Any]) -> str:
    return "a folder of photos" if settings["photos"] else f"drawn people, {settings['split']} split"


def _machine(document: Document) -> str:
    ran = document["machine"]
    return f"{ran['processor']}, {ran['cores']} cores" + (
        f", {ran['accelerator']}" if "accelerator" in ran else ""
    )


def _table(document: Document, columns: Sequence[Column]) -> str:
    lines = [
        [name, str(method["people"]), *(_shown(method["figures"].get(one.key), one) for one in columns)]
        for name, method in document["methods"].items()
        if any(one.key in method["figures"] for one in columns)
    ]
    return table(("method", "people", *(one.title + ARROWS[one.better] for one in columns)), lines)


def _shown(figure: Mapping[str, Any] | None, one: Column) -> str:
    """A figure with its interval, or nothing; ranges of one value are not repeated."""
    if figure is None or figure["value"] is None:
        return ""
    value, low, high = (_number(figure[end], one) for end in ("value", "low", "high"))
    return value if figure["low"] == figure["high"] else f"{value} ({low} to {high})"


def _number(value: float, one: Column) -> str:
    if one.unit == "%":
        return f"{100 * value:.1f} %"
    if one.unit == "x":
        return f"{value:.3g} times"
    if one.unit in ("MiB", "KiB"):
        return f"{value:.0f}" if value >= 10 else f"{value:.2g}"  # noqa: PLR2004
    if one.unit == "s" or one.key == "fid":
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"  # noqa: PLR2004
    return f"{value:.4f}" if one.key == "kid" else f"{value:.3f}"


def _notes(document: Document) -> str:
    judge = document["judges"]
    lines = [
        "- first recogniser, which decides, and which no method was conditioned on or trained against: "
        f"{judge['first']}; "
        f"second: {judge['second']}",
        f"- Face Div: {judge['diversity']}; FID and KID: {judge['features']}, against the real pictures of the row "
        f"`{REAL}`; their resamples are moved to the figure",
        f"- `{REAL}`: " + document["real"],
        *_editing_notes(document),
    ]
    for name, title in (("clip", "CLIP-T and CLIP-I"), ("dino", "DINO"), ("attributes", "Prompt accuracy")):
        lines.append(f"- {title}: " + (judge[name] or "no model was given, so there is no column"))
    return "\n".join(["## What is behind the columns", "", *lines])


def _editing_notes(document: Document) -> list[str]:
    lines = []
    if BASE in document["methods"]:
        lines += [
            f"- `{BASE}`: what the base draws from the prompts alone, with the same seeds; its likeness is that of "
            "strangers",
            f"- changed outside the head: mean difference of the pixels to the picture of `{BASE}`, of their range, "
            "beyond half a face around the face",
        ]
    if document.get("common_likeness") is not None:
        lines.append(
            f"- prompt accuracy at equal likeness: at a cosine of {document['common_likeness']:.3f}, the largest that "
            "all methods reach, read off the curve over the merge step"
        )
    if any("mixing_falls" in one["figures"] for one in document["methods"].values()):
        lines.append(
            "- mixed pairs: two people of one class, mixed in five steps from the first to the second"
        )
    return lines


def _curves(document: Document) -> list[str]:
    blocks = []
    for name, title, head in (
        ("photos", "Likeness over the number of photos", "photos"),
        ("merges", "Likeness and prompt accuracy over the merge step", "merge"),
    ):
        lines = [
            [
                method,
                f"{point['at']:g}",
                str(point["people"]),
                _range(point["likeness"]),
                _range(point["prompt_accuracy"]),
            ]
            for method, found in document["methods"].items()
            for point in found.get(name, ())
        ]
        if lines:
            heads = ("method", head, "people", "Face Sim", "prompt accuracy")
            blocks += [f"## {title}", table(heads, lines)]
    return blocks


def _range(values: Sequence[float] | None) -> str:
    return "" if values is None else f"{values[0]:.3f} ({values[1]:.3f} to {values[2]:.3f})"


def _arrow(one: Column) -> str:
    return {"up": r" $\uparrow$", "down": r" $\downarrow$", "": ""}[one.better]


def _escaped(text: str) -> str:
    return "".join(SPECIAL.get(sign, sign) for sign in text)
