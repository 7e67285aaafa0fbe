"""MLflow's model registry: the best student of each pre-trained arm as `<benchmark>_<arm>`, a version for each.

The alias `best` stands at the newest benchmark's: versions of other settings, data or protocols are not compared. Which
seed was best is said by the benchmark's first protocol and its first figure, and a version's tags tell both.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from eval.metric_names import HEADLINES

__all__ = ["BEST", "BestStudent", "best_students", "find_version", "point_best_at", "register_student"]

BEST: Final = "best"
_MOST_CHARACTERS: Final = 5000
"""MLflow takes no longer description; the whole card lies among the model's files."""
_HOW_TO_LOAD: Final = (
    '`mlflow.pytorch.load_model("models:/{name}@{alias}")`, with MLFLOW_TRACKING_URI set to this server or database, '
    "gives (B, 3, H, W) -> (B, C, H/32, W/32). The files that are named below lie in the model's `extra_files/`.\n\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BestStudent:
    """Of one arm of a benchmark."""

    name: str
    """Of the registered model."""
    stage: str
    """Its pre-training, pretrain:arm.seedN."""
    student: str
    """Of pcd.students."""
    pretrain: Path
    """The pre-training's folder in the store."""
    tags: dict[str, str]
    """Of its version: where it comes from, and by what it was best."""


def best_students(
    benchmark: str, protocol: str, table: Path, stages: Mapping[str, Mapping[str, Any]], folders: Mapping[str, Path]
) -> Iterator[BestStudent]:
    """One of each arm that was pre-trained and has no hole in this protocol, in the table's order.

    Args:
        protocol: the one that judges.
        table: folder of the aggregate stage.
        stages: of the run's journal; `folders`: where those of them lie that the store has.
    """
    cells = {cell["cell"]: cell for cell in json.loads((table / "spec.json").read_text())["settings"]["cells"]}
    content = json.loads((table / "ap_table.json").read_text())
    torn = {hole["arm"] for hole in content.get("holes", []) if hole["protocol"] == protocol}
    by_arm: dict[str, list[dict[str, Any]]] = {}
    for row in content["cells"]:
        if row["protocol"] == protocol and row["arm"] not in torn and cells.get(row["cell"], {}).get("pretrain"):
            by_arm.setdefault(row["arm"], []).append(row)
    for arm, rows in by_arm.items():
        metric = next((name for name in HEADLINES if all(row.get(name) is not None for row in rows)), None)
        if metric is None:
            continue
        best = max(rows, key=lambda row: float(row[metric]))
        stage = f"pretrain:{cells[best['cell']]['pretrain']}"
        if stage not in folders:
            continue
        tags = {
            "pcd.arm": arm, "pcd.seed": str(best["seed"]), "pcd.protocol": protocol,
            "pcd.key": str(stages[stage]["key"]), HEADLINES[metric]: f"{best[metric]:.1f}",
        }  # fmt: skip
        student = stages[stage]["settings"]["pretrain"]["student"]
        yield BestStudent(
            name=f"{benchmark}_{arm}", stage=stage, student=student, pretrain=folders[stage], tags=tags
        )  # fmt: skip


def find_version(client: MlflowClient, student: BestStudent) -> ModelVersion | None:
    """That of the same weights and the same figure, if it is registered already."""
    found = client.search_model_versions(f"name = '{student.name}'")
    return next((v for v in found if student.tags.items() <= v.tags.items()), None)


def register_student(
    client: MlflowClient, experiment: str, run_id: str, student: BestStudent, model: Path
) -> ModelVersion:
    """Log the model that lies in `model` to its pre-training's run, and register it as the best.

    Whoever was interrupted in between leaves a logged model without a version, and a second one is made.
    """
    card = student.pretrain / "MODEL_CARD.md"
    description = _HOW_TO_LOAD.format(name=student.name, alias=BEST) + (card.read_text() if card.exists() else "")
    try:  # before anything is sent: a registry may refuse the name, or be none
        client.create_registered_model(student.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    logged = client.create_logged_model(experiment, student.name, run_id, student.tags, model_type="student")
    client.log_model_artifacts(logged.model_id, str(model))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    # By its place: "models:/…" would be looked up where MLFLOW_TRACKING_URI says, which may be another database.
    version = client.create_model_version(
        student.name, logged.artifact_location, run_id, tags=student.tags,
        description=description[:_MOST_CHARACTERS], model_id=logged.model_id,
    )  # fmt: skip
    point_best_at(client, version)
    return version


def point_best_at(client: MlflowClient, version: ModelVersion) -> None:
    client.set_registered_model_alias(version.name, BEST, str(version.version))
