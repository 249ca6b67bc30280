"""Whether the ids of a trace fit the size of its blocks, as far as lengths can tell."""

from typing import Any

import numpy as np

from simpod.errors import ConfigError
from simpod.workload.requests import Ints
from simpod.workload.traces.bad_rows import BadRows

_POWERS_OF_TWO = 2 ** np.arange(4, 17)
_AGREEMENT_FRAC = 0.9  # of the rows; the rest may have ids that were cut or shortened


def check_too_many(
    counts: Ints, total_tokens: Any, lines: Ints, block_tokens: int, bad: BadRows
) -> None:
    """More blocks than tokens to fill them: the row is bad, or the blocks are smaller."""
    most = np.ceil(total_tokens / block_tokens)
    with np.errstate(invalid="ignore"):
        is_bad = counts > most
    bad.report_where(
        is_bad,
        lines,
        lambda row: (
            f"{counts[row]} hash_ids of {block_tokens} tokens for {total_tokens[row]:.15g} tokens "
            f"of prompt and output; allowed: <= {most[row]:.15g} (is hash_block_tokens right?)"
        ),
    )


def check_too_few(
    path: str, counts: Ints, prompt_tokens: Ints, output_tokens: Ints, block_tokens: int
) -> None:
    """Refuse a file most of whose rows say, by their number of ids, that its blocks are larger.

    A row may name fewer blocks than it has (only its shared prefix, say): that is legal, in every
    row of a file too. It is the block size that is wrong if another one explains the ids of nearly
    all rows, while they differ in number.
    """
    named = counts > 0
    short = named & (counts * block_tokens < prompt_tokens - block_tokens)
    if 2 * short.sum() <= named.sum() or len(np.unique(counts[short])) < 2:
        return
    likely, agreement_frac = _likely_block(
        counts[named], prompt_tokens[named], output_tokens[named]
    )
    if likely <= block_tokens or agreement_frac < _AGREEMENT_FRAC:
        return
    covered = counts[short] * block_tokens / prompt_tokens[short]
    raise ConfigError(
        f"{path}: hash_block_tokens {block_tokens}: the hash_ids of {short.sum()} of"
        f" {named.sum()} rows cover {covered.mean():.0%} of their prompts on average;"
        f" allowed: the tokens of one block of this file, which is probably {likely}"
    )


def _likely_block(counts: Ints, prompt_tokens: Ints, output_tokens: Ints) -> tuple[int, float]:
    """The block size that agrees with most rows, and their share; powers of two go first.

    A row of n blocks has at least its whole blocks of the prompt and at most all of prompt and
    output: prompt / (n + 1) < block < (prompt + output) / (n - 1).
    """
    smallest = np.sort(prompt_tokens / (counts + 1))
    largest = np.sort((prompt_tokens + output_tokens) / np.maximum(counts - 1, 1e-9))
    mean = prompt_tokens.sum() / counts.sum()

    def best(blocks: Ints) -> tuple[int, float]:
        agree = np.searchsorted(smallest, blocks) - np.searchsorted(largest, blocks, "right")
        nearest = np.lexsort((np.abs(np.log(blocks / mean)), -agree))[0]
        return int(blocks[nearest]), float(agree[nearest] / len(counts))

    round_one = best(_POWERS_OF_TWO)
    return round_one if round_one[1] >= _AGREEMENT_FRAC else best(smallest.astype(np.int64) + 1)
