"""What a machine decides changes nothing: workers, number format, compiler, watching, ranks and machines."""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pcd.export import load_backbone
from pcd.stage import Spec
from pcd.students import build_student
from pcd.train import pretrain
from tests.patience import PATIENCE
from tests.pcd.training_runs import Finished, backbones_equal, losses, metrics, tiny_settings

# For runs that round otherwise and are held against one another: with the tiny run's small maps and high rate,
# BatchNorm over few values amplifies fp32's rounding by 1e5; with larger maps and a lower rate it stays below 1e-5.
CALM: dict[str, Any] = {
    "epochs": 1,
    "views": {"size": 64},
    "loss": {"negatives": 60},
    "optimizer": {"learning_rate": 0.1, "warmup_epochs": 0},
}


def test_workers_do_not_change_the_backbone(finished: Finished, pretraining: Callable[..., Spec]) -> None:
    spec = pretraining(runtime={"workers": 2})
    pretrain(spec)
    assert backbones_equal(finished[0], spec.out)


def test_bf16_trains_to_a_finite_loss(pretraining: Callable[..., Spec]) -> None:
    spec = pretraining(precision="bf16", epochs=1, optimizer={"warmup_epochs": 0})
    assert pretrain(spec)["precision"] == "bfloat16"
    assert all(line["loss"] == pytest.approx(4.5, abs=2) for line in metrics(spec.out))


@pytest.mark.slow
def test_fp16_trains_with_a_scaled_loss(pretraining: Callable[..., Spec]) -> None:
    spec = pretraining(precision="fp16", epochs=1, optimizer={"warmup_epochs": 0})
    assert pretrain(spec)["precision"] == "float16"
    assert all(loss == pytest.approx(4.5, abs=2) for loss in losses(spec.out))
    assert all(torch.isfinite(tensor).all() for tensor in load_backbone(spec.out / "backbone.safetensors").values())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_student_trains_to_the_same_loss(
    command: Callable[..., list[str]],
    write_spec: Callable[..., Path],
    inputs: dict[str, Path],
    stage_environment: dict[str, str],
    tmp_path: Path,
    pretraining: Callable[..., Spec],
) -> None:
    whole = pretraining("whole", **CALM)
    pretrain(whole)
    spec = write_spec(tiny_settings(**CALM), inputs, compile=True)
    subprocess.run(
        [sys.executable, "-m", "pcd.train", str(spec)],
        env=stage_environment,
        cwd=tmp_path,
        check=True,
        timeout=PATIENCE,
    )
    assert losses(tmp_path / "out") == pytest.approx(losses(whole.out), abs=1e-4)


@pytest.mark.slow
def test_nearest_neighbours_are_watched_without_changing_the_run(
    pretraining: Callable[..., Spec], finished: Finished, image_pool: Path, tmp_path: Path
) -> None:
    for i, path in enumerate(sorted(image_pool.iterdir())):
        (tmp_path / "labelled" / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "labelled" / f"class{i % 2}")
    spec = pretraining(runtime={"knn_folder": str(tmp_path / "labelled"), "knn_epochs": 1})
    pretrain(spec)
    watched = {line["step"]: line["knn_top1"] for line in metrics(spec.out) if "knn_top1" in line}
    assert list(watched) == [3, 6]
    assert all(0 <= top1 <= 100 for top1 in watched.values())
    assert backbones_equal(finished[0], spec.out)


@pytest.mark.slow
def test_two_ranks_write_one_run(
    command: Callable[..., list[str]], stage_environment: dict[str, str], tmp_path: Path
) -> None:
    subprocess.run(command(processes=2), env=stage_environment, cwd=tmp_path, check=True, timeout=PATIENCE)
    assert [line["step"] for line in metrics(tmp_path / "out")] == list(range(1, 7))
    assert json.loads((tmp_path / "out" / "result.json").read_text())["steps"] == 6
    assert load_backbone(tmp_path / "out" / "backbone.safetensors")


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
    settings = CALM | {"loss": CALM["loss"] | {"pairing": pairing}, "accumulation": accumulation}
    whole = pretraining("whole", **settings)
    pretrain(whole)
    subprocess.run(command(processes=2, **settings), env=stage_environment, cwd=tmp_path, check=True, timeout=PATIENCE)
    assert len(losses(whole.out)) == 3
    assert losses(tmp_path / "out") == pytest.approx(losses(whole.out), abs=1e-4)
    one, two = (load_backbone(out / "backbone.safetensors") for out in (whole.out, tmp_path / "out"))
    torch.manual_seed(0)
    start = build_student("resnet18").state_dict()
    for name in (name for name in one if "running" in name):
        torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    # LARS moves a convolution by 1e-6 in these steps: weights are held against the way that they have come.
    weights = [name for name in one if name.endswith(("weight", "bias"))]
    strayed = {name: ((two[name] - one[name]).norm() / (one[name] - start[name]).norm()).item() for name in weights}
    assert {name: share for name, share in strayed.items() if share > 0.1} == {}


@pytest.mark.slow
def test_two_machines_make_one_run(
    command: Callable[..., list[str]],
    pretraining: Callable[..., Spec],
    stage_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    whole = pretraining("whole", **CALM)
    pretrain(whole)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meeting = f"127.0.0.1:{probe.getsockname()[1]}"
    python, *stage = command(**CALM)
    ranks = ["-m", "torch.distributed.run", "--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint={meeting}"]
    agents = [
        subprocess.Popen([python, *ranks, "--rdzv-id=test", "--nproc-per-node=1", *stage], env=stage_environment)
        for _ in range(2)
    ]
    assert [agent.wait(PATIENCE) for agent in agents] == [0, 0]
    assert [line["step"] for line in metrics(tmp_path / "out")] == [1, 2, 3]
    assert losses(tmp_path / "out") == pytest.approx(losses(whole.out), abs=1e-4)


@pytest.mark.slow
def test_batch_that_does_not_divide_among_the_ranks_is_the_users_error(
    command: Callable[..., list[str]], stage_environment: dict[str, str], tmp_path: Path
) -> None:
    finished = subprocess.run(
        command(processes=2, global_batch=9), env=stage_environment, cwd=tmp_path, check=False, timeout=PATIENCE
    )
    assert finished.returncode != 0
    assert (tmp_path / "out" / "error.txt").read_text() == (
        "a global batch of 9 does not divide among 2 processes; choose a multiple"
    )


@pytest.mark.slow
def test_labelled_image_that_cannot_be_read_costs_the_figure_and_not_the_run(
    pretraining: Callable[..., Spec], image_pool: Path, tmp_path: Path, finished: Finished
) -> None:
    for i, path in enumerate(sorted(image_pool.iterdir())):
        (tmp_path / "labelled" / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "labelled" / f"class{i % 2}" / path.name).write_bytes(b"damaged")
    spec = pretraining(runtime={"knn_folder": str(tmp_path / "labelled")})
    pretrain(spec)
    assert all("knn_top1" not in line for line in metrics(spec.out))
    assert backbones_equal(finished[0], spec.out)
