"""The page as an application: whom it answers, and how it looks."""

import gradio as gr
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from fastgan_engine.ui.page import build_page
from fastgan_engine.ui.studio import Studio

CSS = """
.gradio-container > .main { max-width: 1400px; margin: 0 auto; }
.whole .image-frame, .whole img, .whole video { width: 100%; max-height: 80vh; object-fit: contain; }
.whole .grid-wrap { min-height: 0; max-height: none; }
.samples .grid-container { grid-template-columns: repeat(auto-fill, minmax(clamp(5rem, 22%, 12rem), 1fr)) !important; }
.inversion .grid-container { grid-template-columns: repeat(3, minmax(0, 1fr)) !important; }
input[type=range]:focus-visible { outline: 2px solid var(--color-accent); outline-offset: 6px; }
@media (max-width: 30rem) { /* a phone: all four tabs beside each other */
  .tab-container button { padding-inline: 0.55rem !important; }
}
"""


def build_app(studio: Studio, title: str) -> FastAPI:
    """The page as an ASGI application, which answers requests for this machine's names alone.

    Without that check a web site whose name resolves to 127.0.0.1 could ask for pictures here.
    """
    app = FastAPI(openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    return gr.mount_gradio_app(
        app, build_page(studio, title), path="/", server_name="127.0.0.1", theme=_theme(), css=CSS,
        footer_links=[], enable_monitoring=False, ssr_mode=False, pwa=False, mcp_server=False,
    )  # fmt: skip


def _theme() -> gr.themes.Base:
    """Fonts that the system has, where Gradio's own are files to ask for; colours with the contrast of WCAG AA."""
    theme = gr.themes.Default(
        primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    return theme.set(
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_700",
    )
