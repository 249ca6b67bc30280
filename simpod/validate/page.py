"""The accuracy page of the documentation: the last validation, group by group."""

from collections.abc import Iterator
from pathlib import Path

from simpod.errors import ConfigError
from simpod.validate.fit import Errors
from simpod.validate.report import GroupErrors, Report

INTRODUCTION = """# How accurate is it

Written by `simpod validate --page docs/accuracy.md`; nothing here is set by hand. Errors are
relative, simulated / measured - 1: *median* and *p90* of their absolute values, *worst*, and
*signed*, the median with its sign. Refused rows are those that simpod can't express; why, is said
below.

* `kernels/DEVICE/TABLE`: measured kernels. The constants of h100, a100 and b200 were fitted on
  70 % of such rows; what the fit left on the other 30 % is in each profile, under `kernels`.
  `kernels/ascend_910b` is a sample of public tables that ships: of Ascend's constants those of
  grouped-query attention and of the A2's MLA prompts were fitted on 70 % of it, and the rates at
  which experts read their weights were set by it; no others.
* `collectives/SYSTEM/KERNEL/OPERATION`: expert exchange, transfers and collectives
  ([communication.md](communication.md)). Their constants were fitted on 70 % of the large tables'
  rows, and on the published points themselves, as `source` in each profile says.
* `requests/STATISTIC`: logs of real engines, replayed. Two constants of rtx-pro-6000 (share of
  memory bandwidth, latency of dispatch) were set by the mean TPOT of these logs.
* `deployments/MODE/MODEL/SYSTEM/ENGINE/METRIC`: closed-loop runs of whole deployments. No constant
  was fitted on them but those of the engines' named semantics ([engines.md](engines.md)): gaps,
  launches, the way to the client. Flags are those of the benchmark's scripts; where an image ran
  two scripts, their search spaces tell which, and of DeepSeek rows that both have, TPOT did.
  First tokens after 5 to 9 s at low load (SGLang, b200) are runs that compiled kernels while they
  were measured.
* `forwards/DEVICE`: forward passes on Ascend. Some constants of the 910 were adjusted on the
  operators of these passes, so they are not held out.
* `points/...`: published figures of whole systems; none was used in a fit. Of CloudMatrix-Infer two
  facts that its paper does not print were inferred from its figures, of xDeepServe's colocated
  decoding how lengths spread, how far apart hosts launch a step and that nobody balances the
  experts of MTP layers ([experts.md](experts.md)).
"""


def write_page(path: Path, report: Report) -> None:
    """Write the page; ConfigError if that is not possible."""
    try:
        path.write_text("\n".join(_lines(report)) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def _lines(report: Report) -> Iterator[str]:
    yield INTRODUCTION
    yield "| group | rows | median | p90 | worst | signed | refused |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    yield from (_row(group) for group in report.groups())
    shown = [point for point in report.points if not point.group.startswith("deployments/")]
    if shown:
        yield "\n## Points\n\n| point | metric | measured | simulated | error | source |"
        yield "| --- | --- | ---: | ---: | ---: | --- |"
    for point in shown:
        yield (
            f"| {point.id} | `{point.metric}` | {point.measured:.4g} | {point.simulated:.4g}"
            f" | {point.error_frac:+.1%} | {point.source} |"
        )
    if report.refusals:
        yield "\n## Refused\n\n| group | rows | reason |\n| --- | ---: | --- |"
    for (group, reason), rows in report.reasons().items():
        yield f"| {group} | {rows} | {reason} |"


def _row(group: GroupErrors) -> str:
    return f"| {group.group} | {_errors(group.errors)} | {group.refused or ''} |"


def _errors(found: Errors | None) -> str:
    if found is None:
        return "0 | | | | "
    return (
        f"{found.rows:,} | {found.median_abs_error_frac:.1%} | {found.p90_abs_error_frac:.1%}"
        f" | {found.worst_abs_error_frac:.1%} | {found.median_signed_error_frac:+.1%}"
    )
