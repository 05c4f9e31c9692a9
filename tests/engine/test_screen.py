"""What the user reads while training, character by character."""

import io
import re

import pytest
from rich.console import Console

from fastgan_engine.report import Memory
from fastgan_engine.screen import (
    LiveScreen,
    PlainScreen,
    QuietScreen,
    duration,
    memory_text,
    open_screen,
    panel,
)

from .reports import CPU, report


def console(width: int) -> Console:
    return Console(record=True, width=width, file=io.StringIO(), force_terminal=True, legacy_windows=False)


def rendered(width: int, title: str = "fastgan-engine · runs/0001", **changes: object) -> list[str]:
    recorder = console(width)
    recorder.print(panel(title, report(**changes)))
    return recorder.export_text().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_panel_tells_each_fact_on_a_line_of_its_own(width: int) -> None:
    lines = rendered(width, scale=65536.0, skipped=3)
    assert all(len(line) <= width for line in lines)
    assert "fastgan-engine · runs/0001" in lines[0]
    assert "Ctrl-C saves and stops" in lines[-1]
    facts = [line.strip("│ ") for line in lines[1:-1] if line.strip("│ ")]
    first, rest = facts[0], facts[1:]
    assert re.fullmatch(r"step 1,234 of 50,000 [━╸╺ ]+ 2% 2 h 05 min left", first)
    assert [re.sub(r"\s{2,}", "  ", line) for line in rest] == [
        "speed  123.5 images/s",
        "step  65 ms: data wait 1, D 30, G 33",
        "memory  3.1 GiB used, 3.9 reserved, of 7.8",
        "loss  D real 0.912  D fake 0.846  reconstruction 12.346  G -0.123",
        "fp16  loss scale 65536, steps skipped: 3",
    ]


def test_panel_at_80_columns_keeps_its_lines_in_a_long_run() -> None:
    lines = rendered(80, step=199_980, steps=200_000, seconds_left=359_000, losses={
        "d_real": 10.123, "d_fake": 10.456, "reconstruction": 123.456, "g": -10.123
    })  # fmt: skip
    text = "\n".join(lines)
    assert "step 199,980 of 200,000" in text
    assert "99 h 43 min left" in text
    assert "reconstruction 123.456  G -10.123" in text


def test_step_in_one_cuda_graph_is_not_split(capsys: pytest.CaptureFixture[str]) -> None:
    graph = {"ms_d": None, "ms_g": None}
    assert any("65 ms: data wait 1, D and G 64 " in line for line in rendered(80, **graph))
    PlainScreen().tick(report(**graph))
    assert "65 ms/step (data wait 1, D and G 64)" in capsys.readouterr().out


def test_panel_without_fp16_has_no_row_for_it() -> None:
    assert not any("fp16" in line for line in rendered(80))


@pytest.mark.parametrize(("step", "percent"), [(20, "0%"), (25_000, "50%"), (49_980, "99%"), (50_000, "100%")])
def test_panel_says_100_percent_only_at_the_end(step: int, percent: str) -> None:
    assert any(f" {percent} " in line for line in rendered(80, step=step))


@pytest.mark.parametrize("width", [80, 120])
def test_panel_title_is_not_markup(width: int) -> None:
    assert "runs/[red]x[/bold]" in rendered(width, "runs/[red]x[/bold]")[0]


def test_live_screen_shows_the_last_tick_below_the_events() -> None:
    recorder = console(80)
    with LiveScreen("runs/0001", recorder) as screen:
        screen.tick(report(step=20))
        screen.event("samples: runs/0001/samples/step-0000020.png")
        screen.tick(report(step=40))
    recorder.file.seek(0)
    shown = recorder.file.read()
    assert "samples: runs/0001/samples/step-0000020.png" in shown
    assert shown.rindex("samples:") < shown.rindex("of 50,000")
    assert re.sub(r"\x1b\[[0-9;]*m", "", shown).rindex("step 40 of 50,000")


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_printed_after_the_live_screen_begins_a_line(terminal: bool) -> None:
    out = io.StringIO()
    with LiveScreen("runs/0001", Console(width=80, file=out, force_terminal=terminal, legacy_windows=False)) as screen:
        screen.tick(report())
    screen.event("done")
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue()).splitlines()
    assert lines[-1] == "done"
    assert lines[-2].endswith("╯")


@pytest.mark.parametrize(
    "text",
    [
        "skipped [/bold] a[red].png: it is no image",
        "checkpoint: " + "/".join(["a folder with a long name"] * 6) + "/step-0000020.pt",
        "samples: :smile:/1.png",
    ],
    ids=["markup", "long", "emoji"],
)
def test_live_screen_shows_events_as_they_are(text: str) -> None:
    recorder = console(80)
    LiveScreen("title", recorder).event(text)
    assert recorder.export_text() == text + "\n"


def test_plain_screen_prints_one_line_a_tick(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainScreen() as screen:
        screen.event("32 images")
        screen.tick(report())
        screen.tick(report(scale=1024.0, skipped=3, memory=CPU))
    assert capsys.readouterr().out == (
        "32 images\n"
        "step 1234/50000  123.5 images/s  65 ms/step (data wait 1, D 30, G 33)  3.1 GiB used, 3.9 reserved, of 7.8  "
        "D real 0.912  D fake 0.846  reconstruction 12.346  G -0.123  2 h 05 min left\n"
        "step 1234/50000  123.5 images/s  65 ms/step (data wait 1, D 30, G 33)  1.3 GiB used  "
        "D real 0.912  D fake 0.846  reconstruction 12.346  G -0.123  scale 1024 (3 skipped)  2 h 05 min left\n"
    )


def test_panel_shows_what_holds_in_rows_that_keep_their_place() -> None:
    recorder = console(80)
    with LiveScreen("runs/0001", recorder) as screen:
        screen.status("diversity", "0.41 of the training images'", warning=True)
        screen.status("FID", "30.10 at step 1,000")
        screen.tick(report())
        screen.progress("evaluating", "samples 8 of 16")
        screen.status("diversity", "0.80 of the training images' [/bold]")
        screen.status("evaluating", "")
    recorder.file.seek(0)
    last = recorder.file.read().rpartition("loss")[2]
    assert "evaluating" not in last
    assert last.index("0.80 of the training images' [/bold]") < last.index("30.10 at step 1,000")
    assert "0.41" not in last


def test_plain_screen_prints_what_holds_when_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainScreen() as screen:
        screen.progress("evaluating", "samples 8 of 16")
        screen.status("evaluating", "")
        screen.status("FID", "30.10 at step 1,000")
    assert capsys.readouterr().out == "FID: 30.10 at step 1,000\n"


def test_quiet_screen_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with QuietScreen() as screen:
        screen.event("32 images")
        screen.tick(report())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (11.6, "12 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (250, "4 min 10 s"),
        (3_599.4, "59 min 59 s"),
        (3_599.6, "1 h 00 min"),
        (7_500, "2 h 05 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("memory", "text"),
    [
        (Memory(used=1.26), "1.3 GiB used"),
        (Memory(used=3.14, reserved=3.87), "3.1 GiB used, 3.9 reserved"),
        (Memory(used=3.14, reserved=3.87, budget=8.0), "3.1 GiB used, 3.9 reserved, of 8.0"),
    ],
)
def test_memory_text(memory: Memory, text: str) -> None:
    assert memory_text(memory) == text


@pytest.mark.parametrize(
    ("kind", "terminal", "expected"),
    [
        ("auto", True, LiveScreen),
        ("auto", False, PlainScreen),
        ("live", False, LiveScreen),
        ("plain", True, PlainScreen),
        ("quiet", True, QuietScreen),
    ],
)
def test_screen_of_a_setting(kind, terminal, expected, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    assert type(open_screen(kind, "title")) is expected
