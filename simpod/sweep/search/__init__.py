"""Searches: the highest rate within an SLO, SLO curves, the cheapest deployment, Pareto sets."""
