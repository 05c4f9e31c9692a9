"""The port it takes, and what it says without Gradio."""

import socket
import sys
from pathlib import Path

import pytest

from fastgan_engine.api import load_run
from fastgan_engine.errors import UserError
from fastgan_engine.ui import serve, server


def test_the_next_free_port_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        first = taken.getsockname()[1]
        with server.listen(first) as listening:
            host, port = listening.getsockname()
            assert host == "127.0.0.1"
            assert first < port < first + server.PORTS_TRIED
        monkeypatch.setattr(server, "PORTS_TRIED", 1)
        with pytest.raises(UserError, match=f"--port: {first} to {first} are all taken; take another"):
            server.listen(first)


def test_a_port_that_is_not_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(address: tuple[str, int]) -> socket.socket:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refused)
    with pytest.raises(UserError, match=r"--port: cannot listen on 127\.0\.0\.1:80: Permission denied; take another"):
        server.listen(80)


def test_without_gradio_it_says_what_to_install(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_RUN_HISTORY", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")  # restored after the test
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"needs the package gradio, .* pip install 'fastgan-engine\[ui\]'"):
        serve(load_run(run_folder), port=7860, title="shells")
