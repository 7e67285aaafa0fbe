"""Names of machines, over what the driver of one with two models of GPUs would answer."""

import pynvml
import pytest

from flows.planning import hardware
from flows.planning.hardware import hardware_here, hardware_of
from flows.settings import Runtime

_MODELS = {"GPU-1a2b": "NVIDIA A100", "GPU-5e6f": "Tesla T4"}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with each opening of the driver, and shrinks with each end."""
    found: list[str] = []
    monkeypatch.setattr(hardware, "_has_driver", lambda: True)
    monkeypatch.setattr(hardware, "list_gpus", lambda: list(_MODELS))
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: found.append("opened"))
    monkeypatch.setattr(pynvml, "nvmlShutdown", found.pop)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda number: list(_MODELS)[number])
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda name: name)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", _MODELS.__getitem__)
    return found


@pytest.mark.parametrize(
    ("visible", "name"), [("0", "1 x NVIDIA A100"), ("1", "1 x Tesla T4"), ("GPU-5e6f,GPU-1a2b", "1 x Tesla T4")]
)
def test_the_gpu_of_a_plan_is_the_first_that_cuda_would_show(
    opened: list[str], monkeypatch: pytest.MonkeyPatch, visible: str, name: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = hardware_here(Runtime(device="cuda"))
    assert (found.name, found.is_here) == (name, True)
    assert opened == []


def test_a_stage_that_ran_has_the_class_under_which_the_next_plan_looks(
    opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    environment = {"gpus": ["NVIDIA A100, 570.1", "Tesla T4, 570.1"], "processor": "x"}
    assert hardware_of(environment, ("GPU-5e6f",), 4) == hardware_here(Runtime(device="cuda")).name


def test_a_stage_that_ran_on_the_cpu_of_a_machine_with_gpus_has_the_class_of_its_threads() -> None:
    assert hardware_of({"gpus": ["Tesla T4, 570.1"], "processor": "x"}, ("cpu0",), 4) == "4 threads of x"
