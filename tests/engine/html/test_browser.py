"""The page in a real browser: headless Chromium, where one is installed."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastgan_engine.html import write_report

from .runs import write_run

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=f"needs a browser: none of {', '.join(NAMES)} is installed")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def browser(chromium: Any) -> Iterator[Any]:
    yield chromium
    for context in chromium.contexts:
        context.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    long = "a_run_with_a_rather_long_name_as_people_like_to_give_them"
    first, second = write_run(folder / long, records=120), write_run(folder / "other", pictures=(0, 140, 290))
    (out := folder / "pages").mkdir()
    write_report([first.path], out / "one.html")
    write_report([first.path, second.path], out / "two.html")
    return {"one": out / "one.html", "two": out / "two.html"}


def open_page(browser: Any, file: Path, width: int = 1280, **options: object) -> tuple[Any, list[str]]:
    """The page, and what must stay empty: errors, console messages, requests for anything but the page and its data."""
    page = browser.new_page(viewport={"width": width, "height": 800}, **options)
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on(
        "request",
        lambda request: request.url == file.as_uri() or request.url.startswith("data:") or trouble.append(request.url),
    )
    page.goto(file.as_uri())
    return page, trouble


def shown(page: Any, viewer: int) -> list[str]:
    """Steps of the pictures of a viewer that are to be seen."""
    frames = page.locator("[data-viewer]").nth(viewer).locator(".frame")
    seen = frames.evaluate_all("all => all.filter(e => e.offsetParent !== null).map(e => e.dataset.step)")
    return list(seen)


def test_sliders_move_by_keyboard_and_together(browser: Any, pages: dict[str, Path]) -> None:
    page, trouble = open_page(browser, pages["two"])
    sliders = page.locator("input[type=range]")
    assert sliders.count() == 4
    assert [shown(page, index) for index in range(4)] == [["300"], ["290"], ["300"], ["290"]]
    sliders.nth(0).focus()
    before = page.locator(".frame.current img").nth(0).get_attribute("src")
    page.keyboard.press("ArrowLeft")
    assert [shown(page, index) for index in range(4)] == [["200"], ["140"], ["200"], ["140"]]
    assert page.locator(".frame.current img").nth(0).get_attribute("src") != before
    assert page.locator("output").nth(0).inner_text() == "200"
    assert sliders.nth(0).get_attribute("aria-valuetext") == "step 200"
    page.keyboard.press("Home")
    assert shown(page, 0) == ["0"]
    page.locator("#together").uncheck()
    sliders.nth(0).focus()
    page.keyboard.press("End")
    assert [shown(page, index) for index in range(4)] == [["300"], ["0"], ["0"], ["0"]]
    widths = page.locator(".frame.current img").evaluate_all("all => all.map(i => i.naturalWidth)")
    assert all(width == 24 for width in widths)
    assert trouble == []


def test_play_goes_from_the_first_picture_to_the_last(browser: Any, pages: dict[str, Path]) -> None:
    page, trouble = open_page(browser, pages["one"])
    page.locator("#play").click()
    assert shown(page, 0) == ["0"]
    sync_api.expect(page.locator("#play")).to_have_text("Play")
    assert shown(page, 0) == ["300"]
    assert trouble == []


def test_plots_are_drawn_and_read_out(browser: Any, pages: dict[str, Path]) -> None:
    page, trouble = open_page(browser, pages["one"])
    lines = page.locator(".area path.line")
    assert lines.count() == 11
    boxes = lines.evaluate_all("all => all.map(e => [e.getBBox().width, getComputedStyle(e).stroke])")
    assert all(width > 900 for width, _ in boxes)
    assert len({stroke for _, stroke in boxes[:3]}) == 3
    value = page.locator(".chart .value").nth(3)  # of the reconstruction loss
    last = value.inner_text()
    page.locator(".plot").nth(1).focus()
    page.keyboard.press("Home")
    first_step = page.locator(".where").nth(1).inner_text()
    assert first_step.startswith("at step ")
    assert float(value.inner_text()) > 4 > float(last)
    page.keyboard.press("Escape")
    assert value.inner_text() == last
    page.locator(".area").nth(1).hover()
    assert page.locator(".where").nth(1).inner_text() not in ("", first_step)
    assert trouble == []


@pytest.mark.parametrize("kind", ["one", "two"])
@pytest.mark.parametrize("width", [360, 768])
def test_no_overflow_on_narrow_screens(kind: str, width: int, browser: Any, pages: dict[str, Path]) -> None:
    page, trouble = open_page(browser, pages[kind], width)
    page.locator("details").evaluate_all("all => all.forEach(e => e.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    outside = page.locator("h1, h2, h3, figure, img, input, dd, svg").evaluate_all(
        "(all, width) => all.filter(e => e.getBoundingClientRect().right > width).map(e => e.outerHTML.slice(0, 80))",
        width,
    )
    assert outside == []
    assert trouble == []


def test_dark_and_focus(browser: Any, pages: dict[str, Path]) -> None:
    backs = []
    for scheme in ("light", "dark"):
        page, _ = open_page(browser, pages["one"], color_scheme=scheme)
        backs.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    light, dark = ([int(c) for c in back.strip("rgb()").split(",")] for back in backs)
    assert min(light) > 200
    assert max(dark) < 60
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_print_shows_first_middle_and_last(browser: Any, pages: dict[str, Path]) -> None:
    page, _ = open_page(browser, pages["one"], 700)
    page.emulate_media(media="print")
    assert shown(page, 0) == ["0", "100", "300"]
    assert page.locator(".frame.key .frame-step").first.inner_text() == "step 0"
    assert all(page.locator("input, button, nav").evaluate_all("all => all.map(e => e.offsetParent === null)"))
    assert page.pdf().startswith(b"%PDF-")


def test_without_scripts_the_pictures_are_still_there(browser: Any, pages: dict[str, Path]) -> None:
    page, trouble = open_page(browser, pages["one"], java_script_enabled=False)
    assert page.locator(".frame.key img").first.is_visible()
    assert not page.locator("input[type=range]").first.is_visible()
    assert trouble == []
