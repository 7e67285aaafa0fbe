from pathlib import Path

import pytest
import torch

from pcd.checkpoint import load_checkpoint, save_checkpoint, save_whole
from pcd.checkpoint_step import checkpoint_step
from pcd.errors import PCDError


def test_state_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    weights = torch.randn(3, 4)
    save_checkpoint(tmp_path / "c.pt", {"step": 7, "student": {"w": weights}})
    state = load_checkpoint(tmp_path / "c.pt")
    assert state is not None
    assert state["step"] == 7
    assert torch.equal(state["student"]["w"], weights)


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "c.pt") is None


def test_nothing_but_the_checkpoint_and_its_step_is_left(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pt", {"step": 1})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.pt", "checkpoint.json"]


def test_a_capture_has_nothing_beside_it(tmp_path: Path) -> None:
    save_whole(tmp_path / "c.pt", {"step": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_the_step_of_the_newest_checkpoint_is_told_without_torch(tmp_path: Path) -> None:
    for step in (3, 7):
        save_checkpoint(tmp_path / "checkpoint.pt", {"step": step}, keep=2)
    assert checkpoint_step(tmp_path) == 7


@pytest.mark.parametrize("content", [None, "", "{", "{}", '{"step": null}'])
def test_a_step_that_is_not_told_is_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "checkpoint.json").write_text(content)
    assert checkpoint_step(tmp_path) is None


def test_a_save_that_fails_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pt", {"step": 1})
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(tmp_path / "c.pt", {"step": 2, "unsavable": lambda: None})
    assert load_checkpoint(tmp_path / "c.pt") == {"step": 1}


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_truncated_file_is_the_users_error(tmp_path: Path, kept: int) -> None:
    save_checkpoint(tmp_path / "c.pt", {"step": 1, "w": torch.zeros(100)})
    (tmp_path / "c.pt").write_bytes((tmp_path / "c.pt").read_bytes()[:kept])
    with pytest.raises(PCDError, match=r"checkpoint .*c\.pt is damaged"):
        load_checkpoint(tmp_path / "c.pt")


def test_foreign_file_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "c.pt").write_text("<html>")
    with pytest.raises(PCDError, match="is damaged"):
        load_checkpoint(tmp_path / "c.pt")


def _save_steps(path: Path, count: int, keep: int) -> None:
    for step in range(1, count + 1):
        save_checkpoint(path, {"step": step}, keep)


def test_the_last_ones_are_kept_and_no_more(tmp_path: Path) -> None:
    _save_steps(tmp_path / "c.pt", count=5, keep=3)
    assert sorted(p.name for p in tmp_path.glob("*.pt")) == ["c.1.pt", "c.2.pt", "c.pt"]
    assert [torch.load(tmp_path / name)["step"] for name in ("c.pt", "c.1.pt", "c.2.pt")] == [5, 4, 3]


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _save_steps(tmp_path / "c.pt", count=4, keep=3)
    (tmp_path / "c.pt").write_bytes(b"damaged")
    assert load_checkpoint(tmp_path / "c.pt") == {"step": 3}
    assert "c.pt is damaged" in capsys.readouterr().out


def test_a_kill_between_the_renames_leaves_the_one_before(tmp_path: Path) -> None:
    _save_steps(tmp_path / "c.pt", count=2, keep=2)
    (tmp_path / "c.pt").unlink()  # renamed to c.1.pt, and the new one not yet in its place
    assert load_checkpoint(tmp_path / "c.pt") == {"step": 1}


def test_where_all_are_damaged_the_user_decides(tmp_path: Path) -> None:
    _save_steps(tmp_path / "c.pt", count=2, keep=2)
    for path in tmp_path.glob("*.pt"):
        path.write_bytes(b"damaged")
    with pytest.raises(PCDError, match=r"c\.1\.pt is damaged .* there is no older one"):
        load_checkpoint(tmp_path / "c.pt")
