"""Pictures of what was simulated; matplotlib (extra `plot`) is imported when one is drawn."""

from simpod.report.topology import plot_topology

__all__ = ["plot_topology"]
