"""DeepSeek under TensorRT-LLM in InferenceX: which of its scripts a row of a table ran.

Three kinds of scripts ran one after another, and a table names images, not scripts:

* first: the budget of tokens holds one prompt and the decodes (`MAX_NUM_TOKENS`), and the script
  itself chooses expert and data parallelism, which tables without an image therefore don't know
  (`benchmarks/dsr1_PRECISION_SYSTEM_trt_slurm.sh` at the first releases, InferenceMAX);
* then: the same, at least 8,192 tokens, parallelism from `nvidia-master.yaml`
  (`benchmarks/single_node/dsr1_PRECISION_SYSTEM_trt.sh`);
* with drafts: `..._trt_mtp.sh`, a budget of one prompt, slots for its clients only.

Images: without drafts 1.1.0rc2.post2 until 1.2.0rc6.post2 (InferenceX, perf-changelog.yaml, pull
requests 594, 620), with drafts 1.1.0rc2.post2 until 1.2.0rc6.post3 (392, 632, 642). Where both ran
one image, the search spaces of `nvidia-master.yaml` tell the rows apart; a row in both ran with
drafts, which came later, unless the table calls the model DeepSeek-V3, as its earlier part does:
that was inferred from the rows' TPOT, a choice of script and no constant.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

OLD_IMAGE: Final = "1.1.0rc2.post2"
PLAIN_IMAGE: Final = "1.2.0rc6.post2"
"""The last without drafts, and the first whose scripts know pieces of graphs (pull requests 594,
620)."""
DRAFTS_IMAGE: Final = "1.2.0rc6.post3"
DRAFTS: Final[Mapping[int, Mapping[str, Any]]] = {
    1: {"layers": 1, "acceptance": 0.79},
    2: {"layers": 2, "acceptance": [0.79, 0.48 / 0.79]},
    3: {"layers": 3, "acceptance": [0.79, 0.48 / 0.79, 0.22 / 0.48]},
}
"""By num_nextn_predict_layers, which is 1 with data-parallel attention and else 3, or by SGLang's
num_steps: accepted length 1.79, 2.27 and 2.49 of a DeepSeek that thinks (InferenceX,
golden_al_distribution/dsv4_mtp.yaml): the first is kept in 79 % of the steps, the second in 48, the
third in 22."""
LAST_WITH_DRAFTS: Final[Mapping[tuple[int, int], Mapping[int, tuple[int, int]]]] = {
    (1024, 1024): {4: (8, 64), 8: (8, 32)},
    (1024, 8192): {4: (16, 64), 8: (4, 64)},
    (8192, 1024): {4: (16, 0), 8: (16, 0)},
}
"""fp4 on B200, 1.1.0rc2.post2: isl and osl -> dies -> most clients with drafts, without expert
parallelism and with it; with data-parallel attention all have drafts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallelism:
    """Of one server."""

    tp: int
    dp: int
    ep: int

    @property
    def dies(self) -> int:
        """All of them."""
        return self.tp * self.dp


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What a script of DeepSeek chose."""

    parallelism: Parallelism
    max_step_tokens: int
    max_num_seqs: int
    drafts: int
    """num_nextn_predict_layers; 0: none."""
    max_graph_seqs: int
    """cuda_graph_config.max_batch_size."""
    memory_frac: float
    """kv_cache_config.free_gpu_memory_fraction."""
    has_pieces: bool
    """torch_compile_config.enable_piecewise_cuda_graph, with sizes up to the budget of tokens."""
    has_cutlass: bool
    """moe_config.backend is CUTLASS, in all scripts of fp4 with data-parallel attention (the first
    sets both by clients); of fp8 no table has two libraries."""
    has_delay: bool
    """batch_wait_timeout_iters 40, batch_wait_max_tokens_ratio 0.8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a row says."""

    is_v3: bool
    image: str
    system: str
    dtype: str
    isl: int
    osl: int
    concurrency: int
    parallelism: Parallelism


def script_of(row: Asked) -> Script:
    """The script that ran a row, and what it chose."""
    is_first = not row.image or (row.is_v3 and row.image == OLD_IMAGE)
    layout = _chosen(row) if not row.image else row.parallelism
    drafts = (1 if layout.dp > 1 else 3) if _has_drafts(row) else 0
    seqs = 2048
    if drafts:
        share = 1 if layout.dp == 1 else 4 if row.dtype == "fp4" else 8
        seqs = max(1, row.concurrency // share)
    decodes = (drafts + 1) * seqs if drafts else row.concurrency
    tokens = (decodes + row.isl + 64 + 63) // 64 * 64
    budget = tokens if drafts or is_first else max(8192, tokens)
    is_dp = layout.dp > 1
    if drafts:
        has_pieces = row.image == DRAFTS_IMAGE and _drafts_have_pieces(row, is_dp=is_dp)
    else:
        has_pieces = row.image == PLAIN_IMAGE and _has_pieces(row, layout)
    return Script(
        parallelism=layout,
        max_step_tokens=budget,
        max_num_seqs=min(seqs, budget),
        drafts=drafts,
        max_graph_seqs=_max_graph_seqs(row, seqs if drafts else row.concurrency, is_dp=is_dp),
        memory_frac=_memory_frac(row, layout),
        has_pieces=has_pieces,
        has_cutlass=is_dp and row.dtype == "fp4" and not row.system.startswith("h"),
        has_delay=row.image == PLAIN_IMAGE and row.dtype != "fp4" and _is_short(row, 64, 256),
    )


def _is_short(row: Asked, least: int, below: int) -> bool:
    """Prompts and answers of 1,024 tokens, of at least so many clients, and fewer than `below`."""
    return (row.isl, row.osl) == (1024, 1024) and least <= row.concurrency < below


def _has_pieces(row: Asked, layout: Parallelism) -> bool:
    """dsr1_fp8_b200_trt.sh, dsr1_fp4_b200_trt.sh."""
    if row.system.startswith("h"):
        return False
    if row.dtype == "fp4":
        return _is_short(row, 1, 1 << 30) and layout.dies == layout.ep == 8
    if row.isl == 8192:
        return row.concurrency >= 64
    return (64 if row.osl == 1024 else 128) <= row.concurrency < 256


def _drafts_have_pieces(row: Asked, *, is_dp: bool) -> bool:
    """dsr1_fp8_b200_trt_mtp.sh, dsr1_fp4_b200_trt_mtp.sh."""
    if row.system.startswith("h"):
        return False
    if row.dtype == "fp4":
        if row.osl == 8192:
            return row.concurrency == 64
        return _is_short(row, 32, 65) or (_is_short(row, 128, 129) and not is_dp)
    without = 16 if row.isl == 8192 else 8 if row.osl == 8192 else 4
    return not is_dp and row.concurrency > without


def _max_graph_seqs(row: Asked, seqs: int, *, is_dp: bool) -> int:
    if row.system.startswith("h"):
        return 128
    if row.image not in (PLAIN_IMAGE, DRAFTS_IMAGE):
        return 512 if row.dtype == "fp4" else 256
    if row.image == DRAFTS_IMAGE:
        return seqs
    if row.dtype == "fp4":
        return max(1, seqs // 4) if is_dp else seqs
    return seqs // 8 if row.isl == 1024 and seqs >= 256 else seqs


def _memory_frac(row: Asked, layout: Parallelism) -> float:
    if row.system.startswith("h"):
        return 0.75
    if row.dtype == "fp4" or row.image not in (PLAIN_IMAGE, DRAFTS_IMAGE):
        return 0.8
    if row.image == DRAFTS_IMAGE:
        return 0.7 if layout.dp > 1 else 0.8
    if row.isl == 8192:
        return 0.75 if layout.dies == 4 else 0.8
    return 0.7 if row.concurrency >= 256 else 0.8


def _has_drafts(row: Asked) -> bool:
    if row.image == DRAFTS_IMAGE:
        return True
    if row.image != OLD_IMAGE or row.is_v3:
        return False
    layout = row.parallelism
    if row.dtype != "fp4":
        return layout.ep == layout.dies
    alone, shared = LAST_WITH_DRAFTS.get((row.isl, row.osl), {}).get(layout.dies, (0, 0))
    return layout.dp > 1 or row.concurrency <= (shared if layout.ep > 1 else alone)


def _chosen(row: Asked) -> Parallelism:
    """Parallelism that the first scripts chose themselves.

    fp8: experts on all dies; attention data-parallel beyond 64 clients, or 32: of short prompts and
    answers on B200, of long prompts on H200. fp4: experts on all dies beyond some clients,
    attention data-parallel from 256 on, of long prompts beyond 32.
    """
    dies = row.parallelism.dies
    is_long = row.isl == 8192
    is_short = (row.isl, row.osl) == (1024, 1024)
    if row.dtype == "fp4":
        shared = 32 if dies == 4 or is_long else 8 if is_short else 16
        is_dp = row.concurrency > 32 if is_long else row.concurrency >= 256
        has_ep = row.concurrency > shared
    else:
        most = 32 if (is_long if row.system == "h200" else is_short) else 64
        is_dp, has_ep = row.concurrency > most, True
    tp, dp = (1, dies) if is_dp else (dies, 1)
    return Parallelism(tp=tp, dp=dp, ep=dies if has_ep else 1)
