"""From a pool of the file to the pool that runs: memory, limits, and whether the dies are there."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from simpod.cluster.pool_spec import PoolSpec
from simpod.config.layouts import Derived, resolve_layout
from simpod.config.more_dies import ways_to_more_dies
from simpod.config.nodes import Path, dotted
from simpod.config.problems import Problems, did_you_mean, listed
from simpod.config.schema import Experiment, Pool
from simpod.cost.collectives import group_plane
from simpod.cost.exchange.shapes import Fabric
from simpod.cost.layout import Layout
from simpod.cost.memory import MemoryPlan, expert_die_bytes, plan_memory
from simpod.cost.memory_rules import MemoryLimits
from simpod.cost.pipeline.jitter import HostPause, left, remedies
from simpod.cost.semantics import semantics_of
from simpod.errors import ConfigError
from simpod.hardware.spec import HardwareProfile
from simpod.model.spec import ModelSpec
from simpod.units import GB
from simpod.workload.spec import WorkloadSpec

_HASH_BLOCK: Path = ("workload", "hash_block_tokens")
_HASH_BLOCK_OF_TRACE: Path = ("workload", "trace", "hash_block_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedPool:
    """A pool, its memory, and what was left open in the file."""

    spec: PoolSpec
    memory: MemoryPlan
    derived: Derived


def resolve_pools(
    experiment: Experiment, hardware: Mapping[str, HardwareProfile], problems: Problems
) -> dict[str, ResolvedPool]:
    """Every pool that can be; the reasons why others can't go to `problems`."""
    resolved: dict[str, ResolvedPool] = {}
    for name, pool in experiment.deployment.items():
        found = _resolve_pool(name, pool, experiment, hardware[name], problems)
        if found is not None:
            resolved[name] = found
        _check_prefix_blocks(name, pool, experiment.workload, problems)
    _check_pods(resolved, hardware, problems)
    return resolved


def _resolve_pool(
    name: str, pool: Pool, experiment: Experiment, hardware: HardwareProfile, problems: Problems
) -> ResolvedPool | None:
    model, balancer = experiment.model, experiment.policies.experts
    path: Path = ("deployment", name)
    _check_step(path, pool, problems)
    pauses = _pauses(path, pool, problems)
    found = resolve_layout(path, pool, model, hardware, problems)
    if found is None:
        return None
    layout, derived = found
    if balancer is not None and layout.ep > 1:
        layout = replace(layout, redundant_slots=balancer.redundant_slots)
    staging_slots = (balancer.staging_slots or 0) if balancer is not None else 0
    memory = plan_memory(
        model,
        hardware,
        layout,
        MemoryLimits(
            memory_frac=pool.memory_frac,
            max_step_tokens=pool.max_step_tokens,
            max_num_seqs=pool.max_num_seqs,
            staging_slots=staging_slots,
            rules=semantics_of(experiment.engine.semantics, experiment.hardware.family).memory,
        ),
    )
    _check_expert_dies(path, model, layout, memory, staging_slots, problems)
    _check_planes(path, layout, hardware, problems)
    limits = _Limits(path=path, pool=pool, model=model, layout=layout, memory=memory)
    kv_blocks = limits.kv_blocks(problems, derived)
    max_model_len = limits.max_model_len(kv_blocks, problems, derived)
    if not kv_blocks or not max_model_len:
        return None
    spec = PoolSpec(
        name=name,
        role=pool.role,
        instances=pool.instances,
        layout=layout,
        max_num_seqs=pool.max_num_seqs,
        max_step_tokens=pool.max_step_tokens,
        max_model_len=max_model_len,
        block_tokens=pool.block_tokens,
        kv_blocks=kv_blocks,
        prefix_caching=pool.prefix_caching,
        reserve_full_prompt=pool.reserve_full_prompt,
        host_bytes_per_s=pool.host_bytes_per_s,
        pauses=pauses,
    )
    return ResolvedPool(spec=spec, memory=memory, derived=derived)


def _pauses(path: Path, pool: Pool, problems: Problems) -> tuple[HostPause, ...]:
    """Causes that are left; what none of them has as its remedy is a mistake."""
    jitter = pool.launch_jitter
    if jitter is None:
        return ()
    known = remedies(jitter.causes)
    for place, name in enumerate(jitter.mitigations):
        if name not in known:
            problems.at(
                (*path, "launch_jitter", "mitigations", place),
                "no cause is mitigated by it",
                allowed=listed(known) or "none, as no cause has a mitigated_by",
                hint=did_you_mean(name, known),
            )
    return left(jitter.causes, jitter.mitigations)


def _check_step(path: Path, pool: Pool, problems: Problems) -> None:
    """The same check as vLLM's of max_num_batched_tokens."""
    if pool.max_step_tokens < pool.max_num_seqs:
        problems.at(
            problems.blamed(path, "max_step_tokens", "max_num_seqs"),
            f"max_step_tokens {pool.max_step_tokens} must be at least"
            f" max_num_seqs {pool.max_num_seqs}: a running sequence takes one token of a step",
        )


def _check_expert_dies(
    path: Path, model: ModelSpec, layout: Layout, room: MemoryPlan, slots: int, problems: Problems
) -> None:
    """Dies for experts alone hold their weights, and `slots` more on their way."""
    held = expert_die_bytes(model, layout, slots)
    if held > room.usable_bytes:
        problems.at(
            (*path, "expert_dies"),
            f"{held / GB:.2f} GB of experts ({layout.weight_dtype}) on each die,"
            f" and memory_frac leaves {room.usable_bytes / GB:.2f} GB",
            hint="more expert_dies, or fewer policies.experts.redundant_slots or staging_slots",
        )


def _check_planes(
    path: Path, layout: Layout, hardware: HardwareProfile, problems: Problems
) -> None:
    """Dispatch and combine cross scale_out where scale_up ends. A2E and E2A are posted to the copy
    engines of scale_up (xDeepServe 3.3), no other plane's."""
    try:
        group_plane(hardware, layout.all_dies if layout.ep > 1 else 1)
    except ConfigError:
        problems.at(
            (*path, "ep"),
            f"dispatch and combine of {layout.all_dies} dies; scale_up of hardware {hardware.name}"
            f" joins the {hardware.dies_per_node} of a node, and it has no scale_out beyond",
            hint="planes.scale_out in the profile, or instances of one node",
        )
    domain = Fabric.of(hardware).up_dies
    if layout.expert_dies and layout.all_dies > domain:
        problems.at(
            (*path, "expert_dies"),
            f"{layout.all_dies} dies for attention and experts; A2E and E2A go over scale_up, which"
            f" joins {domain} dies on hardware {hardware.name}",
            allowed=f"at most {domain} dies in all",
            hint="hardware whose planes.scale_up has scope pod, or ep without expert_dies",
        )


def _check_prefix_blocks(name: str, pool: Pool, workload: WorkloadSpec, problems: Problems) -> None:
    """Prefixes are reused in whole blocks of both kinds, so one must be a multiple of the other."""
    block, where = workload.prefix_block_tokens, _HASH_BLOCK
    if not block or not pool.prefix_caching or pool.role == "decode":
        return
    if max(block, pool.block_tokens) % min(block, pool.block_tokens) == 0:
        return
    if workload.trace is not None:
        where = _HASH_BLOCK_OF_TRACE
    path: Path = ("deployment", name, "block_tokens")
    if problems.root.find(path) is None and problems.root.find(where) is not None:
        path = where
    problems.at(
        path,
        f"block_tokens {pool.block_tokens} of pool {name} and {dotted(where)} {block}: neither"
        " divides the other, so no prefix can be reused",
        hint="change one of them, or set prefix_caching: false",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    """What memory and model allow in one rank."""

    path: Path
    pool: Pool
    model: ModelSpec
    layout: Layout
    memory: MemoryPlan

    def kv_blocks(self, problems: Problems, derived: Derived) -> int:
        """Blocks of one rank; 0 when the model does not fit."""
        held = self.memory.kv_capacity_tokens // self.pool.block_tokens
        if held < 1:
            self._does_not_fit(self.pool.max_model_len or self.pool.block_tokens, problems)
            return 0
        given = self.pool.kv_blocks
        if given is None:
            derived[*self.path, "kv_blocks"] = (held, "memory left by weights and buffers")
            return held
        if given > held:
            problems.at(
                (*self.path, "kv_blocks"),
                f"{given} blocks of {self.pool.block_tokens} tokens do not fit: {self._sum()}",
                allowed=f"at most {held}",
            )
        return given

    def max_model_len(self, kv_blocks: int, problems: Problems, derived: Derived) -> int:
        """Longest request of one rank; 0 when nothing can be said."""
        if not kv_blocks:
            return 0
        limit, held = self.model.max_position_tokens, kv_blocks * self.pool.block_tokens
        given = self.pool.max_model_len
        if given is None:
            how = (
                f"max_position_tokens of {self.model.name}"
                if limit <= held
                else f"KV memory of one rank holds {held} tokens,"
                f" fewer than max_position_tokens {limit}"
            )
            derived[*self.path, "max_model_len"] = (min(limit, held), how)
            return min(limit, held)
        if given > limit:
            problems.at(
                (*self.path, "max_model_len"),
                f"{self.model.name} was made for {limit} tokens",
                allowed=f"at most {limit}",
            )
        elif given > held and self.pool.kv_blocks is not None:
            problems.at(
                (*self.path, "max_model_len"),
                f"kv_blocks {kv_blocks} x block_tokens {self.pool.block_tokens} hold {held} tokens",
                allowed=f"at most {held}",
            )
        elif given > held:
            self._does_not_fit(given, problems)
        return given

    def _does_not_fit(self, tokens: int, problems: Problems) -> None:
        memory = self.memory
        one = tokens * memory.kv_bytes_per_token
        need = memory.weight_bytes + memory.buffer_bytes + one
        problems.at(
            self.path,
            f"does not fit in a die: {self._sum()} + KV of one sequence of {tokens:,} tokens"
            f" {one / GB:.2f} GB = {need / GB:.2f} GB, and programs see"
            f" {memory.seen_bytes / GB:.2f} GB, of which memory_frac {self.pool.memory_frac:g}"
            f" leaves {memory.usable_bytes / GB:.2f} GB",
            hint="more dies (ep, tp), a narrower weight_dtype or kv_dtype, fewer max_step_tokens,"
            " or a smaller max_model_len",
        )

    def _sum(self) -> str:
        memory = self.memory
        return (
            f"weights {memory.weight_bytes / GB:.2f} GB ({self.layout.weight_dtype}) + buffers"
            f" {memory.buffer_bytes / GB:.2f} GB"
        )


def _check_pods(
    resolved: Mapping[str, ResolvedPool],
    hardware: Mapping[str, HardwareProfile],
    problems: Problems,
) -> None:
    """No more dies than there are; pools on the same profile share one pod."""
    pods: list[HardwareProfile] = []
    for name in resolved:
        if hardware[name] not in pods:
            pods.append(hardware[name])
    for pod in pods:
        users = [pool.spec for name, pool in resolved.items() if hardware[name] == pod]
        used = sum(spec.instances * spec.layout.all_dies for spec in users)
        if used > pod.num_dies:
            terms = " + ".join(f"{s.name} {s.instances} x {s.layout.all_dies}" for s in users)
            problems.at(
                ("deployment",) if len(users) > 1 else ("deployment", users[0].name),
                f"{terms} = {used} dies, and {pod.name} has {pod.num_dies}"
                f" ({pod.num_nodes} nodes x {pod.dies_per_node})",
                hint=ways_to_more_dies(users, pod, used, problems.root),
            )
