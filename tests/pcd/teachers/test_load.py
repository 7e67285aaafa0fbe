import argparse
import copy
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from pcd.errors import PCDError
from pcd.heads import build_dense_head, build_vector_head
from pcd.layouts import HeadLayout, ResNetLayout
from pcd.teachers import TeacherEntry, load_teacher
from pcd.teachers.load import load_entry
from pcd.teachers.tensors import read_published, write_converted
from pcd.teachers.trunks import build_trunk

PREFIX = "module.momentum_encoder."
ENTRY = TeacherEntry(
    name="tiny",
    title="a teacher small enough for tests",
    url="file:///tiny.pth.tar",
    published_hash=None,
    licence="Apache-2.0",
    noncommercial=False,
    top_key="state_dict",
    trunk_prefix=PREFIX,
    head_prefix=f"{PREFIX}fc.",
    trunk=ResNetLayout(block="basic", layers=(1, 1, 1, 1), channels=(8, 8, 12, 16)),
    head=HeadLayout(widths=(16, 12, 6), bias=False, norm=True, last_norm="plain"),
    accuracy="none",
    source="this test",
)


def _trained_looking(network: nn.Module) -> nn.Module:
    """BatchNorms with statistics and affine far from their initial 0 and 1."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.get_buffer("running_mean").normal_(std=0.3)
            module.get_buffer("running_var").uniform_(0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3)
    return network.eval()


@pytest.fixture
def networks() -> tuple[nn.Module, nn.Module]:
    """Trunk and head as their publisher has them."""
    return _trained_looking(build_trunk(ENTRY.trunk)), _trained_looking(build_vector_head(ENTRY.head))


@pytest.fixture
def tensors(networks: tuple[nn.Module, nn.Module]) -> dict[str, Tensor]:
    """The publisher's tensors: the encoder that is read, and one that is not."""
    trunk, head = networks
    read = {f"{PREFIX}{name}": tensor for name, tensor in trunk.state_dict().items()}
    read |= {f"{PREFIX}fc.{name}": tensor for name, tensor in head.state_dict().items()}
    return read | {"module.base_encoder.conv1.weight": torch.zeros(1), "module.predictor.0.weight": torch.zeros(1)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tiny.pth.tar"


@pytest.fixture
def good(path: Path, tensors: dict[str, Tensor]) -> Path:
    torch.save({"epoch": 3, "arch": "resnet", "state_dict": tensors}, path)
    return path


def _message(path: Path, entry: TeacherEntry = ENTRY) -> str:
    """What a user reads when the file is refused."""
    with pytest.raises(PCDError) as caught:
        load_entry(entry, path)
    return str(caught.value)


def _refused(path: Path, *named: str, entry: TeacherEntry = ENTRY) -> bool:
    message = _message(path, entry)
    assert "\n" not in message
    assert [name for name in (str(path), *named) if name not in message] == []
    return True


def test_mean_of_the_teachers_map_equals_the_publishers_vector(
    good: Path, networks: tuple[nn.Module, nn.Module]
) -> None:
    trunk, head = networks
    images = torch.randn(4, 3, 64, 96)
    mapped = load_entry(ENTRY, good, keep_last_norm=True)(images).mean(dim=(2, 3))
    torch.testing.assert_close(mapped, head(trunk(images).mean(dim=(2, 3))).detach(), rtol=1e-4, atol=1e-4)


def test_last_norm_is_dropped_by_default(good: Path, networks: tuple[nn.Module, nn.Module]) -> None:
    trunk, head = networks
    assert isinstance(head, nn.Sequential)
    images = torch.randn(4, 3, 64, 96)
    mapped = load_entry(ENTRY, good)(images).mean(dim=(2, 3))
    torch.testing.assert_close(mapped, head[:-1](trunk(images).mean(dim=(2, 3))).detach(), rtol=1e-4, atol=1e-4)


def test_keeping_the_last_norm_changes_the_map(good: Path) -> None:
    images = torch.randn(2, 3, 64, 64)
    kept, dropped = load_entry(ENTRY, good, keep_last_norm=True), load_entry(ENTRY, good)
    assert not torch.allclose(kept(images), dropped(images), atol=0.01)


def test_half_precision_file_gives_a_full_precision_teacher(path: Path, tensors: dict[str, Tensor]) -> None:
    torch.save({"state_dict": {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}}, path)
    assert {p.dtype for p in load_entry(ENTRY, path).parameters()} == {torch.float32}


def test_bottleneck_trunk_loads(path: Path) -> None:
    trunk = ResNetLayout(block="bottleneck", layers=(1, 1, 1, 1), channels=(4, 4, 4, 4))
    entry = replace(ENTRY, trunk=trunk)
    state = {f"{PREFIX}{n}": t for n, t in build_trunk(trunk).state_dict().items()}
    state |= {f"{PREFIX}fc.{n}": t for n, t in build_vector_head(entry.head).state_dict().items()}
    torch.save({"state_dict": state}, path)
    assert load_entry(entry, path)(torch.randn(1, 3, 64, 64)).shape == (1, 6, 2, 2)


def test_dense_head_is_applied_to_each_pixel_as_it_is(path: Path) -> None:
    layout = HeadLayout(widths=(16, 12, 6), bias=True, norm=False, last_norm="none", dense=True)
    entry = replace(ENTRY, head=layout)
    trunk, head = _trained_looking(build_trunk(entry.trunk)), build_dense_head(layout)
    state = {f"{PREFIX}{n}": t for n, t in trunk.state_dict().items()}
    torch.save({"state_dict": state | {f"{PREFIX}fc.{n}": t for n, t in head.state_dict().items()}}, path)
    images = torch.randn(2, 3, 64, 96)
    torch.testing.assert_close(load_entry(entry, path)(images), head(trunk(images)).detach())


def test_file_from_before_batches_were_counted_loads(path: Path, tensors: dict[str, Tensor]) -> None:
    torch.save({"state_dict": {n: t for n, t in tensors.items() if "num_batches_tracked" not in n}}, path)
    assert {t.item() for n, t in load_entry(ENTRY, path).state_dict().items() if "num_batches" in n} == {0}


def test_names_behind_a_wrapper_are_read(path: Path, tensors: dict[str, Tensor]) -> None:
    torch.save({"state_dict": {f"wrapped.{n}": t for n, t in tensors.items()}}, path)
    _refused(path, PREFIX)
    load_entry(replace(ENTRY, wrapper="wrapped."), path)


def test_dropped_names_may_stand_there_and_need_not(good: Path, path: Path, tensors: dict[str, Tensor]) -> None:
    entry = replace(ENTRY, dropped=(f"{PREFIX}fc.9.*",))
    load_entry(entry, good)
    torch.save({"state_dict": tensors | {f"{PREFIX}fc.9.weight": torch.zeros(1)}}, path)
    load_entry(entry, path)
    assert _refused(path, "1 unexpected")


def test_teacher_stays_in_eval_mode_after_train(good: Path) -> None:
    student = nn.ModuleDict({"teacher": load_entry(ENTRY, good)}).train()
    assert not any(module.training for module in student["teacher"].modules())


def test_teacher_does_not_change_by_being_called(good: Path) -> None:
    teacher = load_entry(ENTRY, good).train()
    before = copy.deepcopy(teacher.state_dict())
    teacher(torch.randn(4, 3, 64, 64))
    torch.testing.assert_close(teacher.state_dict(), before, rtol=0, atol=0)


def test_teacher_has_no_parameter_to_train(good: Path) -> None:
    assert not any(p.requires_grad for p in load_entry(ENTRY, good).parameters())


def test_teachers_map_carries_no_gradient(good: Path) -> None:
    assert not load_entry(ENTRY, good)(torch.randn(1, 3, 64, 64, requires_grad=True)).requires_grad


def test_unknown_name_is_answered_with_the_nearest(good: Path) -> None:
    with pytest.raises(PCDError, match='unknown teacher "demmo": did you mean "demo"'):
        load_teacher("demmo", good)


@pytest.mark.parametrize("name", ["layer3.0.conv1.weight", "bn1.running_var", "fc.1.bias", "fc.4.running_mean"])
def test_missing_tensor_is_named(path: Path, tensors: dict[str, Tensor], name: str) -> None:
    del tensors[PREFIX + name]
    torch.save({"state_dict": tensors}, path)
    assert _refused(path, "1 missing", name.removeprefix("fc."))


@pytest.mark.parametrize("name", ["layer3.0.conv9.weight", "fc.5.weight", "fc.0.bias"])
def test_extra_tensor_is_named(path: Path, tensors: dict[str, Tensor], name: str) -> None:
    tensors[PREFIX + name] = torch.zeros(3)
    torch.save({"state_dict": tensors}, path)
    assert _refused(path, "1 unexpected", name.removeprefix("fc."))


@pytest.mark.parametrize("name", ["layer1.0.conv1.weight", "fc.0.weight"])
def test_tensor_of_another_shape_is_named_with_both_shapes(path: Path, tensors: dict[str, Tensor], name: str) -> None:
    right = tuple(tensors[PREFIX + name].shape)
    tensors[PREFIX + name] = torch.zeros(2, *right[1:])
    torch.save({"state_dict": tensors}, path)
    assert _refused(path, name.removeprefix("fc."), str((2, *right[1:])), str(right))


def test_tensor_that_is_none_is_refused(path: Path, tensors: dict[str, Any]) -> None:
    tensors[f"{PREFIX}bn1.weight"] = 3
    torch.save({"state_dict": tensors}, path)
    assert _refused(path, "bn1.weight")


def test_names_that_are_no_text_are_refused(path: Path) -> None:
    torch.save({"state_dict": {3: torch.zeros(3)}}, path)
    assert _refused(path, PREFIX)


def test_wrong_top_key_is_refused_with_what_was_found(path: Path, tensors: dict[str, Tensor]) -> None:
    torch.save({"model": tensors, "epoch": 3}, path)
    assert _refused(path, "state_dict", "model, epoch")


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"state_dict": [1]}], ids=["list", "tensor", "no mapping"])
def test_file_without_a_dictionary_of_tensors_is_refused(path: Path, content: object) -> None:
    torch.save(content, path)
    assert _refused(path, "state_dict")


def test_wrong_prefix_is_refused(path: Path, tensors: dict[str, Tensor]) -> None:
    torch.save({"state_dict": {n.replace("momentum_encoder", "encoder_q"): t for n, t in tensors.items()}}, path)
    assert _refused(path, PREFIX)


def test_file_of_another_architecture_is_refused(good: Path) -> None:
    wider = replace(ENTRY, trunk=replace(ENTRY.trunk, channels=(16, 8, 12, 16)))
    assert _refused(good, "does not fit tiny", "is (8, 64, 3, 3)", "expected (16, 64, 3, 3)", entry=wider)


def test_missing_file_is_refused(path: Path) -> None:
    assert _refused(path, "does not exist")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_truncated_file_is_refused(good: Path, share: float) -> None:
    whole = good.read_bytes()
    good.write_bytes(whole[: int(share * len(whole))])
    assert _refused(good, "fetch it again")


@pytest.mark.parametrize("content", [b"<html><body>404 Not Found</body></html>", bytes(1000)], ids=["html", "zeros"])
def test_file_that_is_no_checkpoint_is_not_called_unsafe(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert _refused(path, "no checkpoint")


class _RunsACommand:
    """Unpickled without care, makes the folder that its argument names."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.marker,)


def test_pickle_that_would_run_code_is_refused(path: Path, tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    torch.save({"state_dict": tensors, "extra": _RunsACommand(str(tmp_path / "marker"))}, path)
    assert _refused(path, "holds more than tensors", "mkdir")


def test_pickle_that_would_run_code_does_not_run_it(path: Path, tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    torch.save({"state_dict": tensors, "extra": _RunsACommand(str(tmp_path / "marker"))}, path)
    _message(path)
    assert not (tmp_path / "marker").exists()
    torch.load(path, weights_only=False)  # the trap is real: without care it springs
    assert (tmp_path / "marker").exists()


def test_pickle_of_a_custom_object_is_refused_by_its_name(path: Path, tensors: dict[str, Tensor]) -> None:
    torch.save({"state_dict": tensors, "args": argparse.Namespace(lr=0.1)}, path)  # as many publishers do
    assert _refused(path, "holds more than tensors", "argparse.Namespace")


class _Copies:
    """Unpickled without care, copies this test to the file that its argument names."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str, str], object], tuple[str, str]]:
        return shutil.copyfile, (__file__, self.marker)


def test_allowed_object_is_neither_made_nor_run(path: Path, tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    torch.save({"state_dict": tensors, "extra": _Copies(str(tmp_path / "marker"))}, path)
    assert _refused(path, "shutil.copyfile")
    load_entry(replace(ENTRY, placeholders=("shutil.copyfile",)), path)
    assert not (tmp_path / "marker").exists()


def test_old_format_is_read_as_safely(path: Path, tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    torch.save({"state_dict": tensors}, path, _use_new_zipfile_serialization=False)
    load_entry(ENTRY, path)
    evil = {"state_dict": tensors, "extra": _RunsACommand(str(tmp_path / "marker"))}
    torch.save(evil, path, _use_new_zipfile_serialization=False)
    assert _refused(path, "holds more than tensors", "mkdir")
    assert not (tmp_path / "marker").exists()


# --- our own conversion


@pytest.fixture
def converted(good: Path, tmp_path: Path) -> Path:
    path = tmp_path / "teacher.safetensors"
    write_converted(ENTRY, read_published(ENTRY, good), path, "ab" * 32)
    return path


def test_converted_teacher_is_the_published_one(good: Path, converted: Path) -> None:
    images = torch.randn(2, 3, 64, 64)
    for keep in (True, False):
        ours, theirs = (load_entry(ENTRY, path, keep_last_norm=keep)(images) for path in (converted, good))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_conversion_holds_the_teacher_alone(converted: Path) -> None:
    with safe_open(converted, "pt") as file:
        names = set(file.keys())
        assert file.metadata() == {
            "format": "pt", "teacher": "tiny", "source": ENTRY.url, "source_sha256": "ab" * 32, "licence": "Apache-2.0"
        }  # fmt: skip
    assert {"trunk.conv1.weight", "head.0.weight", "head.4.running_var"} <= names
    assert all(name.startswith(("trunk.", "head.")) for name in names)


def test_conversion_can_be_read_by_others(converted: Path) -> None:
    assert converted.stat().st_mode & 0o777 == 0o644


def test_conversion_keeps_half_precision(path: Path, tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    torch.save({"state_dict": {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}}, path)
    halves = tmp_path / "teacher.safetensors"
    write_converted(ENTRY, read_published(ENTRY, path), halves, "")
    with safe_open(halves, "pt") as file:
        assert file.get_tensor("head.0.weight").dtype == torch.float16
    assert {p.dtype for p in load_entry(ENTRY, halves).parameters()} == {torch.float32}


def test_conversion_of_another_teacher_is_refused_by_its_name(converted: Path) -> None:
    assert _refused(converted, "holds the teacher tiny, not other", entry=replace(ENTRY, name="other"))


def test_conversion_of_another_layout_is_refused(converted: Path) -> None:
    deeper = replace(ENTRY, trunk=replace(ENTRY.trunk, layers=(1, 1, 1, 2)))
    assert _refused(converted, "does not fit tiny", "missing (trunk.layer4.1.", entry=deeper)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.99])
def test_truncated_conversion_is_refused(converted: Path, share: float) -> None:
    whole = converted.read_bytes()
    converted.write_bytes(whole[: int(share * len(whole))])
    assert _refused(converted, "cannot be read")


def test_missing_conversion_is_refused(tmp_path: Path) -> None:
    assert _refused(tmp_path / "none.safetensors", "does not exist")


def test_conversion_that_cannot_be_written_is_an_error_of_the_system(good: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):  # and so is a full disk, which the stage names in one line
        write_converted(ENTRY, read_published(ENTRY, good), tmp_path / "none" / "teacher.safetensors", "")
