"""``python -m fastgan_engine``: the same as the ``fastgan-engine`` command."""

from fastgan_engine.cli import main

main()
