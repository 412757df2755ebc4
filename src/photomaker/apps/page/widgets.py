"""The widgets of the page and their layout."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from photomaker.apps.page import views
from photomaker.apps.page.actions import Actions
from photomaker.apps.page.style import CLICKS
from photomaker.apps.page.texts import LANGUAGES, say
from photomaker.apps.page.wishes import COMPARED, USUAL_STEPS
from photomaker.studio.provenance.consent import LONGEST

SCHEDULERS = ("", "euler", "euler a", "dpm++ 2m", "dpm++ 2m karras", "unipc", "ddim", "lcm")
GUIDANCE = ("", "1", "1.5", "2", "3", "5", "7.5")
STEPS, LIKENESS = ("5", "10", "20", "30", "50"), ("0", "25", "50", "75", "100")
SIZES = ("square", "portrait", "landscape")
MOST = 8
"""Most pictures in one order."""


@dataclass
class Widgets:
    """The widgets that handlers read and change; made by `place`.

    Attributes:
        actions: The page's actions, which know what this model can do.
        translated: Widgets, and the texts of their properties.
        headings: Headings, and their numbers and texts.
    """

    actions: Actions
    translated: list[tuple[Any, dict[str, str]]] = field(default_factory=list)
    headings: list[tuple[Any, str, str]] = field(default_factory=list)

    def place(self) -> None:
        """Lay the page out."""
        self._states()
        self._top()
        with gr.Row(elem_id="pm-columns"):
            with gr.Column(scale=28, min_width=290, elem_classes="pm-panel"):
                self._who()
            with gr.Column(scale=36, min_width=320, elem_classes="pm-middle"):
                with gr.Column(elem_classes="pm-panel"):
                    self._what()
                with gr.Column(elem_classes="pm-panel"):
                    self._how()
            with gr.Column(scale=46, min_width=320, elem_classes="pm-panel"):
                self._result()

    def _told(self, widget: Any, **texts: str) -> Any:  # noqa: ANN401 - any widget
        """A widget with translated properties."""
        self.translated.append((widget, texts))
        return widget

    def _heading(self, number: str, key: str) -> None:
        self.headings.append((gr.HTML(), number, key))

    def _states(self) -> None:
        self.language = gr.State(next(iter(LANGUAGES)))
        self.kept_language = gr.BrowserState("", storage_key="photomaker-language", secret="photomaker")
        self.photos, self.person = gr.State([]), gr.State("")
        self.shown, self.labels, self.picked = gr.State([]), gr.State([]), gr.State("")
        self.start, self.jobs, self.older_than = gr.State(""), gr.State([]), gr.State(None)

    def _top(self) -> None:
        with gr.Row(elem_id="pm-top"):
            self.brand = gr.HTML(elem_classes="pm-brand")
            self.speak = gr.HTML(js_on_load=CLICKS, elem_id="pm-lang")
            self.theme = self._told(gr.Button(elem_id="pm-theme", size="sm"), value="theme")

    def _who(self) -> None:
        self._heading("1", "who")
        self.library = gr.HTML(js_on_load=CLICKS)
        self.drop = gr.File(
            file_count="multiple", show_label=False, container=False, elem_id="pm-drop", height=96
        )
        self.coached = gr.HTML(js_on_load=CLICKS)
        self.who_says = gr.HTML()
        with gr.Column(visible=False) as self.saving:
            self.name = self._told(
                gr.Textbox(max_length=100, elem_id="pm-name"), label="name", placeholder="name_hint"
            )
            self.consent = self._told(
                gr.Textbox(max_length=LONGEST, elem_id="pm-consent"),
                label="consent", placeholder="consent_hint", info="consent_info",
            )  # fmt: skip
            self.save = self._told(gr.Button(variant="primary", elem_id="pm-save"), value="save")
            self.clear = self._told(gr.Button(size="sm", elem_id="pm-clear"), value="clear")
        self.beside = self._told(
            gr.Dropdown([("", "")], value="", visible=self.actions.joins, elem_id="pm-beside"),
            label="beside", info="beside_hint",
        )  # fmt: skip
        with self._told(gr.Accordion(open=False, elem_id="pm-mix"), label="mix"):
            with gr.Row(elem_classes="pm-two"):
                self.first = self._told(gr.Dropdown([], min_width=110), label="first")
                self.second = self._told(gr.Dropdown([], min_width=110), label="second")
            self.share = self._told(
                gr.Slider(0, 100, 50, step=5, buttons=[]), label="share", info="share_hint"
            )
            self.mixed_name = self._told(gr.Textbox(max_length=100), label="name")
            self.mix = self._told(gr.Button(elem_id="pm-mix-save", size="md"), value="mix_button")

    def _what(self) -> None:
        self._heading("2", "what")
        self.prompt = self._told(
            gr.Textbox(lines=2, max_lines=5, elem_id="pm-prompt"), label="prompt", placeholder="prompt_hint"
        )
        self.reading = gr.HTML(js_on_load=CLICKS)
        self.ideas = gr.HTML(js_on_load=CLICKS)
        with gr.Row(elem_classes="pm-two"):
            self.style = self._told(
                gr.Dropdown(["none"], value="none", min_width=140, elem_id="pm-style"), label="style"
            )
            self.size = self._told(gr.Dropdown(["square"], value="square", min_width=120), label="size")
        self.negative = self._told(
            gr.Textbox(max_lines=2, elem_id="pm-negative"), label="negative", placeholder="negative_hint"
        )
        self.beginning = gr.HTML(js_on_load=CLICKS)
        self.strength = self._told(gr.Slider(5, 100, 60, step=5, buttons=[], visible=False), label="strength")

    def _how(self) -> None:
        self._heading("3", "how")
        self.likeness = self._told(
            gr.Slider(
                0, 100, 50, step=5, buttons=[], visible=self.actions.delays, elem_id="pm-likeness"
            ),
            label="likeness", info="likeness_hint",
        )  # fmt: skip
        with gr.Row(elem_classes="pm-two"):
            self.count = self._told(
                gr.Slider(1, MOST, 4, step=1, buttons=[], min_width=130, elem_id="pm-count"), label="count"
            )
            self.seed = self._told(
                gr.Textbox(max_length=20, min_width=130, elem_id="pm-seed"),
                label="seed",
                placeholder="seed_hint",
            )
        with self._told(gr.Accordion(open=False, elem_id="pm-more"), label="more"):
            self.fast = self._told(gr.Checkbox(False, elem_id="pm-fast"), label="fast")
            self.redraw = self._told(gr.Checkbox(False), label="redraw")
            self.steps = self._told(
                gr.Slider(4, 60, USUAL_STEPS, step=1, buttons=[]), label="steps", info="steps_hint"
            )
            with gr.Row(elem_classes="pm-two"):
                self.scheduler = self._told(gr.Dropdown([""], value="", min_width=140), label="scheduler")
                self.guidance = self._told(
                    gr.Dropdown([""], value="", min_width=140, elem_id="pm-guidance"), label="guidance"
                )
            self.upload_start = self._told(
                gr.UploadButton(size="sm", file_types=["image"], elem_id="pm-upload-start"),
                label="upload_start",
            )
        self.make = self._told(gr.Button(variant="primary", elem_id="pm-make"), value="make")
        self.cancel = self._told(gr.Button(visible=False, elem_id="pm-cancel"), value="cancel")
        self.make_says = gr.HTML()

    def _result(self) -> None:
        self._heading("", "result")
        self.status = gr.HTML(elem_id="pm-status")
        self.grid = gr.HTML(js_on_load=CLICKS, elem_id="pm-grid")
        with gr.Column(visible=False, elem_id="pm-picked") as self.panel:
            self.chosen = gr.HTML(js_on_load=CLICKS, elem_id="pm-chosen")
            with gr.Row(elem_classes="pm-actions") as self.verbs:
                self.again, self.vary, self.use, self.redraw_one = (
                    self._told(gr.Button(size="sm", elem_id=f"pm-{key}"), value=key)
                    for key in ("again", "variations", "use_start", "redraw_one")
                )
            with self._told(
                gr.Accordion(open=False, elem_id="pm-compare"), label="compare"
            ) as self.comparing:
                self.what = self._told(gr.Dropdown(["style"], value="style"), label="compare_what")
                with gr.Row(elem_classes="pm-two"):
                    self.one = gr.Dropdown([], label="A", min_width=110)
                    self.other = gr.Dropdown([], label="B", min_width=110)
                self.compare = self._told(
                    gr.Button(elem_id="pm-compare-draw", size="md"), value="compare_button"
                )
        with self._told(gr.Accordion(open=True, elem_id="pm-history"), label="history"):
            self.earlier = gr.HTML(js_on_load=CLICKS)
            self.older = self._told(gr.Button(size="sm", visible=False), value="older")

    # ---- in a language

    @property
    def form(self) -> list[Any]:
        """The widgets for the fields of `Wish`, in order."""
        return [
            self.person, self.prompt, self.style, self.size, self.negative, self.likeness, self.count, self.seed,
            self.scheduler, self.steps, self.fast, self.guidance, self.redraw, self.start, self.strength,
            self.beside,
        ]  # fmt: skip

    def spoken(self, language: str) -> dict[Any, Any]:
        """All fixed texts in a language."""
        told: dict[Any, Any] = {}
        for widget, texts in self.translated:
            values: dict[str, Any] = {name: say(language, key) for name, key in texts.items()}
            told[widget] = gr.update(**values)
        for widget, number, key in self.headings:
            told[widget] = views.head(number, say(language, key))
        for widget, choices in (
            (self.style, self.style_choices(language)),
            (
                self.size,
                [(say(language, "portrait_shape" if one == "portrait" else one), one) for one in SIZES],
            ),
            (self.scheduler, self.choices(language, "scheduler")),
            (self.guidance, self.choices(language, "guidance")),
            (self.what, [(self.setting(language, one), one) for one in self.compared]),
        ):
            told[widget] = gr.update(choices=choices, label=say(language, self._label(widget)))
        told[self.brand] = views.brand(language)
        told[self.ideas], told[self.speak] = views.ideas(language), views.switch(language)
        return told

    def _label(self, widget: Any) -> str:  # noqa: ANN401 - any widget
        return next(texts["label"] for one, texts in self.translated if one is widget)

    @property
    def compared(self) -> list[str]:
        """Settings that can be compared."""
        return [one for one in COMPARED if one != "likeness" or self.actions.delays]

    def setting(self, language: str, what: str) -> str:
        """The name of a setting."""
        return say(language, "compare_likeness" if what == "likeness" else what)

    def style_choices(self, language: str) -> list[tuple[str, str]]:
        """Styles by name; those from the user's file have no translation."""
        from photomaker.apps.page.texts import known

        return [(say(language, one) if known(one) else one, one) for one in self.actions.styles()]

    def choices(self, language: str, what: str) -> list[tuple[str, str]]:
        """Values of a setting that can be compared, with their names."""
        if what == "style":
            return self.style_choices(language)
        if what == "likeness":
            return [(say(language, f"likeness_{one}"), one) for one in LIKENESS]
        if what == "steps":
            return [(one, one) for one in STEPS]
        return [
            (one or say(language, "own"), one) for one in (SCHEDULERS if what == "scheduler" else GUIDANCE)
        ]
