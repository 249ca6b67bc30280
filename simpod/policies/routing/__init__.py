"""Routers, one a file: which rank of a pool gets a request."""
