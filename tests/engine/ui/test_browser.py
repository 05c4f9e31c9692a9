"""The command and its page in a real browser: headless Chromium, where one is installed."""

import io
import os
import re
import select
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from fastgan_engine.images import grid
from fastgan_engine.latent.latents import load_latents, read_latents
from fastgan_engine.latent.mixing import mixing_table
from fastgan_engine.latent.rendering import render
from fastgan_engine.networks import Generator
from fastgan_engine.sampling import sample
from tests.engine.html.test_browser import CHROMIUM, NAMES

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytest.importorskip("gradio", reason="needs gradio")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=f"needs a browser: none of {', '.join(NAMES)} is installed")
WAIT_MS = 30_000


@dataclass
class Server:
    """A running command.

    Attributes:
        proxy: through which it would send requests to anywhere else.
        folder: for its temporary files.
    """

    process: subprocess.Popen[str]
    address: str
    proxy: socket.socket
    folder: Path


@contextmanager
def started(run: Path, folder: Path) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        through = "http://127.0.0.1:{1}".format(*proxy.getsockname())
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), through)
        own = {"OMP_NUM_THREADS": "1", "TORCH_HOME": str(folder), "TMPDIR": str(folder), "no_proxy": "127.0.0.1"}
        process = subprocess.Popen(
            [sys.executable, "-m", "fastgan_engine", "ui", str(run), "--device", "cpu", "--no-browser"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | own | proxies,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.search(r"http://127\.0\.0\.1:\d+/", line)
            assert match, line + process.stdout.read()
            yield Server(process, match[0], proxy, folder)
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def server(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with started(run_folder, tmp_path_factory.mktemp("ui")) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any, server: Server) -> Iterator[Callable[..., Any]]:
    """Opens the page; at the end there must have been no error and no request to anywhere else."""
    trouble: list[str] = []

    def noted(page: Any) -> None:
        page.on("console", lambda message: message.type == "error" and trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: is_own(request.url) or trouble.append(request.url))

    def is_own(url: str) -> bool:
        return url.startswith((server.address, "data:", f"blob:{server.address}"))

    def opened(width: int = 1280, **options: Any) -> Any:
        page = chromium.new_page(viewport={"width": width, "height": 900}, **options)
        page.set_default_timeout(WAIT_MS)
        noted(page)
        page.goto(server.address)
        page.locator(".samples img").nth(15).wait_for()
        return page

    yield opened
    for context in chromium.contexts:
        context.close()
    assert trouble == []
    assert select.select([server.proxy], [], [], 0)[0] == [], "the server asked for something elsewhere"


def shown(page: Any, selector: str) -> np.ndarray:
    """The pixels of the picture that is shown."""
    with page.expect_response(re.compile("probe")) as response:
        page.locator(selector).evaluate("image => { fetch(image.src + '?probe') }")
    return np.asarray(Image.open(io.BytesIO(response.value.body())))


def downloaded(page: Any, button: str, folder: Path) -> Path:
    with page.expect_download() as download:
        page.get_by_role("button", name=button).or_(page.get_by_role("link", name=button)).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_samples_follow_the_sliders(open_page: Callable[..., Any], generator: Generator, tmp_path: Path) -> None:
    page = open_page()
    (before, *_) = first = next(sample(generator, 8))
    assert np.array_equal(shown(page, ".samples img >> nth=0"), before)
    page.get_by_role("slider", name="Seed").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_text("1:0", exact=True).wait_for()
    after = next(sample(generator, 1, seed=1))[0]
    assert np.array_equal(shown(page, ".samples img >> nth=0"), after)
    page.keyboard.press("ArrowLeft")
    page.get_by_role("slider", name="Images").fill("8")
    sync_api.expect(page.locator(".samples img")).to_have_count(8)
    with Image.open(downloaded(page, "Download as one PNG", tmp_path)) as picture:
        assert np.abs(np.asarray(picture).astype(int) - grid(first).numpy()).max() <= 1


def test_mixing_gives_the_table(open_page: Callable[..., Any], generator: Generator, tmp_path: Path) -> None:
    page = open_page()
    page.get_by_role("tab", name="Mix").click()
    page.get_by_label("Rows: shapes").fill("0:3, 4")
    page.get_by_label("Columns: styles").fill("5")
    page.keyboard.press("Enter")
    page.get_by_alt_text("Table of mixtures").wait_for()
    expected = grid(mixing_table(generator, read_latents(generator, "0:3,4"), read_latents(generator, "5")), columns=2)
    assert np.abs(shown(page, "img[alt='Table of mixtures']").astype(int) - expected.numpy()).max() <= 1
    with Image.open(downloaded(page, "Download the PNG", tmp_path)) as picture:
        assert np.abs(np.asarray(picture).astype(int) - expected.numpy()).max() <= 1


def test_what_is_wrong_is_said_as_text(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.get_by_role("tab", name="Mix").click()
    page.get_by_label("Rows: shapes").fill("<b>seven</b>")
    page.get_by_role("button", name="Mix", exact=True).click()
    page.get_by_text("a latent: got '<b>seven</b>', expected a SEED").wait_for()
    page.get_by_role("tab", name="Invert").click()
    page.get_by_role("button", name="Invert", exact=True).click()
    page.get_by_text("give a picture first").wait_for()


@pytest.mark.parametrize("kind", ["mp4", "GIF"])
def test_a_video_is_made(kind: str, open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page()
    page.get_by_role("tab", name="Interpolate").click()
    page.get_by_label("Through").fill("1, 2")
    page.get_by_role("slider", name="Frames from one image").fill("3")
    page.get_by_label(kind, exact=True).check()
    page.get_by_role("button", name="Make the video").click()
    page.locator("video[src], video source[src], img[alt=Interpolation]").first.wait_for()
    video = downloaded(page, "Download the video", tmp_path)
    assert iio.imread(video).shape == (6, 64, 64, 3)  # there and back: the default is a loop
    assert video.suffix == f".{kind.lower()}"


def test_an_uploaded_picture_is_inverted(
    open_page: Callable[..., Any], photo: Path, generator: Generator, tmp_path: Path
) -> None:
    page = open_page()
    page.get_by_role("tab", name="Invert").click()
    page.locator("input[type=file]").first.set_input_files(photo)
    page.get_by_role("slider", name="Steps").fill("10")
    page.get_by_role("slider", name="Attempts").fill("1")
    page.get_by_role("button", name="Invert", exact=True).click()
    told = page.get_by_text("Distance to your picture, by pixels")
    told.wait_for()
    before, after = map(float, re.findall(r"0\.\d{3}", told.inner_text()))
    assert after < before
    assert np.array_equal(shown(page, ".inversion img >> nth=0"), np.asarray(Image.open(photo)))
    found = load_latents(downloaded(page, "Download the latent", tmp_path), generator)
    (image,) = next(render(generator, found))
    assert np.abs(shown(page, ".inversion img >> nth=2").astype(int) - image.numpy()).max() <= 1


def test_a_damaged_picture_is_named(open_page: Callable[..., Any], tmp_path: Path) -> None:
    (damaged := tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    page = open_page()
    page.get_by_role("tab", name="Invert").click()
    page.locator("input[type=file]").first.set_input_files(damaged)
    page.get_by_role("button", name="Invert", exact=True).click()
    page.get_by_text("damaged.png cannot be used: ").wait_for()


def test_dark_and_narrow(open_page: Callable[..., Any]) -> None:
    backs = []
    for scheme in ("light", "dark"):
        page = open_page(360, color_scheme=scheme)
        backs.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        assert page.get_by_role("tab").count() == 4
    light, dark = ([int(c) for c in re.findall(r"\d+", back)[:3]] for back in backs)
    assert min(light) > 200
    assert max(dark) < 60


def test_only_this_machine_is_answered(server: Server) -> None:
    port = server.address.rstrip("/").rpartition(":")[2]
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(urllib.request.Request(server.address, headers={"Host": f"elsewhere.example:{port}"}))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", int(port)))


def test_ctrl_c_ends_it_and_leaves_nothing(open_page: Callable[..., Any], server: Server, photo: Path) -> None:
    """The last one of this file: it ends the server that the others share, in the midst of its work."""
    page = open_page()
    page.get_by_role("tab", name="Invert").click()
    page.locator("input[type=file]").first.set_input_files(photo)
    page.get_by_role("slider", name="Steps").fill("1000")
    page.get_by_role("slider", name="Attempts").fill("16")
    page.get_by_role("button", name="Invert", exact=True).click()
    page.get_by_text(re.compile(r"\d+/16k steps")).wait_for()
    assert any(server.folder.glob("fastgan-engine-ui-*/*"))
    server.process.send_signal(signal.SIGINT)
    output, _ = server.process.communicate(timeout=20)
    assert server.process.returncode == 0
    assert output == ""
    assert not any(server.folder.glob("fastgan-engine-ui-*"))
