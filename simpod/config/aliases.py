"""Other spellings that are understood: names of vLLM and SGLang, and short forms.

`canonicalise` rewrites a tree so that only simpod's own names are left; it may run again after
every override.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

from simpod.cluster.experts.routing import routing_named
from simpod.config.nodes import Node, Path, Place, dotted
from simpod.config.presets import SLO_PRESETS
from simpod.config.problems import Problem, Problems, did_you_mean, listed
from simpod.errors import ConfigError

POOL_ALIASES: Final[Mapping[str, str]] = {
    "num_instances": "instances",
    "data_parallel_size": "dp",
    "dp_size": "dp",
    "tensor_parallel_size": "tp",
    "tp_size": "tp",
    "expert_parallel_size": "ep",
    "ep_size": "ep",
    "max_running_requests": "max_num_seqs",
    "max_seqs_per_rank": "max_num_seqs",
    "max_num_batched_tokens": "max_step_tokens",
    "chunked_prefill_size": "max_step_tokens",
    "max_prefill_tokens": "max_step_tokens",
    "context_length": "max_model_len",
    "block_size": "block_tokens",
    "page_size": "block_tokens",
    "gpu_memory_utilization": "memory_frac",
    "mem_fraction_static": "memory_frac",
    "free_gpu_memory_fraction": "memory_frac",
    "num_gpu_blocks_override": "kv_blocks",
    "enable_prefix_caching": "prefix_caching",
    "disable_radix_cache": "prefix_caching",
    "scheduler_reserve_full_isl": "reserve_full_prompt",
    "kv_cache_dtype": "kv_dtype",
    "dbo_decode_token_threshold": "micro_batch_tokens",
}
"""Key of vLLM, SGLang or a paper -> simpod's key, in a pool."""

INVERTED: Final = frozenset({"disable_radix_cache"})
"""Aliases whose truth value is the opposite."""

DTYPE_ALIASES: Final[Mapping[str, str]] = {
    "bfloat16": "bf16",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
}
"""Data types as engines call them."""

NOT_MODELLED: Final[Mapping[str, str]] = {
    "enable_expert_parallel": "write ep: all, or the number of dies that share the experts",
    "enable_chunked_prefill": "choose a scheduler with policies.batching: chunks are the default",
    "enable_mixed_chunk": "choose a scheduler with policies.batching",
    "enable_dp_attention": "write dp and tp of the attention",
    "pipeline_parallel_size": "pipeline parallelism is not modelled",
    "pp_size": "pipeline parallelism is not modelled",
    "pp": "pipeline parallelism is not modelled",
    "long_prefill_token_threshold": "write policies.batching: {use: fcfs, max_chunk_tokens: ...}",
    "quantization": "write weight_dtype, and kv_dtype for the cache",
    "dtype": "write weight_dtype, and kv_dtype for the cache",
    "max_total_tokens": "write kv_blocks: tokens / block_tokens, or leave it to the memory",
    "speculative_config": "write mtp: {layers: ..., acceptance: ...}",
    "speculative_num_steps": "write mtp: {layers: ..., acceptance: ...}",
    "num_speculative_tokens": "write mtp: {layers: ..., acceptance: ...}",
    "scheduling_policy": "choose a scheduler with policies.batching",
    "schedule_policy": "choose a scheduler with policies.batching",
}
"""Well-known keys that have no equal here, and what to write instead."""

OPTIONAL_MAPPINGS: Final = (
    "kv_transfer",
    "output",
    "fabric",
    "fabric.degrade",
    "shared_memory",
    "shared_memory.eviction",
    "policies",
    "slo",
    "measure",
    "engine",
    "workload.trace.window",
    "deployment.*.mtp",
    *(
        f"{hardware}.{key}"
        for hardware in ("hardware", "deployment.*.hardware")
        for key in (
            "kernels",
            "kernels.*",
            "topology",
            "topology.planes",
            "topology.transfers",
            "calibration.network_frac",
        )
    ),
)
"""Mappings with a default, which null stands for; other optional ones take null by their type."""

POLICY_KEYS: Final = (
    "router",
    "prefill_router",
    "prefill_leader",
    "decode_router",
    "batching",
    "admission",
    "length_predictor",
    "prefix_eviction",
    "migration",
    "experts",
    "scaling",
)
SETTINGS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "experts": ("redundant_slots", "every_s", "staging_slots", "initial_placement"),
    "scaling": (
        "every_s",
        "sample_s",
        "window_s",
        "spare_dies",
        "drain",
        "weights_from",
        "start_s",
    ),
}
"""Keys of a policy's section that are not the policy's."""


def canonicalise(root: Node, problems: Problems) -> None:
    """Rename aliases in every pool, unfold `policy: name` and `slo: preset`; report doubles.

    An optional mapping without content is as good as left out.
    """
    for pattern in OPTIONAL_MAPPINGS:
        _leave_out_null(root, pattern.split("."))
    for name, pool in _section(root, "deployment").items():
        _rename(pool, ("deployment", name), problems)
    for role, policy in _section(root, "policies").items():
        if role in POLICY_KEYS and isinstance(policy.value, str):
            policy.value = {"use": _leaf(policy.value, policy.place, policy.key, "use")}
    eviction = _section(root, "shared_memory").get("eviction")
    if eviction is not None and isinstance(eviction.value, str):
        eviction.value = {"use": _leaf(eviction.value, eviction.place, eviction.key, "use")}
    slo = root.child("slo")
    if slo is not None and isinstance(slo.value, str):
        _unfold_slo(slo, problems)
    routing = root.child("expert_routing")
    if routing is not None and isinstance(routing.value, str):
        _unfold_routing(routing, problems)


def _leave_out_null(node: Node, pattern: Sequence[str]) -> None:
    """Delete what is null at the end of a path, in which `*` is any key."""
    below = node.children()
    for key in list(below) if pattern[0] == "*" else [key for key in pattern[:1] if key in below]:
        if len(pattern) > 1:
            _leave_out_null(below[key], pattern[1:])
        elif below[key].value is None:
            del below[key]


def _section(root: Node, key: str) -> dict[str, Node]:
    node = root.child(key)
    return node.children() if node else {}


def _rename(pool: Node, path: Path, problems: Problems) -> None:
    if not isinstance(pool.value, dict):
        return
    renamed: dict[str, Node] = {}
    for key, node in pool.value.items():
        canonical = POOL_ALIASES.get(key, key)
        if canonical in renamed:
            problems.add(_given_twice(node, renamed[canonical], (*path, canonical)))
            continue
        if key in INVERTED and isinstance(node.value, bool):
            node.value = not node.value
        if canonical in {"kv_dtype", "weight_dtype"} and isinstance(node.value, str):
            node.value = DTYPE_ALIASES.get(node.value, node.value)
        renamed[canonical] = node
    pool.value = renamed


def _given_twice(node: Node, first: Node, path: Path) -> Problem:
    where = f"line {first.key.line}" if first.key.line else str(first.key)
    return Problem(
        place=node.key,
        key=dotted((*path[:-1], node.written)),
        what=f'"{node.written}" and "{first.written}" ({where}) are the same setting',
        hint="keep one",
    )


def _unfold_slo(slo: Node, problems: Problems) -> None:
    name = str(slo.value)
    preset = SLO_PRESETS.get(name)
    if preset is None:
        problems.at(
            ("slo",),
            "unknown preset",
            allowed=f"ttft_s, tpot_s and e2e_s, or one of {listed(sorted(SLO_PRESETS))}",
            hint=did_you_mean(name, SLO_PRESETS),
        )
        problems.silent.add(("slo",))
        return
    slo.value = {key: _leaf(value, slo.place, slo.key, key) for key, value in preset.items()}


def _unfold_routing(routing: Node, problems: Problems) -> None:
    try:
        spec = routing_named(str(routing.value))
    except ConfigError as error:
        problems.at(("expert_routing",), str(error), show_value=False)
        problems.silent.add(("expert_routing",))
        return
    values = dataclasses.asdict(spec)
    routing.value = {
        key: _leaf(value, routing.place, routing.key, key) for key, value in values.items()
    }


def _leaf(value: str | float, place: Place, key: Place, written: str) -> Node:
    return Node(value=value, place=place, key=key, written=written)
