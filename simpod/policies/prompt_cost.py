"""What prompts cost in the eyes of policies that spread prefill over ranks."""

from simpod.policies.roles import Floats, Ints


def prompt_cost(chunk_tokens: Ints, before_tokens: Ints, attention_tokens: float) -> Floats:
    """Cost, in tokens without context, of chunks of u tokens behind h others: u + u (h + u/2) / A.

    attention_tokens: A, the context at which attention costs as much as everything else.
    """
    return chunk_tokens * (1.0 + (before_tokens + chunk_tokens / 2) / attention_tokens)
