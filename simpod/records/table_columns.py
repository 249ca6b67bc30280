"""What the columns of the result tables mean, in the order of the docs."""

from collections.abc import Mapping
from typing import Final

TABLE_COLUMNS: Final[Mapping[str, Mapping[tuple[str, ...], str]]] = {
    "requests": {
        (
            "request_id",
            "session_id",
        ): "ascending identity; conversation, or -1",
        ("status",): "`live`, `finished` or `refused`",
        ("arrival_s",): "when the engine saw it",
        (
            "prompt_tokens",
            "output_tokens",
        ): "lengths",
        ("cached_tokens",): "prompt tokens found in the prefix cache or in the shared memory",
        (
            "dram_tokens",
            "ssd_tokens",
        ): "of these, read from the shared memory's DRAM, from its SSD",
        ("cache_read_s",): "time of reading from the shared memory; also the part of `ttft_s`",
        (
            "prefill_target",
            "decode_target",
        ): "rank within the pool, instance x dp + rank; -1: none",
        ("scheduled_s",): "start of the first step that worked for it",
        ("prefill_end_s",): "prompt computed",
        ("barrier_wait_s",): "share of its prefill steps in which its rank waited for slower ranks",
        (
            "transfer_start_s",
            "transfer_end_s",
        ): "the pull of its KV",
        (
            "first_token_s",
            "finish_s",
        ): "first and last token, with the client",
        (
            "engine_first_token_s",
            "engine_finish_s",
        ): "ends of their steps: the same, but for a central frontend",
        ("num_preemptions",): "how often it lost its KV blocks",
        ("ledger",): "group whose decode ledger holds its tokens; -1: none",
        (
            "first_decode_step",
            "last_decode_step",
        ): (
            "the group's decode steps after the first up to the last gave its tokens (of "
            "the last stretch, if it was preempted)"
        ),
        ("decode_pace",): "tokens of a decode step over the mean of its group (`acceptance_std`)",
        (
            "ttft_s",
            "tpot_s",
            "e2e_s",
        ): "the definitions above",
        (
            "router_s",
            "queue_s",
            "cache_read_s",
            "prefill_s",
            "barrier_s",
            "back_pressure_s",
            "transfer_s",
            "first_decode_s",
            "frontend_s",
        ): "parts of `ttft_s`",
    },
    "steps": {
        (
            "pool",
            "instance",
        ): "the group",
        (
            "first_step",
            "num_steps",
        ): "number of the run's first step, and how many it has",
        (
            "start_s",
            "end_s",
        ): "of the run",
        ("decode_seqs",): "sequences that decode in each of the steps, all ranks",
        ("context_tokens",): "their resident tokens before the first step",
        ("prefill_tokens",): "prompt tokens computed",
        ("slot_seqs",): "sequences that hold a slot, all ranks: those that decode, prompts begun",
        (
            "attention_s",
            "projections_s",
        ): (
            "attention over the cache; the matrices around it. All `_s` columns from here "
            "on are sums over the run's steps and add up to its time"
        ),
        (
            "ffn_s",
            "experts_s",
        ): "feed-forward of dense layers, shared experts and the router; routed experts",
        (
            "elementwise_s",
        ): "norms, rotary embedding, writing the cache, quantisation, token embedding",
        ("all_reduce_s",): "tensor-parallel all-reduce",
        (
            "latent_gather_s",
            "head_exchange_s",
        ): (
            "with `attention_parallelism: sp_tp_sp`: latents to all dies of a rank; attention's "
            "output from heads back to tokens"
        ),
        (
            "dispatch_s",
            "combine_s",
        ): "moving bytes to the experts and back",
        (
            "dispatch_wait_s",
            "combine_wait_s",
        ): (
            "waiting for the slowest rank's attention (at the first dispatch for the last launch; "
            "without expert parallelism at the end of the step), and for the experts: for the "
            "fullest die, or until dies for experts alone have their turn with these tokens"
        ),
        (
            "a2e_s",
            "e2a_s",
        ): "the same ways where attention and experts sit on different dies",
        (
            "head_s",
            "mtp_s",
            "sampling_s",
        ): "output head, draft layers, sampling",
        ("host_gap_s",): "host time between two steps",
    },
    "transfers": {
        ("request_id",): "whose KV",
        ("kind",): (
            "`kv` (prefill to decode), `cache_read`, `write_back` (from and to the [shared "
            "memory](shared-memory.md)), `expert_weights` (between dies whose "
            "[experts](experts.md) change), `migration` (of a sequence that decodes, to "
            "another rank; twice: what there is, and what it has gained meanwhile), `demotion` "
            "(from a memory of the pool to its SSD)"
        ),
        ("plane",): "network plane that carried it",
        (
            "source",
            "destination",
        ): (
            "rank of the prefill or mixed pool; rank of the decode pool, or that a prefix "
            "is read to; of a migration both of the pool that decodes"
        ),
        (
            "source_die",
            "destination_die",
        ): "the dies; pools take the dies of a pod in order",
        ("host",): "node whose memory is read or written",
        (
            "start_s",
            "end_s",
            "size_bytes",
        ): "when, and how much",
        ("wait_s",): "from the registration of a prompt until it is pulled: back-pressure",
        ("alone_s",): "what the whole operation would have taken on idle links",
    },
    "experts": {
        ("pool",): "whose experts; all of its instances are placed alike",
        (
            "start_s",
            "end_s",
        ): "from when to when the placement served",
        ("layer",): "of the model, dense layers counted; those of MTP come last",
        ("slot",): "of the pool's slots in a layer; -1: the copy of the shared expert on a die",
        ("die",): "that holds it, 0 to ep - 1; dies that share experts are one",
        ("expert",): "logical expert in the slot; -1: none, or the shared one",
        ("tokens",): "that reached the slot meanwhile, of all instances",
        (
            "expert_before",
            "tokens_before",
        ): ("the same slot without a balancer: experts in order, redundant slots begin again"),
    },
    "links": {
        (
            "start_s",
            "time_s",
        ): "the interval",
        ("plane",): "network plane; `peer` is the link between the dies of an NPU",
        ("link",): (
            "plane/kind/number; `up` and `down` of endpoints (dies, then CPUs), `domain_up`"
            " and `domain_down` of switch domains"
        ),
        ("bytes_per_s",): "mean of the interval",
        ("used_frac",): "of the link's rate",
    },
    "planes": {
        ("time_s",): "end of the interval",
        ("plane",): "network plane",
        ("bytes_per_s",): "what all endpoints sent into it",
        ("share_frac",): "of what they could send",
        ("busiest_frac",): "of the rate of the link that carried most of its own",
    },
    "timeseries": {
        (
            "time_s",
            "pool",
        ): "of the sample",
        (
            "serving",
            "draining",
            "loading",
        ): "instances in each state",
        (
            "waiting_seqs",
            "running_seqs",
        ): "requests without and with a slot",
        ("kv_frac",): "KV in use, of the instances that have dies",
        (
            "prompt_tokens_per_s",
            "output_tokens_per_s",
        ): "since the sample before",
        (
            "arrivals_per_s",
            "arrived_tokens_per_s",
            "spare_dies",
        ): "of the whole deployment",
    },
}
"""Table -> columns that belong together -> meaning, in Markdown."""
