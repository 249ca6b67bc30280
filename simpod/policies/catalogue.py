"""The built-in policies: by role, short name -> where it is."""

import dataclasses
import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

BUILT_IN: Mapping[str, Mapping[str, str]] = {
    "batching": {
        "fcfs": "simpod.policies.batching.fcfs:Fcfs",
        "orca": "simpod.policies.batching.orca:Orca",
        "in_flight": "simpod.policies.batching.in_flight:InFlight",
        "splitfuse": "simpod.policies.batching.splitfuse:SplitFuse",
        "sglang": "simpod.policies.batching.sglang:Sglang",
        "prefill_first": "simpod.policies.batching.prefill_first:PrefillFirst",
        "decode_first": "simpod.policies.batching.decode_first:DecodeFirst",
        "shortest_prompt": "simpod.policies.batching.shortest_prompt:ShortestPrompt",
        "slices": "simpod.policies.batching.slices:Slices",
        "sjf": "simpod.policies.batching.sjf:ShortestJobFirst",
        "trail": "simpod.policies.batching.trail:Trail",
        "ltr": "simpod.policies.batching.ltr:LearnedRanking",
        "fastserve": "simpod.policies.batching.fastserve:FastServe",
        "earliest_deadline": "simpod.policies.batching.earliest_deadline:EarliestDeadline",
        "least_slack": "simpod.policies.batching.least_slack:LeastSlack",
        "priority": "simpod.policies.batching.priority:PriorityFirst",
        "vtc": "simpod.policies.batching.vtc:VirtualTokenCounter",
        "wfq": "simpod.policies.batching.wfq:WeightedFairQueueing",
        "batchllm": "simpod.policies.batching.batchllm:BatchLlm",
    },
    "router": {
        "round_robin": "simpod.policies.routing.round_robin:RoundRobin",
        "random": "simpod.policies.routing.random:random",
        "power_of_two": "simpod.policies.routing.power_of_two:power_of_two",
        "least_requests": "simpod.policies.routing.least_requests:least_requests",
        "least_tokens": "simpod.policies.routing.least_tokens:least_tokens",
        "least_kv": "simpod.policies.routing.least_kv:LeastKv",
        "prefix_affinity": "simpod.policies.routing.prefix_affinity:PrefixAffinity",
        "session_affinity": "simpod.policies.routing.session_affinity:SessionAffinity",
        "preble": "simpod.policies.routing.preble:Preble",
        "conductor": "simpod.policies.routing.conductor:Conductor",
        "pd_serve": "simpod.policies.routing.pd_serve:PdServe",
        "earliest_prefill": "simpod.policies.routing.earliest_prefill:EarliestPrefill",
        "two_level": "simpod.policies.routing.two_level:TwoLevel",
        "llumnix": "simpod.policies.routing.llumnix:Llumnix",
        "length_split": "simpod.policies.routing.length_split:LengthSplit",
        "max_flow": "simpod.policies.routing.max_flow:MaxFlow",
        "stale": "simpod.policies.routing.stale:Stale",
        "job_executors": "simpod.policies.routing.job_executors:JobExecutors",
    },
    "prefill_leader": {
        "collaborative": "simpod.policies.leading.collaborative:Collaborative",
    },
    "admission": {
        "always": "simpod.policies.admission.always:always",
        "queue_limit": "simpod.policies.admission.queue_limit:QueueLimit",
        "early_rejection": "simpod.policies.admission.early_rejection:EarlyRejection",
        "slo_feasible": "simpod.policies.admission.slo_feasible:SloFeasible",
        "token_bucket": "simpod.policies.admission.token_bucket:TokenBucket",
    },
    "length_predictor": {
        "oracle": "simpod.policies.length_prediction.oracle:Oracle",
        "noisy": "simpod.policies.length_prediction.noisy:Noisy",
        "buckets": "simpod.policies.length_prediction.buckets:Buckets",
        "ranking": "simpod.policies.length_prediction.ranking:Ranking",
        "proxy": "simpod.policies.length_prediction.proxy:ProxyModel",
        "constant": "simpod.policies.length_prediction.constant:Constant",
    },
    "migration": {
        "llumnix": "simpod.policies.migration.llumnix:LlumnixMigration",
    },
    "experts": {
        "none": "simpod.policies.experts.keep:keep",
        "eplb": "simpod.policies.experts.eplb:Eplb",
        "deepseek_eplb": "simpod.policies.experts.deepseek_eplb:DeepSeekEplb",
        "optimum": "simpod.policies.expert_optimum:Optimum",
    },
    "scaling": {
        "keep": "simpod.policies.scaling.keep:keep",
        "kubernetes_hpa": "simpod.policies.scaling.kubernetes_hpa:KubernetesHpa",
        "dynamo_planner": "simpod.policies.scaling.dynamo_planner:DynamoPlanner",
        "epd": "simpod.policies.scaling.epd:EpdRoleSwitch",
        "pd_serve": "simpod.policies.scaling.pd_serve:PdServeRatio",
    },
    "cache": {
        "lru": "simpod.policies.caching.lru:lru",
        "lfu": "simpod.policies.caching.lfu:lfu",
        "fifo": "simpod.policies.caching.fifo:fifo",
        "gdsf": "simpod.policies.caching.gdsf:Gdsf",
        "marconi": "simpod.policies.caching.marconi:Marconi",
        "cached_attention": "simpod.policies.caching.cached_attention:CachedAttention",
    },
}
"""Role -> short name -> where it is; strings only, so nothing is imported for nothing."""

IN_ORDER_OF_ARRIVAL = frozenset(
    {"fcfs", "orca", "splitfuse", "prefill_first", "sglang", "decode_first"}
)
"""Batch schedulers that take prompts as they come: nobody has to ask them which is the first."""

ROLE_OF_KEY: Mapping[str, str] = {
    "batching": "batching",
    "router": "router",
    "prefill_router": "router",
    "decode_router": "router",
    "prefill_leader": "prefill_leader",
    "admission": "admission",
    "length_predictor": "length_predictor",
    "prefix_eviction": "cache",
    "eviction": "cache",
    "migration": "migration",
    "experts": "experts",
    "scaling": "scaling",
}
"""Keys of `policies:` in an experiment -> the role that the policy plays."""


def described(where: str) -> dict[str, Any]:
    """What a policy's docstring and fields say of it: about, parameters, source, sees.

    A built-in's docstring has a sentence, an explanation, and two closing entries: `Source:` and
    `Sees:`, what of a real system it must be able to see. `parameters`: name -> default, None where
    one must be given.
    """
    module, _, attribute = where.partition(":")
    policy = getattr(import_module(module), attribute)
    text = inspect.getdoc(policy) or ""
    closing = text[text.find("\nSource:") + 1 :] if "\nSource:" in text else ""
    source, _, sees = closing.removeprefix("Source:").partition("\nSees:")
    fields = dataclasses.fields(policy) if dataclasses.is_dataclass(policy) else ()
    return {
        "about": text.partition("\n")[0],
        "parameters": {field.name: _default(field) for field in fields if field.init},
        "source": " ".join(source.split()).rstrip("."),
        "sees": " ".join(sees.split()).rstrip("."),
    }


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default
