"""The page's server: this machine only, nothing sent anywhere, files of its own that go when it ends."""

import errno
import os
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from fastgan_engine.api import Run
from fastgan_engine.errors import UserError
from fastgan_engine.extras import require
from fastgan_engine.ui.studio import Studio

HOST = "127.0.0.1"
PORTS_TRIED = 100
SHUTDOWN_S = 1  # for requests under way; a page that is open keeps one for ever


def serve(
    run: Run,
    *,
    port: int,
    title: str,
    weights_dir: Path | None = None,
    warn: Callable[[str], None] | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serves the page of a run until interrupted.

    Args:
        port: the first one to try; one that is taken is passed over.
        title: of the page.
        weights_dir, warn: see ``Studio``.
        ready: told the page's address, once the browser may ask for it.

    Raises:
        UserError: Gradio is not installed, or no port is free.
    """
    with tempfile.TemporaryDirectory(prefix="fastgan-engine-ui-", ignore_cleanup_errors=True) as folder:
        _keep_to_itself(Path(folder, "gradio"))
        (files := Path(folder, "files")).mkdir()
        require("gradio", extra="ui")
        import uvicorn

        from fastgan_engine.ui.app import build_app

        studio = Studio(run, files, weights_dir=weights_dir, warn=warn)
        config = uvicorn.Config(build_app(studio, title), log_level="critical", timeout_graceful_shutdown=SHUTDOWN_S)

        class Server(uvicorn.Server):
            def handle_exit(self, sig: int, frame: FrameType | None) -> None:
                studio.stopping.set()  # a thread that works cannot be ended from outside
                super().handle_exit(sig, frame)

        with listen(port) as listening:
            if ready:
                ready("http://{}:{}/".format(*listening.getsockname()))
            with suppress(KeyboardInterrupt):  # the way to end it
                Server(config).run(sockets=[listening])


def _keep_to_itself(folder: Path) -> None:
    """Gradio's settings, some of which it reads when imported: no telemetry, no history, its files in this folder."""
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_RUN_HISTORY="False", GRADIO_TEMP_DIR=str(folder))


def listen(first: int) -> socket.socket:
    """A socket that listens on the first free port from ``first`` on, for this machine alone.

    Raises:
        UserError: none of the next ones is free, or the system does not allow it.
    """
    last = min(first + PORTS_TRIED - 1, 65535)
    for port in range(first, last + 1):
        try:
            return socket.create_server((HOST, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise UserError(f"--port: cannot listen on {HOST}:{port}: {error.strerror}; take another") from None
    raise UserError(f"--port: {first} to {last} are all taken; take another")
