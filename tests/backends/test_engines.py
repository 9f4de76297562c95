import pytest
import torch

from backends.aer import AerExecutor
from backends.catalog import get_target
from backends.engines import make_executor
from backends.twin.executor import TwinExecutor
from circuits.errors import UsageError

IDEAL = get_target("ideal")


def test_engines_by_name() -> None:
    twin = make_executor("twin", IDEAL)
    assert isinstance(twin, TwinExecutor)
    assert twin.dtype == torch.float32
    double = make_executor("twin", IDEAL, precision="float64", readout_error=False)
    assert isinstance(double, TwinExecutor)
    assert (double.dtype, double.readout_error) == (torch.float64, False)
    for shots, expected in ((None, 1024), (77, 77)):
        aer = make_executor("aer", IDEAL, shots=shots)
        assert isinstance(aer, AerExecutor)
        assert aer.shots == expected


@pytest.mark.parametrize(
    ("engine", "options", "says"),
    [
        ("twn", {}, "Did you mean twin"),
        ("qpu", {}, "Known: twin, aer"),
        ("twin", {"shots": 0}, "shots must be 1 or more"),
        ("qml", {"idle_noise": True}, "the engine qml has no idle noise"),
        ("qml", {"shots": 0}, "shots must be 1 or more"),
        ("aer", {"shots": 0}, "shots must be 1 or more"),
        ("twin", {"precision": "half"}, "unknown precision 'half'"),
    ],
)
def test_wrong_choices(engine: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make_executor(engine, IDEAL, **options)  # type: ignore[arg-type]
