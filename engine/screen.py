"""What the user sees while training: a live panel in a terminal, plain lines elsewhere, or nothing."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fastgan_engine.report import Memory, TickReport

LOSS_NAMES = {"d_real": "D real", "d_fake": "D fake", "reconstruction": "reconstruction", "g": "G"}


class Screen(ABC):
    """Shows a run's ticks and events. A context manager: the live panel takes the terminal only while inside."""

    @abstractmethod
    def tick(self, report: TickReport) -> None: ...

    @abstractmethod
    def event(self, text: str) -> None:
        """One line worth keeping, such as a file that was written."""

    @abstractmethod
    def status(self, name: str, text: str, *, warning: bool = False) -> None:
        """What holds until it is told anew, such as the last evaluation; an empty text ends it."""

    def progress(self, name: str, text: str) -> None:
        """A status that changes too often for anything but a live panel."""
        return

    def __enter__(self) -> "Screen":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None


class QuietScreen(Screen):
    def tick(self, report: TickReport) -> None: ...

    def event(self, text: str) -> None: ...

    def status(self, name: str, text: str, *, warning: bool = False) -> None: ...


class PlainScreen(Screen):
    """One line a tick, for logs and pipes."""

    def tick(self, report: TickReport) -> None:
        losses = "  ".join(f"{LOSS_NAMES.get(name, name)} {value:.3f}" for name, value in report.losses.items())
        print(
            f"step {report.step}/{report.steps}  {report.images_per_second:.1f} images/s  {report.ms_step:.0f} ms/step "
            f"({_split(report)})  {memory_text(report.memory)}  "
            f"{losses}{_scaler_text(report)}  {duration(report.seconds_left)} left",
            flush=True,
        )

    def event(self, text: str) -> None:
        print(text, flush=True)

    def status(self, name: str, text: str, *, warning: bool = False) -> None:
        if text:
            print(f"{name}: {text}", flush=True)


class LiveScreen(Screen):
    """A panel that is redrawn at every tick; events scroll above it."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        self.title = title
        self.console = console or Console()
        self._live = Live(Text("starting ..."), console=self.console, refresh_per_second=4)
        self._report: TickReport | None = None
        self._statuses: dict[str, Text] = {}

    def tick(self, report: TickReport) -> None:
        self._report = report
        self._draw()

    def status(self, name: str, text: str, *, warning: bool = False) -> None:
        if text:
            self._statuses[name] = Text(text, style="bold red" if warning else "")
        else:
            self._statuses.pop(name, None)
        self._draw()

    def progress(self, name: str, text: str) -> None:
        self.status(name, text)

    def _draw(self) -> None:
        if self._report is not None:
            self._live.update(panel(self.title, self._report, self._statuses))

    def event(self, text: str) -> None:
        # As it stands: a path may hold what Rich would take for markup or an emoji, and is there to be copied whole.
        self._live.console.print(Text(text), soft_wrap=True)

    def __enter__(self) -> "LiveScreen":
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()
        if not self.console.is_terminal:
            self.console.line()  # where it is none, Rich leaves the panel's last line open


def panel(title: str, report: TickReport, statuses: Mapping[str, Text] | None = None) -> RenderableType:
    """The live panel of one tick, with what else holds in rows of their own."""
    done = Table.grid(padding=(0, 1))
    done.add_row(
        f"step [bold]{report.step:,}[/] of {report.steps:,}",
        ProgressBar(total=report.steps, completed=report.step, width=30),
        f"{100 * report.step // report.steps}%",
        f"[bold]{duration(report.seconds_left)}[/] left",
    )
    facts = Table.grid(padding=(0, 3))
    facts.add_column(style="dim")
    facts.add_column()
    facts.add_row("speed", f"[bold]{report.images_per_second:.1f}[/] images/s")
    facts.add_row(
        "step",
        f"[bold]{report.ms_step:.0f} ms[/]: {_split(report)}",
    )
    facts.add_row("memory", memory_text(report.memory))
    facts.add_row("loss", "  ".join(f"{LOSS_NAMES.get(n, n)} [bold]{v:.3f}[/]" for n, v in report.losses.items()))
    if report.scale is not None:
        facts.add_row("fp16", f"loss scale {report.scale:g}, steps skipped: {report.skipped}")
    for name, text in (statuses or {}).items():
        facts.add_row(Text(name), text)
    return Panel(
        Group(done, Text(), facts), title=Text(title), subtitle="Ctrl-C saves and stops", expand=False, padding=(1, 2)
    )


def memory_text(memory: Memory) -> str:
    """Such as "3.1 GiB used, 3.9 reserved, of 8.0"."""
    text = f"{memory.used:.1f} GiB used"
    if memory.reserved is not None:
        text += f", {memory.reserved:.1f} reserved"
    return text if memory.budget is None else text + f", of {memory.budget:.1f}"


def _scaler_text(report: TickReport) -> str:
    return "" if report.scale is None else f"  scale {report.scale:g} ({report.skipped} skipped)"


def _split(report: TickReport) -> str:
    """What a step's time goes to, ms; one CUDA graph holds D and G together."""
    if report.ms_d is None or report.ms_g is None:
        return f"data wait {report.ms_data:.0f}, D and G {report.ms_step - report.ms_data:.0f}"
    return f"data wait {report.ms_data:.0f}, D {report.ms_d:.0f}, G {report.ms_g:.0f}"


def duration(seconds: float) -> str:
    """Such as "2 h 05 min", "4 min 10 s" or "12 s"."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def open_screen(kind: Literal["auto", "live", "plain", "quiet"], title: str) -> Screen:
    """The screen for ``log.screen``; auto takes the panel in a terminal."""
    if kind == "live" or (kind == "auto" and sys.stdout.isatty()):
        return LiveScreen(title)
    return QuietScreen() if kind == "quiet" else PlainScreen()
