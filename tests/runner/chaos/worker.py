"""One attempt at a run, in a process that may be killed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import runner.run as played
from circuits.errors import QrunError
from contracts.errors import LedgerError
from runner.access import Said
from runner.options import config_from
from runner.places import Places


class Silent:
    """A reporter that says nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def attempt(task: dict[str, Any]) -> None:
    """Begin or go on, and write down how it ended.

    Args:
        task: env, log, ended (files), run (None: begin), out, options, said.
    """
    os.environ.update(task["env"])
    log = os.open(task["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    ended: dict[str, Any] = {"error": None}
    code = 0
    try:
        said = Said(**task["said"])
        if task["run"] is None:
            config = config_from("nsl-kdd", task["options"])
            played.start(config, Places(), out=Path(task["out"]), said=said, reporter=Silent())
        else:
            played.go_on(task["run"], said=said, reporter=Silent())
    except (QrunError, LedgerError) as error:
        ended, code = {"error": type(error).__name__, "message": str(error)}, error.exit_code
    Path(task["ended"]).write_text(json.dumps(ended))
    sys.stdout.flush()
    os._exit(code)
