"""The stage that computes the features, in this process and as two ranks."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from eval.data import DataSet, Split, read_data_set, write_data_set
from eval.probes import features as stage
from eval.probes.features import compute_features, features
from eval.probes.frozen import FrozenFeatures, read_features, write_features
from pcd.decode import read_rgb
from pcd.errors import PCDError
from pcd.export import export_backbone
from pcd.stage import Spec, Stopped
from pcd.students import build_student
from pcd.views import central_view
from pcd.weights_hash import weights_sha256
from tests.eval.probes.conftest import lines
from tests.patience import PATIENCE

CPU = torch.device("cpu")
SETTINGS = {"features": {"size": 32}, "student": "resnet18", "seed": 5}
MakeSpec = Callable[..., Spec]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a pre-training leaves: a ResNet-18 whose BatchNorm has statistics of its own."""
    torch.manual_seed(1)
    student, folder = build_student("resnet18"), tmp_path_factory.mktemp("pretrained")
    student(torch.randn(8, 3, 64, 64))
    export_backbone(student, folder / "backbone.safetensors", {})
    return folder


def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_BATCH", 4)


def test_features_are_the_mean_of_the_deepest_map_of_each_central_crop(
    make_spec: MakeSpec, data: Path, backbone: Path
) -> None:
    spec = make_spec(SETTINGS, {"data": data, "backbone": backbone})
    record = features(spec)
    found = read_features(spec.out)

    torch.manual_seed(1)
    student = build_student("resnet18")
    student(torch.randn(8, 3, 64, 64))
    student.eval()
    labelled = read_data_set(data).labelled("val")
    with torch.no_grad():
        expected = torch.cat([student(central_view(read_rgb(path), 32)[None]).mean(dim=(2, 3)) for path, _ in labelled])
    torch.testing.assert_close(found.val, expected, rtol=1e-4, atol=1e-4)
    assert found.val_labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.train_labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert found.classes == ("blue", "green", "red")
    assert (record["train"], record["val"], record["channels"], record["classes"]) == (9, 6, 512, 3)
    assert record["backbone_tensors"] == 120


def test_without_a_backbone_the_student_is_drawn_from_the_seed(make_spec: MakeSpec, data: Path) -> None:
    found = features(make_spec(SETTINGS, {"data": data}))["backbone_sha256"]
    torch.manual_seed(5)
    assert found == weights_sha256(build_student("resnet18").state_dict())


def test_the_backbone_of_another_student_is_refused(make_spec: MakeSpec, data: Path, backbone: Path) -> None:
    spec = make_spec(SETTINGS | {"student": "resnet34"}, {"data": data, "backbone": backbone})
    with pytest.raises(PCDError, match="was it pre-trained with another student"):
        features(spec)


def test_a_set_of_objects_is_refused(make_spec: MakeSpec, data: Path, tmp_path: Path) -> None:
    found = read_data_set(data)
    (tmp_path / "objects").mkdir()
    split = Split(found.train.images, found.train.annotations)
    write_data_set(tmp_path / "objects", DataSet("objects", None, split, split, ("a", "b"), {}, "F", score="coco"))
    with pytest.raises(PCDError, match="name a set of kind classes"):
        features(make_spec(SETTINGS, {"data": tmp_path / "objects"}))


class Halves(nn.Module):
    """(B, 3, H, W) -> (B, 3, 2, 2); stops `spec` at its `stop_at`th call."""

    def __init__(self, spec: Spec | None = None, stop_at: int = 0) -> None:
        super().__init__()
        self.spec, self.stop_at, self.seen = spec, stop_at, list[int]()

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(len(images))
        if self.spec is not None and len(self.seen) == self.stop_at:
            self.spec.request_stop()
        return nn.functional.adaptive_avg_pool2d(images, 2)


def all_pictures(data: Path) -> list[Path]:
    found = read_data_set(data)
    return [path for path, _ in (*found.labelled("train"), *found.labelled("val"))]


@pytest.fixture
def whole(make_spec: MakeSpec, data: Path) -> Tensor:
    return compute_features(make_spec(SETTINGS), Halves(), all_pictures(data), 32, CPU).clone()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stopped_run_goes_on_where_it_was_and_ends_as_an_undisturbed_one(
    make_spec: MakeSpec, data: Path, whole: Tensor, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_steps(monkeypatch)
    for path in make_spec(SETTINGS).out.glob("checkpoint*"):
        path.unlink()  # of `whole`
    spec = make_spec(SETTINGS, workers=workers)
    with pytest.raises(Stopped):
        compute_features(spec, Halves(spec, stop_at=2), all_pictures(data), 32, CPU)
    assert json.loads((spec.out / "checkpoint.json").read_text()) == {"step": 8}

    again, rest = make_spec(SETTINGS, workers=workers), Halves()
    found = compute_features(again, rest, all_pictures(data), 32, CPU)
    assert rest.seen == [4, 3]
    assert torch.equal(found, whole)
    assert [(line["step"], line["total"]) for line in lines(again)] == [(4, 15), (8, 15), (12, 15), (15, 15)]


def test_a_damaged_checkpoint_costs_its_own_images_and_those_behind_it(
    make_spec: MakeSpec, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_steps(monkeypatch)
    spec = make_spec(SETTINGS, checkpoint_seconds=0)
    whole = compute_features(spec, Halves(), all_pictures(data), 32, CPU)
    (spec.out / "checkpoint-000000000004.pt").write_bytes(b"damaged")
    rest = Halves()
    assert torch.equal(compute_features(spec, rest, all_pictures(data), 32, CPU), whole)
    assert rest.seen == [4, 4, 3]


def test_checkpoints_of_other_settings_are_refused(make_spec: MakeSpec, data: Path, whole: Tensor) -> None:
    with pytest.raises(PCDError, match="was made with other settings"):
        compute_features(make_spec(SETTINGS | {"seed": 6}), Halves(), all_pictures(data), 32, CPU)


def test_features_that_are_not_finite_name_their_image(make_spec: MakeSpec, data: Path) -> None:
    class Diverged(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.cat([images[:3], torch.full_like(images[3:], float("nan"))])

    with pytest.raises(PCDError, match=r"green/0.png are not finite"):
        compute_features(make_spec(SETTINGS), Diverged(), all_pictures(data), 32, CPU)


def test_a_damaged_image_is_named_in_one_line(make_spec: MakeSpec, data: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"damaged")
    with pytest.raises(PCDError, match=r"cannot read image .*bad\.png"):
        compute_features(make_spec(SETTINGS), Halves(), [*all_pictures(data), tmp_path / "bad.png"], 32, CPU)


@pytest.mark.slow
def test_two_ranks_leave_what_one_leaves(
    make_spec: MakeSpec, new_spec: Callable[..., Path], data: Path, backbone: Path, tmp_path: Path
) -> None:
    alone = make_spec(SETTINGS, {"data": data, "backbone": backbone})
    features(alone)
    spec = new_spec(tmp_path / "two", SETTINGS, {"data": data, "backbone": backbone})
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "eval.probes.features"]
    done = subprocess.run(
        [sys.executable, *launcher, str(spec)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    one, two = read_features(alone.out), read_features(tmp_path / "two")
    torch.testing.assert_close(two.train, one.train, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(two.val, one.val, rtol=1e-4, atol=1e-4)
    assert torch.equal(two.train_labels, one.train_labels)
    assert {path.name for path in (tmp_path / "two").iterdir()} == {
        "spec.json", "metrics.jsonl", "features.safetensors", "result.json"
    }  # fmt: skip


def test_what_is_written_is_read_again(frozen: FrozenFeatures, tmp_path: Path) -> None:
    write_features(tmp_path, frozen)
    found = read_features(tmp_path)
    assert torch.equal(found.train, frozen.train)
    assert torch.equal(found.val_labels, frozen.val_labels)
    assert found.classes == frozen.classes


def test_features_that_the_disk_does_not_take_are_an_error_of_the_system(
    frozen: FrozenFeatures, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_features(tmp_path, frozen)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(tmp_path / "features.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, b"", b"no tensors at all"])
def test_features_that_cannot_be_read_are_named_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "features.safetensors").write_bytes(content)
    with pytest.raises(PCDError, match="run their stage again") as caught:
        read_features(tmp_path)
    assert "\n" not in str(caught.value)
