"""Time of collectives and transfers: a latency and the bytes over the slowest link.

First version: no contention between groups, no protocol switches; expert routing balanced.
"""

from dataclasses import dataclass
from math import ceil

from simpod.cost.layout import Layout
from simpod.cost.operators import (
    BF16_BYTES,
    cached_bytes_per_die,
    copies_sent,
    input_bytes,
    part_dtype,
)
from simpod.cost.work import Amount
from simpod.errors import ConfigError
from simpod.hardware.spec import HardwareProfile, PlaneSpec
from simpod.model.spec import ModelSpec

SCALE_BYTES = 4  # one fp32 scale a token
MESSAGE_ALIGN_BYTES = 512  # CloudMatrix-Infer 4.2.1: 7,168 int8 + 4 padded to 7.5 KB


@dataclass(frozen=True, slots=True)
class Link:
    """What joins the dies of a group: unidirectional bandwidth of one die, and latency."""

    bytes_per_s: float
    latency_s: float


def plane_link(hardware: HardwareProfile, plane: PlaneSpec, num_dies: int) -> Link:
    """Achieved bandwidth and latency of a plane between `num_dies` neighbouring dies."""
    frac = hardware.calibration.network_frac.get(plane.name, 1.0)
    inside = num_dies <= hardware.dies_per_node
    latency_s = plane.intra_node_latency_s if inside else plane.inter_node_latency_s
    return Link(plane.bytes_per_s * frac, latency_s)


def group_link(hardware: HardwareProfile, num_dies: int) -> Link:
    """The slowest link of a group."""
    return plane_link(hardware, group_plane(hardware, num_dies), num_dies)


def group_plane(hardware: HardwareProfile, num_dies: int) -> PlaneSpec:
    """What joins a group: scale_up within its scope, else scale_out; ConfigError for neither."""
    up = hardware.planes["scale_up"]
    if up.scope == "pod" or num_dies <= hardware.dies_per_node:
        return up
    out = hardware.planes.get("scale_out")
    if out is not None and out.scope == "pod":
        return out
    raise ConfigError(
        f"hardware {hardware.name}: no plane joins a group of {num_dies} dies"
        f" (a node has {hardware.dies_per_node}; planes: {', '.join(hardware.planes)})"
    )


def all_reduce_s(hardware: HardwareProfile, size_bytes: Amount, num_dies: int) -> Amount:
    """Every die gets the sum: start-up, two latencies, 2 (n - 1) / n of the bytes a die (ring)."""
    if num_dies == 1:
        return size_bytes * 0.0
    link = group_link(hardware, num_dies)
    start_s = hardware.calibration.allreduce_latency_s + 2.0 * link.latency_s
    return start_s + size_bytes * (2.0 * (num_dies - 1) / num_dies / link.bytes_per_s)


def all_gather_s(hardware: HardwareProfile, size_bytes: Amount, num_dies: int) -> Amount:
    """Every die gets all parts, `size_bytes` together: half of an all-reduce."""
    return all_reduce_s(hardware, size_bytes, num_dies) / 2.0


def all_to_all_s(hardware: HardwareProfile, size_bytes: Amount, num_dies: int) -> Amount:
    """Every die sends `size_bytes`, a part to each: as long as a gather of as many bytes."""
    return all_gather_s(hardware, size_bytes, num_dies)


def meets_in_layers(model: ModelSpec, layout: Layout) -> bool:
    """Do the dies exchange tokens in every sparse layer?

    One rank alone has its tokens on all its dies already, unless it is staged: its experts'
    results are all-reduced, with or without expert parallelism. Ranks of a dense model have
    nothing to exchange.
    """
    return model.moe is not None and layout.has_tokens_apart


def dispatch_message_bytes(model: ModelSpec, layout: Layout) -> float:
    """One token to one die: 8-bit with its scale if the experts are 8-bit, else bf16."""
    dtype = part_dtype(model, "experts", layout.weight_dtype)
    if input_bytes(dtype) == 1.0:
        size = model.hidden_size + SCALE_BYTES
        return float(ceil(size / MESSAGE_ALIGN_BYTES) * MESSAGE_ALIGN_BYTES)
    return model.hidden_size * BF16_BYTES


def combine_message_bytes(model: ModelSpec) -> float:
    """One expert's result for one token, in bf16."""
    return model.hidden_size * BF16_BYTES


@dataclass(frozen=True, slots=True)
class Exchange:
    """Dispatch or combine of one layer: fixed_s + s_per_token * (tokens of the die)."""

    fixed_s: float
    s_per_token: float


def expert_exchange(
    hardware: HardwareProfile, model: ModelSpec, layout: Layout, message_bytes: float
) -> Exchange:
    """Latency grows with the peers; a token goes to each of its experts' dies, most of them remote.

    A token has min(k, ep) * moe_tp destinations. On a fabric whose scale_up ends at the node, the
    copies for other nodes go over scale_out at the same time as the others go over scale_up.
    """
    cal, dies, node = hardware.calibration, layout.dies, hardware.dies_per_node
    top_k = copies_sent(model, layout)
    copies = min(top_k, layout.ep) * layout.moe_tp
    up = hardware.planes["scale_up"]
    if up.scope == "pod" or dies <= node:
        remote_s = copies * (dies - 1) / dies / group_link(hardware, dies).bytes_per_s
    else:
        out_s = copies * (dies - node) / dies / group_link(hardware, dies).bytes_per_s
        up_s = copies * (node - 1) / dies / plane_link(hardware, up, node).bytes_per_s
        remote_s = max(out_s, up_s)
    fixed_s = cal.dispatch_latency_s + cal.dispatch_latency_per_rank_s * dies
    return Exchange(fixed_s, remote_s * message_bytes)


def kv_bytes_per_token(model: ModelSpec, layout: Layout) -> float:
    """KV cache of one token on each die of its rank, loaded MTP layers included.

    Layers with a sliding window are not in it: `window_kv_bytes`.
    """
    layers = model.num_full_layers + min(layout.mtp_layers, model.num_mtp_layers)
    return layers * cached_bytes_per_die(model.attention, layout.tp, layout.kv_dtype)


def window_kv_bytes(model: ModelSpec, layout: Layout) -> float:
    """KV cache that one long sequence holds in the layers with a window, on each die."""
    tokens = (model.attention.window_tokens or 0) * model.num_window_layers
    return tokens * cached_bytes_per_die(model.attention, layout.tp, layout.kv_dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class KvTransfer:
    """Moves a sequence's KV cache from a prefill rank to a decode rank over one plane.

    Every die of the decode rank pulls what it holds; those of the prefill rank share the sending.
    """

    latency_s: float
    bytes_per_token: float  # over the plane, all dies of the decode rank
    s_per_token: float
    fixed_bytes: float = 0.0  # of layers with a window
    fixed_s: float = 0.0

    def seconds(self, tokens: int) -> float:
        """Time of one sequence on idle links."""
        return self.latency_s + self.fixed_s + self.s_per_token * tokens

    def moving_s(self, tokens: int) -> float:
        """The same without the latency."""
        return self.fixed_s + self.s_per_token * tokens

    def size_bytes(self, tokens: int) -> float:
        """What one sequence sends, all dies of the decode rank."""
        return self.fixed_bytes + self.bytes_per_token * tokens


def kv_transfer(
    model: ModelSpec,
    hardware: HardwareProfile,
    plane: str,
    source: Layout,
    destination: Layout,
) -> KvTransfer:
    """Bound by the bytes that one decode die takes in, or that one prefill die gives out."""
    if plane not in hardware.planes:
        raise ConfigError(
            f"kv_transfer plane {plane!r}: hardware {hardware.name} has"
            f" {', '.join(sorted(hardware.planes))}"
        )
    link = plane_link(hardware, hardware.planes[plane], hardware.num_dies)
    s_per_byte = max(1.0, destination.tp / source.tp) / link.bytes_per_s
    per_token = kv_bytes_per_token(model, destination)
    fixed = window_kv_bytes(model, destination)
    return KvTransfer(
        latency_s=link.latency_s,
        bytes_per_token=per_token * destination.tp,
        s_per_token=per_token * s_per_byte,
        fixed_bytes=fixed * destination.tp,
        fixed_s=fixed * s_per_byte,
    )
