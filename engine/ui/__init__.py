"""A local page to look at a run with: what each tab does (``studio``), how it is laid out (``page``), its server."""

from fastgan_engine.ui.server import serve
from fastgan_engine.ui.studio import Studio

__all__ = ["Studio", "serve"]
