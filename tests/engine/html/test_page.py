"""The page as a file: well formed, escaped, self-contained, within its size."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from fastgan_engine.html import write_report
from fastgan_engine.html.page import HERE

from .runs import write_run

VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """Elements with their attributes; raises where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += f"{data}\n"

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(out: Path, *runs: Path, **options: int) -> Page:
    write_report(runs, out, **options)
    return Page(out.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("runs")
    first = write_run(folder / "first", settings=["train.lr=1e-4", "model.im_size=64"])
    second = write_run(folder / "second", settings=["train.batch=4", "model.im_size=64"], pictures=(0, 50))
    return page_of(folder / "two.html", first.path, second.path)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("run")
    return page_of(folder / "one.html", write_run(folder / "run", settings=["train.lr=1e-4"]).path)


@pytest.mark.parametrize("kind", ["one", "two"])
def test_ids_are_unique_and_what_refers_to_them_finds_them(kind: str, request: pytest.FixtureRequest) -> None:
    page: Page = request.getfixturevalue(kind)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    references = [a[key] for _, a in page.elements for key in ("for", "aria-labelledby") if key in a]
    references += [link["href"][1:] for link in page.all("a") if link["href"]]
    assert len(references) > 8
    assert set(references) <= set(ids)


@pytest.mark.parametrize("kind", ["one", "two"])
def test_nothing_is_loaded_from_elsewhere(kind: str, request: pytest.FixtureRequest) -> None:
    page: Page = request.getfixturevalue(kind)
    for tag, attributes in page.elements:
        for key in ("src", "href", "action", "data", "poster", "srcset"):
            assert (attributes.get(key) or "#").startswith(("data:", "#")), (tag, attributes)
    assert "default-src 'none'" in str(page.all("meta"))
    assert not re.search(r"https?://|@import|url\(", (HERE / "style.css").read_text())


def test_for_readers_of_every_kind(one: Page) -> None:
    headings = [tag for tag, _ in one.elements if re.fullmatch("h[1-6]", tag)]
    assert headings.count("h1") == 1
    assert all(int(b[1]) <= int(a[1]) + 1 for a, b in pairwise(headings))
    assert all(image["alt"] and image["width"] for image in one.all("img"))
    labelled = {label.get("for") for label in one.all("label")}
    sliders = [control for control in one.all("input") if control["type"] == "range"]
    assert len(sliders) == 2
    assert {slider["id"] for slider in sliders} <= labelled
    assert [output["aria-live"] for output in one.all("output")] == ["polite", "polite"]
    assert one.all("html") == [{"lang": "en"}]
    plots = [a for tag, a in one.elements if a.get("class") == "plot"]
    assert len(plots) == 5
    assert all(plot["aria-label"] for plot in plots)
    assert len(one.all("table")) >= len(plots) + 2


def test_settings_tell_what_was_changed(one: Page, two: Page) -> None:
    changed = one.text.index("Changed from the defaults")
    assert 0 < one.text.index("train.lr", changed) < one.text.index("All settings", changed)
    assert one.text.count("train.batch") == 1
    different = two.text[two.text.index("Different between the runs") : two.text.index("Changed in all runs alike")]
    assert re.findall(r"(?:train|model)\.\w+", different) == ["train.batch", "train.lr"]
    alike = two.text[two.text.index("Changed in all runs alike") : two.text.index("All settings")]
    assert re.findall(r"(?:train|model)\.\w+", alike) == ["model.im_size"]


def test_facts(one: Page) -> None:
    for fact in ("300 of 300", "0:01:00", "40 images/s", "200 ms", "3.50 of 8.00 GiB", "256 × 256", "60"):
        assert fact in one.text


def test_names_and_values_are_escaped(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>\"'&"
    folder = write_run(tmp_path / evil, more={f"</script>{evil}": 1.0})
    folder.config.write_text(f"[data]\npath = '''</code>{evil}'''\n", encoding="utf-8")
    folder.environment.write_text('{"step": 0, "device": "</td><script>alert(1)</script>"}\n')
    page = page_of(tmp_path / "report.html", folder.path, write_run(tmp_path / "</title>").path)
    assert all("onerror" not in attributes for _, attributes in page.elements)
    assert len(page.all("script")) == 2
    assert f"</code>{evil}" in page.text
    assert "</td><script>alert(1)</script>" in page.text


def test_pictures_keep_to_their_budget(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(i), pictures=range(0, 400, 10), side=96).path for i in range(2)]
    without = [write_run(tmp_path / f"{i}w", pictures=()).path for i in range(2)]
    for budget in (100_000, 400_000):
        page_of(tmp_path / "with.html", *runs, picture_budget=budget)
        page_of(tmp_path / "without.html", *without, picture_budget=budget)
        more = (tmp_path / "with.html").stat().st_size - (tmp_path / "without.html").stat().st_size
        assert 0.3 * budget < more < 1.3 * budget


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").touch()
    page = page_of(tmp_path / "report.html", tmp_path / "run")
    assert "no records yet" in page.text
    assert "This run has recorded none" in page.text
    assert page.all("figure") == []


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    """WCAG 2.2, from 1 to 21."""
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])
def test_contrast(scheme: int) -> None:
    """WCAG AA: 4.5 for text, 3 for lines and controls; in light and in dark colours."""
    roots = re.findall(r":root \{(.*?)\}", (HERE / "style.css").read_text(), re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", roots[scheme]))
    assert len(colours) == 13
    for back in ("back", "card"):
        for text in ("ink", "soft", "accent"):
            assert contrast(colours[text], colours[back]) >= 4.5
        for line in ("c0", "c1", "c2", "c3", "c4", "c5"):
            assert contrast(colours[line], colours[back]) >= 3
    assert contrast(colours["ink"], colours["mark"]) >= 4.5
