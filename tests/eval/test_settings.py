"""Settings are refused where they are read, not minutes later."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from eval.settings import CocoData, DataSettings, FinetuneSettings, ShapesData

FOLDERS = {
    name: f"/data/{name}" for name in ("pool", "train_images", "train_annotations", "val_images", "val_annotations")
}


def read_data(raw: dict[str, Any]) -> ShapesData | CocoData:
    adapter: TypeAdapter[Any] = TypeAdapter(DataSettings)  # type: ignore[arg-type]  # a union is no class
    data: ShapesData | CocoData = adapter.validate_python(raw)
    return data


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


def test_the_kind_shapes_gives_shapes() -> None:
    assert isinstance(read_data({"kind": "shapes"}), ShapesData)


def test_the_kind_coco_gives_own_data() -> None:
    assert isinstance(read_data({"kind": "coco", **FOLDERS}), CocoData)


def test_an_unknown_kind_of_data_is_refused() -> None:
    with pytest.raises(ValidationError, match="'shapes', 'coco'"):
        read_data({"kind": "voc"})


def test_a_field_of_the_other_kind_is_refused() -> None:
    with pytest.raises(ValidationError, match="size"):
        read_data({"kind": "coco", "size": 64, **FOLDERS})


@pytest.mark.parametrize("missing", FOLDERS)
def test_own_data_needs_every_folder(missing: str) -> None:
    with pytest.raises(ValidationError, match=missing):
        read_data({"kind": "coco", **{name: path for name, path in FOLDERS.items() if name != missing}})


@pytest.mark.parametrize(("field", "value"), [("size", 16), ("size", 2048), ("seed", -1), ("pool", 0), ("val", 0)])
def test_shapes_refuse_a_value_out_of_range(field: str, value: int) -> None:
    with pytest.raises(ValidationError, match=field):
        read_data({"kind": "shapes", field: value})


def test_a_relative_folder_is_made_absolute() -> None:
    settings = read_data({"kind": "coco", **FOLDERS, "pool": "some/pool"})
    assert isinstance(settings, CocoData)
    assert settings.pool == Path.cwd() / "some" / "pool"


def test_the_home_folder_is_expanded() -> None:
    settings = read_data({"kind": "coco", **FOLDERS, "pool": "~/pool"})
    assert isinstance(settings, CocoData)
    assert settings.pool == Path.home() / "pool"
