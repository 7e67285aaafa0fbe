"""A detector over a backbone that learns nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from eval.detectron.backbone import backbone_modules
from eval.detectron.before_training import check_normalisation
from eval.detectron.frozen import freeze_backbone
from eval.detectron.precise_bn import count_statistics_anew
from eval.detectron.train import train_detector
from eval.finetune_settings import FinetuneSettings
from pcd.errors import PCDError
from pcd.stage import read_spec

FPN: dict[str, Any] = {}
C4: dict[str, Any] = {
    "architecture": "mask_rcnn_c4", "extra_norm": True, "mask_head_convs": 0, "fpn_channels": 256,
    "box_head_width": 1024, "anchor_sizes": (32, 64, 128),
}  # fmt: skip
STUDENTS = [
    pytest.param("resnet18", FPN, id="fpn"),
    pytest.param("resnet18", C4, id="c4"),
    pytest.param("mobilenet_v3_large", FPN, id="a student that is no ResNet"),
]


def state_of(detector: Any) -> list[dict[str, Tensor]]:
    return [{name: x.clone() for name, x in module.state_dict().items()} for module in backbone_modules(detector)]


@pytest.mark.parametrize(("student", "changes"), STUDENTS)
def test_no_tensor_of_a_frozen_backbone_changes_and_the_rest_learns(
    student: str, changes: dict[str, Any], new_config: Callable[..., Any], new_detector: Callable[..., Any],
    new_spec: Callable[..., Path], settings: FinetuneSettings, train_name: str, tmp_path: Path,
) -> None:  # fmt: skip
    own = {"iterations": 2, "precise_bn_iterations": 1, "freeze_backbone": True}
    frozen = settings.model_copy(update=own | changes)
    cfg, spec = new_config(student, **changes), read_spec(new_spec(tmp_path, {}))
    detector = new_detector(cfg)
    freeze_backbone(detector)
    check_normalisation(detector, frozen, spans_ranks=False)
    before = state_of(detector)
    others = {name: x.clone() for name, x in detector.named_parameters() if x.requires_grad}

    train_detector(cfg, detector, frozen, train_name, 0, spec)
    count_statistics_anew(cfg, detector, frozen, train_name, 0, spec)
    for then, now in zip(before, state_of(detector), strict=True):
        torch.testing.assert_close(now, then, rtol=0, atol=0)
    after = dict(detector.named_parameters())
    learnt = {name.partition(".")[0] for name, x in others.items() if not torch.equal(after[name], x)}
    assert learnt == {name.partition(".")[0] for name in others} >= {"proposal_generator", "roi_heads"}


def test_a_frozen_detector_that_lost_its_freeze_is_refused(
    new_config: Callable[..., Any], new_detector: Callable[..., Any], settings: FinetuneSettings
) -> None:
    detector, frozen = new_detector(new_config()), settings.model_copy(update={"freeze_backbone": True})
    with pytest.raises(PCDError, match=r"freezes the backbone alone, and 60 parts .* \(first: backbone.bottom_up.stem"):
        check_normalisation(detector, frozen, spans_ranks=False)


def test_a_frozen_head_is_refused_under_a_frozen_backbone(
    new_config: Callable[..., Any], new_detector: Callable[..., Any], settings: FinetuneSettings
) -> None:
    detector, frozen = new_detector(new_config()), settings.model_copy(update={"freeze_backbone": True})
    freeze_backbone(detector)
    detector.roi_heads.requires_grad_(False)
    with pytest.raises(PCDError, match=r"first: roi_heads"):
        check_normalisation(detector, frozen, spans_ranks=False)
