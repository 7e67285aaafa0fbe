"""Settings are refused where they are read, not minutes later."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from eval.settings import CocoData, DataSettings, ShapesData

FOLDERS = {
    name: f"/data/{name}" for name in ("pool", "train_images", "train_annotations", "val_images", "val_annotations")
}


def read_data(raw: dict[str, Any]) -> ShapesData | CocoData:
    adapter: TypeAdapter[Any] = TypeAdapter(DataSettings)  # type: ignore[arg-type]  # a union is no class
    data: ShapesData | CocoData = adapter.validate_python(raw)
    return data


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
