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
from typing import Final

OLD_IMAGE: Final = "1.1.0rc2.post2"
DRAFTS_IMAGE: Final = "1.2.0rc6.post3"
DRAFTS: Final[Mapping[int, Mapping[str, float]]] = {
    1: {"layers": 1, "acceptance": 0.79},
    3: {"layers": 3, "acceptance": 1.49 / 3},
}
"""By num_nextn_predict_layers, which is 1 with data-parallel attention and else 3: accepted length
1.79 and 2.49 of a DeepSeek that thinks (InferenceX, golden_al_distribution/dsv4_mtp.yaml)."""
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
    return Script(
        parallelism=layout,
        max_step_tokens=budget,
        max_num_seqs=min(seqs, budget),
        drafts=drafts,
    )


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
