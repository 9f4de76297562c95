"""What the tests on real hardware may take, in QPU seconds."""

from __future__ import annotations

MOST = 60.0
"""All of them together."""

ONE_JOB, SMALL_RUN = 15.0, 45.0
"""Each is handed to qrun as `max_qpu_seconds`, which is never passed; the third test sends nothing."""
