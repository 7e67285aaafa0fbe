"""A whole run in this process, and what stops one."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pcd.errors import PCDError
from pcd.export import load_backbone
from pcd.finite_guard import NotFiniteError
from pcd.stage import EXIT_USER_ERROR, Spec
from pcd.students import build_student
from pcd.train import pretrain
from tests.patience import PATIENCE
from tests.pcd.slow_parameters import WORKER_THAT_RAISES, slow_but
from tests.pcd.training_runs import Finished, backbones_equal, metrics


@pytest.mark.parametrize(
    ("key", "expected"),
    {
        "steps": 6,
        "images": 24,
        "unreadable_images": 0,
        "precision": "float32",
        "teacher_licence": "Apache-2.0",
        "teacher_noncommercial": False,
    }.items(),
)
def test_run_reports(finished: Finished, key: str, expected: object) -> None:
    assert finished[1][key] == expected


def test_a_queue_that_is_random_for_much_of_the_training_is_warned_of(finished: Finished) -> None:
    (warning,) = finished[1]["warnings"]
    assert re.search(r"queue of \d+ negatives .* of 6; until then random vectors stand in it", warning)


def test_run_logs_every_step_once(finished: Finished) -> None:
    assert [(line["step"], line["total"]) for line in metrics(finished[0])] == [(step, 6) for step in range(1, 7)]


def test_run_follows_the_schedule_scaled_by_the_global_batch(finished: Finished) -> None:
    # The peak is 8/256. Three steps of warm-up in thirds, then 1, 3/4 and 1/4 of it along the cosine.
    assert [256 / 8 * line["learning_rate"] for line in metrics(finished[0])] == pytest.approx(
        [1 / 3, 2 / 3, 1, 1, 3 / 4, 1 / 4]
    )


def test_run_leaves_the_backbone_what_explains_it_and_its_metrics(finished: Finished) -> None:
    names = {path.name for path in finished[0].iterdir()}
    gone_with_the_result = {name for name in names if name.startswith("checkpoint")} | {"activity.json"}
    assert names - gone_with_the_result == {
        *("backbone.safetensors", "backbone_detectron2.pth", "MODEL_CARD.md"),
        *("receptive_field.json", "receptive_field.png", "metrics.jsonl"),
        *("similarity_maps.json", "similarity_maps.png"),
    }


def test_the_card_has_the_last_loss_and_the_receptive_field(finished: Finished) -> None:
    card = (finished[0] / "MODEL_CARD.md").read_text()
    sides = json.loads((finished[0] / "receptive_field.json").read_text())
    assert f"| final loss | {metrics(finished[0])[-1]['loss']:.4g} |" in card
    assert f"| receptive field/with attention, 95% | {sides['with_attention']['side_95'] / 64:.4g} |" in card


@pytest.mark.parametrize(
    "student", slow_but(("timm:test_resnet",), ["mobilenet_v3_large", "shufflenet_v2_x1_0", "timm:test_resnet"])
)
def test_another_student_is_trained_and_exported(pretraining: Callable[..., Spec], student: str) -> None:
    spec = pretraining(student=student, epochs=1, optimizer={"warmup_epochs": 0})
    assert pretrain(spec)["steps"] == 3
    assert load_backbone(spec.out / "backbone.safetensors").keys() == build_student(student).state_dict().keys()
    assert not (spec.out / "backbone_detectron2.pth").exists()


def test_backbone_is_finite(finished: Finished) -> None:
    tensors = load_backbone(finished[0] / "backbone.safetensors")
    assert [name for name, tensor in tensors.items() if not tensor.isfinite().all()] == []


def test_backbone_is_not_the_one_it_started_from(finished: Finished) -> None:
    torch.manual_seed(0)
    start, end = build_student("resnet18").state_dict(), load_backbone(finished[0] / "backbone.safetensors")
    assert [name for name, tensor in end.items() if torch.equal(tensor, start[name])] == []


def test_run_logs_at_its_interval_and_at_the_end(pretraining: Callable[..., Spec]) -> None:
    spec = pretraining(runtime={"log_every": 2}, epochs=1, optimizer={"warmup_epochs": 0})
    pretrain(spec)
    assert [line["step"] for line in metrics(spec.out)] == [2, 3]


def test_pool_smaller_than_one_batch_is_the_users_error(pretraining: Callable[..., Spec]) -> None:
    with pytest.raises(PCDError, match="24 images, fewer than one global batch of 25"):
        pretrain(pretraining(global_batch=25))


def test_training_of_no_step_is_the_users_error(pretraining: Callable[..., Spec]) -> None:
    with pytest.raises(PCDError):
        pretrain(pretraining(epochs=0.1, optimizer={"warmup_epochs": 0}))


def test_attention_heads_that_do_not_split_the_channels_are_the_users_error(pretraining: Callable[..., Spec]) -> None:
    with pytest.raises(PCDError, match="heads"):
        pretrain(pretraining(attention_heads=7))


def test_unknown_student_is_the_users_error(pretraining: Callable[..., Spec]) -> None:
    with pytest.raises(PCDError, match='unknown student "timm:resnet81"'):
        pretrain(pretraining(student="timm:resnet81"))


@pytest.fixture
def pool_with_a_corrupt_image(image_pool: Path, tmp_path: Path) -> Path:
    """A data stage's folder."""
    shutil.copytree(image_pool, tmp_path / "pool")
    (tmp_path / "pool" / "00.png").write_bytes(b"damaged")
    (tmp_path / "data.json").write_text(json.dumps({"pool": "pool"}))
    return tmp_path


@pytest.mark.parametrize("workers", [0, WORKER_THAT_RAISES])
def test_too_many_corrupt_images_are_the_users_error_in_one_line(
    pretraining: Callable[..., Spec], pool_with_a_corrupt_image: Path, workers: int
) -> None:
    spec = pretraining(runtime={"workers": workers}, global_batch=24)
    spec.inputs["data"] = pool_with_a_corrupt_image
    with pytest.raises(PCDError) as caught:
        pretrain(spec)
    assert re.fullmatch(r"cannot read 1 of 24 images, the latest .*00\.png; mend the pool .*", str(caught.value))


def test_few_corrupt_images_are_named_and_counted(
    pretraining: Callable[..., Spec], pool_with_a_corrupt_image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = pretraining(runtime={"max_unreadable_share": 0.05})
    spec.inputs["data"] = pool_with_a_corrupt_image
    assert pretrain(spec)["unreadable_images"] == 1
    assert capsys.readouterr().out.count("00.png") == 1


def test_another_seed_gives_another_backbone(finished: Finished, pretraining: Callable[..., Spec]) -> None:
    spec = pretraining()
    spec.settings["seed"] = 1
    pretrain(spec)
    assert not backbones_equal(finished[0], spec.out)


@pytest.mark.slow
def test_process_with_too_small_a_pool_exits_with_2_and_one_line(
    command: Callable[..., list[str]], stage_environment: dict[str, str], tmp_path: Path
) -> None:
    large = command(global_batch=100, loss={"negatives": 128})
    finished = subprocess.run(large, env=stage_environment, cwd=tmp_path, check=False, timeout=PATIENCE)
    assert finished.returncode == EXIT_USER_ERROR
    assert (tmp_path / "out" / "error.txt").read_text().splitlines() == [
        "the pool has 24 images, fewer than one global batch of 100; lower pretrain.global_batch or add images"
    ]


# ---- a step that is not finite


@pytest.fixture
def diverging(pretraining: Callable[..., Spec]) -> Callable[[], Spec]:
    """A rate under which the second step is not finite."""

    def make() -> Spec:
        return pretraining(optimizer={"name": "adamw", "learning_rate": 1e30, "warmup_epochs": 0}, epochs=1)

    return make


def test_step_that_is_not_finite_is_captured_before_it_reaches_the_weights(diverging: Callable[[], Spec]) -> None:
    spec = diverging()
    with pytest.raises(NotFiniteError, match=r"not finite at step 1; `pcd replay .*nonfinite-step1-rank0\.pt`"):
        pretrain(spec)
    captured = torch.load(spec.out / "nonfinite-step1-rank0.pt", weights_only=True)
    assert captured["step"] == 1
    weights = {name: tensor for name, tensor in captured["student"].items() if "running" not in name}
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_step_that_is_not_finite_again_is_the_users_error(diverging: Callable[[], Spec]) -> None:
    with pytest.raises(NotFiniteError):
        pretrain(diverging())
    with pytest.raises(PCDError, match=r"lower optimizer\.learning_rate"):
        pretrain(diverging())


def test_pool_that_changed_since_the_data_stage_is_the_users_error(
    pretraining: Callable[..., Spec], image_pool: Path, tmp_path: Path
) -> None:
    (tmp_path / "data.json").write_text(json.dumps({"pool": str(image_pool), "counts": {"pool": 25}}))
    spec = pretraining()
    spec.inputs["data"] = tmp_path
    with pytest.raises(PCDError, match="the pool has 24 images now and had 25"):
        pretrain(spec)
