"""Runs that are interrupted, killed or stopped, and the checkpoints that they go on from."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pcd.errors import PCDError
from pcd.stage import EXIT_STOPPED, Spec
from pcd.train import pretrain
from tests.patience import PATIENCE
from tests.pcd.training_runs import Finished, StopsBehind, backbones_equal, interrupt, metrics, tiny_settings, tiny_spec


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory, inputs: dict[str, Path]) -> Finished:
    """The same run, interrupted twice, between epochs and within one."""
    spec = tiny_spec(tmp_path_factory.mktemp("resumed"), inputs)
    interrupt(spec, step=3)
    interrupt(spec, step=4)
    return spec.out, pretrain(spec)


def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(finished: Finished, resumed: Finished) -> None:
    assert backbones_equal(finished[0], resumed[0])


def test_resumed_run_reports_the_first_samples_of_the_uninterrupted_one(finished: Finished, resumed: Finished) -> None:
    assert resumed[1]["first_samples_sha256"] == finished[1]["first_samples_sha256"]


def test_resumed_run_logs_the_losses_of_the_uninterrupted_one(finished: Finished, resumed: Finished) -> None:
    losses = [[(line["step"], line["loss"]) for line in metrics(out)] for out, _ in (finished, resumed)]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_resumed_run_with_adamw_equals_the_uninterrupted_one_bit_for_bit(pretraining: Callable[..., Spec]) -> None:
    whole, broken = (pretraining(name, optimizer={"name": "adamw", "warmup_epochs": 1}) for name in ("whole", "broken"))
    pretrain(whole)
    interrupt(broken, step=4)
    pretrain(broken)
    assert backbones_equal(whole.out, broken.out)


@pytest.mark.slow
def test_resumed_fp16_run_equals_the_uninterrupted_one_bit_for_bit(pretraining: Callable[..., Spec]) -> None:
    whole, broken = (pretraining(name, precision="fp16") for name in ("whole", "broken"))
    pretrain(whole)
    interrupt(broken, step=4)
    pretrain(broken)
    assert backbones_equal(whole.out, broken.out)


def test_run_that_is_asked_to_stop_behind_its_last_step_is_done(pretraining: Callable[..., Spec]) -> None:
    spec = pretraining(epochs=1, optimizer={"warmup_epochs": 0})
    spec.metrics = StopsBehind(spec, 3)
    assert pretrain(spec)["steps"] == 3


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
        deadline = time.monotonic() + PATIENCE
        while not (out / "metrics.jsonl").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == EXIT_STOPPED
    assert not (out / "result.json").exists()
    subprocess.run(command(**long), env=stage_environment, cwd=tmp_path, check=True, timeout=PATIENCE)
    assert json.loads((out / "result.json").read_text())["steps"] == 30
    assert [line["step"] for line in metrics(out)] == list(range(1, 31))
    assert backbones_equal(whole.out, out)


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
    spec = write_spec(tiny_settings(**long), inputs, checkpoint_seconds=0)
    command = [sys.executable, "-m", "pcd.train", str(spec)]
    for steps in (2, 11):  # within an epoch both times
        with subprocess.Popen(command, env=stage_environment, cwd=tmp_path) as process:
            deadline = time.monotonic() + PATIENCE
            while not (out / "metrics.jsonl").exists() or len(_whole_lines(out)) < steps:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            process.kill()
    subprocess.run(command, env=stage_environment, cwd=tmp_path, check=True, timeout=PATIENCE)
    assert [line["step"] for line in metrics(out)] == list(range(1, 31))
    assert backbones_equal(whole.out, out)


def _whole_lines(out: Path) -> list[str]:
    return (out / "metrics.jsonl").read_text().split("\n")[:-1]


@pytest.mark.parametrize("steps", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_checkpoints_are_written_every_so_many_steps(pretraining: Callable[..., Spec], steps: int) -> None:
    spec = pretraining(runtime={"checkpoint_steps": steps, "keep_checkpoints": 9})
    interrupt(spec, step=5)
    saved = sorted(torch.load(path, weights_only=True)["step"] for path in spec.out.glob("checkpoint*.pt"))
    assert saved == sorted({*range(steps, 6, steps), 5})


def test_checkpoint_of_other_settings_is_refused_by_the_setting_that_differs(
    pretraining: Callable[..., Spec],
) -> None:
    interrupt(pretraining(), step=2)
    with pytest.raises(PCDError, match=r"pretrain\.loss\.temperature: absent then, 0\.1 now"):
        pretrain(pretraining(loss={"negatives": 60, "temperature": 0.1}))


def test_damaged_checkpoint_is_the_users_error(pretraining: Callable[..., Spec]) -> None:
    spec = pretraining()
    (spec.out / "checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(PCDError, match=r"checkpoint\.pt is damaged"):
        pretrain(spec)


def test_damaged_newest_checkpoint_costs_only_the_steps_since_the_one_before(
    pretraining: Callable[..., Spec], finished: Finished
) -> None:
    spec = pretraining(runtime={"checkpoint_steps": 1})
    interrupt(spec, step=4)
    (spec.out / "checkpoint.pt").write_bytes(b"damaged")
    pretrain(spec)
    assert backbones_equal(finished[0], spec.out)


def test_a_fault_in_the_export_costs_no_training(pretraining: Callable[..., Spec], finished: Finished) -> None:
    spec = pretraining()
    (spec.out / "receptive_field.json").mkdir()
    with pytest.raises(OSError):
        pretrain(spec)
    (spec.out / "receptive_field.json").rmdir()
    before = metrics(spec.out)
    pretrain(spec)
    assert metrics(spec.out) == before  # times included: no step was taken again
    assert backbones_equal(finished[0], spec.out)


def test_damaged_images_met_before_an_interruption_are_judged_as_without_it(
    pretraining: Callable[..., Spec], image_pool: Path, tmp_path: Path
) -> None:
    good = sorted(image_pool.iterdir())
    (tmp_path / "pool").mkdir()
    for i in range(64):
        data = b"damaged" if i % 4 == 1 else good[i % len(good)].read_bytes()
        (tmp_path / "pool" / f"{i:02}.png").write_bytes(data)
    (tmp_path / "data.json").write_text(json.dumps({"pool": "pool"}))
    spec = pretraining(epochs=1, optimizer={"warmup_epochs": 0}, runtime={"max_unreadable_share": 0.3})
    spec.inputs["data"] = tmp_path
    interrupt(spec, step=6)
    before = torch.load(spec.out / "checkpoint.pt", weights_only=True)["notes"]["unreadable"]
    assert 10 <= len(before) < 16
    assert pretrain(spec)["unreadable_images"] == 16


def test_checkpoint_of_another_number_format_is_refused(pretraining: Callable[..., Spec]) -> None:
    spec = pretraining(precision="auto")
    interrupt(spec, step=2)
    saved = torch.load(spec.out / "checkpoint.pt", weights_only=True)
    saved["notes"]["precision"] = "torch.float16"
    torch.save(saved, spec.out / "checkpoint.pt")
    with pytest.raises(PCDError, match=r"was computed in torch\.float16, and this machine would go on in"):
        pretrain(spec)
