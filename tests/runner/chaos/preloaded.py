"""What the fork server has before it forks an attempt: all imports, and the records. Never import it into a test."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from backends.runtime import executor, service_client, waiting  # noqa: F401
from experiments import nsl_kdd
from tests.runner.chaos import worker  # noqa: F401

# The stand-in answers at once.
waiting.pauses.__defaults__ = (0.05,)


@functools.cache
def _records(data: Path | None, full: bool, test: bool) -> Any:
    return _load(data=data, full=full, test=test, notify=lambda _: None)


_load = nsl_kdd.load
# The same records for every attempt: read once, before the fork.
nsl_kdd.load = lambda *, data, full, notify, test: _records(data, full, test)  # type: ignore[assignment]
_records(Path(os.environ["QRUN_DATA"]) if os.environ.get("QRUN_DATA") else None, False, False)
