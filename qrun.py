"""qrun: a hardware-targeting experiment runner for federated quantum machine learning.

    import qrun
    result = qrun.run("nsl-kdd", backend="fake_kyiv")
    result["metrics"]["test"]["auroc"]

Names load when they are used, so that `import qrun` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backends.catalog import get_target, list_targets
    from backends.layer import ExpectationLayer
    from backends.mitigation.executor import MitigatedExecutor
    from backends.mitigation.make import mitigated
    from backends.mitigation.types import MitigationOptions
    from backends.protocol import Executor, Request, Result
    from backends.runtime.errors import Detached
    from backends.runtime.executor import RuntimeExecutor
    from backends.runtime.types import Access, RuntimeContext, RuntimeOptions
    from backends.twin.executor import TwinExecutor
    from backends.twin.primitives.estimator import TwinEstimator
    from backends.twin.primitives.gradient import TwinEstimatorGradient
    from backends.twin.primitives.module import TwinModule
    from backends.twin.primitives.sampler import TwinSampler
    from circuits.compile import compile_ansatz
    from circuits.errors import QrunError
    from circuits.qgan import generator
    from circuits.types import Ansatz
    from contracts.errors import LedgerError
    from runner.access import Said
    from runner.config import RunConfig
    from runner.run import resume, run

_WHERE = {
    "Access": "backends.runtime.types",
    "Ansatz": "circuits.types",
    "Detached": "backends.runtime.errors",
    "Executor": "backends.protocol",
    "ExpectationLayer": "backends.layer",
    "LedgerError": "contracts.errors",
    "MitigatedExecutor": "backends.mitigation.executor",
    "MitigationOptions": "backends.mitigation.types",
    "QrunError": "circuits.errors",
    "Request": "backends.protocol",
    "Result": "backends.protocol",
    "RunConfig": "runner.config",
    "RuntimeContext": "backends.runtime.types",
    "RuntimeExecutor": "backends.runtime.executor",
    "RuntimeOptions": "backends.runtime.types",
    "Said": "runner.access",
    "TwinEstimator": "backends.twin.primitives.estimator",
    "TwinEstimatorGradient": "backends.twin.primitives.gradient",
    "TwinExecutor": "backends.twin.executor",
    "TwinModule": "backends.twin.primitives.module",
    "TwinSampler": "backends.twin.primitives.sampler",
    "compile_ansatz": "circuits.compile",
    "generator": "circuits.qgan",
    "get_target": "backends.catalog",
    "list_targets": "backends.catalog",
    "mitigated": "backends.mitigation.make",
    "resume": "runner.run",
    "run": "runner.run",
}

__all__ = [
    "Access",
    "Ansatz",
    "Detached",
    "Executor",
    "ExpectationLayer",
    "LedgerError",
    "MitigatedExecutor",
    "MitigationOptions",
    "QrunError",
    "Request",
    "Result",
    "RunConfig",
    "RuntimeContext",
    "RuntimeExecutor",
    "RuntimeOptions",
    "Said",
    "TwinEstimator",
    "TwinEstimatorGradient",
    "TwinExecutor",
    "TwinModule",
    "TwinSampler",
    "compile_ansatz",
    "generator",
    "get_target",
    "list_targets",
    "mitigated",
    "resume",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'qrun' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return __all__
