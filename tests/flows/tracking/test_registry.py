import json
from pathlib import Path

import mlflow.pytorch
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR

from flows.journal import Journal
from flows.tracking.publisher import Publisher
from flows.tracking.registry import BEST
from flows.tracking.student_model import write_student_model
from flows.tracking.tracker import Tracker
from pcd.export import export_backbone
from pcd.students import build_student
from tests.flows.tracking.tracked_runs import Child, Finish, publish

pytestmark = [
    pytest.mark.filterwarnings(
        # MLflow 3.17 with SQLAlchemy 2.1, and torch.export with copyreg: theirs.
        "ignore::sqlalchemy.exc.SADeprecationWarning",
        "ignore::ResourceWarning",
        "ignore::DeprecationWarning",
        "ignore::FutureWarning",
        "ignore:.*Any type hint is inferred as AnyType:UserWarning",
    ),
    pytest.mark.slow,
]


def test_the_best_seed_of_each_pre_trained_arm_is_registered_once(
    finish: Finish, client: MlflowClient, child: Child, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    journal = finish({"pcd.seed0": 20.0, "pcd.seed1": 25.0})
    for _ in range(2):
        publish(journal)
    name = f"{journal.run.name}_pcd"
    (version,) = client.search_model_versions(f"name = '{name}'")
    assert (version.tags["pcd.seed"], version.tags["box AP"], version.tags["pcd.key"]) == (
        "1",
        "25.0",
        "key-of-pcd.seed1",
    )
    assert f"models:/{name}@{BEST}" in version.description
    assert "# The student of pretrain:pcd.seed1" in version.description
    assert client.get_model_version_by_alias(name, BEST).version == version.version
    assert version.run_id == child("pretrain:pcd.seed1").info.run_id
    assert client.search_registered_models(f"name = '{journal.run.name}_random'") == []

    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    model = mlflow.pytorch.load_model(f"models:/{name}@{BEST}")
    torch.manual_seed(1)
    student, images = build_student("resnet18").eval(), torch.rand(3, 3, 96, 128)
    torch.testing.assert_close(model(images), student(images), rtol=0, atol=0)


def test_a_student_that_another_run_registered_meanwhile_gets_no_second_version(
    finish: Finish, client: MlflowClient, tmp_path: Path
) -> None:
    journal = finish({"pcd.seed0": 20.0})
    journal = finish({"pcd.seed0": 20.0})
    folders = {"pretrain:pcd.seed0": tmp_path / "pretrain-pcd.seed0"}
    tracker = Tracker(journal.run)
    (student,) = tracker.new_students(tmp_path / "table", folders)  # seen as missing, and then
    publish(journal)
    write_student_model(student.student, student.pretrain, tmp_path / "model")
    tracker.register(student, tmp_path / "model")
    assert len(client.search_model_versions(f"name = '{student.name}'")) == 1


def test_a_students_files_travel_with_its_model(
    finish: Finish, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    journal = finish({"pcd.seed0": 20.0})
    publish(journal)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    place = mlflow.artifacts.download_artifacts(f"models:/{journal.run.name}_pcd@{BEST}", dst_path=str(tmp_path / "m"))
    files = {path.name for path in (Path(place) / "extra_files").iterdir()}
    assert files == {"backbone.safetensors", "backbone_detectron2.pth", "MODEL_CARD.md"}


def test_a_student_that_cannot_be_read_is_no_reason_to_leave_the_run_open(
    finish: Finish, client: MlflowClient, tmp_path: Path
) -> None:
    journal = finish({"pcd.seed0": 20.0})
    (tmp_path / "pretrain-pcd.seed0" / "backbone.safetensors").write_bytes(b"garbage")
    publish(journal)
    (run,) = client.search_runs(["1"], f"tags.`mlflow.runName` = '{journal.run.name}'")
    assert run.info.status == "FINISHED"
    assert client.search_registered_models(f"name = '{journal.run.name}_pcd'") == []


def test_a_registry_that_refuses_leaves_the_run_finished_and_nobody_waiting(
    finish: Finish, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MlflowException("no room", INTERNAL_ERROR)

    monkeypatch.setattr(MlflowClient, "create_registered_model", refuse)
    journal = finish({"pcd.seed0": 20.0})
    with Publisher(Tracker(journal.run), journal) as publisher:
        pass
    assert publisher.is_through
    (run,) = client.search_runs(["1"], f"tags.`mlflow.runName` = '{journal.run.name}'")
    assert run.info.status == "FINISHED"


def test_an_arm_with_a_hole_is_not_judged_by_the_seeds_that_are_left(finish: Finish, client: MlflowClient) -> None:
    journal = finish({"pcd.seed0": 20.0})
    table = Path(journal.outcome.folder if journal.outcome and journal.outcome.folder else "") / "ap_table.json"
    content = json.loads(table.read_text())
    table.write_text(json.dumps(content | {"holes": [{"arm": "pcd", "protocol": "smoke_fpn"}]}))
    publish(journal)
    assert client.search_registered_models(f"name = '{journal.run.name}_pcd'") == []


def test_a_rerun_registers_nothing(finish: Finish, client: MlflowClient) -> None:
    original = finish({"pcd.seed0": 20.0})
    written = json.loads(original.path.read_text())
    original.path.write_text(json.dumps(written | {"store_part": "rerun-1"}))
    publish(Journal.read(original.path))
    assert client.search_registered_models(f"name = '{original.run.name}_pcd'") == []
    original.path.write_text(json.dumps(written))
    publish(Journal.read(original.path))
    assert len(client.search_registered_models(f"name = '{original.run.name}_pcd'")) == 1


@pytest.mark.parametrize(
    "student", ["mobilenet_v3_large", "shufflenet_v2_x1_0", "timm:convnext_atto", "resnet:basic:1,1,1,1:8,16,24,32"]
)
def test_every_kind_of_student_becomes_a_graph_for_images_of_any_size(student: str, tmp_path: Path) -> None:
    export_backbone(build_student(student), tmp_path / "backbone.safetensors", {})
    write_student_model(student, tmp_path, tmp_path / "model")
    model = mlflow.pytorch.load_model(str(tmp_path / "model"))
    assert model(torch.zeros(3, 3, 96, 160)).shape[2:] == (3, 5)
