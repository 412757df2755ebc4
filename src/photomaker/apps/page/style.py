"""The page's design: theme, style sheet and scripts; nothing is loaded from other sites."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradio.themes import Base

_HERE = Path(__file__).parent

CLICKS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-act]');
  if (!button || (button.dataset.ask && !confirm(button.dataset.ask))) return;
  trigger('act', {act: button.dataset.act, id: button.dataset.id || ''});
});
"""
"""Reports which button of a piece of HTML was pressed."""

THEME = """
() => {
  const dark = document.body.classList.toggle('dark');
  localStorage.setItem('photomaker-theme', dark ? 'dark' : 'light');
}
"""
BEGIN = """
() => {
  const chosen = localStorage.getItem('photomaker-theme');
  if (chosen) document.body.classList.toggle('dark', chosen === 'dark');
}
"""
ICON = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'><rect width='32' height='32' rx='9' fill='#0f766e'/>"
    "<circle cx='16' cy='12.5' r='5.5' fill='#fff'/><path d='M5.5 27a10.5 8.5 0 0 1 21 0z' fill='#fff'/></svg>"
)
TO_STATUS = "() => { if (innerWidth < 700) document.querySelector('#pm-status').scrollIntoView({behavior: 'smooth'}); }"
TO_CHOSEN = """
() => setTimeout(() => {
  const panel = document.querySelector('#pm-picked');
  if (panel) panel.scrollIntoView({behavior: 'smooth', block: 'nearest'});
}, 100)
"""
SPEAK = "(language) => { document.documentElement.lang = language; return language; }"

LOGIN = """<!doctype html><html lang="{language}"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; display: grid; place-items: center; min-height: 90vh; margin: 0 1rem }}
form {{ display: grid; gap: .75rem; width: min(22rem, 100%) }} h1 {{ margin: 0; font-size: 1.4rem }}
p {{ margin: 0 }} label {{ font-size: .9rem }} [role=alert] {{ color: #d0432f }}
input, button {{ font: inherit; padding: .6rem .8rem; border-radius: .6rem; border: 1px solid #8888; width: 100%;
box-sizing: border-box }} button {{ background: #0f766e; color: #fff; border: 0; font-weight: 600; cursor: pointer }}
</style></head><body><form method="post" action="enter"><h1>{title}</h1><p>{ask}</p>{wrong}
<label for="token">{label}</label><input id="token" name="token" type="password" autocomplete="current-password"
autofocus required><button>{enter}</button></form></body></html>
"""


def sheet() -> str:
    """The style sheet."""
    return (_HERE / "page.css").read_text(encoding="utf-8")


def theme() -> Base:
    """The theme: colours and spacing, with the fonts of the visitor's machine."""
    import gradio as gr

    fonts = (
        "system-ui", "-apple-system", "Segoe UI", "Helvetica Neue", "Noto Sans", "PingFang SC", "Microsoft YaHei",
        "Noto Sans CJK SC", "sans-serif",
    )  # fmt: skip
    made = gr.themes.Base(
        primary_hue=gr.themes.colors.teal, secondary_hue=gr.themes.colors.teal, neutral_hue=gr.themes.colors.stone,
        font=fonts, font_mono=("ui-monospace", "monospace"), radius_size=gr.themes.sizes.radius_lg,
    )  # fmt: skip
    return made.set(
        body_background_fill="*neutral_100", body_background_fill_dark="#161412",
        block_background_fill="transparent", block_background_fill_dark="transparent",
        block_border_width="0px", block_border_width_dark="0px", block_shadow="none", block_padding="0px",
        block_label_background_fill="transparent", block_label_background_fill_dark="transparent",
        block_title_text_weight="600", block_title_text_size="*text_sm",
        block_title_text_color="*neutral_700", block_title_text_color_dark="*neutral_200",
        block_info_text_color="*neutral_500", block_info_text_color_dark="*neutral_400",
        input_background_fill="white", input_background_fill_dark="#201d1b",
        input_border_color="*neutral_300", input_border_color_dark="#45403c", input_border_width="1px",
        input_border_color_focus="*primary_600", input_border_color_focus_dark="*primary_500",
        button_primary_background_fill="*primary_700", button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_600", button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white", button_primary_text_color_dark="white",
        button_secondary_background_fill="white", button_secondary_background_fill_dark="#2b2825",
        button_secondary_border_color="*neutral_300", button_secondary_border_color_dark="#45403c",
        button_border_width="1px", panel_background_fill="transparent", panel_border_width="0px",
        slider_color="*primary_600", slider_color_dark="*primary_500", layout_gap="14px",
    )  # fmt: skip
