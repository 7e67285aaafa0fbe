import pytest
import torch

from pcd.bench import loss
from pcd.bench.harness import Row, Skipped

CPU = torch.device("cpu")


@pytest.mark.parametrize("backend", ["auto", "attention", "chunks", "reference"])
def test_a_pass_can_be_repeated(backend: str) -> None:
    work = loss.prepare_loss(images=1, negatives=30, channels=8, backend=backend, device="cpu")
    work()
    work()


@pytest.mark.slow
def test_suite_measures_time_and_memory_of_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "_METHOD", {"negatives": 256, "channels": 8})
    monkeypatch.setattr(loss, "_WIDTHS", (8, 16))
    rows = list(loss.loss_suite(CPU))
    assert all(isinstance(row, Row) for row in rows)
    assert {row.unit for row in rows if isinstance(row, Row)} == {"s", "MiB"}
    for pixels in (784, 6272):
        measured = [row.name for row in rows if f"{pixels} pixels, float32, auto" in row.name]
        assert [name.rpartition(": ")[2] for name in measured] == ["time", "memory"]


def test_sizes_beyond_this_machines_memory_are_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "_METHOD", {"negatives": 10**12, "channels": 8})
    monkeypatch.setattr(loss, "_WIDTHS", ())
    rows = list(loss.loss_suite(CPU))
    assert rows
    assert all(isinstance(row, Skipped) and "GiB" in row.reason for row in rows)
