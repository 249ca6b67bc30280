"""`simpod explain`: every resolved value and where it came from; one collective's price."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from simpod.cli.explain_collective import Asked, explain_collective
from simpod.cli.explain_step import StepOf, explain_step
from simpod.cli.listing import in_words
from simpod.cli.options import JsonOption, SetOption
from simpod.cli.output import add_rows, in_yaml, leaves, plain_table, print_json, show
from simpod.errors import ConfigError
from simpod.units import GB

if TYPE_CHECKING:
    from rich.table import Table

    from simpod.config import ResolvedExperiment
    from simpod.cost.memory import MemoryPlan

EPILOG: Final = """Examples:

simpod explain quickstart -s deployment.decode.dies=32

simpod explain deepseek-r1 --json

simpod explain path/to/config.json   (a HuggingFace model)

simpod explain hardware:h100   (prefixes: experiment:, model:, hardware:)

simpod explain results/chat --step 500   (one step by part, layer and rank)

simpod explain results/pod --step 500 --by-layer --by-die

simpod explain --collective dispatch --hardware cloudmatrix384 --ep 288 --tokens 60

simpod explain --collective a2e --hardware cloudmatrix384 --kernel naive

simpod explain --collective all_reduce --hardware h100 --dies 8 --bytes 65536"""

_KINDS: Final = ("experiment", "model", "hardware")
_LARGE: Final = 1e6
KERNELS: Final = "hardware.kernels"
"""Hundreds of constants, below the hardware of the experiment or of a pool."""


def _priced(flag: str, metavar: str, meaning: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        flag,
        metavar=metavar,
        help=meaning,
        show_default=False,
        rich_help_panel="With --collective",
    )
    return option


Count = int | None


def explain_command(
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="EXPERIMENT|MODEL|HARDWARE|RESULT",
            help="A shipped name or a file, looked for as an experiment, a model, then hardware;"
            " a result with --step.",
            show_default=False,
        ),
    ] = None,
    overrides: SetOption = None,
    collective: Annotated[
        str | None,
        typer.Option(
            "--collective",
            metavar="OPERATION",
            help="Price one: dispatch, combine, a2e, e2a, p2p_read, p2p_write, p2p_send,"
            " all_reduce, all_gather, reduce_scatter, all_to_all.",
            show_default=False,
        ),
    ] = None,
    hardware: Annotated[str | None, _priced("--hardware", "NAME", "Name or path.")] = None,
    kernel: Annotated[
        str | None, _priced("--kernel", "NAME", "Default: the first the profile has constants of.")
    ] = None,
    ep: Annotated[Count, _priced("--ep", "N", "Ranks; expert dies of a2e and e2a.")] = None,
    tokens: Annotated[Count, _priced("--tokens", "N", "A rank; default 128, a2e 96.")] = None,
    hidden: Annotated[Count, _priced("--hidden", "N", "Hidden size; default 7168.")] = None,
    top_k: Annotated[Count, _priced("--top-k", "N", "Experts of a token; default 8.")] = None,
    experts: Annotated[Count, _priced("--experts", "N", "Logical experts; default 256.")] = None,
    dtype: Annotated[
        str | None, _priced("--dtype", "TYPE", "Of the messages; default: the kernel's.")
    ] = None,
    size_bytes: Annotated[
        float | None, _priced("--bytes", "N", "Of a transfer, of a whole message; default 1 MiB.")
    ] = None,
    dies: Annotated[Count, _priced("--dies", "N", "Of a collective; default: a node's.")] = None,
    nodes: Annotated[Count, _priced("--nodes", "N", "1: a transfer inside a node.")] = None,
    cores: Annotated[
        Count, _priced("--cores", "N", "Vector cores of p2p_send, SMs of deepep_normal.")
    ] = None,
    plane: Annotated[str | None, _priced("--plane", "ub|rdma", "Of p2p_read, p2p_write.")] = None,
    attention_dies: Annotated[
        Count, _priced("--attention-dies", "N", "Of one domain; default 160.")
    ] = None,
    domains: Annotated[
        Count, _priced("--domains", "N", "Attention domains in turn; default 3.")
    ] = None,
    step: Annotated[
        int | None,
        typer.Option("--step", metavar="N", help="Of a result: take apart a step, 1, 2..."),
    ] = None,
    pool: Annotated[str | None, typer.Option("--pool", help="With --step.")] = None,
    instance: Annotated[int, typer.Option("--instance", help="With --step.")] = 0,
    by_layer: Annotated[
        bool, typer.Option("--by-layer", help="With --step: each sparse layer.")
    ] = False,
    by_die: Annotated[
        bool, typer.Option("--by-die", help="With --step: the dies with most work for experts.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show every resolved value and its origin, memory included; counts of a model; a profile.

    With --collective: the time of one exchange, transfer or collective, part by part.
    """
    asked = Asked(
        operation=collective or "",
        hardware=hardware,
        kernel=kernel,
        dtype=dtype,
        plane=plane,
        ep=ep,
        tokens=tokens,
        hidden=hidden,
        top_k=top_k,
        experts=experts,
        size_bytes=size_bytes,
        dies=dies,
        nodes=nodes,
        cores=cores,
        attention_dies=attention_dies,
        domains=domains,
    )
    if collective is not None:
        if subject is not None or overrides:
            raise ConfigError("--collective stands alone: no file, no --set")
        explain_collective(asked, as_json=as_json)
        return
    _refuse(asked)
    if step is not None:
        if subject is None or overrides:
            raise ConfigError("--step takes a result folder, and no --set")
        place = StepOf(Path(subject), step, pool, instance)
        explain_step(place, by_layer=by_layer, by_die=by_die, as_json=as_json)
        return
    if by_layer or by_die:
        raise ConfigError("--by-layer, --by-die: only with --step")
    if subject is None:
        raise ConfigError("give an experiment, a model or a profile, or --collective OPERATION")
    _explain_file(subject, overrides or (), as_json=as_json)


def _explain_file(subject: str, overrides: Sequence[str], *, as_json: bool) -> None:
    kind, name = _kind_and_name(subject)
    if kind == "experiment":
        _explain_experiment(name, overrides, as_json=as_json)
        return
    if overrides:
        raise ConfigError(f"--set changes experiments only, {name} is a {kind} file")
    from simpod.config import explain_hardware, explain_model

    values = explain_model(name) if kind == "model" else explain_hardware(name)
    if as_json:
        print_json(values)
        return
    rows = [
        (key, in_yaml(value), _in_words(value))
        for key, value in leaves(values)
        if not key.startswith(("kernels", "kernel_status"))  # they have a table of their own
    ]
    show(add_rows(plain_table("Key", "Value", "", right=("",)), rows))
    if kind == "hardware":
        show("", _kernel_table(name))


def _refuse(asked: Asked) -> None:
    flags = [
        {"size_bytes": "--bytes"}.get(name, f"--{name.replace('_', '-')}")
        for name, value in asdict(asked).items()
        if name != "operation" and value is not None
    ]
    if flags:
        raise ConfigError(f"{', '.join(flags)}: only with --collective")


def _kind_and_name(subject: str) -> tuple[str, str]:
    from simpod.config import kind_of

    prefix, colon, rest = subject.partition(":")
    if colon and prefix in _KINDS:
        return prefix, rest
    return kind_of(subject), subject


def _explain_experiment(name: str, overrides: Sequence[str], *, as_json: bool) -> None:
    from simpod.config import load_experiment

    resolved = load_experiment(name, overrides)
    if as_json:
        print_json(experiment_json(resolved))
        return
    from simpod.config import explain, memory_of, notes_of
    from simpod.cost.memory import expert_die_bytes

    rows = [
        (row.key, in_yaml(row.value), row.origin)
        for row in explain(resolved)
        if not row.key.startswith("memory.")  # has a table of its own
        and KERNELS not in row.key
    ]
    show(add_rows(plain_table("Key", "Value", "Origin"), rows))
    for hardware in {each.name: each for each in resolved.hardware.values()}.values():
        statuses = hardware.kernels.statuses(hardware.die.name, hardware.family)
        show(
            f"\nKernels of {hardware.name}, with the libraries of {resolved.semantics.name}:"
            f" {in_words(statuses)}; each: simpod explain HARDWARE, all constants: --json"
        )
    for line in (*_part_lines(resolved), *(f"Note: {note}" for note in notes_of(resolved))):
        show(line)
    for pool in resolved.pools:
        dies = pool.layout.dies // pool.layout.dp
        title = f"Memory of one die of pool {pool.name}, GB"
        held = memory_of(resolved, pool.name)
        show("", _memory_table(title, resolved.memory[pool.name], held, dies))
        experts = expert_die_bytes(resolved.model, pool.layout, resolved.staging_slots or 0)
        if experts:
            of = resolved.memory[pool.name].hbm_bytes
            share = f"{experts / GB:.2f} of {of / GB:.2f} GB, {100 * experts / of:.1f} %"
            show(f"\nWeights on one of its {pool.layout.expert_dies} dies for experts: {share}")


def _part_lines(resolved: "ResolvedExperiment") -> Iterator[str]:
    """For each pool, which parts of its steps have prices of which status."""
    from simpod.cost.statuses import STATUSES, part_statuses, parts_of

    for pool in resolved.pools:
        hardware = resolved.hardware[pool.name]
        known = part_statuses(resolved.model, hardware, pool.layout, pool.role, resolved.semantics)
        own = parts_of(resolved.model, pool.layout)
        groups = [
            f"{status}: {', '.join(part.replace('_', ' ') for part in parts)}"
            for status in STATUSES
            if (parts := [part for part in own if known[part] == status])
        ]
        yield f"Parts of a step of pool {pool.name}: {'; '.join(groups)}"


def _kernel_table(name: str) -> "Table":
    """A line for each variant of each operator: how sure, fitted on what, and what the fit left."""
    from simpod.config import load_hardware

    hardware = load_hardware(name)
    numbers = ("rows", "median", "p90")
    table = plain_table("Kernel", "variant", "constants", *numbers, "from", right=numbers)
    rows = (
        (
            operator,
            variant,
            fit.status(hardware.die.name, hardware.family),
            f"{fit.rows:,}",
            _share(fit.median_abs_error_frac),
            _share(fit.p90_abs_error_frac),
            fit.device,
        )
        for operator, variant, fit in hardware.kernels.each()
    )
    return add_rows(table, rows)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def experiment_json(resolved: "ResolvedExperiment") -> dict[str, Any]:
    """The document that gives the same experiment again, origins by dotted key, memory by pool."""
    from simpod.config import memory_of

    return {
        "name": resolved.name,
        "document": dict(resolved.document),
        "origins": dict(resolved.origins),
        "memory": {
            pool: {**asdict(plan), **memory_of(resolved, pool)}
            for pool, plan in resolved.memory.items()
        },
    }


def _memory_table(
    title: str, plan: "MemoryPlan", held: Mapping[str, float], dies_per_rank: int
) -> "Table":
    parts = {
        "attention weights": plan.attention_bytes,
        "dense feed-forward weights": plan.dense_ffn_bytes,
        "expert weights": plan.expert_bytes + plan.shared_expert_bytes,
        "embedding, head, norms, routers": plan.other_bytes,
        "MTP weights": plan.mtp_bytes,
        "activation buffers": plan.activation_bytes,
        "engine: contexts, communicators": plan.engine_bytes,
        "exchange buffers": plan.exchange_bytes,
        "experts' weights on their way": plan.staging_bytes,
        "KV cache": held["kv_bytes"],
        "left free (kv_blocks)": held["unused_bytes"],
        "left free (memory_frac)": plan.hbm_bytes - plan.usable_bytes,
        "= memory of the die": plan.hbm_bytes,
    }
    table = plain_table(title, "GB", "share", "", right=("GB", "share"))
    rows = [
        (name, f"{size / GB:.2f}", f"{100 * size / plan.hbm_bytes:.1f} %", "")
        for name, size in parts.items()
        if f"{size / GB:.2f}" != "0.00"
    ]
    of = "its die" if dies_per_rank == 1 else f"its {dies_per_rank} dies"
    tokens = f"{held['kv_capacity_tokens']:,} tokens for a rank on {of}"
    return add_rows(table, [(*row[:3], tokens if row[0] == "KV cache" else "") for row in rows])


def _in_words(value: object) -> str:
    """A large count in G or M, for reading; nothing for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) < _LARGE:
        return ""
    for unit, suffix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= unit:
            return f"{value / unit:,.1f} {suffix}"
    return ""
