import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from pcd.errors import PCDError
from pcd.export import load_backbone
from pcd.finite_guard import NotFiniteError
from pcd.settings import StageRuntime
from pcd.stage import EXIT_STOPPED, EXIT_USER_ERROR, Metrics, Spec, Stopped
from pcd.students import build_student
from pcd.train import pretrain

TINY: dict[str, Any] = {
    "epochs": 2,
    "global_batch": 8,
    "precision": "fp32",
    "views": {"size": 32},
    "loss": {"negatives": 60},  # no multiple of the batch
    "optimizer": {"warmup_epochs": 1},
}
"""Two epochs of three steps over the 24 images of the pool."""


@pytest.fixture
def inputs(teacher_folder: Path, data_folder: Path) -> dict[str, Path]:
    return {"teacher": teacher_folder, "data": data_folder}


def _settings(**pretraining: Any) -> dict[str, Any]:
    return {"pretrain": TINY | pretraining, "teacher": "demo", "seed": 0}


@pytest.fixture
def pretraining(make_spec: Callable[..., Spec], inputs: dict[str, Path]) -> Callable[..., Spec]:
    """The spec of a tiny run; keywords are settings that differ."""

    def make(name: str = "out", runtime: Mapping[str, Any] | None = None, **settings: Any) -> Spec:
        return make_spec(_settings(**settings), inputs, name, **(runtime or {}))

    return make


def _metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


# ---- a whole run in this process


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, teacher_folder: Path, data_folder: Path
) -> tuple[Path, dict[str, Any]]:
    """Where a run with the tiny settings went, and what it returned."""
    spec = _tiny_spec(tmp_path_factory.mktemp("finished"), teacher_folder, data_folder)
    return spec.out, pretrain(spec)


Finished = tuple[Path, dict[str, Any]]


def _tiny_spec(out: Path, teacher: Path, data: Path) -> Spec:
    return Spec(
        stage="pretrain",
        title="pretrain",
        settings=_settings(),
        inputs={"teacher": teacher, "data": data},
        out=out,
        runtime=StageRuntime(device="cpu", threads=1, workers=0, log_every=1, checkpoint_seconds=0).model_dump(),
        metrics=Metrics(out / "metrics.jsonl"),
    )


@pytest.mark.parametrize(
    ("key", "expected"),
    {
        "steps": 6,
        "images": 24,
        "precision": "float32",
        "teacher_licence": "Apache-2.0",
        "teacher_noncommercial": False,
    }.items(),
)
def test_run_reports(finished: Finished, key: str, expected: object) -> None:
    assert finished[1][key] == expected


def test_run_logs_every_step_once(finished: Finished) -> None:
    assert [(line["step"], line["total"]) for line in _metrics(finished[0])] == [(step, 6) for step in range(1, 7)]


def test_run_follows_the_schedule_scaled_by_the_global_batch(finished: Finished) -> None:
    # The peak is 8/256. Three steps of warm-up in thirds, then 1, 3/4 and 1/4 of it along the cosine.
    assert [256 / 8 * line["learning_rate"] for line in _metrics(finished[0])] == pytest.approx(
        [1 / 3, 2 / 3, 1, 1, 3 / 4, 1 / 4]
    )


def test_run_leaves_the_backbone_and_its_metrics(finished: Finished) -> None:
    assert {path.name for path in finished[0].iterdir()} >= {"backbone.safetensors", "metrics.jsonl"}


def test_backbone_is_finite(finished: Finished) -> None:
    tensors = load_backbone(finished[0] / "backbone.safetensors")
    assert [name for name, tensor in tensors.items() if not tensor.isfinite().all()] == []


def test_backbone_is_not_the_one_it_started_from(finished: Finished) -> None:
    torch.manual_seed(0)
    start, end = build_student("resnet18").state_dict(), load_backbone(finished[0] / "backbone.safetensors")
    assert [name for name, tensor in end.items() if torch.equal(tensor, start[name])] == []


def test_run_logs_at_its_interval_and_at_the_end(pretraining: Callable[..., Spec]) -> None:
    spec = pretraining(runtime={"log_every": 4})
    pretrain(spec)
    assert [line["step"] for line in _metrics(spec.out)] == [4, 6]


def test_bf16_trains_to_a_finite_loss(pretraining: Callable[..., Spec]) -> None:
    spec = pretraining(precision="bf16", epochs=1, optimizer={"warmup_epochs": 0})
    assert pretrain(spec)["precision"] == "bfloat16"
    assert all(line["loss"] == pytest.approx(4.5, abs=2) for line in _metrics(spec.out))


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
    with pytest.raises(ValidationError, match='unknown student "resnet81"'):
        pretrain(pretraining(student="resnet81"))


def test_damaged_checkpoint_is_the_users_error(pretraining: Callable[..., Spec]) -> None:
    spec = pretraining()
    (spec.out / "checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(PCDError, match=r"checkpoint\.pt is damaged"):
        pretrain(spec)


@pytest.fixture
def damaged_pool(image_pool: Path, tmp_path: Path) -> Path:
    """A data stage's folder whose pool has one image of 24 that cannot be read."""
    folder = tmp_path / "damaged"
    shutil.copytree(image_pool, folder / "pool")
    (folder / "pool" / "05.png").write_bytes(b"damaged")
    (folder / "data.json").write_text(json.dumps({"pool": "pool"}))
    return folder


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_image_is_skipped_counted_and_named(
    pretraining: Callable[..., Spec], damaged_pool: Path, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    spec = pretraining(runtime={"workers": workers}, max_unreadable_share=0.1)
    spec.inputs["data"] = damaged_pool
    assert pretrain(spec)["unreadable_images"] == 1
    assert capsys.readouterr().out.count("05.png") == 1


def test_too_many_damaged_images_are_the_users_error_in_one_line(
    pretraining: Callable[..., Spec], damaged_pool: Path
) -> None:
    spec = pretraining(max_unreadable_share=0.01)
    spec.inputs["data"] = damaged_pool
    with pytest.raises(PCDError, match=r"05\.png") as caught:
        pretrain(spec)
    assert "\n" not in str(caught.value)


class _StopsBehind(Metrics):
    """Asks the run to stop when a step is done, as a signal would."""

    def __init__(self, spec: Spec, step: int) -> None:
        super().__init__(spec.metrics.path)
        self.spec, self.step = spec, step

    def log(self, step: int, total: int, values: Mapping[str, float] | None = None) -> None:
        super().log(step, total, values)
        self.spec.stop_requested = step == self.step


def _interrupt(spec: Spec, step: int) -> None:
    spec.metrics = _StopsBehind(spec, step)
    with pytest.raises(Stopped):
        pretrain(spec)
    spec.metrics, spec.stop_requested = Metrics(spec.metrics.path), False


def _backbones_equal(first: Path, second: Path) -> bool:
    one, other = (load_backbone(out / "backbone.safetensors") for out in (first, second))
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory, teacher_folder: Path, data_folder: Path) -> Path:
    """Where the same run went that was interrupted twice, between epochs and within one."""
    spec = _tiny_spec(tmp_path_factory.mktemp("resumed"), teacher_folder, data_folder)
    _interrupt(spec, step=3)
    _interrupt(spec, step=4)
    pretrain(spec)
    return spec.out


def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(finished: Finished, resumed: Path) -> None:
    assert _backbones_equal(finished[0], resumed)


def test_resumed_run_logs_the_losses_of_the_uninterrupted_one(finished: Finished, resumed: Path) -> None:
    losses = [[(line["step"], line["loss"]) for line in _metrics(out)] for out in (finished[0], resumed)]
    assert losses[0] == losses[1]


def test_workers_do_not_change_the_backbone(finished: Finished, pretraining: Callable[..., Spec]) -> None:
    spec = pretraining(runtime={"workers": 2})
    pretrain(spec)
    assert _backbones_equal(finished[0], spec.out)


def test_another_seed_gives_another_backbone(finished: Finished, pretraining: Callable[..., Spec]) -> None:
    spec = pretraining()
    spec.settings["seed"] = 1
    pretrain(spec)
    assert not _backbones_equal(finished[0], spec.out)


def test_run_that_is_asked_to_stop_behind_its_last_step_is_done(pretraining: Callable[..., Spec]) -> None:
    spec = pretraining(epochs=1, optimizer={"warmup_epochs": 0})
    spec.metrics = _StopsBehind(spec, 3)
    assert pretrain(spec)["steps"] == 3


@pytest.mark.slow
def test_resumed_run_with_adamw_equals_the_uninterrupted_one_bit_for_bit(pretraining: Callable[..., Spec]) -> None:
    whole, broken = (pretraining(name, optimizer={"name": "adamw", "warmup_epochs": 1}) for name in ("whole", "broken"))
    pretrain(whole)
    _interrupt(broken, step=4)
    pretrain(broken)
    assert _backbones_equal(whole.out, broken.out)


# ---- a whole run as a process


@pytest.fixture
def command(write_spec: Callable[..., Path], inputs: dict[str, Path]) -> Callable[..., list[str]]:
    def make(processes: int = 1, **settings: Any) -> list[str]:
        ranks = (
            ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
        )
        return [sys.executable, *ranks, "-m", "pcd.train", str(write_spec(_settings(**settings), inputs))]

    return make


@pytest.mark.slow
def test_process_with_too_small_a_pool_exits_with_2_and_one_line(
    command: Callable[..., list[str]], stage_environment: dict[str, str], tmp_path: Path
) -> None:
    finished = subprocess.run(command(global_batch=100), env=stage_environment, cwd=tmp_path, check=False, timeout=300)
    assert finished.returncode == EXIT_USER_ERROR
    assert (tmp_path / "out" / "error.txt").read_text().splitlines() == [
        "the pool has 24 images, fewer than one global batch of 100; lower pretrain.global_batch or add images"
    ]


@pytest.mark.slow
def test_process_stopped_by_sigterm_goes_on_to_the_uninterrupted_backbone(
    command: Callable[..., list[str]],
    pretraining: Callable[..., Spec],
    stage_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    long = {"epochs": 10}
    whole, out = pretraining("whole", **long), tmp_path / "out"
    pretrain(whole)
    with subprocess.Popen(command(**long), env=stage_environment, cwd=tmp_path) as process:
        deadline = time.monotonic() + 240
        while not (out / "metrics.jsonl").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == EXIT_STOPPED
    assert not (out / "result.json").exists()
    subprocess.run(command(**long), env=stage_environment, cwd=tmp_path, check=True, timeout=300)
    assert json.loads((out / "result.json").read_text())["steps"] == 30
    assert [line["step"] for line in _metrics(out)] == list(range(1, 31))
    assert _backbones_equal(whole.out, out)


@pytest.mark.slow
def test_two_ranks_write_one_run(
    command: Callable[..., list[str]], stage_environment: dict[str, str], tmp_path: Path
) -> None:
    subprocess.run(command(processes=2), env=stage_environment, cwd=tmp_path, check=True, timeout=300)
    assert [line["step"] for line in _metrics(tmp_path / "out")] == list(range(1, 7))
    assert json.loads((tmp_path / "out" / "result.json").read_text())["steps"] == 6
    assert load_backbone(tmp_path / "out" / "backbone.safetensors")


@pytest.mark.slow
def test_batch_that_does_not_divide_among_the_ranks_is_the_users_error(
    command: Callable[..., list[str]], stage_environment: dict[str, str], tmp_path: Path
) -> None:
    finished = subprocess.run(
        command(processes=2, global_batch=9), env=stage_environment, cwd=tmp_path, check=False, timeout=300
    )
    assert finished.returncode != 0
    assert (tmp_path / "out" / "error.txt").read_text() == (
        "a global batch of 9 does not divide among 2 processes; choose a multiple"
    )


# ---- what a machine decides changes nothing


FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}


def _losses(out: Path) -> list[float]:
    return [line["loss"] for line in _metrics(out)]


@pytest.mark.slow
@pytest.mark.parametrize("pairing", ["crossed", "same", "aligned"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_two_ranks_with_half_the_batch_each_are_one_rank_with_the_whole(
    command: Callable[..., list[str]],
    pretraining: Callable[..., Spec],
    stage_environment: dict[str, str],
    tmp_path: Path,
    pairing: str,
    accumulation: int,
) -> None:
    settings: dict[str, Any] = {"epochs": 1, "optimizer": {"warmup_epochs": 0}, "accumulation": accumulation}
    settings["loss"] = {"negatives": 60, "pairing": pairing}
    whole = pretraining("whole", **settings)
    pretrain(whole)
    subprocess.run(command(processes=2, **settings), env=stage_environment, cwd=tmp_path, check=True, timeout=300)
    assert len(_losses(whole.out)) == 3
    assert _losses(tmp_path / "out") == pytest.approx(_losses(whole.out), abs=1e-5)
    one, two = (load_backbone(out / "backbone.safetensors") for out in (whole.out, tmp_path / "out"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], **FLOAT32, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
def test_two_machines_make_one_run(
    command: Callable[..., list[str]], stage_environment: dict[str, str], tmp_path: Path, finished: Finished
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meeting = f"127.0.0.1:{probe.getsockname()[1]}"
    python, *stage = command()
    ranks = ["-m", "torch.distributed.run", "--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint={meeting}"]
    agents = [
        subprocess.Popen([python, *ranks, "--rdzv-id=test", "--nproc-per-node=1", *stage], env=stage_environment)
        for _ in range(2)
    ]
    assert [agent.wait(300) for agent in agents] == [0, 0]
    assert [line["step"] for line in _metrics(tmp_path / "out")] == list(range(1, 7))
    assert _losses(tmp_path / "out") == pytest.approx(_losses(finished[0]), abs=1e-3)


@pytest.mark.slow
def test_killed_process_goes_on_to_the_uninterrupted_backbone(
    pretraining: Callable[..., Spec],
    write_spec: Callable[..., Path],
    inputs: dict[str, Path],
    stage_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    long = {"epochs": 10}
    whole, out = pretraining("whole", **long), tmp_path / "out"
    pretrain(whole)
    spec = write_spec(_settings(**long), inputs, checkpoint_seconds=0)
    command = [sys.executable, "-m", "pcd.train", str(spec)]
    for steps in (2, 11):  # within an epoch both times
        with subprocess.Popen(command, env=stage_environment, cwd=tmp_path) as process:
            deadline = time.monotonic() + 240
            while not (out / "metrics.jsonl").exists() or len(_whole_lines(out)) < steps:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            process.kill()
    subprocess.run(command, env=stage_environment, cwd=tmp_path, check=True, timeout=300)
    assert [line["step"] for line in _metrics(out)] == list(range(1, 31))
    assert _backbones_equal(whole.out, out)


def _whole_lines(out: Path) -> list[str]:
    return (out / "metrics.jsonl").read_text().split("\n")[:-1]


def test_checkpoint_of_other_settings_is_refused_by_the_setting_that_differs(
    pretraining: Callable[..., Spec],
) -> None:
    _interrupt(pretraining(), step=2)
    with pytest.raises(PCDError, match=r"pretrain\.loss\.temperature: absent then, 0\.1 now"):
        pretrain(pretraining(loss={"negatives": 60, "temperature": 0.1}))


def test_damaged_newest_checkpoint_costs_only_the_steps_since_the_one_before(
    pretraining: Callable[..., Spec], finished: Finished
) -> None:
    spec = pretraining(runtime={"checkpoint_steps": 1})
    _interrupt(spec, step=4)
    (spec.out / "checkpoint.pt").write_bytes(b"damaged")
    pretrain(spec)
    assert _backbones_equal(finished[0], spec.out)


@pytest.mark.parametrize("steps", [1, 2])
def test_checkpoints_are_written_every_so_many_steps(pretraining: Callable[..., Spec], steps: int) -> None:
    spec = pretraining(runtime={"checkpoint_steps": steps, "keep_checkpoints": 9})
    _interrupt(spec, step=5)
    saved = sorted(torch.load(path, weights_only=True)["step"] for path in spec.out.glob("checkpoint*.pt"))
    assert saved == sorted({*range(steps, 6, steps), 5})


def test_fp16_trains_with_a_scaled_loss(pretraining: Callable[..., Spec]) -> None:
    spec = pretraining(precision="fp16", epochs=1, optimizer={"warmup_epochs": 0})
    assert pretrain(spec)["precision"] == "float16"
    assert all(loss == pytest.approx(4.5, abs=2) for loss in _losses(spec.out))
    assert all(torch.isfinite(tensor).all() for tensor in load_backbone(spec.out / "backbone.safetensors").values())


@pytest.mark.slow
def test_resumed_fp16_run_equals_the_uninterrupted_one_bit_for_bit(pretraining: Callable[..., Spec]) -> None:
    whole, broken = (pretraining(name, precision="fp16") for name in ("whole", "broken"))
    pretrain(whole)
    _interrupt(broken, step=4)
    pretrain(broken)
    assert _backbones_equal(whole.out, broken.out)


@pytest.mark.slow
def test_nearest_neighbours_are_watched_without_changing_the_run(
    pretraining: Callable[..., Spec], finished: Finished, image_pool: Path, tmp_path: Path
) -> None:
    for i, path in enumerate(sorted(image_pool.iterdir())):
        (tmp_path / "labelled" / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "labelled" / f"class{i % 2}")
    spec = pretraining(runtime={"knn_folder": str(tmp_path / "labelled"), "knn_epochs": 1})
    pretrain(spec)
    watched = {line["step"]: line["knn_top1"] for line in _metrics(spec.out) if "knn_top1" in line}
    assert list(watched) == [3, 6]
    assert all(0 <= top1 <= 100 for top1 in watched.values())
    assert _backbones_equal(finished[0], spec.out)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_student_trains_to_the_same_loss(
    command: Callable[..., list[str]],
    write_spec: Callable[..., Path],
    inputs: dict[str, Path],
    stage_environment: dict[str, str],
    tmp_path: Path,
    finished: Finished,
) -> None:
    spec = write_spec(_settings(), inputs, compile=True)
    subprocess.run(
        [sys.executable, "-m", "pcd.train", str(spec)], env=stage_environment, cwd=tmp_path, check=True, timeout=600
    )
    assert _losses(tmp_path / "out") == pytest.approx(_losses(finished[0]), abs=1e-2)


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
