"""A local page to look at a run with: what each tab does (``studio``), how they are laid out (``page``), looks and whom
it answers (``app``), and its port and end (``server``)."""

from fastgan_engine.ui.server import serve
from fastgan_engine.ui.studio import Studio

__all__ = ["Studio", "serve"]
