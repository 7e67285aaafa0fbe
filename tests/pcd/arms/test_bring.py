import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from pcd.arms import weights
from pcd.arms.bring import bring_backbone
from pcd.errors import PCDError
from pcd.export import export_backbone, load_backbone
from pcd.stage import Spec
from pcd.students import build_student
from pcd.teachers import TEACHERS, load_teacher
from pcd.teachers.entry import PublishedHash
from pcd.teachers.registry import DEMO_CHECKPOINT
from pcd.teachers.stage import fetch_and_convert

STUDENT = "shufflenet_v2_x1_0"

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def classifier() -> Tensors:
    """As torchvision serves it: a backbone, and the classifier behind it."""
    torch.manual_seed(3)
    return {**build_student(STUDENT).state_dict(), "fc.weight": torch.randn(1000, 1024), "fc.bias": torch.randn(1000)}


@pytest.fixture
def bring(make_spec: Callable[..., Spec], tmp_path: Path, classifier: Tensors) -> Callable[..., tuple[Spec, Any]]:
    """Runs the stage on a user's own file of these tensors."""

    def bring(tensors: Any = classifier, name: str = "own.pth", **runtime: Any) -> tuple[Spec, Any]:
        torch.save(tensors, tmp_path / name)
        settings = {"arm": "supervised", "student": STUDENT}
        spec = make_spec(settings, home=str(tmp_path / "home"), supervised_file=str(tmp_path / name), **runtime)
        return spec, bring_backbone(spec)

    return bring


def test_an_own_file_becomes_the_backbone_tensor_by_tensor(bring: Callable[..., Any], classifier: Tensors) -> None:
    spec, result = bring()
    left = load_backbone(spec.out / "backbone.safetensors")
    assert all(torch.equal(left[name], classifier[name]) for name in build_student(STUDENT).state_dict())
    assert (result["matched_tensors"], result["hash_was_published"]) == (len(left), False)


def test_the_backbone_says_whose_it_is(bring: Callable[..., Any]) -> None:
    with safe_open(bring()[0].out / "backbone.safetensors", "pt") as file:
        told = file.metadata()
    assert (told["student"], told["objective"]) == (STUDENT, "supervised")


@pytest.mark.parametrize(("digits", "was_published"), [(8, False), (64, True)])
def test_a_file_that_is_the_published_one_passes_for_it_and_its_hash_only_if_all_of_it_is_published(
    bring: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, classifier: Tensors, digits: int,
    was_published: bool,
) -> None:  # fmt: skip
    torch.save(classifier, tmp_path / "own.pth")
    sha256 = hashlib.sha256((tmp_path / "own.pth").read_bytes()).hexdigest()
    published = replace(weights.SUPERVISED_WEIGHTS[STUDENT], published_hash=PublishedHash("sha256", sha256[:digits]))
    monkeypatch.setitem(weights.SUPERVISED_WEIGHTS, STUDENT, published)  # type: ignore[arg-type]
    result = bring()[1]
    assert (result["licence"], result["hash_was_published"]) == ("BSD-3-Clause", was_published)


def test_a_mirrors_file_of_another_hash_is_refused(
    make_spec: Callable[..., Spec], tmp_path: Path, classifier: Tensors
) -> None:
    torch.save(classifier, tmp_path / "shufflenetv2_x1-5666bf0f80.pth")
    spec = make_spec(
        {"arm": "supervised", "student": STUDENT}, home=str(tmp_path / "home"), teacher_mirror=str(tmp_path)
    )
    with pytest.raises(PCDError, match="where sha256 5666bf0f80… was published") as caught:
        bring_backbone(spec)
    assert "teacher" not in str(caught.value)


def test_counters_that_old_files_lack_are_not_missed(bring: Callable[..., Any], classifier: Tensors) -> None:
    bring({name: tensor for name, tensor in classifier.items() if not name.endswith("num_batches_tracked")})


def _less(tensors: Tensors, name: str) -> Tensors:
    return {n: tensor for n, tensor in tensors.items() if n != name}


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda t: _less(t, "conv1.0.weight"), r"1 tensors missing, 0 left over, 0 of another shape \(first: conv1"),
        (lambda t: {**t, "layer1.0.conv1.weight": torch.zeros(1)}, "0 tensors missing, 1 left over"),
        (lambda t: {**t, "conv1.0.weight": torch.zeros(1)}, "1 of another shape"),
        (lambda t: {**t, "conv1.0.weight": torch.full((24, 3, 3, 3), torch.nan)}, "not finite .first: conv1.0.weight"),
        (lambda t: {"state_dict": t}, "does not hold tensors by name alone"),
        (lambda t: Path, "no file of weights, or damaged"),
    ],
    ids=["missing", "left over", "shape", "not finite", "nested", "no tensors"],
)
def test_what_does_not_fit_is_the_users_error_in_one_line(
    bring: Callable[..., Any], classifier: Tensors, spoil: Callable[[Tensors], Any], told: str
) -> None:
    with pytest.raises(PCDError, match=told) as caught:
        bring(spoil(classifier))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("told", "refused"),
    [
        ({"student": STUDENT, "objective": "pcd"}, "its objective is pcd, not supervised"),
        ({"student": "shufflenet_v2_x0_5", "objective": "supervised"}, f"its student is .*_x0_5, not {STUDENT}"),
        ({"student": STUDENT, "objective": "supervised"}, None),
        ({}, None),
    ],
)
def test_an_export_of_another_arm_or_student_is_no_supervised_one(
    make_spec: Callable[..., Spec], tmp_path: Path, told: dict[str, str], refused: str | None
) -> None:
    own = tmp_path / "own.safetensors"
    export_backbone(build_student(STUDENT), own, told)
    spec = make_spec({"arm": "supervised", "student": STUDENT}, home=str(tmp_path), supervised_file=str(own))
    if refused is None:
        assert bring_backbone(spec)["matched_tensors"]
        return
    with pytest.raises(PCDError, match=rf"\A[^\n]*own.safetensors says that {refused}[^\n]*\Z"):
        bring_backbone(spec)


def test_a_student_without_published_weights_needs_an_own_file(make_spec: Callable[..., Spec], tmp_path: Path) -> None:
    with pytest.raises(PCDError, match="no supervised weights of timm:test_resnet are known"):
        bring_backbone(make_spec({"arm": "supervised", "student": "timm:test_resnet"}, home=str(tmp_path)))


def test_the_teachers_trunk_computes_as_in_the_teacher(make_spec: Callable[..., Spec], tmp_path: Path) -> None:
    fetched = make_spec({"teacher": "demo"}, name="teacher", home=str(tmp_path / "home"))
    fetch_and_convert(fetched)
    name = TEACHERS["demo"].trunk.student_name  # type: ignore[union-attr]
    settings = {"arm": "teacher", "teacher": "demo", "student": name}
    spec = make_spec(settings, {"teacher": fetched.out}, home=str(tmp_path / "home"))
    assert bring_backbone(spec)["noncommercial"] is False
    backbone = build_student(name).eval()
    backbone.load_state_dict(load_backbone(spec.out / "backbone.safetensors"))
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(backbone(images), load_teacher("demo", DEMO_CHECKPOINT).trunk(images))
    assert [tuple(maps.shape[1:]) for maps in backbone.stages(images).values()] == [
        (24, 16, 16),
        (48, 8, 8),
        (96, 4, 4),
        (192, 2, 2),
    ]
