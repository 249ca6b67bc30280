"""Readers of measured kernel tables, one file an operator class."""
