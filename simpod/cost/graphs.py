"""Graphs of launches: which batches an engine has captured, and so how far a batch is padded.

A decode batch runs as the smallest graph that holds it, its missing rows filled with dummy tokens;
a batch beyond the largest graph is launched kernel by kernel. Ranks in lock step run graphs of one
size, that of the fullest rank. What a captured batch costs is that of its padded rows, but for
attention, where a dummy row has nothing to read.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import numpy as np

from simpod.cost.work import Ints


@dataclass(frozen=True, kw_only=True)
class Graphs:
    """Token counts of the captured batches."""

    source: str
    few: tuple[int, ...]
    """Sizes below the first stride."""
    strides: tuple[tuple[int, int], ...]
    """From this size on, one graph every so many tokens."""
    max_tokens: int
    """The largest batch."""
    has_pieces: bool
    """Steps with prompts run as graphs too, cut at each attention, up to the largest batch."""

    @cached_property
    def sizes(self) -> Ints:
        """All sizes, ascending; the largest batch is always among them."""
        return np.array(sorted({*self._sizes(), self.max_tokens}), dtype=np.int64)

    def _sizes(self) -> Iterator[int]:
        ends = [start for start, _ in self.strides[1:]] + [self.max_tokens + 1]
        runs = (
            range(start, end, stride)
            for (start, stride), end in zip(self.strides, ends, strict=True)
        )
        return (size for size in chain(self.few, *runs) if size <= self.max_tokens)

    @cached_property
    def padded(self) -> list[int]:
        """Tokens that a batch of 0, 1, 2, ... `max_tokens` tokens runs as."""
        counts = np.arange(self.max_tokens + 1)
        found: list[int] = self.sizes[np.searchsorted(self.sizes, counts)].tolist()
        return found

    def up_to(self, max_tokens: int) -> "Graphs":
        """The same with another largest batch."""
        return replace(self, max_tokens=max_tokens)


VLLM_GRAPHS = Graphs(
    source="vLLM v1: 1, 2, 4, from 8 every 8, from 256 every 16; full graphs for decodes,"
    " pieces for the rest (cudagraph_mode FULL_AND_PIECEWISE)",
    few=(1, 2, 4),
    strides=((8, 8), (256, 16)),
    max_tokens=512,
    has_pieces=True,
)
SGLANG_GRAPHS = Graphs(
    source="SGLang, server_args.py: 1, 2, 4, 8, 12, from 16 every 8, from 256 every 16, from 512"
    " every 32; decodes alone",
    few=(1, 2, 4, 8, 12),
    strides=((16, 8), (256, 16), (512, 32)),
    max_tokens=512,
    has_pieces=False,
)
TRTLLM_GRAPHS = Graphs(
    source="TensorRT-LLM, llm_args.py: 1, 2, 4, from 8 every 8 to 128, then powers of two;"
    " decodes alone",
    few=(1, 2, 4, *range(8, 129, 8)),
    strides=((256, 256), (512, 512), (1024, 1024)),
    max_tokens=2048,
    has_pieces=False,
)
EACH_BATCH = Graphs(
    source="xDeepServe 4.4: a decode batch is compiled as it is; prompts are launched",
    few=(),
    strides=((1, 1),),
    max_tokens=1,
    has_pieces=False,
)
"""Where semantics bound no graph, but an experiment does: every size up to that bound."""
