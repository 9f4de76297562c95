"""Which torch device is taken, with and without a GPU."""

from __future__ import annotations

import pytest
import torch

from backends.devices import LARGE, device_name, resolve_device
from circuits.errors import UsageError


@pytest.fixture(params=[False, True])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    there: bool = request.param
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Fast 1")
    return there


def test_auto_takes_a_gpu_for_large_circuits_alone(gpu: bool) -> None:
    assert resolve_device("auto", LARGE - 1) == "cpu"
    assert resolve_device("auto", LARGE) == ("cuda" if gpu else "cpu")
    assert resolve_device("cpu", LARGE) == "cpu"


def test_a_gpu_that_is_asked_for_is_taken_or_missed(gpu: bool) -> None:
    if gpu:
        assert resolve_device("cuda", 2) == "cuda"
        return
    with pytest.raises(UsageError, match=r"no CUDA device here.*--device cpu or auto"):
        resolve_device("cuda", 2)


def test_what_is_missing_for_cuda_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for build, said in ((None, "install a CUDA build"), ("12.4", "driver")):
        monkeypatch.setattr(torch.version, "cuda", build)
        with pytest.raises(UsageError, match=said):
            resolve_device("cuda", LARGE)


def test_names(gpu: bool) -> None:
    assert device_name("cpu") == "cpu"
    assert device_name("cuda") == "cuda (Fast 1)"
    with pytest.raises(UsageError, match="unknown device 'tpu'"):
        resolve_device("tpu", 1)
