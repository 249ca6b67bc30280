"""Batch schedulers, one a file: what takes part in the next step of a rank."""
