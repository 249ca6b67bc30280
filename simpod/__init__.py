"""simpod: a discrete-event simulator of LLM serving on SuperPods."""

__version__ = "0.1.0"
