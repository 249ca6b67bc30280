"""The price of a step of one lock-step group, with its breakdown.

INTERFACE SKETCH, to be replaced by the implementation; the engine is written against these names.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(slots=True, eq=False)
class Batch:
    """What the ranks of a group hold in one step; every array is [num_ranks], updated in place."""

    decode_seqs: Ints
    context_tokens: Ints  # resident tokens of the decoding sequences, before this step
    prefill_tokens: Ints  # prompt tokens computed in this step
    prefill_pairs: Floats  # query-key pairs of these chunks: sum of chunk * (resident + (chunk + 1) / 2)
    prefill_context: Ints  # tokens whose KV these chunks read: sum of resident + chunk
    num_chunks: Ints
