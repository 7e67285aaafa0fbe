"""The training loop, in this process."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from eval.data import Split, read_data_set
from eval.detectron.data import register_split
from eval.detectron.train import build_detector, train_detector
from eval.finetune_settings import FinetuneSettings
from pcd.errors import PCDError
from pcd.stage import Spec, Stopped, read_spec

Train = Callable[..., Any]


@pytest.fixture(scope="module")
def train(
    new_config: Callable[..., Any], new_spec: Callable[..., Path], settings: FinetuneSettings, train_name: str
) -> Train:
    """Train a fresh detector in a folder with settings that differ from the smoke profile's; returns it."""

    def run(out: Path, stop: bool = False, images: str = train_name, masks: str = "bitmask", **changes: Any) -> Any:
        changed = FinetuneSettings.model_validate(settings.model_dump() | {"iterations": 3} | changes)
        spec: Spec = read_spec(new_spec(out, {"finetune": changed.model_dump(mode="json")}))
        spec.stop_requested = stop
        cfg = new_config(**changes)
        cfg.INPUT.MASK_FORMAT = masks
        torch.manual_seed(0)
        detector = build_detector(cfg, changed)
        train_detector(cfg, detector, changed, images, 0, spec)
        return detector

    return run


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="module")
def trained(train: Train, out: Path) -> Any:
    """The detector after three steps in `out`."""
    return train(out)


def metrics_of(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_every_step_is_recorded_with_its_losses(trained: Any, out: Path) -> None:
    lines = metrics_of(out)
    assert [line["step"] for line in lines] == [1, 2, 3]
    parts = ("loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc")
    assert lines[0]["loss"] == pytest.approx(sum(lines[0][part] for part in parts), rel=1e-5)


def test_every_parameter_of_the_backbone_moves(
    trained: Any, new_config: Callable[..., Any], new_detector: Callable[..., Any]
) -> None:
    before = new_detector(new_config(), seed=0).backbone.bottom_up.state_dict()
    after = trained.backbone.bottom_up.named_parameters()
    assert [name for name, parameter in after if torch.equal(parameter, before[name])] == []


def test_the_statistics_of_every_normalisation_of_the_backbone_move(trained: Any) -> None:
    state = trained.backbone.bottom_up.state_dict()
    assert {int(tensor) for name, tensor in state.items() if name.endswith("num_batches_tracked")} == {3}


@pytest.mark.slow
def test_the_learning_rate_warms_up_and_falls(train: Train, tmp_path: Path) -> None:
    train(tmp_path, iterations=4, warmup_iterations=2, learning_rate=0.001)
    assert [line["learning_rate"] for line in metrics_of(tmp_path)] == pytest.approx([1e-6, 0.0005005, 0.001, 0.0005])


def test_a_request_to_stop_is_followed_behind_a_checkpoint(train: Train, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(tmp_path, stop=True)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_stopped_and_resumed_training_has_the_losses_of_an_undisturbed_one(
    train: Train, tmp_path: Path, optimizer: str
) -> None:
    train(tmp_path / "whole", optimizer=optimizer)
    with pytest.raises(Stopped):
        train(tmp_path / "parts", stop=True, optimizer=optimizer)
    train(tmp_path / "parts", optimizer=optimizer)
    losses = [[line["loss"] for line in metrics_of(tmp_path / name)] for name in ("whole", "parts")]
    assert losses[1] == losses[0]


def test_a_checkpoint_of_other_settings_is_refused(train: Train, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(tmp_path, stop=True, learning_rate=0.001)
    with pytest.raises(PCDError, match=r"\(finetune\.learning_rate: 0\.001 then, 0\.002 now\)"):
        train(tmp_path, learning_rate=0.002)


def test_a_diverging_training_ends_with_what_to_do(train: Train, tmp_path: Path) -> None:
    with pytest.raises(PCDError, match="learning_rate"):
        train(tmp_path, iterations=6, warmup_iterations=0, learning_rate=1e25, clip_gradient_norm=0)


def test_masks_that_are_polygons_are_trained_on_as_such(train: Train, shapes_set: Path, tmp_path: Path) -> None:
    split = read_data_set(shapes_set).train
    coco = json.loads(split.annotations.read_text())
    for one in coco["annotations"]:
        x, y, width, height = one["bbox"]
        one["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    (tmp_path / "train.json").write_text(json.dumps(coco))
    images = register_split(Split(split.images, tmp_path / "train.json"))
    train(tmp_path, iterations=2, warmup_iterations=1, images=images, masks="polygon")
    assert all(0 < line["loss_mask"] < 100 for line in metrics_of(tmp_path))


def test_bf16_trains_with_finite_losses(train: Train, tmp_path: Path) -> None:
    train(tmp_path, iterations=2, warmup_iterations=1, precision="bf16")
    assert all(0 < line["loss"] < 100 for line in metrics_of(tmp_path))
