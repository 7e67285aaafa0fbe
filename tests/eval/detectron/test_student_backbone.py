"""Students that Detectron2 has no network of its own for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from eval.detectron.backbone import check_features_equal, load_into_detector
from eval.detectron.before_training import check_normalisation
from eval.finetune_settings import FinetuneSettings
from pcd.errors import PCDError
from pcd.students import build_student

CHANNELS = {
    "mobilenet_v3_large": (24, 40, 112, 960),
    "shufflenet_v2_x1_0": (24, 116, 232, 1024),
    "timm:convnext_atto": (40, 80, 160, 320),
}


@pytest.fixture(scope="module", params=CHANNELS)
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="module")
def detector(name: str, new_config: Callable[..., Any], new_detector: Callable[..., Any]) -> Any:
    return new_detector(new_config(name, anchor_sizes=(8, 16, 32, 64, 128))).eval()


def test_the_pyramid_has_every_level_from_p2_to_p6(name: str, detector: Any) -> None:
    trunk = detector.backbone.bottom_up.output_shape()
    assert [(trunk[f"res{i}"].channels, trunk[f"res{i}"].stride) for i in (2, 3, 4, 5)] == list(
        zip(CHANNELS[name], (4, 8, 16, 32), strict=True)
    )
    with torch.no_grad():
        levels = detector.backbone(torch.zeros(1, 3, 64, 128))
    assert {n: tuple(x.shape[2:]) for n, x in levels.items()} == {
        "p2": (16, 32), "p3": (8, 16), "p4": (4, 8), "p5": (2, 4), "p6": (1, 2),
    }  # fmt: skip


def test_every_tensor_of_the_student_arrives(name: str, detector: Any, shapes_set: Path) -> None:
    torch.manual_seed(3)
    student = build_student(name)
    image = sorted((shapes_set / "val").glob("*.jpg"))[0]
    with pytest.raises(PCDError, match="features differ"):
        check_features_equal(detector, student, image)
    assert load_into_detector(detector, student.state_dict()) == len(student.state_dict())
    assert check_features_equal(detector, student, image) < 1e-5


def test_a_missing_tensor_is_refused(detector: Any, name: str) -> None:
    tensors = dict(build_student(name).state_dict())
    first = sorted(tensors)[0]
    del tensors[first]
    with pytest.raises(PCDError, match="1 tensors missing, 0 left over"):
        load_into_detector(detector, tensors)


def test_the_weights_of_another_student_are_refused(detector: Any) -> None:
    with pytest.raises(PCDError, match="another student"):
        load_into_detector(detector, build_student("resnet18").state_dict())


def test_batchnorm_spans_the_gpus_where_there_are_several(
    new_config: Callable[..., Any], new_detector: Callable[..., Any], settings: FinetuneSettings
) -> None:
    detector = new_detector(new_config("mobilenet_v3_large", sync_norm=True))
    kinds = check_normalisation(detector, settings, spans_ranks=True)
    assert kinds == {
        "backbone": {"SyncBatchNorm": 46}, "pyramid": {"SyncBatchNorm": 8}, "heads": {"SyncBatchNorm": 1},
    }  # fmt: skip


def test_a_student_without_a_map_of_stride_four_is_refused_in_one_line() -> None:
    from eval.detectron.student_backbone import StudentBackbone
    from pcd.backbones import TorchvisionBackbone

    network = nn.Sequential()
    network.add_module(
        "stem", nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.Conv2d(8, 8, 2, 2), nn.Conv2d(8, 8, 2, 2))
    )
    with pytest.raises(PCDError, match=r'student "timm:odd" has no map of stride 4, which') as error:
        StudentBackbone("timm:odd", TorchvisionBackbone(network, ("stem",), channels=8))
    assert "\n" not in str(error.value)
