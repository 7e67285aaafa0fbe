"""The student's weights in Detectron2: all of them, or an error before the first step."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2 import model_zoo
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from PIL import Image

from eval.detectron.backbone import check_features_equal, load_into_detector
from eval.finetune_settings import C4_STUDENTS
from pcd.backbones import Backbone
from pcd.errors import PCDError
from pcd.export import export_for_detectron2
from pcd.model_card import loading_lines
from pcd.students import build_student
from pcd.views import IMAGENET_MEAN, IMAGENET_STD


def trained_student(name: str = "resnet18") -> Backbone:
    """A student whose BatchNorms are no identities, as after a pre-training."""
    torch.manual_seed(5)
    student = build_student(name)
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.2)
            assert module.running_mean is not None
            assert module.running_var is not None
            torch.nn.init.normal_(module.running_mean, 0, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    student.eval()
    return student


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, shapes_set: Path) -> Path:
    return sorted((shapes_set / "val").glob("*.jpg"))[0]


@pytest.fixture(scope="module")
def student() -> Backbone:
    return trained_student()


@pytest.fixture(scope="module")
def loaded(new_config: Callable[..., Any], new_detector: Callable[..., Any], student: Backbone) -> Any:
    built = new_detector(new_config())
    load_into_detector(built, student.state_dict())
    return built


@pytest.fixture
def detector(loaded: Any) -> Any:
    """A detector with the student's weights."""
    return copy.deepcopy(loaded)


@pytest.mark.parametrize(("name", "tensors"), [("resnet18", 120), ("resnet34", 216), ("resnet50", 318)])
def test_every_tensor_of_a_student_matches(
    name: str, tensors: int, new_config: Callable[..., Any], new_detector: Callable[..., Any]
) -> None:
    detector = new_detector(new_config(name))
    matched = load_into_detector(detector, build_student(name).state_dict())
    assert matched == tensors == len(detector.backbone.bottom_up.state_dict())


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "mobilenet_v3_large"])
def test_the_loaded_backbone_computes_the_students_features(
    name: str, new_config: Callable[..., Any], new_detector: Callable[..., Any]
) -> None:
    student, detector = trained_student(name), new_detector(new_config(name)).eval()
    load_into_detector(detector, student.state_dict())
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own, theirs = student.stages(images), detector.backbone.bottom_up(images)
    assert own.keys() == theirs.keys() == {"res2", "res3", "res4", "res5"}
    for stage in own:
        assert (theirs[stage] - own[stage]).abs().max() < 1e-5 * own[stage].abs().max()


def test_the_check_measures_a_small_difference(detector: Any, student: Backbone, image: Path) -> None:
    assert 0 <= check_features_equal(detector, student, image) < 1e-5


def test_the_check_leaves_the_detector_as_it_was(detector: Any, student: Backbone, image: Path) -> None:
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    detector.train()
    check_features_equal(detector, student, image)
    assert detector.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())


@pytest.mark.parametrize("size", [(100, 75), (33, 64), (24, 20), (64, 20)])
def test_the_check_takes_an_image_of_any_size(
    detector: Any, student: Backbone, size: tuple[int, int], tmp_path: Path
) -> None:
    Image.effect_noise(size, 60).convert("RGB").save(tmp_path / "any.png")
    assert check_features_equal(detector, student, tmp_path / "any.png") < 1e-4


def test_a_missing_tensor_is_refused(detector: Any, student: Backbone) -> None:
    tensors = student.state_dict()
    del tensors["layer3.0.conv1.weight"]
    with pytest.raises(PCDError, match=r"1 tensors missing, 0 left over.*res4\.0\.conv1\.weight"):
        load_into_detector(detector, tensors)


def test_a_tensor_left_over_is_refused(detector: Any, student: Backbone) -> None:
    tensors = student.state_dict() | {"projector.weight": torch.zeros(1)}
    with pytest.raises(PCDError, match=r"0 tensors missing, 1 left over.*projector\.weight"):
        load_into_detector(detector, tensors)


def test_a_tensor_of_another_shape_is_refused(detector: Any, student: Backbone) -> None:
    tensors = student.state_dict() | {"conv1.weight": torch.zeros(64, 3, 3, 3)}
    with pytest.raises(PCDError, match=r"1 of another shape \(first: stem\.conv1\.weight\)"):
        load_into_detector(detector, tensors)


def test_another_students_weights_are_refused(detector: Any) -> None:
    with pytest.raises(PCDError, match=r"96 left over.*another student"):
        load_into_detector(detector, build_student("resnet34").state_dict())


def test_refused_weights_leave_the_detector_as_it_was(detector: Any, student: Backbone) -> None:
    before = detector.backbone.bottom_up.stem.conv1.weight.clone()
    tensors = build_student("resnet18").state_dict()
    del tensors["layer4.1.bn2.bias"]
    with pytest.raises(PCDError):
        load_into_detector(detector, tensors)
    assert torch.equal(detector.backbone.bottom_up.stem.conv1.weight, before)


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        (IMAGENET_MEAN[::-1], IMAGENET_STD[::-1]),
        (IMAGENET_MEAN, IMAGENET_STD[::-1]),
        (IMAGENET_MEAN, (1 / 255, 1 / 255, 1 / 255)),
        ((0.0, 0.0, 0.0), IMAGENET_STD),
    ],
    ids=["BGR", "std of BGR", "no std", "no mean"],
)
def test_a_detector_that_normalises_otherwise_is_refused(
    mean: tuple[float, ...],
    std: tuple[float, ...],
    new_config: Callable[..., Any],
    new_detector: Callable[..., Any],
    student: Backbone,
    image: Path,
) -> None:
    cfg = new_config()
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [255 * x for x in mean], [255 * x for x in std]
    detector = new_detector(cfg)
    load_into_detector(detector, student.state_dict())
    with pytest.raises(PCDError, match="features differ"):
        check_features_equal(detector, student, image)


@pytest.mark.parametrize(
    "tensor", ["stem.conv1.weight", "res3.0.shortcut.weight", "res2.1.conv1.norm.running_var", "res5.1.conv2.norm.bias"]
)
def test_a_detector_with_one_perturbed_tensor_is_refused(
    detector: Any, student: Backbone, image: Path, tensor: str
) -> None:
    detector.backbone.bottom_up.state_dict()[tensor].mul_(1.05)
    with pytest.raises(PCDError, match="features differ"):
        check_features_equal(detector, student, image)


def test_a_detector_that_kept_its_own_weights_is_refused(
    new_config: Callable[..., Any], new_detector: Callable[..., Any], student: Backbone, image: Path
) -> None:
    with pytest.raises(PCDError, match="nothing was trained"):
        check_features_equal(new_detector(new_config()), student, image)


# ---- the exported file, read by Detectron2's own checkpointer

FPN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
C4 = "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml"


@pytest.fixture
def zoo_detector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Callable[..., Any]:
    """A detector of the model zoo over an exported student, by the line of the model card; every tensor arrived."""

    def load(student: Backbone, name: str, config: str = FPN, norm: str = "FrozenBN") -> Any:
        export_for_detectron2(student, tmp_path / "backbone_detectron2.pth")
        cfg = model_zoo.get_config(config)
        cfg.MODEL.DEVICE, cfg.MODEL.RESNETS.NORM = "cpu", norm
        monkeypatch.chdir(tmp_path)
        exec(loading_lines(name)["Detectron2"][1], {"cfg": cfg})
        detector = build_model(cfg)
        DetectionCheckpointer(detector).load(cfg.MODEL.WEIGHTS)
        told = "\n".join(record.getMessage() for record in caplog.records if record.levelname != "INFO")
        assert "not found in the checkpoint" in told  # the detector's own heads: so the messages do arrive here
        assert not [word for word in ("bottom_up", "stem", "res", "not used by the model", "Shape") if word in told]
        return detector

    return load


@pytest.mark.parametrize(("name", "norm"), [*((name, "FrozenBN") for name in C4_STUDENTS), ("resnet18", "BN")], ids=str)
def test_the_exported_file_has_the_students_features_in_a_detector_of_the_zoo(
    name: str, norm: str, image: Path, zoo_detector: Callable[..., Any]
) -> None:
    student = trained_student(name)
    assert check_features_equal(zoo_detector(student, name, norm=norm), student, image) < 1e-5


def test_the_exported_resnet50_fills_a_detector_without_a_pyramid_too(zoo_detector: Callable[..., Any]) -> None:
    student, images = trained_student("resnet50"), torch.randn(1, 3, 64, 96)
    detector = zoo_detector(student, "resnet50", config=C4).eval()
    with torch.no_grad():
        own = student.stages(images)
        shallow = detector.backbone(images)["res4"]
        deep = detector.roi_heads.res5(shallow)
    torch.testing.assert_close(shallow, own["res4"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(deep, own["res5"], rtol=1e-4, atol=1e-4)
