"""Configuration of a run: ``resolve(profile, config_file, flags, sets) -> Config``.

Precedence, the later over the earlier: defaults < profile < ``--config FILE`` < flags < ``--set section.key=value``.
``--set`` comes last because it is the most specific: appended to any command line, it wins.
Importing this loads pydantic, never torch.
"""

from fastgan_engine.config.layers import Resolution, resolve, resolve_as, resolve_with_sources
from fastgan_engine.config.schema import Config, sections, settings

__all__ = ["Config", "Resolution", "resolve", "resolve_as", "resolve_with_sources", "sections", "settings"]
