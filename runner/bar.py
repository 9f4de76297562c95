"""A progress bar on stderr: what all long commands share. Without a terminal it shows nothing."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn


class Bar:
    """A bar for one task, shown inside `with`.

    Args:
        text: What is being done at first.
        speed_seconds: Over which the remaining time is estimated.
    """

    def __init__(self, text: str, *, speed_seconds: float = 30.0) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            speed_estimate_period=speed_seconds,
            disable=not self.console.is_terminal,
        )
        self.task = self.progress.add_task(text, total=None)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()
