import errno
import resource
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from pcd.export import export_backbone
from pcd.os_errors import in_one_line
from pcd.teachers import TEACHERS
from pcd.teachers.registry import DEMO_CHECKPOINT
from pcd.teachers.tensors import read_published, write_converted
from pcd.tensor_file import write_tensors


@contextmanager
def _small_files() -> Iterator[None]:
    """The system takes no file above 1000 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_tensors_of_any_layout_come_back_and_the_metadata_with_them(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4).t(), "b": torch.randn(2, requires_grad=True)}
    write_tensors(tmp_path / "t", tensors, {"of": "us"})
    torch.testing.assert_close(load_file(tmp_path / "t"), {name: t.detach() for name, t in tensors.items()})
    with safe_open(tmp_path / "t", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "of": "us"}


def test_others_who_share_the_store_may_read_the_file(tmp_path: Path) -> None:
    write_tensors(tmp_path / "t", {"a": torch.zeros(1)}, {})
    assert stat.S_IMODE((tmp_path / "t").stat().st_mode) == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_a_file_that_does_not_fit_leaves_the_one_before_as_it_was(tmp_path: Path) -> None:
    write_tensors(tmp_path / "t", {"a": torch.zeros(1)}, {})
    with _small_files(), pytest.raises(OSError, match="File too large"):
        write_tensors(tmp_path / "t", {"a": torch.ones(1000)}, {})
    assert load_file(tmp_path / "t")["a"].tolist() == [0]


def test_what_is_no_fault_of_the_system_stays_what_it_is(tmp_path: Path) -> None:
    shared = torch.zeros(4)
    with pytest.raises(RuntimeError, match="share memory"):
        write_tensors(tmp_path / "t", {"a": shared, "b": shared}, {})


def _backbone(path: Path) -> None:
    export_backbone(nn.Linear(32, 32), path, {})


def _teacher(path: Path) -> None:
    entry = TEACHERS["demo"]
    write_converted(entry, read_published(entry, DEMO_CHECKPOINT), path, "")


@pytest.mark.parametrize(
    ("name", "write"),
    [("backbone.safetensors", _backbone), ("teacher.safetensors", _teacher)],
)
def test_a_disk_that_takes_no_more_is_told_in_one_line_with_the_file(
    tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    with pytest.raises(OSError, match="File too large") as caught, _small_files():
        write(tmp_path / name)
    assert caught.value.errno == errno.EFBIG
    assert str(in_one_line(caught.value, "")).endswith(f"(ulimit -f): {tmp_path / name}")
    assert list(tmp_path.iterdir()) == []
