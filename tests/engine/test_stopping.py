"""Ctrl-C and SIGTERM: the first asks, the second interrupts."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from fastgan_engine.stopping import Interruption

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(autouse=True)
def _own_handlers() -> Iterator[None]:
    """A failing test must not leave pytest with other handlers."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_first_signal_asks_and_execution_goes_on(number: signal.Signals) -> None:
    with Interruption() as interruption:
        assert not interruption.requested
        signal.raise_signal(number)
        assert interruption.requested


@pytest.mark.parametrize("second", SIGNALS, ids=lambda number: number.name)
def test_second_signal_interrupts(second: signal.Signals) -> None:
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(second)
        assert interruption.requested


@pytest.mark.parametrize("fails", [False, True])
def test_handlers_are_restored(fails: bool) -> None:
    def own(number: int, frame: object) -> None: ...

    signal.signal(signal.SIGTERM, own)
    before = signal.getsignal(signal.SIGINT)
    try:
        with Interruption():
            assert signal.getsignal(signal.SIGTERM) is not own
            if fails:
                raise RuntimeError("the step failed")
    except RuntimeError:
        pass
    assert signal.getsignal(signal.SIGTERM) is own
    assert signal.getsignal(signal.SIGINT) is before


def test_handler_that_python_did_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """`signal.signal` answers None for one, and takes no None."""
    real = signal.signal
    monkeypatch.setattr(signal, "signal", lambda number, handler: real(number, handler) and None)
    with Interruption():
        pass
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_outside_the_main_thread_nothing_is_caught() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with Interruption() as interruption:
            seen.extend([interruption.requested, signal.getsignal(signal.SIGINT)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False, before]


def test_signal_from_another_process_wakes_the_loop() -> None:
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1_000_000):
            if interruption.requested:
                break
        assert interruption.requested
