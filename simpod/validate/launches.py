"""How the engines of measured deployments were launched: what their tables leave out.

Read from InferenceX's scripts, `benchmarks/single_node/MODEL_PRECISION_SYSTEM[_trt].sh` of
github.com/SemiAnalysisAI/InferenceX (its first releases, InferenceMAX, for Llama 70B). Two things
are no flags of a script: the fp8 cache of NVFP4 checkpoints (the checkpoint's own, seen where KV
limits a run), and the accepted length of drafts, which is that of another DeepSeek. A model without
a script is launched as most of its engine's are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from simpod.validate.launch import Launch
from simpod.validate.trtllm_launches import DRAFTS, Asked, Parallelism, script_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a script chooses by."""

    model: str
    """A shipped model's name."""
    version: str
    """Of the engine's image."""
    system: str
    """b200, h200, h100, ..."""
    dtype: str
    """Of the weights."""
    isl: int
    osl: int
    concurrency: int
    tp: int
    dp: int
    ep: int


def launch_of(backend: str, row: Row) -> Launch:
    """Flags of the script for `row`; backend: vllm, sglang, trtllm."""
    return ENGINES[backend](row)


BLIND_CLIENTS: Final = 512
BLIND_IMAGES: Final = ("", "0.10.2", "0.11.0", "0.11.2")


def problem_of(backend: str, row: Row) -> str | None:
    """Why nobody can say how a row was launched; None: its script says it.

    The first script of gpt-oss on H100 has 512 clients send 10 x CONC requests to a server of CONC
    slots (`--max-concurrency 512`, `--max-num-seqs=$CONC`), and a table has the 512.
    """
    is_blind = row.concurrency == BLIND_CLIENTS and row.version in BLIND_IMAGES
    if backend == "vllm" and row.system == "h100" and row.model.startswith("gpt-oss") and is_blind:
        return "512 clients whatever CONC was: slots and requests are not known"
    return None


MINIMAX_IMAGE: Final = "0.17.0"
"""Of vLLM, of the first script minimaxm2.5_fp8_b200.sh; later ones, and that of fp4, give the type
of the cache, the token budget, the largest graph and the table's expert parallelism."""


def _vllm(row: Row) -> Launch:
    is_blackwell = row.system.startswith(("b", "gb"))
    if row.model.startswith("gpt-oss"):
        return Launch(
            max_num_seqs=512 if is_blackwell else row.concurrency,
            kv_dtype="fp8" if is_blackwell else "bf16",
            max_graph_tokens=2048,
        )
    if row.model.startswith("minimax") and is_blackwell and row.version != MINIMAX_IMAGE:
        return Launch(
            max_num_seqs=1024,
            max_step_tokens=2 * row.isl,
            kv_dtype="fp8",
            max_graph_tokens=2048,
        )
    if row.model.startswith("minimax"):
        # kv_cache_dtype is not given: that of the checkpoint, which for ModelOpt's NVFP4 is fp8;
        # the fp8 scripts of H200 and, at first, B200 turn expert parallelism on whatever EP_SIZE is
        seqs = {"fp4": row.concurrency, "fp8": 256 if row.system == "h100" else 1024}
        has_all = row.dtype == "fp8" and row.system != "h100"
        return Launch(
            max_num_seqs=seqs.get(row.dtype, 1024),
            memory_frac=0.95 if has_all else 0.9,
            kv_dtype="fp8" if row.dtype == "fp4" else "bf16",
            has_expert_parallel=has_all,
        )
    if row.model == "llama-3.1-70b":
        return Launch(max_num_seqs=512 if is_blackwell else row.concurrency)
    if row.model.startswith("kimi"):
        is_int4 = row.dtype == "int4"
        return Launch(
            max_num_seqs=row.concurrency,
            max_step_tokens=8192 if is_int4 else 2 * row.isl,
            memory_frac=0.95 if is_int4 else 0.9,
            kv_dtype="bf16" if is_int4 else "fp8",
            max_graph_tokens=None if is_int4 else 2048,
        )
    return Launch(max_num_seqs=row.concurrency, kv_dtype="bf16" if row.dtype == "bf16" else "fp8")


SGLANG_DRAFTS: Final = ("0.5.8", "0.5.9")
"""Images of dsr1_fp8_b200_mtp.sh; the script without drafts ran up to 64 clients (pull request 626,
nvidia-master.yaml)."""


def _sglang(row: Row) -> Launch:
    whole = _sglang_server(row)
    if row.dp == 1:
        return whole
    return replace(  # server_args.py: limits are of all data-parallel ranks; dsr1_fp4_b200_mtp.sh
        whole,
        max_num_seqs=max(1, whole.max_num_seqs // row.dp),
        max_step_tokens=whole.max_step_tokens // row.dp,
        batching=None,
    )


def _sglang_server(row: Row) -> Launch:
    if row.system.startswith("h"):
        seqs = 512 if (row.isl, row.osl) == (1024, 1024) else 256
        return Launch(
            max_num_seqs=seqs,
            max_step_tokens=32768,
            memory_frac=0.82,
            kv_dtype="bf16",
            max_graph_tokens=seqs,
        )
    interval = 30 if row.concurrency >= 16 else 10
    has_drafts = row.dtype == "fp8" and row.version in SGLANG_DRAFTS and row.concurrency > 64
    if has_drafts:
        seqs, step_tokens, memory_frac = 512, 16384, 0.82
    elif row.dtype == "fp4":
        seqs, step_tokens, memory_frac = 256, 16384, 0.85
    elif row.tp >= 8:
        seqs, step_tokens, memory_frac = 128, 32768, 0.82
    else:
        seqs, step_tokens, memory_frac, interval = 32, 8192, 0.95, 10
    return Launch(
        max_num_seqs=seqs,
        max_step_tokens=step_tokens,
        memory_frac=memory_frac,
        kv_dtype="fp8" if row.dtype != "bf16" else "bf16",
        max_graph_tokens=seqs,
        mtp=DRAFTS[2] if has_drafts else None,
        batching={"use": "sglang", "receive_interval": interval},
    )


def _trtllm(row: Row) -> Launch:
    if row.model.startswith("gpt-oss"):
        is_hopper = row.system.startswith("h")
        return Launch(
            max_num_seqs=row.concurrency if is_hopper else 512,
            max_step_tokens=20000,
            memory_frac=0.85,
            kv_dtype="bf16" if is_hopper else "fp8",
            max_graph_tokens=row.concurrency,
            batching=_balanced(row.dp, 50) if not is_hopper else None,
        )
    if row.model == "llama-3.1-70b":
        is_short = (row.isl, row.osl) == (1024, 1024) and row.tp < 8
        waits = {"use": "in_flight", "wait_steps": 20, "wait_tokens_frac": 0.9}
        return Launch(
            max_num_seqs=2048,
            max_step_tokens=16384,
            max_graph_tokens=1024,
            batching=waits if is_short else None,
        )
    if row.model.startswith("deepseek"):
        return _deepseek(row)
    return Launch(
        max_num_seqs=2048,
        kv_dtype="fp8" if row.dtype != "bf16" else "bf16",
        batching=_balanced(row.dp, 60),
    )


def _deepseek(row: Row) -> Launch:
    asked = Asked(
        is_v3=row.model == "deepseek-v3",
        image=row.version,
        system=row.system,
        dtype=row.dtype,
        isl=row.isl,
        osl=row.osl,
        concurrency=row.concurrency,
        parallelism=Parallelism(tp=row.tp, dp=row.dp, ep=row.ep),
    )
    script = script_of(asked)
    delayed = {"use": "in_flight", "wait_steps": 40, "wait_tokens_frac": 0.8}
    dp = script.parallelism.dp
    return Launch(
        max_num_seqs=script.max_num_seqs,
        max_step_tokens=script.max_step_tokens,
        memory_frac=script.memory_frac,
        kv_dtype="fp8" if row.dtype != "bf16" else "bf16",
        max_graph_tokens=script.max_graph_seqs,
        max_piece_tokens=script.max_step_tokens if script.has_pieces else None,
        experts_library="cutlass" if script.has_cutlass else None,
        mtp=DRAFTS.get(script.drafts),
        batching=delayed if script.has_delay and dp == 1 else _balanced(dp, 60),
        parallelism=script.parallelism,
    )


def _balanced(dp: int, steps: int) -> dict[str, Any] | None:
    """attention_dp_config: enable_balance, with timeout_iters."""
    return {"use": "in_flight", "balance_steps": steps} if dp > 1 else None


ENGINES: Final[Mapping[str, Callable[[Row], Launch]]] = {
    "vllm": _vllm,
    "sglang": _sglang,
    "trtllm": _trtllm,
}
