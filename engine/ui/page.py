"""The page: Gradio lays out what ``Studio`` does. Imported once Gradio is known to be there (see ``server``)."""

import functools
import html
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from fastgan_engine.errors import UserError
from fastgan_engine.latent import defaults
from fastgan_engine.latent.defaults import MetricName
from fastgan_engine.sampling import device_of
from fastgan_engine.ui.studio import Inversion, Studio, VideoKind

T = TypeVar("T")

HIGHEST_SEED = 9999
KEPT_S = 3600  # files that were shown are deleted after this
ERROR_S = 20  # that a message stays
NAMES = "Comma list: 7 is the first image of seed 7, 0:5 the one that Samples names so."
# A label that is shown would lie on the first picture.
SHOWN: dict[str, Any] = {"elem_classes": "whole", "interactive": False, "show_label": False}
GALLERY: dict[str, Any] = {
    "format": "png", "object_fit": "contain", "height": "auto", "show_label": False, "buttons": ["download"],
}  # fmt: skip
PROGRESS = gr.Progress()  # Gradio hands a function whose default this is the one of its event
# Two events at once would disturb each other: inversion freezes the generator's weights.
ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "generator", "concurrency_limit": 1, "api_visibility": "private"}


def build_page(studio: Studio, title: str) -> gr.Blocks:
    """The tabs, and what they call."""
    with gr.Blocks(
        title=f"{title} · fastgan-engine", analytics_enabled=False, fill_width=True, delete_cache=(KEPT_S, KEPT_S)
    ) as page:
        gr.Markdown(f"# {title}\n{_about(studio)}")
        with gr.Tab("Samples"):
            _samples_tab(page, studio)
        with gr.Tab("Mix"):
            _mix_tab(studio)
        with gr.Tab("Interpolate"):
            _interpolate_tab(studio)
        with gr.Tab("Invert"):
            _invert_tab(studio)
    return page


def _about(studio: Studio) -> str:
    size, step = studio.generator.im_size, studio.run.step
    trained = "" if step is None else f" after {step:,} steps"
    return f"Images of {size} x {size}{trained}, made on {device_of(studio.generator)} from `{studio.run.source}`"


def _samples_tab(page: gr.Blocks, studio: Studio) -> None:
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            seed = gr.Slider(0, HIGHEST_SEED, 0, step=1, label="Seed", info="Another seed, other images.")
            count = gr.Slider(1, 64, 16, step=1, label="Images")
            truncation = _truncation()
            save = gr.Button("Download as one PNG")
            file = gr.DownloadButton(visible="hidden", elem_id="samples-file")
        with gr.Column(scale=3, min_width=320):
            gallery = gr.Gallery(label="Samples", elem_classes=["whole", "samples"], **GALLERY)
    settings = [count, seed, truncation]
    gr.on(
        [page.load, *(setting.change for setting in settings)], _friendly(studio.samples), settings, gallery,
        trigger_mode="always_last", show_progress="minimal", **ONE_AT_A_TIME,
    )  # fmt: skip
    # The file is made when it is asked for, not at each move of a slider: a large PNG takes seconds.
    save.click(_friendly(studio.samples_file), settings, file, **ONE_AT_A_TIME).success(
        None, js="() => document.querySelector('#samples-file').click()"
    )


def _mix_tab(studio: Studio) -> None:
    gr.Markdown(
        "Each row's image in the style of each column's: shapes stay, colours and texture change. The first column and "
        "the first row show the originals."
    )
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            rows = gr.Textbox("0:0, 0:1, 0:2, 0:3", label="Rows: shapes", info=NAMES)
            columns = gr.Textbox("1:0, 1:1, 1:2, 1:3", label="Columns: styles", info="Likewise.")
            truncation = _truncation()
            go = gr.Button("Mix", variant="primary")
            file = gr.DownloadButton("Download the PNG", interactive=False)
        with gr.Column(scale=3, min_width=320):
            table = gr.Image(label="Mixtures", alt_text="Table of mixtures", buttons=["fullscreen"], **SHOWN)

    def mix(rows: str, columns: str, truncation: float) -> tuple[Path, Any]:
        path = studio.mix(rows, columns, truncation)
        return path, _ready(path)

    gr.on(
        [go.click, rows.submit, columns.submit], _friendly(mix), [rows, columns, truncation], [table, file],
        **ONE_AT_A_TIME,
    )  # fmt: skip


def _interpolate_tab(studio: Studio) -> None:
    gr.Markdown("A video that turns images into each other. The way between two is an arc, so that it stays likely.")
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            through = gr.Textbox("0:0, 0:1, 0:2, 0:3", label="Through", info=NAMES)
            frames = gr.Slider(1, 120, defaults.FRAMES, step=1, label="Frames from one image to the next")
            fps = gr.Slider(1, 60, defaults.FPS, step=1, label="Frames a second")
            loop = gr.Checkbox(True, label="Loop", info="Go back to the first image, to be played for ever.")
            truncation = _truncation()
            kind = gr.Radio([("mp4", "mp4"), ("GIF", "gif")], value="mp4", label="Format")
            go = gr.Button("Make the video", variant="primary")
            file = gr.DownloadButton("Download the video", interactive=False)
        with gr.Column(scale=3, min_width=320):
            video = gr.Video(label="Video", autoplay=True, loop=True, buttons=[], **SHOWN)
            gif = gr.Image(label="GIF", alt_text="Interpolation", buttons=[], visible=False, **SHOWN)

    def make(
        through: str, frames: int, fps: float, loop: bool, truncation: float, kind: VideoKind,
        progress: gr.Progress = PROGRESS,
    ) -> tuple[Any, Any, Any]:  # fmt: skip
        counting = _counting(progress, "frames")
        path = studio.interpolate(through, frames, fps, loop, truncation, kind, progress=counting)
        is_gif = path.suffix == ".gif"
        return (
            gr.Video(None if is_gif else path, visible=not is_gif),
            gr.Image(str(path) if is_gif else None, visible=is_gif),
            _ready(path),
        )

    settings = [through, frames, fps, loop, truncation, kind]
    go.click(_friendly(make), settings, [video, gif, file], show_progress_on=[video, gif], **ONE_AT_A_TIME)


def _invert_tab(studio: Studio) -> None:
    gr.Markdown("Looks for the latent whose image is nearest to a picture of yours: what the generator can make of it.")
    metrics = studio.metrics()
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            picture = gr.Image(type="filepath", image_mode=None, sources=["upload", "clipboard"], label="Your picture")
            picture.preprocess = _uploaded  # type: ignore[method-assign]
            steps = gr.Slider(10, 1000, defaults.STEPS, step=10, label="Steps")
            restarts = gr.Slider(1, 16, defaults.RESTARTS, step=1, label="Attempts", info="The best one is kept.")
            metric = gr.Radio(metrics, value=metrics[0], label="Compared by", info=_about_metrics(studio))
            go = gr.Button("Invert", variant="primary")
            file = gr.DownloadButton("Download the latent", interactive=False)
        with gr.Column(scale=3, min_width=320):
            result = gr.Gallery(label="Inversion", elem_classes=["whole", "inversion"], columns=3, **GALLERY)
            told = gr.Markdown()

    def invert(
        picture: str | None, metric: MetricName, steps: int, restarts: int, progress: gr.Progress = PROGRESS
    ) -> tuple[Any, str, Any]:
        if picture is None:
            raise UserError("give a picture first")
        found = studio.invert(Path(picture), metric, steps, restarts, progress=_counting(progress, "steps"))
        return _captioned(found), _told(found), _ready(found.latents)

    settings = [picture, metric, steps, restarts]
    go.click(_friendly(invert), settings, [result, told, file], show_progress_on=[result], **ONE_AT_A_TIME)


def _uploaded(payload: Any) -> str | None:
    """The path of the file as it is: the library reads it as it reads training images, and says what is wrong.

    In place of ``gr.Image.preprocess``, which opens it first and fails with a message of its own. A class derived from
    ``gr.Image`` would do, but Gradio writes a .pyi beside the module of such a class.
    """
    return payload.path if payload else None


def _about_metrics(studio: Studio) -> str:
    if studio.metrics() == ["pixels"]:
        return "LPIPS sees more like we do; its weights are not on this machine (see --weights-dir)."
    return "LPIPS sees more like we do; pixels is faster."


def _captioned(found: Inversion) -> list[tuple[Any, str]]:
    return [(found.target, "target"), (found.start, "start"), (found.result, "found")]


def _told(found: Inversion) -> str:
    return (
        f"Distance to your picture, by {found.unit}: **{found.before:.3f}** at the start, **{found.after:.3f}** found. "
        f"Mix and Interpolate know the latent as `{found.latents.name}`."
    )


def _truncation() -> gr.Slider:
    info = "Below 1: more typical, less variety."
    return gr.Slider(0, 1.5, 1, step=0.05, label="Truncation", info=info)


def _ready(path: Path) -> Any:
    """The download button with its file."""
    return gr.DownloadButton(value=path, interactive=True)


def _counting(progress: gr.Progress, unit: str) -> Callable[[int, int], None]:
    return lambda done, total: progress((done, total), unit=unit)


def _friendly(answer: Callable[..., T]) -> Callable[..., T]:
    """What is wrong with the input is shown as it stands; anything else is an error of ours, with its traceback."""

    @functools.wraps(answer)
    def answered(*args: Any, **kwargs: Any) -> T:
        try:
            return answer(*args, **kwargs)
        except UserError as error:
            text = html.escape(str(error)).replace("\n", "<br>")  # Gradio shows HTML
            raise gr.Error(text, duration=ERROR_S, print_exception=False) from error

    return answered
