"""A decode instance that is written as its two halves: attention dies, and expert dies.

`attention: {role: attention, ...}` and `experts: {role: expert, dies: ...}` stand for one pool
`decode` with `expert_dies`: the two step together, so they are one instance.
"""

from typing import Final

from simpod.config.nodes import Node
from simpod.config.problems import Problems

HALF_ROLES: Final = ("attention", "expert")
OF_EXPERTS: Final = {"dies": "expert_dies", "shared_expert_dies": "shared_expert_dies"}
"""Keys of a pool with role expert -> keys of the pool that both halves become."""
WHOLE: Final = "decode"
"""Name and role of that pool."""


def join_halves(root: Node, problems: Problems) -> None:
    """Rewrite the two halves, if there are any, as one pool; keys keep their places."""
    deployment = root.child("deployment")
    pools = deployment.children() if deployment is not None else {}
    attention, experts = (_with_role(pools, role) for role in HALF_ROLES)
    if not attention and not experts:
        return
    if len(attention) != 1 or len(experts) != 1 or WHOLE in pools:
        _refuse(attention, experts, problems)
        return
    (name,), (half,) = attention, experts
    whole = dict(pools[name].children())
    whole["role"] = _like(whole["role"], WHOLE)
    if not {"dp", "tp"} & set(whole):
        whole["tp"] = _like(whole["role"], 1)
    for key, node in pools[half].children().items():
        if key in OF_EXPERTS:
            whole[OF_EXPERTS[key]] = node
        elif key != "role":
            problems.at(
                ("deployment", half, key),
                "is no key of a pool with role expert",
                allowed=", ".join(("role", *OF_EXPERTS)),
                hint=f"what both halves have in common is written in {name}",
            )
            problems.silent.add(("deployment",))
    if "expert_dies" not in whole:
        problems.at(("deployment", half), "a pool with role expert needs dies")
        problems.silent.add(("deployment",))
    pools[name].value = whole
    joined = {WHOLE if key == name else key: node for key, node in pools.items() if key != half}
    pools.clear()
    pools.update(joined)


def _with_role(pools: dict[str, Node], role: str) -> list[str]:
    roles = {name: pool.child("role") for name, pool in pools.items()}
    return [name for name, node in roles.items() if node is not None and node.value == role]


def _like(node: Node, value: str | int) -> Node:
    return Node(value=value, place=node.place, key=node.key, written=node.written)


def _refuse(attention: list[str], experts: list[str], problems: Problems) -> None:
    name = (attention or experts)[0]
    problems.at(
        ("deployment", name, "role"),
        f"{len(attention)} pools with role attention and {len(experts)} with role expert",
        allowed=f"one of each, which are one decode instance, and no pool named {WHOLE}",
        hint="or one pool with role: decode, dies for attention and expert_dies",
    )
    problems.silent.add(("deployment",))
