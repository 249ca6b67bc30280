"""Admission, one policy a file: which requests are let in."""
