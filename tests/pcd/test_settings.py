from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from pcd.errors import PCDError
from pcd.settings import STUDENT_NAMES, Mark, PretrainSettings, Settings, check_student_name, flat_settings
from pcd.teachers.train_demo import DemoTeacherSettings


def _leaves(model: type[Settings], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            yield from _leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


LEAVES = dict(_leaves(PretrainSettings))


@pytest.mark.parametrize("path", LEAVES)
def test_field_says_where_its_default_comes_from(path: str) -> None:
    extra = LEAVES[path].json_schema_extra
    assert isinstance(extra, dict)
    assert extra["mark"] in get_args(Mark)


@pytest.mark.parametrize("path", LEAVES)
def test_field_is_described(path: str) -> None:
    assert LEAVES[path].description


@pytest.mark.parametrize(
    ("path", "expected"),
    {
        "epochs": 100,
        "global_batch": 1024,
        "student": "resnet18",
        "adaptor_keeps_last_norm": False,
        "loss.temperature": 0.2,
        "loss.negatives": 65536,
        "loss.pairing": "crossed",
        "optimizer.name": "lars",
        "optimizer.learning_rate": 1.0,
        "optimizer.weight_decay": 1e-5,
        "optimizer.momentum": 0.9,
        "optimizer.warmup_epochs": 10,
        "views.size": 224,
        "views.min_scale": 0.08,
        "views.jitter": (0.4, 0.4, 0.2, 0.1),
        "views.jitter_probability": 0.8,
        "views.grayscale_probability": 0.2,
        "views.blur_probability": (1.0, 0.1),
        "views.blur_sigma": (0.1, 2.0),
        "views.solarize_probability": (0.0, 0.2),
    }.items(),
)
def test_default_is_the_papers(path: str, expected: object) -> None:
    value: Any = PretrainSettings()
    for name in path.split("."):
        value = getattr(value, name)
    assert value == expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"global_batch": 1},
        {"attention_heads": 0},
        {"precision": "fp8"},
        {"loss": {"temperature": 0}},
        {"loss": {"negatives": 0}},
        {"loss": {"pairing": "straight"}},
        {"optimizer": {"name": "sgd"}},
        {"optimizer": {"learning_rate": 0}},
        {"optimizer": {"weight_decay": -1}},
        {"optimizer": {"momentum": 1}},
        {"optimizer": {"warmup_epochs": -1}},
        {"views": {"size": 100}},
        {"views": {"size": 0}},
        {"views": {"min_scale": 0}},
        {"views": {"min_scale": 1.1}},
        {"views": {"jitter_probability": 1.1}},
        {"views": {"blur_probability": (1.0, -0.1)}},
        {"views": {"solarize_probability": (0.0, 2.0)}},
    ],
    ids=str,
)
def test_value_out_of_range_is_rejected(wrong: dict[str, Any]) -> None:
    (field, value) = next(iter(wrong.items()))
    name = next(iter(value)) if isinstance(value, dict) else field
    with pytest.raises(ValidationError, match=name):
        PretrainSettings.model_validate(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"jitter": (0.4, 0.4, 0.2, 0.6)},
        {"jitter": (-0.1, 0.4, 0.2, 0.1)},
        {"blur_sigma": (2.0, 0.1)},
        {"blur_sigma": (0, 2)},
    ],
    ids=str,
)
def test_views_that_torchvision_would_refuse_are_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PretrainSettings.model_validate({"views": wrong})


@pytest.mark.parametrize(
    "wrong", [{"epoch": 1}, {"loss": {"tau": 0.1}}, {"views": {"crop": 32}}, {"optimizer": {"lr": 1}}], ids=str
)
def test_misspelt_field_is_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        PretrainSettings.model_validate(wrong)


@pytest.mark.parametrize("warmup", [10, 11])
def test_warm_up_as_long_as_the_training_is_rejected(warmup: float) -> None:
    with pytest.raises(ValidationError, match=f"warm-up takes {warmup} of 10 epochs"):
        PretrainSettings.model_validate({"epochs": 10, "optimizer": {"warmup_epochs": warmup}})


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        PretrainSettings().epochs = 3


@pytest.mark.parametrize("model", [PretrainSettings, DemoTeacherSettings])
def test_settings_survive_their_own_json(model: type[Settings]) -> None:
    assert model.model_validate_json(model().model_dump_json()) == model()


@pytest.mark.parametrize("name", [*STUDENT_NAMES, "timm:convnext_atto"])
def test_a_students_name_is_accepted(name: str) -> None:
    assert PretrainSettings(student=name).student == name


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("resnet81", 'unknown student "resnet81": did you mean "resnet18"?'),
        ("mobilenetv3_large", 'did you mean "mobilenet_v3_large"?'),
        ("timm:", 'unknown student "timm:"'),
        ("", 'unknown student ""'),
    ],
)
def test_a_misspelt_student_is_answered_with_the_nearest(name: str, told: str) -> None:
    with pytest.raises(PCDError) as caught:
        check_student_name(name)
    assert told in str(caught.value)
    with pytest.raises(ValidationError) as refused:
        PretrainSettings(student=name)
    assert told in str(refused.value)


def test_a_default_bears_its_mark_and_a_changed_value_is_ours() -> None:
    marks = {name: mark for name, (_, mark) in flat_settings(PretrainSettings(epochs=20)).items()}
    assert (marks["student"], marks["loss.temperature"], marks["epochs"]) == ("abstract", "code", "ours")
