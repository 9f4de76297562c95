"""What all commands share: errors told in one line, JSON on stdout, arguments that complete themselves."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Annotated, Any, NoReturn, ParamSpec, TypeVar

import typer

P = ParamSpec("P")
R = TypeVar("R")


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Turn errors that a user can mend into one line on stderr and an exit code; an interrupt into 130."""

    @wraps(command)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        from circuits.errors import QrunError
        from contracts.errors import LedgerError

        try:
            value = command(*args, **kwargs)
            sys.stdout.flush()
            return value
        except (QrunError, LedgerError) as error:
            _fail(" ".join([str(error), *getattr(error, "__notes__", ())]), error.exit_code)
        except KeyboardInterrupt as interrupt:
            _fail(str(interrupt) or "interrupted.", 130)
        except OSError as error:
            # Trouble with the files of a run was told by its own line; what is left is our output's.
            _silence()
            if isinstance(error, BrokenPipeError):
                raise typer.Exit(1) from None
            _fail(f"cannot write the output: {error.strerror or type(error).__name__}.", 1)
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if os.environ.get("QRUN_DEBUG"):
                raise
            _fail(
                f"internal error, a bug in qrun: {type(error).__name__}. "
                "Set QRUN_DEBUG=1 for the traceback, and please report it. "
                + " ".join(getattr(error, "__notes__", ())),
                1,
            )

    return inner


def _silence() -> None:
    """Nobody reads our output any more: what is left to print goes nowhere."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(text: str, code: int) -> NoReturn:
    typer.secho(f"qrun: {text}", err=True, fg="red" if sys.stderr.isatty() else None)
    raise typer.Exit(code)


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def complete_experiment(incomplete: str) -> list[str]:
    """Names of experiments that begin so."""
    from experiments.base import names

    return [n for n in [*names(), "list"] if n.startswith(incomplete)]


def complete_backend(incomplete: str) -> list[str]:
    """Names of backends that begin so."""
    from backends.catalog import target_names

    return [n for n in target_names() if n.startswith(incomplete)]


def complete_run(incomplete: str) -> list[str]:
    """Names of runs that begin so."""
    from runner.store import RunIndex

    return [r.run for r in RunIndex().list() if r.run.startswith(incomplete)]


ConfirmationsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Blocks that a transaction must be in or under, with --chain URL; 1 (mined) if not told."),
]
GatewayOption = Annotated[
    list[str] | None,
    typer.Option("--gateway", help="IPFS gateway asked for what the daemon has not; may be given several times."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")]
RunArgument = Annotated[str, typer.Argument(help="Name of the run, or its beginning.", autocompletion=complete_run)]
