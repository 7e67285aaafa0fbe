"""The whole flow for real: Prefect server, torch, Detectron2, MLflow; profile `smoke`, from a fresh folder."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image
from safetensors import safe_open

from tests.chromium import open_in_chromium
from tests.conftest import ROOT
from tests.patience import PATIENCE

pytestmark = [
    pytest.mark.slow,
    # MLflow 3.17 with SQLAlchemy 2.1: theirs.
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning", "ignore::ResourceWarning"),
]


@dataclass(frozen=True)
class Home:
    path: Path

    @property
    def environment(self) -> dict[str, str]:
        foreign = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_HOME")
        return {k: v for k, v in os.environ.items() if k not in foreign} | {"PCD_HOME": str(self.path)}

    def pcd(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "flows", *arguments]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False, env=self.environment
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "flows", *arguments]
        return subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.environment,
            start_new_session=True,
        )  # fmt: skip

    @property
    def mlflow(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.path / 'mlflow.db'}")

    def runs(self) -> list[Run]:
        experiment = self.mlflow.get_experiment_by_name("pcd-benchmarks")
        return list(self.mlflow.search_runs([experiment.experiment_id]))

    def run(self, stage_id: str) -> Run:
        return next(run for run in self.runs() if run.data.tags.get("pcd.stage_id") == stage_id)

    def benchmark_run(self) -> Run:
        return next(run for run in self.runs() if run.data.tags["pcd.stage"] == "benchmark")

    def artifacts(self, run: Run) -> set[str]:
        return {artifact.path for artifact in self.mlflow.list_artifacts(run.info.run_id)}

    def prefect(self, query: str) -> list[tuple[str, ...]]:
        with sqlite3.connect(self.path / "prefect" / "prefect.db") as database:
            rows = database.execute(query).fetchall()
        database.close()
        return rows


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("smoke") / "home")


@pytest.fixture(scope="module")
def first(home: Home) -> subprocess.CompletedProcess[str]:
    done = home.pcd("run", "smoke")
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def finished(home: Home, first: subprocess.CompletedProcess[str]) -> Home:
    return home


def test_every_stage_is_told_and_nothing_of_the_libraries_noise(first: subprocess.CompletedProcess[str]) -> None:
    assert first.stdout.count(": done in") == 6
    assert first.stderr == ""
    assert not [word for word in ("WARNING", "Warning", "INFO", "prefect.", "alembic") if word in first.stdout]


def test_the_table_is_printed_with_both_arms(first: subprocess.CompletedProcess[str]) -> None:
    table = first.stdout[first.stdout.index("AP table of smoke") :]
    assert [word in table for word in ("pcd", "random", "box", "mask", "Δ random")] == [True] * 5


def test_the_stored_table_has_one_row_per_cell_and_per_arm(finished: Home) -> None:
    (folder,) = (finished.path / "store" / "aggregate").glob("[!.]*")
    assert list(pd.read_csv(folder / "cells.csv")["cell"]) == ["pcd.smoke_fpn.seed0", "random.smoke_fpn.seed0"]
    assert list(pd.read_csv(folder / "arms.csv")["arm"]) == ["pcd", "random"]


@pytest.mark.parametrize("figure", ["ap_by_arm.png", "losses.png", "detections.png"])
def test_the_figures_are_pictures(finished: Home, figure: str) -> None:
    (path,) = (finished.path / "store" / "aggregate").glob(f"[!.]*/{figure}")
    with Image.open(path) as image:
        assert min(image.size) > 200


def test_mlflow_has_one_finished_run_per_stage_below_the_benchmark(finished: Home) -> None:
    parent = finished.benchmark_run().info.run_id
    children = [run for run in finished.runs() if run.data.tags.get("mlflow.parentRunId") == parent]
    assert {run.info.run_name for run in children} == {
        "data",
        "teacher",
        "pretrain:pcd.seed0",
        "finetune:pcd.smoke_fpn.seed0",
        "finetune:random.smoke_fpn.seed0",
        "aggregate",
    }
    assert {run.info.status for run in finished.runs()} == {"FINISHED"}


def test_mlflow_has_the_loss_of_every_step(finished: Home) -> None:
    run = finished.run("pretrain:pcd.seed0")
    history = finished.mlflow.get_metric_history(run.info.run_id, "loss")
    assert [metric.step for metric in history] == list(range(1, 9))


def test_mlflow_has_ap_as_plain_metrics_equal_to_the_table(finished: Home) -> None:
    (path,) = (finished.path / "store" / "aggregate").glob("[!.]*/cells.csv")
    table = pd.read_csv(path).set_index("cell")
    metrics = finished.run("finetune:random.smoke_fpn.seed0").data.metrics
    assert metrics["bbox/AP"] == pytest.approx(table.loc["random.smoke_fpn.seed0", "bbox/AP"], abs=1e-4)
    parent = finished.benchmark_run().data.metrics
    assert parent["random/smoke_fpn/segm/AP"] == pytest.approx(metrics["segm/AP"], abs=1e-4)


def test_mlflow_shows_the_table_on_the_first_page(finished: Home) -> None:
    note = finished.benchmark_run().data.tags["mlflow.note.content"]
    assert note.startswith("| arm")
    assert "# AP table of smoke" in note
    assert "| random |" in note


def test_mlflow_keeps_figures_tables_settings_and_environment(finished: Home) -> None:
    assert finished.artifacts(finished.benchmark_run()) - {"source.diff"} == {  # of a tree that is not committed
        *("ap_table.html", "ap_table.md", "ap_table.json", "results.csv", "cells.csv", "arms.csv"),
        *("intervals.csv", "intervals.png", "differences.csv", "mistakes.csv", "mistakes.png"),
        *("ap_by_arm.png", "losses.png", "detections.png", "benchmark.json", "environment.json"),
        "report.html",
    }


def test_mlflow_and_the_home_have_the_same_report(finished: Home, tmp_path: Path) -> None:
    run = finished.benchmark_run()
    sent = Path(finished.mlflow.download_artifacts(run.info.run_id, "report.html", str(tmp_path))).read_text()
    assert sent == (finished.path / "reports" / f"smoke-{run.data.tags['pcd.benchmark'][:12]}.html").read_text()
    shown = ("AP by arm", "Intervals", "What mistakes cost", "Losses", "receptive field", "its teacher", "Detections")
    assert [name for name in shown if name not in sent] == []
    assert "What is missing" not in sent


def test_in_chromium_the_report_is_whole_silent_and_asks_nobody(finished: Home, tmp_path: Path) -> None:
    (report,) = (finished.path / "reports").glob("smoke-*.html")
    opened = open_in_chromium(report, tmp_path)
    headings = ("Results", "Figures", "Cells and commands", "Settings", "Environment")
    assert [name for name in headings if f"<h2>{name}</h2>" not in opened.dom] == []
    assert (opened.console, opened.requests) == ([], [])


def test_mlflow_keeps_the_exported_backbone_and_the_spec(finished: Home, tmp_path: Path) -> None:
    run = finished.run("pretrain:pcd.seed0")
    assert finished.artifacts(run) == {
        *("backbone.safetensors", "MODEL_CARD.md", "receptive_field.png", "receptive_field.json", "metrics.jsonl"),
        *("similarity_maps.png", "similarity_maps.json"),
        *("spec.json", "result.json", "manifest.json", "log.txt"),
    }
    path = finished.mlflow.download_artifacts(run.info.run_id, "backbone.safetensors", str(tmp_path))
    with safe_open(path, framework="pt") as file:
        assert "layer4.1.bn2.running_var" in file.keys()  # noqa: SIM118


def test_the_backbone_is_exported_with_a_card_that_knows_its_teacher_and_data(finished: Home, tmp_path: Path) -> None:
    done = finished.pcd("export", "smoke", "--to", str(tmp_path / "to"))
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "to").iterdir()} == {
        *("MODEL_CARD.md", "backbone.safetensors", "backbone_detectron2.pth"),
        *("receptive_field.png", "receptive_field.json"),
        *("similarity_maps.png", "similarity_maps.json"),
    }
    card = (tmp_path / "to" / "MODEL_CARD.md").read_text()
    for kind, key in (("teacher", "sha256"), ("data", "fingerprint")):
        (result,) = (finished.path / "store" / kind).glob("[!.]*/result.json")
        assert json.loads(result.read_text())[key] in card


def test_mlflow_knows_the_data_sets_as_inputs(finished: Home) -> None:
    inputs = finished.benchmark_run().inputs.dataset_inputs
    assert {entry.dataset.name for entry in inputs} == {"shapes-pool", "shapes-train", "shapes-val"}


def test_mlflow_has_no_secret_and_no_host(finished: Home, tmp_path: Path) -> None:
    run = finished.benchmark_run()
    path = finished.mlflow.download_artifacts(run.info.run_id, "environment.json", str(tmp_path))
    environment = json.loads(Path(path).read_text())
    assert set(environment) == {
        *("python", "platform", "processor", "cores", "memory_gb", "gpus", "packages", "all_packages", "lock_sha256"),
        *("git_commit", "git_dirty"),
    }


def test_prefect_has_a_completed_flow_with_a_task_per_stage(finished: Home) -> None:
    assert finished.prefect("select name, state_name from flow_run") == [("smoke", "Completed")]
    tasks = finished.prefect("select name, state_name from task_run order by start_time")
    assert [name for name, _ in tasks] == [
        "data",
        "teacher",
        "pretrain:pcd.seed0",
        "finetune:pcd.smoke_fpn.seed0",
        "finetune:random.smoke_fpn.seed0",
        "aggregate",
    ]
    assert {state for _, state in tasks} == {"Completed"}


def test_prefect_and_mlflow_link_to_each_other(finished: Home) -> None:
    run = finished.benchmark_run()
    ((flow_run_id,),) = finished.prefect("select id from flow_run")
    assert run.data.tags["prefect.flow_run_url"].endswith(f"/runs/flow-run/{flow_run_id}")
    artifacts = dict(finished.prefect("select key, data from artifact where key is not null"))
    assert run.info.run_id in artifacts["mlflow-run"]
    assert "AP table of smoke" in artifacts["ap-table"]


def test_the_report_prints_the_table_again(finished: Home, first: subprocess.CompletedProcess[str]) -> None:
    assert finished.pcd("report").stdout in first.stdout
    assert json.loads(finished.pcd("report", "smoke", "--json").stdout)["table"]["title"] == "AP table of smoke"


def test_a_second_run_finds_every_stage_in_the_store_and_starts_nothing(finished: Home) -> None:
    done = finished.pcd("run", "smoke")
    assert done.stdout.count("found in the store") == 6
    assert "AP table of smoke" in done.stdout
    assert len(finished.prefect("select id from flow_run")) == 1


@pytest.fixture(scope="module")
def changed(finished: Home) -> tuple[Home, str]:
    """Another schedule of the detector: stopped with Ctrl-C while it trains, then run again and its process killed."""
    arguments = ("run", "smoke", "--set", "protocols.smoke_fpn.iterations=80", "--set", "arms=[random]")
    arguments += ("--set", "runtime.checkpoint_seconds=0.1")
    process = finished.start(*arguments)
    try:
        _wait_for_steps(finished, process, 3)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
        told = process.communicate(timeout=PATIENCE)[0]
        assert process.returncode == 130, told
        assert "stopped; the next run goes on from its last checkpoint" in told
        assert {run.info.status for run in finished.runs()} == {"FINISHED", "KILLED"}
        assert "Running" not in {state for (state,) in finished.prefect("select state_name from flow_run")}
    finally:
        process.kill()
    process = finished.start(*arguments)
    try:
        _wait_for_steps(finished, process, _steps(finished) + 8)  # by the new process
        os.kill(_stage_process(finished), signal.SIGKILL)
        told = process.communicate(timeout=PATIENCE)[0]
        assert process.returncode == 0, told
    finally:
        process.kill()
    return finished, told


def _wait_for_steps(home: Home, process: subprocess.Popen[str], steps: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        if _steps(home) >= steps:
            return
        time.sleep(0.05)
    raise AssertionError(f"the fine-tuning never came to step {steps}")


def _steps(home: Home) -> int:
    """Of the fine-tuning that is under way."""
    found = (home.path / "store" / "finetune").glob(".work-*/metrics.jsonl")
    return max((len(metrics.read_text().splitlines()) for metrics in found), default=0)


def _stage_process(home: Home) -> int:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text()
        except OSError:  # it has just ended
            continue
        if "eval.finetune" in command and str(home.path) in command:
            return int(folder.name)
    raise AssertionError("no stage runs")


def test_after_ctrl_c_and_after_a_kill_training_resumes_behind_its_checkpoint(changed: tuple[Home, str]) -> None:
    home, _ = changed
    logs = [path.read_text() for path in (home.path / "store" / "finetune").glob("[!.]*/log.txt")]
    resumed = [line for log in logs for line in log.splitlines() if line.startswith("resumed from step")]
    after_ctrl_c, after_kill = (int(line.split()[-1]) for line in resumed)
    assert 3 <= after_ctrl_c < after_kill


def test_a_killed_stage_is_told_and_tried_again(changed: tuple[Home, str]) -> None:
    _, told = changed
    assert told.count("finetune:random.smoke_fpn.seed0: starts") == 2
    assert told.count("finetune:random.smoke_fpn.seed0: failed; its log is") == 1


def test_a_resumed_stage_has_every_step_once_in_its_file_and_in_mlflow(changed: tuple[Home, str]) -> None:
    home, _ = changed
    run = next(
        run
        for run in home.runs()
        if run.data.params.get("finetune.iterations") == "80" and run.data.tags["pcd.stage"] == "finetune"
    )
    history = home.mlflow.get_metric_history(run.info.run_id, "loss")
    assert [metric.step for metric in history] == list(range(1, 81))


def test_a_changed_setting_runs_only_the_stages_that_depend_on_it(changed: tuple[Home, str]) -> None:
    _, told = changed
    assert told.count("found in the store") == 1
    assert told.count(": done in") == 2


def test_stored_stages_end_as_cached_in_prefect(changed: tuple[Home, str]) -> None:
    home, _ = changed
    states = home.prefect("select name, state_name from task_run where state_name = 'Cached'")
    assert {name for name, _ in states} == {"data"}


def test_a_fault_of_the_users_data_ends_the_run_with_one_line(finished: Home, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "images" / "a.png")
    image = {"id": 1, "file_name": "a.png", "width": 64, "height": 64}
    shape = {"id": 5, "image_id": 9, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
    coco = {"images": [image], "categories": [{"id": 1, "name": "thing"}]}
    coco["annotations"] = [{**shape, "segmentation": [[1, 1, 10, 1, 10, 10]]}]
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    places = {"pool": "images", "train_images": "images", "val_images": "images"}
    places |= {"train_annotations": "coco.json", "val_annotations": "coco.json"}
    data = {"kind": "coco", **{name: str(tmp_path / place) for name, place in places.items()}}
    profile = tmp_path / "own.yaml"
    profile.write_text(json.dumps({"name": "own", "teacher": "demo", "arms": ["random"], "data": data}))

    done = finished.pcd("run", str(profile))
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: {tmp_path / 'coco.json'}: annotation 5 belongs to image 9, which the file does not list"
    ]
    run = next(run for run in finished.runs() if run.info.run_name == "own")
    assert run.info.status == "FAILED"


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("MLFLOW_TRACKING_URI", "error: cannot use MLflow at http://127.0.0.1:9 ("),
        ("PREFECT_API_URL", "error: no Prefect server answers at PREFECT_API_URL=http://127.0.0.1:9 ("),
    ],
)
def test_a_server_that_does_not_answer_is_named(finished: Home, variable: str, told: str) -> None:
    environment = finished.environment | {variable: "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    command = [sys.executable, "-m", "flows", "run", "smoke", "--set", "seeds=[7]"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith(told)
    assert len(done.stderr.splitlines()) == 1


def test_benchmark_without_protocols_ends_with_a_student_that_can_be_exported(tmp_path: Path) -> None:
    home = Home(tmp_path)
    alone = ("--set", "protocols={}", "--set", "pretrain.student=shufflenet_v2_x1_0")
    done = home.pcd("run", "smoke", *alone)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pre-trained:" in done.stdout
    again = home.pcd("run", "smoke", *alone)
    assert "3 of 3 stages in the store" in again.stdout
    exported = home.pcd("export", "--to", str(tmp_path / "out"))
    assert exported.returncode == 0, exported.stderr
    assert list((tmp_path / "out").rglob("MODEL_CARD.md"))
