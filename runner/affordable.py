"""Whether a run can be paid for: asked before anything is sent to a real device."""

from __future__ import annotations

from backends.runtime.errors import BudgetError, ServiceError
from backends.runtime.types import Access
from circuits.errors import UsageError
from runner.access import on_hardware
from runner.config import RunConfig
from runner.prepare import Prepared
from runner.progress import Reporter


def affordable(config: RunConfig, prepared: Prepared, access: Access, reporter: Reporter) -> None:
    """Compare what the run is expected to take with its bound, and with what the plan has left.

    Raises:
        BudgetError: it is not enough; says what to do.
        UsageError: sessions are asked for, and the plan allows none.
    """
    if not on_hardware(config):
        if config.runtime is not None and access.max_qpu_seconds is not None:
            reporter.notice("Budget", "The Runtime's local testing mode takes no QPU time: the bound is never reached.")
        return
    from backends.runtime.account import allowance, connect
    from runner.estimate import estimate

    target, circuit = prepared.run_on or prepared.target, prepared.run_on_circuit or prepared.circuit
    needed = estimate(config, circuit, target).total.qpu_seconds
    bound = access.max_qpu_seconds
    if bound is not None and needed > bound:
        raise BudgetError(
            f"this run is expected to take {needed:.0f} QPU seconds of {target.name}, and --max-qpu-seconds is "
            f"{bound:g}; nothing was sent.",
            _mend(config, f"or raise --max-qpu-seconds above {needed:.0f}"),
        )
    try:
        plan = allowance(connect())
    except ServiceError as error:
        reporter.notice("Budget", f"What the plan has left is not known: {error}")
        return
    if access.mode == "session" and (plan.plan or "").lower() == "open":
        raise UsageError(
            f"--mode session: the plan of this account ({plan.plan}) allows no sessions; nothing was sent.",
            "Leave --mode out to take what the plan allows, or take --mode batch or --mode job.",
        )
    if plan.remaining is not None and needed > plan.remaining:
        raise BudgetError(
            f"this run is expected to take {needed:.0f} QPU seconds of {target.name}, and the plan has "
            f"{plan.remaining:.0f} left; nothing was sent.",
            _mend(config, "or wait until the plan has more"),
        )


def _mend(config: RunConfig, last: str) -> str:
    name = config.backend if config.runtime is None else config.runtime.run_on or config.backend
    if config.engine == "runtime":
        less = "" if config.mitigation is None else "less mitigation, "
        return f"Train on the twin (--train-on twin --run-on {name}), take {less}fewer rounds or epochs, {last}."
    fewer = "fewer steps (--fine-tune), samples" if config.runtime and config.runtime.fine_tune else "fewer samples"
    less = "" if config.mitigation is None else "less mitigation, "
    return f"Take {less}{fewer} (--device-samples) or shots (--shots), {last}."
