import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run as TrackedRun

from flows.journal import Journal, Run, describe_stages
from flows.planning.plan import make_plan
from flows.planning.stages import Plan
from flows.profiles import load_profile
from pcd.export import export_backbone, export_for_detectron2
from pcd.students import build_student
from tests.flows.tracking.tracked_runs import Child, Finish, children_of, finished_stage


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(load_profile("smoke"))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def journal(plan: Plan, database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Journal:
    """Of a run with a key of its own, so that tests share the database (seconds to make) and nothing else."""
    run = Run(
        id="flow-run", name="smoke", key=request.node.name, process="1:1", started=1.0,
        settings=plan.benchmark.model_dump(mode="json"), stages=describe_stages(plan),
        environment={"python": "3.11", "git_commit": "abc", "git_diff": "+ a line"}, tracking_uri=database,
        artifacts=str(tmp_path / "artifacts"),
    )  # fmt: skip
    return Journal.begin(run, tmp_path)


@pytest.fixture
def client(database: str) -> MlflowClient:
    return MlflowClient(database)


@pytest.fixture
def child(client: MlflowClient, journal: Journal) -> Child:
    def find(stage: str) -> TrackedRun:
        (run,) = [run for run in children_of(client, journal) if run.data.tags["pcd.stage_id"] == stage]
        return run

    return find


@pytest.fixture
def finish(journal: Journal, tmp_path: Path, request: pytest.FixtureRequest) -> Finish:
    """A benchmark of the arms pcd and random, whose seeds of pcd came to the given box AP, is over."""

    def over(box_ap: Mapping[str, float]) -> Journal:
        settings = json.loads(json.dumps(journal.run.settings))
        settings["runtime"]["register_students"] = True
        pretrain = journal.run.stages["pretrain:pcd.seed0"]
        stages = {f"pretrain:{cell}": {**pretrain, "key": f"key-of-{cell}"} for cell in box_ap}
        run = replace(
            journal.run, name=f"b-{abs(hash(request.node.name))}", settings=settings,
            stages={**journal.run.stages, **stages},
        )  # fmt: skip
        told = Journal.begin(run, tmp_path / "again")
        for number, stage in enumerate(stages):
            folder = Path(finished_stage(tmp_path / stage.replace(":", "-")))
            torch.manual_seed(number)
            backbone = build_student("resnet18")
            export_backbone(backbone, folder / "backbone.safetensors", {})
            export_for_detectron2(backbone, folder / "backbone_detectron2.pth")
            (folder / "MODEL_CARD.md").write_text(f"# The student of {stage}\n" + "more of it " * 600)
            told.note("done", stage, folder=str(folder))
        told.note("finished", folder=_table(tmp_path / "table", box_ap))
        return told

    return over


def _table(folder: Path, box_ap: Mapping[str, float]) -> str:
    folder.mkdir(exist_ok=True)
    names = [*box_ap, "random.seed0"]
    cells = [{"cell": n, "pretrain": n if n in box_ap else None} for n in names]
    (folder / "spec.json").write_text(json.dumps({"settings": {"cells": cells}}))
    axes = {name: {"arm": name.partition(".")[0], "protocol": "smoke_fpn", "seed": int(name[-1])} for name in names}
    rows = [{"cell": name, **axes[name], "bbox/AP": box_ap.get(name, 50.0)} for name in names]
    (folder / "ap_table.json").write_text(json.dumps({"arms": [], "cells": rows, "holes": []}))
    for name in ("ap_summary.md", "ap_table.md"):
        (folder / name).write_text("| arm |\n")
    return str(folder)
