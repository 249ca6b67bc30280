"""The errors of simpod, and whose mistake each is.

SimpodError
├── ConfigError      the user's input (YAML, trace, profile, command line): exit code 2
├── PolicyError      a policy broke its contract: exit code 3
└── InvariantError   our bug: exit code 1
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Final

INTERRUPTED: Final = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells have it."""


class SimpodError(Exception):
    """Every error that simpod raises on purpose."""

    exit_code = 1


class ConfigError(SimpodError):
    """The input is wrong: says where, which value, and what is allowed; all mistakes at once."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (
            (problems,) if isinstance(problems, str) else tuple(problems)
        )
        super().__init__("\n".join(self.problems))


class PolicyError(SimpodError):
    """A policy's decision breaks a rule: names the policy, the rule and the numbers."""

    exit_code = 3

    def __init__(self, policy: str, rule: str) -> None:
        self.policy = policy
        self.rule = rule
        super().__init__(policy, rule)  # as given: SimPy and pickle make copies from `args`

    def __str__(self) -> str:
        return f"policy {self.policy}: {self.rule}"


class blaming:  # noqa: N801  # reads as a statement
    """Whatever a policy's code raises in the block, the policy is to blame."""

    def __init__(self, policy: str, when: str = "") -> None:
        self._policy = policy
        self._when = when

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: object, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            where = _last_line(traceback)
            raise PolicyError(self._policy, f"raised {error!r}{where}{self._when}") from error


def _last_line(traceback: TracebackType | None) -> str:
    """Where an exception came from: the policy's own file, as a rule."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return ""
    return f" ({traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno})"


class InvariantError(SimpodError):
    """A law of the simulator does not hold: a bug of simpod; says what to send us."""

    exit_code = 1
