"""Where tokens leave for their clients: from each group, or through a central frontend."""

from typing import Final

from simpod.config.layouts import Derived
from simpod.config.problems import Problems
from simpod.config.schema import Experiment
from simpod.cost.frontend import S_PER_TOKEN, Frontend

OF_CENTRAL: Final = ("s_per_token", "s_per_message", "processes")


def resolve_output(experiment: Experiment, problems: Problems, derived: Derived) -> Frontend | None:
    """The central frontend of `output`; None: each group sends its own tokens.

    Notes in `derived` what it leaves open.
    """
    output = experiment.output
    if output.path == "shortcut":
        for key in OF_CENTRAL:
            if getattr(output, key) is not None:
                problems.at(
                    ("output", key),
                    "with output.path: shortcut there is no central frontend that it could be of",
                    hint="set output.path: central, or leave it out",
                )
        return None
    if experiment.policies.scaling is not None:
        problems.at(
            ("output", "path"),
            "a scaling policy looks at latencies of the engine, not at those behind a central"
            " frontend: not modelled",
            allowed="shortcut with policies.scaling",
            hint="or leave out policies.scaling",
        )
    if experiment.fabric.exchanges == "shared":
        problems.at(
            ("output", "path"),
            "steps that transfers hold up end later than a central frontend sees: not modelled",
            allowed="shortcut with fabric.exchanges: shared",
            hint="or fabric.exchanges: apart",
        )
    for name, pool in experiment.deployment.items():
        if pool.mtp.acceptance_std:
            problems.at(
                ("deployment", name, "mtp", "acceptance_std"),
                "with output.path: central a step gives its mean number of tokens; requests that"
                " accept drafts at shares of their own give others: not modelled",
                allowed="0",
                hint="or output.path: shortcut",
            )
    if output.s_per_token is None:
        derived["output", "s_per_token"] = (S_PER_TOKEN, "assumed, docs/engines.md")
    if output.s_per_message is None:
        derived["output", "s_per_message"] = (0.0, "")
    if output.processes is None:
        derived["output", "processes"] = (1, "")
    return Frontend(
        s_per_token=S_PER_TOKEN if output.s_per_token is None else output.s_per_token,
        s_per_message=output.s_per_message or 0.0,
        processes=output.processes or 1,
    )
