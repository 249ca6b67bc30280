"""One HTML file of a run or of many: no server, no network, no library."""

from simpod.report.html.page import write_report

__all__ = ["write_report"]
