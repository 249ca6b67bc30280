"""Looking at results: plots (matplotlib), one HTML page, traces for Perfetto, other tools' formats.

Heavy libraries are imported when a picture is drawn.
"""

from simpod.report.plots.heat import plot_experts, plot_links
from simpod.report.plots.latency import plot_cdf, plot_cdfs, plot_scatter, plot_tail
from simpod.report.plots.parity import plot_parity
from simpod.report.plots.slo import plot_pareto, plot_slo_curve, plot_slo_curves
from simpod.report.plots.time_spent import plot_attribution, plot_steps
from simpod.report.plots.timeline import plot_timeline
from simpod.report.sources import requests_of, runs_of
from simpod.report.topology import plot_topology

__all__ = [
    "plot_attribution",
    "plot_cdf",
    "plot_cdfs",
    "plot_experts",
    "plot_links",
    "plot_pareto",
    "plot_parity",
    "plot_scatter",
    "plot_slo_curve",
    "plot_slo_curves",
    "plot_steps",
    "plot_tail",
    "plot_timeline",
    "plot_topology",
    "requests_of",
    "runs_of",
]
