import pytest

from flows.supervision.inventory import find_devices, list_gpus, visible_gpus
from pcd.errors import PCDError

GPUS = ["GPU-1a2b", "GPU-1c2d", "GPU-5e6f"]


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        (None, [("GPU-1a2b", "GPU-1a2b"), ("GPU-1c2d", "GPU-1c2d"), ("GPU-5e6f", "GPU-5e6f")]),
        ("2,0", [("GPU-5e6f", "2"), ("GPU-1a2b", "0")]),
        (" 1 , 2", [("GPU-1c2d", "1"), ("GPU-5e6f", "2")]),
        ("GPU-5e6f,GPU-1c", [("GPU-5e6f", "GPU-5e6f"), ("GPU-1c2d", "GPU-1c")]),
        ("0,-1,1", [("GPU-1a2b", "0")]),
        ("0,7,1", [("GPU-1a2b", "0")]),
        ("0,0", [("GPU-1a2b", "0")]),
        ("", []),
        ("NoDevFiles", []),
        ("GPU-", []),
    ],
)
def test_gpus_are_those_that_cuda_would_show(visible: str | None, seen: list[tuple[str, str]]) -> None:
    assert visible_gpus(GPUS, visible) == seen


def test_gpus_keep_the_names_that_the_user_gave_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.supervision.inventory.list_gpus", lambda: GPUS)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    found = find_devices("auto", slots=5)
    assert (found.names, found.visible, found.has_gpus) == (("GPU-1c2d", "GPU-5e6f"), ("1", "2"), True)


def test_cpu_slots_take_their_place_where_no_gpu_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.supervision.inventory.list_gpus", lambda: GPUS)
    found = find_devices("cpu", slots=2)
    assert (found.names, found.has_gpus) == (("cpu0", "cpu1"), False)


def test_gpus_that_are_asked_for_and_hidden_are_the_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.supervision.inventory.list_gpus", lambda: GPUS)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(PCDError, match=r"has no GPU that we may use .* runtime\.device=cpu"):
        find_devices("cuda", slots=1)


def test_the_driver_is_asked_and_may_be_missing() -> None:
    assert all(name.startswith(("GPU-", "MIG-")) for name in list_gpus())
