"""Fine-tuning as the processes that the benchmark starts.

Importing Detectron2 takes longer than the training itself. So the processes, but for one, are forked from a server that
has imported it already; from there on they are what `python -m eval.finetune SPEC` would be.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch

from eval.table import METRICS
from pcd.checkpoint import save_checkpoint
from pcd.export import export_backbone
from pcd.students import build_student
from tests.fork_server import fork_server
from tests.patience import PATIENCE

STEPS = 20
WITHOUT_DETECTRON2 = """
import sys
from importlib.machinery import PathFinder

class WithoutDetectron2(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == "detectron2" else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutDetectron2
"""
Start = Callable[[Path], BaseProcess]


@pytest.fixture(scope="module")
def start() -> Start:
    """Start the stage on a spec."""
    context = fork_server()

    def start_stage(spec: Path) -> BaseProcess:
        process = context.Process(target=runpy.run_module, args=("eval.finetune",), kwargs={"run_name": "__main__"})
        arguments, sys.argv = sys.argv, ["eval.finetune", str(spec)]  # the process inherits them
        try:
            process.start()
        finally:
            sys.argv = arguments
        return process

    return start_stage


@pytest.fixture(scope="module")
def settings(smoke_protocol: dict[str, Any]) -> dict[str, Any]:
    changes = {"base": "fpn_1x", "iterations": STEPS, "precise_bn_iterations": 2}
    return {"finetune": smoke_protocol | changes, "student": "resnet18", "seed": 0}


@pytest.fixture(scope="module")
def random_arm(
    start: Start,
    new_spec: Callable[..., Path],
    settings: dict[str, Any],
    shapes_set: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of a finished run from a random backbone."""
    out = tmp_path_factory.mktemp("random")
    assert exit_code(start(new_spec(out, settings, {"data": shapes_set}))) == 0
    return out


@pytest.fixture
def backbone_run(
    start: Start, new_spec: Callable[..., Path], settings: dict[str, Any], shapes_set: Path, tmp_path: Path
) -> Callable[..., Path]:
    """Export the backbone of a student drawn from a seed, and fine-tune it for three steps; returns the folder."""

    def run(seed: int, student: str = "resnet18") -> Path:
        (tmp_path / "pretrained").mkdir()
        torch.manual_seed(seed)
        export_backbone(build_student(student), tmp_path / "pretrained" / "backbone.safetensors", {})
        short = settings | {"finetune": settings["finetune"] | {"iterations": 3}}  # the warm-up is the same
        spec = new_spec(tmp_path / "out", short, {"data": shapes_set, "backbone": tmp_path / "pretrained"})
        (tmp_path / "code").write_text(str(exit_code(start(spec))))
        return tmp_path / "out"

    return run


def exit_code(process: BaseProcess) -> int | None:
    process.join(timeout=PATIENCE)
    return process.exitcode


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def result(out: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((out / "result.json").read_text())
    return record


@pytest.mark.slow
def test_a_finished_run_leaves_its_figures_and_no_checkpoint(random_arm: Path) -> None:
    names = {path.name for path in random_arm.iterdir()}
    of_evaluation = {"predictions.json", "matches_bbox.npz", "matches_segm.npz", "mistakes.json"}
    assert names == {"spec.json", "metrics.jsonl", "result.json", *of_evaluation}


@pytest.mark.slow
def test_the_result_has_every_figure_of_the_table(random_arm: Path) -> None:
    metrics = result(random_arm)["metrics"]
    assert metrics.keys() >= set(METRICS)
    assert all(value is None or 0 <= value <= 100 for value in metrics.values())


@pytest.mark.slow
def test_the_result_proves_that_the_backbone_arrived(random_arm: Path) -> None:
    record = result(random_arm)
    assert record["matched_tensors"] == 120
    assert record["feature_difference"] < 1e-4


@pytest.mark.slow
def test_the_result_says_how_many_directions_the_maps_used_before_the_training(random_arm: Path) -> None:
    record = result(random_arm)
    for stage, channels in {"res2": 64, "res3": 128, "res4": 256, "res5": 512}.items():
        assert 1 < record[f"effective_rank_{stage}"] < channels


@pytest.mark.slow
def test_the_result_says_by_which_recipe_it_came_to_be(random_arm: Path) -> None:
    record = result(random_arm)
    assert record["protocol"]["name"] == "fpn_1x"
    assert ["iterations", 90_000, STEPS] in record["protocol"]["difference"]
    assert record["recipe"]["norms"]["backbone"] == {"BatchNorm2d": 20}
    assert record["recipe"]["images"] <= 16


@pytest.mark.slow
def test_what_the_run_is_not_besides_its_settings_is_kept(random_arm: Path) -> None:
    masks, share = result(random_arm)["recipe"]["departures"]
    assert masks.startswith("masks are read as bitmaps")
    assert share.startswith("4 images of a step over one process are 4 on each, where fpn_1x means 2")


@pytest.mark.slow
def test_each_of_several_cpu_processes_says_that_its_batchnorm_is_its_own(
    new_spec: Callable[..., Path], settings: dict[str, Any], shapes_set: Path, tmp_path: Path
) -> None:
    short = settings | {"finetune": settings["finetune"] | {"iterations": 3, "precise_bn_iterations": 0}}
    ranks = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "eval.finetune"]
    command = [*ranks, str(new_spec(tmp_path, short, {"data": shapes_set}))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    norms, masks = sorted(result(tmp_path)["recipe"]["departures"])
    assert norms.startswith("each BatchNorm is of the 2 images of its process, not of all 4: 2 processes on the CPU")
    assert masks.startswith("masks are read as bitmaps")  # and no more: two images on each are as fpn_1x means it
    assert done.stdout.count(norms) == 1


@pytest.mark.slow
def test_every_step_is_recorded(random_arm: Path) -> None:
    lines = [json.loads(line) for line in (random_arm / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["total"]) for line in lines] == [(step, STEPS) for step in range(1, STEPS + 1)]


@pytest.mark.slow
def test_the_predictions_are_coco_results(random_arm: Path) -> None:
    for record in json.loads((random_arm / "predictions.json").read_text()):
        assert record.keys() == {"image_id", "category_id", "bbox", "score", "segmentation"}


@pytest.mark.slow
def test_an_exported_backbone_changes_the_first_loss(backbone_run: Callable[..., Path], random_arm: Path) -> None:
    out = backbone_run(seed=7)
    assert result(out)["matched_tensors"] == 120
    assert losses(out)[0] != losses(random_arm)[0]
    assert result(out)["weights_sha256"] != result(random_arm)["weights_sha256"]


@pytest.mark.slow
def test_arms_differ_in_their_backbone_alone(backbone_run: Callable[..., Path], random_arm: Path) -> None:
    # The random arm of seed 0 starts from this very backbone.
    assert losses(backbone_run(seed=0))[:2] == losses(random_arm)[:2]


@pytest.mark.slow
def test_the_backbone_of_another_student_is_refused_in_one_line(backbone_run: Callable[..., Path]) -> None:
    out = backbone_run(seed=0, student="resnet34")
    assert (out.parent / "code").read_text() == "2"
    assert len((out / "error.txt").read_text().splitlines()) == 1


@pytest.mark.slow
def test_a_missing_backbone_is_refused_in_one_line(
    start: Start, new_spec: Callable[..., Path], settings: dict[str, Any], shapes_set: Path, tmp_path: Path
) -> None:
    spec = new_spec(tmp_path / "out", settings, {"data": shapes_set, "backbone": tmp_path / "gone"})
    assert exit_code(start(spec)) == 2
    assert "run its pre-training again" in (tmp_path / "out" / "error.txt").read_text()


@pytest.mark.slow
def test_a_checkpoint_of_other_settings_is_refused_in_one_line(
    start: Start, new_spec: Callable[..., Path], settings: dict[str, Any], shapes_set: Path, tmp_path: Path
) -> None:
    edited = settings | {"finetune": settings["finetune"] | {"learning_rate": 0.5}}
    save_checkpoint(tmp_path / "checkpoint.pt", {"step": 3, "settings": settings})
    assert exit_code(start(new_spec(tmp_path, edited, {"data": shapes_set}))) == 2
    (line,) = (tmp_path / "error.txt").read_text().splitlines()
    assert f"(finetune.learning_rate: {settings['finetune']['learning_rate']} then, 0.5 now)" in line


@pytest.mark.slow
def test_a_run_stopped_by_sigterm_and_resumed_ends_as_an_undisturbed_one(
    start: Start,
    new_spec: Callable[..., Path],
    settings: dict[str, Any],
    shapes_set: Path,
    tmp_path: Path,
    random_arm: Path,
) -> None:
    spec, metrics = new_spec(tmp_path, settings, {"data": shapes_set}), tmp_path / "metrics.jsonl"
    process = start(spec)
    end = time.monotonic() + PATIENCE
    while process.is_alive() and not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert process.pid
    os.kill(process.pid, signal.SIGTERM)
    assert exit_code(process) == 75
    assert not (tmp_path / "result.json").exists()
    assert 3 <= len(losses(tmp_path)) < STEPS

    assert exit_code(start(spec)) == 0
    assert losses(tmp_path) == losses(random_arm)
    assert result(tmp_path)["metrics"] == result(random_arm)["metrics"]
    assert result(tmp_path)["weights_sha256"] == result(random_arm)["weights_sha256"]


@pytest.mark.slow
def test_without_detectron2_the_one_line_says_how_to_get_it(
    run_module: Callable[..., "CompletedProcess[str]"],
    new_spec: Callable[..., Path],
    settings: dict[str, Any],
    shapes_set: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WITHOUT_DETECTRON2)
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    spec = new_spec(tmp_path / "out", settings, {"data": shapes_set})
    done = run_module("eval.finetune", spec, env=environment)
    assert done.returncode == 2
    line = (tmp_path / "out" / "error.txt").read_text()
    assert line.startswith("Detectron2 is not installed")
    assert "`make setup`" in line
    assert "Traceback" not in done.stderr
