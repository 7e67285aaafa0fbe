"""A finished smoke benchmark as the store and the records show it, written by the store itself in no time."""

import json
from pathlib import Path
from typing import Any

from flows.planning.plan import make_plan
from flows.planning.stages import Plan, Stage
from flows.profiles import load_profile
from flows.run_record import RunRecord, write_record
from flows.store.store import Store, open_store

CELL = "pcd.smoke_fpn.seed0"
ENVIRONMENT = {
    "git_commit": "c0ffee", "git_dirty": True, "gpus": [], "processor": "a CPU", "python": "3.11.9",
    "packages": {"torch": "2.14.0"},
}  # fmt: skip
RESULTS: dict[str, dict[str, Any]] = {
    "teacher": {"source": "https://mirror.example/t.pth", "sha256": "7" * 64, "licence": "Apache-2.0"},
    "data": {"name": "shapes", "fingerprint": "f" * 64, "pool": 64, "train": 16, "val": 8},
    "pretrain": {"steps": 8, "precision": "fp32"},
    "finetune": {
        "metrics": {"bbox/AP": 12.3456789012345, "segm/AP": None},
        "iterations": 8,
        "weights_sha256": "8" * 64,
    },
    "aggregate": {"cells": 2},
}


def finish(store: Store, stage: Stage, **files: str) -> Path:
    work = store.work_folder(stage)
    (work / "result.json").write_text(json.dumps(RESULTS.get(stage.kind, {})))
    (work / "spec.json").write_text(json.dumps({"stage": stage.id, "inputs": {}}))
    for name, content in files.items():
        (work / name.replace("__", ".")).write_text(content)
    command = ["python", "-m", stage.module, "a folder/spec.json"]
    record = {"benchmark": "smoke", "seconds": 200.0, "command": command, "environment": ENVIRONMENT}
    return store.commit(stage, record)


def finish_benchmark(*overrides: str) -> tuple[Plan, RunRecord]:
    """In $PCD_HOME."""
    plan, store = make_plan(load_profile("smoke", overrides)), open_store()
    row = {"cell": CELL, "bbox/AP": 12.3456789012, "segm/AP": None}
    for stage in plan.stages[:-1]:
        finish(store, stage, **({"backbone__safetensors": "b"} if stage.kind == "pretrain" else {}))
    folder = finish(store, plan.stages[-1], ap_table__json=json.dumps({"cells": [row]}))
    record = RunRecord(
        "smoke", plan.key, str(folder), "", "", "", 1.0, settings=plan.benchmark.model_dump(mode="json"),
        stages={stage.id: stage.key for stage in plan.stages},
    )  # fmt: skip
    write_record(record)
    return plan, record
