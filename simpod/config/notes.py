"""What an experiment says that does nothing, or not what its words promise: no mistakes."""

from collections.abc import Iterator

from simpod.config.resolved import ResolvedExperiment
from simpod.policies.resolve import resolve


def notes_of(resolved: ResolvedExperiment) -> Iterator[str]:
    """What a reader of the experiment must know, each with the way to change it."""
    batching = resolved.policies["batching"]
    if resolved.workload.max_tokens is None and getattr(
        resolve("batching", batching)(), "keeps_max_tokens", False
    ):
        yield (
            f"policies.batching {batching.use} keeps room for the longest answers that clients"
            " allow, and workload.max_tokens does not say how long these are: nothing is kept, and"
            " where KV runs out sequences are preempted (-s workload.max_tokens=output_tokens)"
        )
