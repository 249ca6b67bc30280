"""Balancers of experts, one a file: which slot holds a copy of which expert."""
