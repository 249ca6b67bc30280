"""Seconds of kernels from their shapes: one file an operator class, vectorised over shapes."""
