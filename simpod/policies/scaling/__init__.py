"""Scaling, one policy a file: how many instances serve, and in which role."""
