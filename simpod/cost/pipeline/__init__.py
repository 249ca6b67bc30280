"""Pipelines inside a step: micro-batches over stages that share dies or sit on different ones."""
