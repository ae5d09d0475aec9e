"""The report of a run: one static HTML file, made from the warehouse alone."""

from flows.report.write import write_report

__all__ = ["write_report"]
