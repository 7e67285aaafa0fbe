"""A protocol's settings are refused where they are read, not after a pre-training."""

import pytest
from pydantic import ValidationError

from eval.finetune_settings import FinetuneSettings


def test_the_defaults_are_valid() -> None:
    assert FinetuneSettings().warmup_iterations < FinetuneSettings().iterations


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("iterations", 0),
        ("batch", 0),
        ("optimizer", "adam"),
        ("learning_rate", 0),
        ("learning_rate", float("nan")),
        ("weight_decay", -1e-4),
        ("schedule", "linear"),
        ("warmup_iterations", -1),
        ("clip_gradient_norm", -1),
        ("train_sizes", []),
        ("train_sizes", [0]),
        ("test_size", 16),
        ("max_size", 16),
        ("fpn_channels", 4),
        ("anchor_sizes", []),
        ("anchor_sizes", [0, 32]),
        ("anchor_sizes", [8, 16, 32, 64, 128, 256]),
        ("proposals", [0, 10]),
        ("proposals_before_nms", [10]),
        ("proposals_before_nms", [0, 10]),
        ("rois_per_image", 0),
        ("mask_head_convs", 0),
        ("mask_head_convs", -1),
        ("precise_bn_iterations", -1),
        ("architecture", "retinanet"),
        ("box_head", "1fc"),
        ("score_by", "lvis"),
        ("roi_sampling_ratio", -1),
        ("detections_per_image", 0),
        ("precision", "fp16"),
    ],
)
def test_a_protocol_refuses_a_value_out_of_range(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        FinetuneSettings.model_validate({field: value})


def test_a_protocol_refuses_a_misspelt_field() -> None:
    with pytest.raises(ValidationError, match=r"iteration\b"):
        FinetuneSettings.model_validate({"iteration": 10})


def test_a_warm_up_as_long_as_the_training_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValidationError, match="warm-up takes 8 of 8 iterations; lower warmup_iterations"):
        FinetuneSettings(iterations=8, warmup_iterations=8)


def test_five_anchor_sizes_fit_the_pyramid() -> None:
    assert len(FinetuneSettings(anchor_sizes=(8, 16, 32, 64, 128)).anchor_sizes) == 5


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        FinetuneSettings().iterations = 5  # type: ignore[misc]


def test_c4_takes_any_number_of_anchor_sizes_on_its_one_map() -> None:
    settings = FinetuneSettings(architecture="mask_rcnn_c4", anchor_sizes=(8, 16, 32, 64, 128, 256))
    assert len(settings.anchor_sizes) == 6


@pytest.mark.parametrize(
    ("architecture", "idle"),
    [
        ("mask_rcnn_c4", {"fpn_channels": 64}),
        ("mask_rcnn_c4", {"box_head": "4conv1fc"}),
        ("mask_rcnn_c4", {"norm_everywhere": False}),
        ("faster_rcnn_fpn", {"mask_head_convs": 2}),
        ("faster_rcnn_c4", {"mask_head_width": 64}),
        ("mask_rcnn_fpn", {"extra_norm": True}),
    ],
)
def test_a_setting_of_a_part_that_the_architecture_lacks_is_refused(architecture: str, idle: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=f"{next(iter(idle))}: {architecture} has no such part"):
        FinetuneSettings.model_validate({"architecture": architecture, **idle})


def test_cityscapes_evaluation_needs_masks() -> None:
    with pytest.raises(ValidationError, match="judges masks"):
        FinetuneSettings(architecture="faster_rcnn_fpn", score_by="cityscapes")
