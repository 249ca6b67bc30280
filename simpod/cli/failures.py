"""What a command prints and exits with when it fails; one place for all commands."""

import os
import sys
from typing import Any, Final

import typer
from typer.core import TyperGroup

from simpod.errors import INTERRUPTED, ConfigError, InvariantError, PolicyError, SimpodError

_BUG: Final = (
    "this is a bug of simpod, not a mistake of yours: please report it with the experiment"
)


class Commands(TyperGroup):
    """The group of all commands: turns the errors of simpod into messages and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; 2: the input is wrong, 3: a policy broke its contract, 1: our bug.

        A reader that has seen enough (`simpod list | head`) is no failure.
        """
        try:
            done = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
            raise typer.Exit from None
        except SimpodError as error:
            typer.echo(message(error), err=True)
            raise typer.Exit(error.exit_code) from None
        except MemoryError as error:
            lack = f"error: not enough memory: {error or 'no more was to be had'}"
            typer.echo(f"{lack}; fewer requests (workload.num_requests) take less", err=True)
            raise typer.Exit(ConfigError.exit_code) from None
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        return done


def message(error: SimpodError) -> str:
    """What the user reads: each mistake on lines of its own, then which run it was."""
    first, *others = getattr(error, "problems", (str(error),))
    lines = [f"error: {first}", *others]
    notes = list(getattr(error, "__notes__", ()))
    if isinstance(error, InvariantError):
        lines.append(_BUG)
    elif isinstance(error, PolicyError):
        notes.append("`simpod check` tests a policy by itself, on random views")
    return "\n".join([*lines, *notes])
