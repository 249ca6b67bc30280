"""Models and hardware for the tests of the cost model, with numbers that are easy to work with.

Kernel constants are in `kernel_examples`: real ones unless a test takes the `ideal` die.
"""

from dataclasses import replace

import kernel_examples
import numpy as np

from simpod.cluster.experts.loads import MomentLoads
from simpod.cluster.experts.placement import ExpertPlacement, expert_slots, in_order
from simpod.cluster.experts.routing import RouterDims, RoutingSpec, popularity
from simpod.cost import Batch, Layout
from simpod.hardware.spec import Calibration, DieSpec, HardwareProfile, HostSpec, PlaneSpec
from simpod.model.spec import AttentionSpec, ModelSpec, MoeSpec

DEEPSEEK_R1 = ModelSpec(
    name="deepseek-r1",
    hidden_size=7168,
    num_layers=61,
    num_moe_layers=58,
    intermediate_size=18432,
    vocab_size=129280,
    attention=AttentionSpec(
        kind="mla",
        num_heads=128,
        num_kv_heads=128,
        head_dim=192,
        q_lora_rank=1536,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
    ),
    moe=MoeSpec(
        num_experts=256,
        experts_per_token=8,
        expert_intermediate_size=2048,
        shared_intermediate_size=2048,
        has_router_bias=True,
    ),
    num_mtp_layers=1,
    tie_word_embeddings=False,
    max_position_tokens=163840,
    weight_dtype="fp8",
)

LLAMA_70B = ModelSpec(
    name="llama-70b",
    hidden_size=8192,
    num_layers=80,
    num_moe_layers=0,
    intermediate_size=28672,
    vocab_size=128256,
    attention=AttentionSpec(kind="gqa", num_heads=64, num_kv_heads=8, head_dim=128),
    moe=None,
    num_mtp_layers=0,
    tie_word_embeddings=False,
    max_position_tokens=131072,
    weight_dtype="bf16",
)

SMALL_MOE = replace(
    LLAMA_70B,
    name="small-moe",
    hidden_size=1024,
    num_layers=4,
    num_moe_layers=3,
    intermediate_size=4096,
    vocab_size=32000,
    attention=AttentionSpec(kind="gqa", num_heads=16, num_kv_heads=4, head_dim=64),
    moe=MoeSpec(num_experts=16, experts_per_token=4, expert_intermediate_size=512),
)

IDEAL = Calibration(hbm_frac=1.0, vector_frac=1.0, kernel_overhead_s=0.0)

REAL = Calibration(
    hbm_frac=0.7,
    vector_frac=0.5,
    kernel_overhead_s=3e-6,
    network_frac={"scale_up": 0.8},
    allreduce_latency_s=1e-5,
    dispatch_latency_s=6e-5,
    dispatch_latency_per_rank_s=2e-7,
)

NPU_POD = HardwareProfile(
    name="npu-pod",
    source="rounded CloudMatrix384",
    family="ascend",
    die=DieSpec(
        name="npu-die",
        peak_flops_per_s={"bf16": 350e12, "int8": 750e12},
        vector_flops_per_s=22e12,
        hbm_bytes=64e9,
        hbm_bytes_per_s=1.6e12,
        l2_bytes=192e6,
        num_cores=24,
    ),
    dies_per_npu=2,
    npus_per_node=8,
    num_nodes=48,
    planes={
        "scale_up": PlaneSpec(
            name="scale_up",
            scope="pod",
            bytes_per_s=200e9,
            intra_node_latency_s=1e-6,
            inter_node_latency_s=2e-6,
        ),
        "scale_out": PlaneSpec(
            name="scale_out",
            scope="pod",
            bytes_per_s=25e9,
            intra_node_latency_s=5e-6,
            inter_node_latency_s=5e-6,
        ),
    },
    host=HostSpec(num_cpus=4, dram_bytes=1e12, dram_bytes_per_s=1e11),
    calibration=REAL,
    kernels=replace(kernel_examples.REAL, collective={}),  # all-reduce by link and latency
)

GPU_NODES = replace(
    NPU_POD,
    name="gpu-nodes",
    source="rounded H100",
    family="hopper",
    die=replace(
        NPU_POD.die,
        name="gpu",
        peak_flops_per_s={"bf16": 1000e12, "fp8": 2000e12},
        hbm_bytes=80e9,
        hbm_bytes_per_s=3e12,
    ),
    dies_per_npu=1,
    num_nodes=4,
    planes={
        "scale_up": replace(NPU_POD.planes["scale_up"], scope="node", bytes_per_s=450e9),
        "scale_out": replace(NPU_POD.planes["scale_out"], bytes_per_s=50e9),
    },
    kernels=kernel_examples.REAL,
)


def ideal(hardware, **die):
    """The same die with nothing but its peaks, those in `die` changed."""
    free = replace(hardware, calibration=IDEAL, kernels=kernel_examples.FREE)
    return with_die(free, **die)


def with_calibration(hardware, **changes):
    return replace(hardware, calibration=replace(hardware.calibration, **changes))


def with_die(hardware, **changes):
    return replace(hardware, die=replace(hardware.die, **changes))


def ep_layout(dies, mtp=0, **changes):
    """One rank a die, experts over all dies, INT8."""
    given = {"dies": dies, "dp": dies, "ep": dies, "weight_dtype": "int8", "mtp_layers": mtp}
    return Layout(**(given | changes))


def decode_batch(seqs, context):
    """Ranks with `seqs` sequences and `context` resident tokens each; ints or lists."""
    seqs = np.atleast_1d(np.array(seqs, dtype=np.int64))
    return Batch.of(seqs, np.zeros_like(seqs) + np.array(context, dtype=np.int64))


def add_prompts(batch, tokens):
    """Give each rank one whole prompt of `tokens` (0: none)."""
    tokens = np.zeros_like(batch.decode_seqs) + np.array(tokens, dtype=np.int64)
    batch.prefill_tokens += tokens
    batch.prefill_context += tokens
    batch.prefill_pairs += tokens * (tokens + 1) / 2
    batch.num_chunks += tokens > 0
    return batch


def permute(batch, order):
    """The same batches on other ranks."""
    names = [name for name in Batch.__slots__ if name != "gained_tokens"]
    return Batch(*(getattr(batch, name)[order] for name in names))


def total_flops(works):
    """Of all of them."""
    return sum((work.flops for work in works), start=0.0)


def loads_of(routing: RoutingSpec, redundant: int = 0, dies: int = 32) -> MomentLoads:
    """Of 58 layers of 256 experts on `dies`, moments of five draws."""
    slots = expert_slots(num_dies=dies, num_experts=256, redundant_slots=redundant)
    dims = RouterDims(num_layers=58, num_experts=256, top_k=8)
    shares = popularity(routing, dims, np.random.default_rng(0)).at(0.0)
    return MomentLoads.of(ExpertPlacement(slots=slots, experts=in_order(slots, 58)), shares, 5)
