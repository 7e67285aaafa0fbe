import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pcd.export import export_backbone
from pcd.model_card import write_model_card
from pcd.settings import PretrainSettings
from pcd.stage import Spec
from pcd.students import STUDENTS, build_student
from tests.pcd.slow_parameters import slow_but

FIGURES = {"receptive field/backbone, 50%": 0.333333}


@pytest.fixture
def card(make_spec: Callable[..., Spec], tmp_path: Path) -> Callable[..., str]:
    """The card of a run with these settings, over what the stages before it left."""

    def write(
        teacher: str = "demo",
        fetched: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
        **settings: Any,
    ) -> str:
        for name, record in (("result.json", fetched), ("data.json", data)):
            (tmp_path / name).write_text(json.dumps(record or {}))
        spec = make_spec({"teacher": teacher, "seed": 7}, {"teacher": tmp_path, "data": tmp_path})
        spec.metrics.log(1, 2, {"loss": 9.0, "learning_rate": 0.5})
        spec.metrics.log(2, 2, {"loss": 4.25, "learning_rate": 0.0})
        write_model_card(spec, PretrainSettings.model_validate(settings), FIGURES)
        return (spec.out / "MODEL_CARD.md").read_text()

    return write


@pytest.mark.parametrize(
    "row",
    [
        "| student | resnet18 | abstract |",
        "| loss.temperature | 0.2 | code |",
        "| epochs | 20.0 | ours |",
        "| attention_heads | 8 | ours |",
        "| seed | 7 |",
        "| final loss | 4.25 |",
        "| final learning_rate | 0 |",
        "| receptive field/backbone, 50% | 0.3333 |",
    ],
)
def test_it_has_the_row(card: Callable[..., str], row: str) -> None:
    assert row in card(epochs=20).splitlines()


def test_every_setting_is_in_it_with_a_mark(card: Callable[..., str]) -> None:
    rows = re.findall(r"^\| ([\w.]+) \| .+ \| (abstract|code|ours) \|$", card(), flags=re.MULTILINE)
    assert {"views.jitter", "optimizer.momentum", "precision", "adaptor_keeps_last_norm"} <= {name for name, _ in rows}


@pytest.mark.parametrize(
    ("teacher", "told", "not_told"),
    [
        ("demo", "under Apache-2.0, which allows commercial use", "Not for commercial use"),
        (
            "mocov3_r50_1000",
            "**Not for commercial use**: it was trained against the outputs of weights under CC-BY-NC-4.0",
            "which allows",
        ),
    ],
)
def test_the_teachers_terms_stand_at_its_head(card: Callable[..., str], teacher: str, told: str, not_told: str) -> None:
    head = card(teacher).partition("## Loading")[0]
    assert told in head
    assert not_told not in head


def test_the_teachers_hash_is_the_one_that_was_fetched(card: Callable[..., str]) -> None:
    assert "SHA-256 0123abcd" in card(fetched={"file": "a.pth", "sha256": "0123abcd"})
    assert "SHA-256 not recorded" in card(fetched={"file": "a.pth"})


def test_the_datas_fingerprint_is_in_it(card: Callable[..., str]) -> None:
    data = {"name": "shapes", "counts": {"pool": 4000}, "fingerprint": "89ef", "pool": "pool"}
    assert "| data | shapes, 4000 images, fingerprint 89ef |" in card(data=data)


def test_the_versions_are_those_that_ran(card: Callable[..., str]) -> None:
    assert f"- torch {torch.__version__.partition('+')[0]}" in card()


def test_nothing_of_the_template_is_left(card: Callable[..., str]) -> None:
    written = card()
    assert not [mark for mark in ("{{", "{%", "None", "Undefined") if mark in written]
    assert "\n\n\n" not in written


# ---- the lines by which the files are loaded


def _blocks(card: str) -> dict[str, str]:
    """Library to its code."""
    return dict(re.findall(r"^(\w+)[^\n]*:\n\n```python\n(.*?)```", card, re.DOTALL | re.M))


def _run(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(code, names)
    model: nn.Module = names["model"]
    return model.eval()


@pytest.mark.parametrize(
    ("student", "libraries"),
    [
        ("resnet18", {"torchvision", "timm", "Detectron2"}),
        ("resnet50", {"torchvision", "timm", "Detectron2"}),
        ("mobilenet_v3_large", {"torchvision"}),
        ("shufflenet_v2_x1_0", {"torchvision"}),
        ("timm:convnext_atto", {"timm"}),
    ],
)
def test_it_shows_one_line_for_each_library_that_can(
    card: Callable[..., str], student: str, libraries: set[str]
) -> None:
    blocks = _blocks(card(student=student))
    assert set(blocks) == libraries
    for code in blocks.values():
        assert len([line for line in code.splitlines() if "backbone" in line]) == 1


_QUICK_LINES = ["resnet18 torchvision", "mobilenet_v3_large torchvision", "resnet18 timm", "timm:convnext_atto timm"]


@pytest.mark.parametrize(
    "line",
    slow_but(
        _QUICK_LINES,
        [
            *(f"{name} torchvision" for name in STUDENTS),
            *(f"{name} timm" for name in ("resnet18", "resnet34", "resnet50")),
            *(f"timm:{name} timm" for name in ("test_resnet", "convnext_atto", "mobilenetv3_small_050")),
        ],
    ),
)
def test_its_line_gives_the_students_features(
    card: Callable[..., str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, library = line.split()
    backbone = build_student(student)
    backbone(torch.randn(4, 3, 64, 64))  # so that the running statistics are not the initial ones
    export_backbone(backbone, tmp_path / "backbone.safetensors", {})
    model = _run(_blocks(card(student=student))[library], tmp_path, monkeypatch)
    images = torch.randn(2, 3, 64, 96)
    maps, seen = backbone.eval()(images), model(images)
    seen = seen[-1] if isinstance(seen, list) else seen
    torch.testing.assert_close(seen, maps if seen.ndim == 4 else maps.mean(dim=(2, 3)))


@pytest.mark.parametrize("library", ["torchvision", "timm"])
@pytest.mark.parametrize("change", ["missing", "left over"])
def test_its_line_refuses_a_file_that_does_not_match(
    card: Callable[..., str], library: str, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors: dict[str, Tensor] = build_student("resnet18").state_dict()
    if change == "missing":
        del tensors["layer4.1.bn2.weight"]
    else:
        tensors["fc.weight"] = torch.zeros(10, 512)
    holder = nn.Module()
    holder.state_dict = lambda: tensors  # type: ignore[assignment,method-assign]
    export_backbone(holder, tmp_path / "backbone.safetensors", {})
    with pytest.raises(RuntimeError, match=r"layer4\.1\.bn2\.weight|fc\.weight"):
        _run(_blocks(card())[library], tmp_path, monkeypatch)
