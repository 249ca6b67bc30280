"""A small colocated decode group for tests of uneven experts."""

SMALL = (
    "workload.num_requests=256",
    "workload.arrivals.concurrency=128",
    "workload.prompt_tokens={distribution: constant, value: 2048}",
    "workload.output_tokens={distribution: constant, value: 200}",
    "deployment.decode.dies=32",
    "deployment.decode.dp=32",
    "deployment.decode.ep=32",
    "deployment.decode.shared_expert_dies=0",
    "policies.experts.redundant_slots=0",
)
"""Overrides of xdeepserve-colocated-288: 32 dies, a shared expert on each, no second copies;
lengths alike."""

FEW_LAYERS = ("model.num_layers=6", "model.num_moe_layers=3")
"""For runs that ask how weights move, not how long a step of DeepSeek-R1 takes."""
