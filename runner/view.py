"""What the terminal shows: progress on stderr, tables on stdout. Colour only where a terminal is."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from runner.bar import Bar
from runner.progress import RoundResult, from_json
from runner.tables import emit, show_table, stdout, table_of
from runner.view_device import agreement_line, ignored_of, jobs_line, options_of, show_device
from runner.view_jobs import describe as describe_jobs
from runner.view_rounds import round_table

METRICS = ("accuracy", "precision", "recall", "f1", "auroc")


class Terminal(Bar):
    """Shows a run: a progress bar on stderr, and (unless `tables` is off) a table a round on stdout."""

    def __init__(self, *, tables: bool) -> None:
        self.tables = tables
        super().__init__("starting")
        self.steps, self.done, self.began = 0, 0, time.monotonic()
        self.epoch: tuple[int, int, int, float, float] | None = None

    def notice(self, title: str, text: str) -> None:
        """A panel that stays."""
        self.console.print(Panel(Text(text), title=title, border_style="yellow", expand=False))

    def stage(self, text: str) -> None:
        """The progress bar's text; a line of its own where there is no terminal."""
        self.progress.update(self.task, description=text)
        self._plain(text)

    def begin(self, steps: int) -> None:
        """Show a bar for the generator steps of all rounds."""
        self.steps, self.done, self.began = steps, 0, time.monotonic()
        self.progress.reset(self.task, total=steps, description="training")

    def step(self, round_: int, node: int, epoch: int, generator_loss: float, discriminator_loss: float) -> None:
        """Advance by one generator step; without a terminal, a line an epoch."""
        if self.epoch is not None and self.epoch[:3] != (round_, node, epoch):
            self._plain_epoch()
        self.done += 1
        self.epoch = (round_, node, epoch, generator_loss, discriminator_loss)
        self.progress.update(
            self.task,
            advance=1,
            description=f"round {round_}, node {node}, epoch {epoch}: "
            f"loss G {generator_loss:.3f} D {discriminator_loss:.3f}",
        )

    def skip(self, steps: int) -> None:
        """Take off the bar what an earlier attempt did, so that the time left is that of what is left."""
        self.steps -= steps
        self.progress.update(self.task, total=self.steps)

    def round_done(self, result: RoundResult) -> None:
        """A table of the round."""
        self._plain_epoch()
        self._plain(f"round {result.number} settled")
        if not self.tables:
            return
        self.progress.stop()
        try:
            emit(round_table(result))
        except OSError as error:
            # A reader that went away, or a full disk behind a pipe, is no reason to stop a run.
            self.tables = False
            self.console.print(f"cannot write to stdout ({error.strerror}); the run goes on without tables")
        finally:
            self.progress.start()

    def _plain_epoch(self) -> None:
        if self.epoch is None:
            return
        round_, node, epoch, loss_g, loss_d = self.epoch
        self.epoch = None
        left = (time.monotonic() - self.began) / max(self.done, 1) * (self.steps - self.done)
        self._plain(
            f"round {round_}, node {node}, epoch {epoch}: loss G {loss_g:.3f} D {loss_d:.3f}; {left:.0f} s left"
        )

    def _plain(self, text: str) -> None:
        if not self.console.is_terminal:
            self.console.print(text)


def show_result(result: Mapping[str, Any], path: Path) -> None:
    """The final table, and where everything is."""
    table = table_of(
        "Final aggregate (threshold from benign validation scores, no label used)",
        ["scored on", *METRICS],
        numeric=range(1, 6),
    )
    official = result["dataset"]["source"] == "official"
    test_file = "KDDTest+" if official else "stand-in test"
    names = {
        "holdout": "hold-out" if official else "stand-in hold-out",
        "test": test_file,
        "test_without_seen": f"{test_file}, unseen",
    }
    for part, name in names.items():
        metrics = result["metrics"].get(part)
        if metrics is not None:
            table.add_row(name, *(f"{metrics[m]:.4f}" for m in METRICS))
        spread = result["spread"].get(part)
        if metrics is not None and spread is not None:
            table.add_row(
                "  the nodes' own",
                *(f"{spread[m]['min']:.3f}-{spread[m]['max']:.3f}".replace("0.", ".") for m in METRICS),
                style="dim",
            )
    emit(table)
    device = result.get("device_run")
    if device is not None:
        show_device(device, names)
    backend, chain, dataset = result["backend"], result["chain"], result["dataset"]
    lines = [
        ("run", result["run"]),
        ("data", f"{dataset['name']}, {dataset['source']}, {dataset['records']['train']} training records"),
        (
            "backend",
            f"{backend['name']} ({_engine(backend)}), calibrated {backend['calibration_date'] or 'never: ideal'}, "
            f"qubits {backend['physical_qubits']}, depth {backend['depth']}, "
            f"{backend['two_qubit_gates']} two-qubit gates",
        ),
        *_of_mitigation(result),
        *_of_jobs(result),
        (
            "chain",
            f"{chain['kind']}, id {chain['chain_id']}, contract {chain['contract']}, block {chain['head']}, "
            f"{chain['gas_used']:,} gas",
        ),
        ("model", result["final"]["cid"]),
        ("config", result["config_digest"]),
        ("folder", str(path)),
        (
            "seconds",
            ", ".join(f"{k} {v:.1f}" for k, v in result["seconds"]["phases"].items())
            + f"; total {result['seconds']['total']:.1f}",
        ),
    ]
    grid = Table.grid(padding=(0, 2))
    for name, text in lines:
        grid.add_row(name, Text(text))
    emit(grid)


def _of_mitigation(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was mitigated, for how many circuits, and what was forecast."""
    told = result.get("mitigation")
    if told is None:
        return []
    at = "training and evaluation" if told["apply"] == "both" else told["apply"]
    by = [f"{name} {number:.3g}" for name, number in told["circuits"].items()]
    lines = [("mitigation", f"{told['stack']} at {at}; circuits for each unmitigated one: {', '.join(by) or 'none'}")]
    for name, forecast in (("forecast", told["forecast"]), ("  on the device", (told["device"] or {}).get("forecast"))):
        if forecast is not None:
            lines.append((name, forecast["sentence"]))
    if told["chosen"] is not None:
        lines.append(("  chosen by", told["chosen"]))
    return lines


def _of_jobs(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is told of a device: how it agrees with its twin, the jobs, what was ignored."""
    device = result.get("device_run")
    lines = [] if device is None else [("device", f"{device['backend']} {agreement_line(device)}")]
    if result.get("jobs"):
        lines.append(("jobs", jobs_line(result)))
        options = options_of(result)
        lines += [("options", options)] if options else []
        ignored = ignored_of(result)
        lines += [("ignored", "; ".join(ignored))] if ignored else []
    return lines


def _engine(backend: Mapping[str, Any]) -> str:
    """twin; twin, 1024 shots, with idle noise, on cuda (...)."""
    parts = [backend["engine"]]
    if backend["shots"] is not None:
        parts.append(f"{backend['shots']} shots")
    if backend.get("idle_noise"):
        parts.append("with idle noise")
    if backend.get("device", "cpu") != "cpu":
        parts.append(f"on {backend['device']}")
    return ", ".join(parts)


def _figure(value: float | None, scale: float = 1.0, digits: int = 3) -> str:
    return "-" if value is None else f"{value * scale:.{digits}g}"


def show_targets(targets: Iterable[Any]) -> None:
    """One line a backend."""
    wide = stdout().width >= 100
    times = ["T1 µs", "T2 µs"] if wide else []
    table = table_of(
        "Backends (medians)",
        ["name", "qubits", "gate", "calibrated", "err. 1q", "err. 2q", "readout", *times],
        numeric=(1, 4, 5, 6, 7, 8),
    )
    for t in targets:
        table.add_row(
            t.name,
            "any" if t.qubits is None else str(t.qubits),
            t.two_qubit_gate or "any",
            (t.calibration_date or "-")[:10],
            *("-" if v is None else f"{v:.1e}" for v in (t.median_error_1q, t.median_error_2q, t.median_error_readout)),
            *((_figure(t.median_t1, 1e6), _figure(t.median_t2, 1e6)) if wide else ()),
        )
    emit(table)


def show_target(t: Any) -> None:
    """One backend, a line a figure."""
    show_table(
        t.name,
        ["what", "value"],
        [
            ["qubits", "any" if t.qubits is None else str(t.qubits)],
            ["native gates", ", ".join(t.native_gates) or "any"],
            ["two-qubit gate", t.two_qubit_gate or "any"],
            ["calibrated", t.calibration_date or "-"],
            ["median one-qubit gate error", _figure(t.median_error_1q)],
            ["median two-qubit gate error", _figure(t.median_error_2q)],
            ["median readout error", _figure(t.median_error_readout)],
            ["median T1, µs", _figure(t.median_t1, 1e6)],
            ["median T2, µs", _figure(t.median_t2, 1e6)],
        ],
    )


def show_runs(runs: Sequence[Mapping[str, Any]]) -> None:
    """One line a run."""
    if not runs:
        Console(stderr=True).print("no runs yet; start with: qrun experiment nsl-kdd --backend fake_kyiv")
        return
    rows = []
    wide = stdout().width >= 120
    for r in runs:
        metrics = r.get("metrics") or {}
        scores = [f"{metrics[part]['auroc']:.4f}" if metrics.get(part) else "-" for part in ("holdout", "test")]
        row = [r["run"], r["state"], r.get("backend", "-"), r.get("source", "-"), *scores]
        rows.append([*row, r.get("engine", "-"), r["created"][:10], r["path"]] if wide else row)
    heads = ["run", "state", "backend", "data", "hold-out", "test"]
    show_table("Runs (AUROC)", [*heads, "engine", "created", "folder"] if wide else heads, rows)


def show_run(run: Mapping[str, Any]) -> None:
    """State, config, and the result or how to go on."""
    facts = [[k, str(run[k])] for k in ("run", "state", "created", "path") if k in run]
    for key, value in _flat(run.get("config") or {}):
        facts.append([key, str(value)])
    if run.get("jobs") is not None:
        facts.append(["jobs", describe_jobs(run["jobs"])])
    show_table("Run", ["what", "value"], facts)
    if run["result"] is not None:
        source = run["result"]["dataset"]["source"]
        for r in from_json(run["result"]["rounds"], source):
            emit(round_table(r))
        show_result(run["result"], Path(run["path"]))
    elif run["state"] == "interrupted":
        emit(f"It stopped before its end. Go on with: qrun runs resume {run['run']}")
    elif run["state"] == "waiting":
        emit(f"Its jobs are on their way to a device. Take their results with: qrun runs resume {run['run']}")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def show_checks(checks: Iterable[Any]) -> None:
    """What `qrun doctor` found."""
    table = table_of("qrun doctor", ["what", "state", "found", "how to mend it"])
    style = {"ok": "green", "optional": "yellow", "broken": "red"}
    for c in checks:
        table.add_row(c.name, Text(c.state, style=style[c.state]), Text(c.found), Text(c.mend))
    emit(table)
