"""Graphs of launches: which batches an engine has captured, and so how far a batch is padded.

A decode batch runs as the smallest graph that holds it, its missing rows filled with dummy tokens;
a batch beyond the largest graph is launched kernel by kernel. Ranks in lock step run graphs of one
size, that of the fullest rank. What a captured batch costs is that of its padded rows, but for
attention, where a dummy row has nothing to read, and for head and sampling. Where dummies are
masked, they are not sent to experts either: dispatch, experts and combine see the tokens that there
are.

A step with prompts may run as pieces of graphs, cut at each attention: what is left to launch is
each piece and the kernels of attention. Such a step is padded likewise, on a rank of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, pairwise

import numpy as np

from simpod.cost.work import Ints


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of graphs."""

    few: tuple[int, ...]
    """Sizes below the first stride."""
    strides: tuple[tuple[int, int], ...]
    """From this size on, one graph every so many."""
    most: int
    """The largest; 0: there are no graphs."""

    @cached_property
    def all(self) -> Ints:
        """All sizes, ascending; the largest is always among them."""
        return np.array(sorted({*self._steps(), self.most}), dtype=np.int64)

    def _steps(self) -> Iterator[int]:
        ends = (*self.strides, (self.most + 1, 1))
        runs = (range(start, end, stride) for (start, stride), (end, _) in pairwise(ends))
        return (size for size in chain(self.few, *runs) if size <= self.most)

    @cached_property
    def padded(self) -> list[int]:
        """What 0, 1, 2, ... `most` run as."""
        counts = np.arange(self.most + 1)
        found: list[int] = self.all[np.searchsorted(self.all, counts)].tolist()
        return found


@dataclass(frozen=True, kw_only=True)
class Graphs:
    """The captured batches of decodes, and the pieces of steps with prompts."""

    source: str
    batches: Sizes | None
    """None: of any size, as they are."""
    counts_requests: bool
    """A graph of a batch holds so many requests with all of their draft tokens; else tokens."""
    pieces: Sizes | None
    """Of steps with prompts, in tokens; None: the same as of batches."""
    is_of_slots: bool = False
    """Where `batches` says nothing and decoding is apart: one graph, of all requests that a rank
    takes at once."""
    masks_dummies: bool = False
    """Dispatch, experts and combine leave dummy tokens out."""

    @property
    def prompts(self) -> Sizes:
        """Of steps with prompts."""
        return self.pieces or self.batches or NO_PIECES

    def padded_tokens(self, tokens_per_decode: int) -> list[int] | None:
        """Tokens that a batch of 0, 1, 2, ... tokens runs as, each request having so many.

        None: as many as it has, however many.
        """
        if self.batches is None:
            return None
        padded = self.batches.padded
        if tokens_per_decode == 1 or not self.counts_requests:
            return padded
        tokens = np.arange(self.batches.most * tokens_per_decode + 1)
        requests = np.array(padded)[-(-tokens // tokens_per_decode)]
        found: list[int] = (requests * tokens_per_decode).tolist()
        return found

    def rows(self, tokens: int, tokens_per_decode: int) -> int:
        """Tokens that a batch of so many runs as."""
        padded = self.padded_tokens(tokens_per_decode)
        return tokens if padded is None or tokens >= len(padded) else padded[tokens]

    def of_rank(self, max_num_seqs: int) -> "Graphs":
        """Those of a rank that decodes so many requests at once and nothing else; 0: it does not,
        or that is not said."""
        if self.batches is not None or not self.is_of_slots or not max_num_seqs:
            return self
        return self.of_sizes((max_num_seqs,))

    def of_any_size(self) -> "Graphs":
        """The same without padding."""
        return replace(self, batches=None, pieces=self.prompts, is_of_slots=False)

    def of_sizes(self, sizes: tuple[int, ...]) -> "Graphs":
        """The same with these alone."""
        batches = Sizes(few=sizes, strides=(), most=max(sizes))
        return replace(self, batches=batches, is_of_slots=False)

    def up_to(self, most: int) -> "Graphs":
        """The same with a largest batch; where sizes are not said, every one up to it."""
        batches = replace(self.batches or EVERY_SIZE, most=most)
        return replace(self, batches=batches, is_of_slots=False)

    def with_pieces(self, most: int) -> "Graphs":
        """The same with pieces of steps with prompts up to so many tokens."""
        return replace(self, pieces=replace(self.prompts, most=most))


NO_PIECES = Sizes(few=tuple(1 << power for power in range(8)), strides=((256, 256),), most=0)
"""Switched on, their sizes are those that TensorRT-LLM's users capture: powers of two up to 128,
then every 256 (InferenceX, dsr1_fp8_b200_trt.sh, capture_num_tokens)."""
EVERY_SIZE = Sizes(few=(), strides=((1, 1),), most=0)
"""Where semantics bound no graph, but an experiment does."""
VLLM_GRAPHS = Graphs(
    source="vLLM v1: 1, 2, 4, from 8 every 8, from 256 every 16; full graphs for decodes,"
    " pieces for the rest (cudagraph_mode FULL_AND_PIECEWISE)",
    batches=Sizes(few=(1, 2, 4), strides=((8, 8), (256, 16)), most=512),
    counts_requests=False,
    pieces=None,
)
SGLANG_GRAPHS = Graphs(
    source="SGLang, server_args.py: 1, 2, 4, 8, 12, from 16 every 8, from 256 every 16, from 512"
    " every 32 requests (cuda_graph_runner.py: num_tokens_per_bs); decodes alone",
    batches=Sizes(few=(1, 2, 4, 8, 12), strides=((16, 8), (256, 16), (512, 32)), most=512),
    counts_requests=True,
    pieces=NO_PIECES,
)
TRTLLM_GRAPHS = Graphs(
    source="TensorRT-LLM, llm_args.py: 1, 2, 4, from 8 every 8 to 128, then powers of two, of"
    " requests (cuda_graph_runner.py: a key is a batch and a draft length); decodes alone, unless"
    " torch_compile_config asks for pieces",
    batches=Sizes(
        few=(1, 2, 4, *range(8, 129, 8)),
        strides=((256, 256), (512, 512), (1024, 1024)),
        most=2048,
    ),
    counts_requests=True,
    pieces=NO_PIECES,
)
ANY_BATCH = Graphs(
    source="a batch of decodes is compiled as it is, as in CANN's recipes (cann-recipes-infer),"
    " which run one batch; prompts are launched (xDeepServe 4.4)",
    batches=None,
    counts_requests=True,
    pieces=NO_PIECES,
    masks_dummies=True,
)
"""On Ascend: where an experiment says which batches are compiled, dummies are masked."""
ONE_GRAPH = replace(
    ANY_BATCH,
    source="xDeepServe 4.4: decodes run as compiled graphs, prompts are launched. One, of the"
    " largest batch: assumed, as in open engines where decoding is apart and graphs are compiled:"
    " omni-infer (decode_gear_list: by default all requests with their drafts; mc2_mask), vLLM"
    " Ascend with torchair (update_torchair_graph_batch_sizes: of a kv_consumer with drafts)",
    is_of_slots=True,
)
