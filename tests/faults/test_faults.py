"""Five faults on real runs, and what else must cost no figure; `make faults` has each fault at many random points."""

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.journal import Journal, Run
from flows.tracking.publisher import Publisher
from flows.tracking.tracker import Tracker
from tests.faults.faults import FAULTS, kill_own_prefect_server, kill_trainer, provide_servers, strike
from tests.faults.world import World
from tests.patience import PATIENCE
from tests.servers import PrefectServer, free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning", "ignore::ResourceWarning"),
]

_RANDOM_ARM = ("--set", "arms=[random]")


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """For runs whose fault is another one than a server's: it saves each of them the start of its own."""
    server = PrefectServer(tmp_path_factory.mktemp("prefect"), free_port())
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def reference(prefect: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A run that nothing happened to."""
    world = World(tmp_path_factory.mktemp("reference"), _RANDOM_ARM, prefect)
    assert world.run_to_the_end(attempts=1) == 1
    assert world.violations(world) == []
    return world


@pytest.fixture
def world(reference: World, tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, _RANDOM_ARM, reference.prefect)
    world.take_over(reference, "data")
    yield world
    world.end_all()
    if world.mlflow is not None:
        world.mlflow.kill()


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("kill -9 of the trainer", 9),
        ("kill -9 of pcd", 5),
        ("kill -9 of everything at once", 11),
        ("kill -9 of the run's own Prefect server", 7),
        ("kill -9 of the MLflow server", 6),
    ],
)
def test_after_a_fault_all_is_as_if_nothing_had_happened(reference: World, world: World, name: str, steps: int) -> None:
    if FAULTS[name] is kill_own_prefect_server:
        world.prefect = None
    provide_servers(world, FAULTS[name])
    assert strike(world, FAULTS[name], steps=steps) is not None  # it came before the run was over
    if name != "kill -9 of everything at once":  # nobody is left to close it, but the next run
        assert world.closed_by_itself() == []
    world.run_to_the_end()
    assert world.violations(reference) == []


def test_a_cell_that_fails_is_a_named_hole_that_the_next_run_fills(reference: World, world: World) -> None:
    for kind in ("finetune", "aggregate"):
        world.take_over(reference, kind)
    world.options = ("--set", "arms=[random]", "--set", "seeds=[0,1]", "--set", "runtime.retries=0")
    assert strike(world, kill_trainer, steps=2) == 1
    hole = (
        "Hole: random.smoke_fpn.seed1 has no figures: finetune:random.smoke_fpn.seed1: the stage was killed by SIGKILL"
    )
    assert hole in " ".join(world.told.split())
    assert "1 of 2" in world.told
    world.run_to_the_end(attempts=1)
    assert [world.orphans(), world.unsettled(), world.metrics_missing_or_doubled(), world.held_locks()] == [
        [],
        [],
        [],
        [],
    ]


def test_a_damaged_file_of_the_store_is_found_and_computed_anew(reference: World, world: World) -> None:
    for kind in ("finetune", "aggregate"):
        world.take_over(reference, kind)
    (data,) = world.folders("data")
    annotations = data / "val.json"
    damaged = bytearray(annotations.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    annotations.write_bytes(damaged)
    world.options = (*_RANDOM_ARM, "--from", "aggregate")
    world.run_to_the_end(attempts=1)
    assert "is damaged in the store" in world.told
    assert world.violations(reference) == []


def test_two_flows_at_once_compute_each_stage_once(reference: World, world: World) -> None:
    runs = [world.start(), world.start()]
    assert [run.wait(PATIENCE) for run in runs] == [0, 0], world.told
    assert "waiting: another run computes finetune:random.smoke_fpn.seed0" in world.told
    (folder,) = world.folders("finetune")
    starts = (folder / "log.txt").read_text().count("backbone tensors matched")
    assert starts == 1
    assert world.violations(reference) == []


@pytest.fixture
def needs_mount(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Root, in a container that lets it mount a small disk."""
    place = tmp_path_factory.mktemp("mount")
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets us mount no small disk")
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.usefixtures("needs_mount")
def test_a_full_disk_is_named_and_nothing_is_lost(reference: World, tmp_path: Path) -> None:
    world = World(tmp_path, _RANDOM_ARM, reference.prefect)
    try:
        world.mount("60m")  # less than one checkpoint
        world.take_over(reference, "data")
        assert world.start().wait(PATIENCE) == 2
        assert "error: no space left on the disk; free some" in world.told
        assert world.orphans() == []
        world.remount("size=2g")
        world.run_to_the_end(attempts=1)
        assert world.violations(reference) == []
    finally:
        world.end_all()
        world.unmount()


@pytest.mark.usefixtures("needs_mount")
def test_a_read_only_home_is_named_in_one_line(reference: World, tmp_path: Path) -> None:
    world = World(tmp_path, _RANDOM_ARM)
    try:
        world.mount("60m")
        world.remount("ro")
        assert world.start().wait(PATIENCE) == 2
        (line,) = world.told.splitlines()
        assert line.startswith(f"error: cannot write to {world.home} (Read-only file system); set PCD_HOME")
    finally:
        world.unmount()


def test_eight_writers_of_one_sqlite_database_lose_nothing(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    stage = {"kind": "pretrain", "key": "k", "module": "m", "settings": {}, "labels": {}, "inputs": {}}

    def write(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        lines = [{"step": s, "total": 200, "time": 1.0 + s, "loss": 1.0 / s} for s in range(1, 201)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / "result.json").write_text("{}")
        run = Run(
            id=f"run{number}", name="w", key=f"key{number}", process="1:1", started=1.0, settings={},
            stages={"pretrain:x": stage}, environment={}, tracking_uri=uri, artifacts=str(tmp_path / "a"),
        )  # fmt: skip
        journal = Journal.begin(run, folder)
        with Publisher(Tracker(run), journal, patience=PATIENCE) as publisher:
            journal.note("done", "pretrain:x", folder=str(folder))
            journal.note("finished")
        through.append(publisher.is_through)

    through: list[bool] = []
    MlflowClient(uri).search_experiments()  # makes the tables
    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert through == [True] * 8
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("pcd-benchmarks")
    runs = client.search_runs([experiment.experiment_id], "tags.`pcd.stage_id` = 'pretrain:x'")
    assert len(runs) == 8
    for run in runs:
        assert [m.step for m in client.get_metric_history(run.info.run_id, "loss")] == list(range(1, 201))
