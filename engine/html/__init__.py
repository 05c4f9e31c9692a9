"""The report of a run, or of several side by side, as one HTML file that needs nothing beside it."""

from fastgan_engine.html.page import write_report, write_report_or_say

__all__ = ["write_report", "write_report_or_say"]
