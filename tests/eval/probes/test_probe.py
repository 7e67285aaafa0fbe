"""The probe's stage."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch

from eval.probes.frozen import FrozenFeatures, write_features
from eval.probes.probe import probe
from eval.probes.settings import DEPARTURES, PROBES
from pcd.errors import PCDError
from pcd.knn import knn_top1
from pcd.stage import Spec

KINDS: dict[str, dict[str, Any]] = {
    "linear": {"kind": "linear", "epochs": 3, "learning_rate": 0.5},
    "knn": {"kind": "knn"},
    "low_shot": {"kind": "low_shot", "share": 0.1, "trials": 2},
}


@pytest.fixture
def run(frozen: FrozenFeatures, tmp_path: Path, make_spec: Callable[..., Spec]) -> Callable[[str], dict[str, Any]]:
    (tmp_path / "features").mkdir()
    write_features(tmp_path / "features", frozen)
    return lambda kind: probe(make_spec({"probe": KINDS[kind], "seed": 0}, {"features": tmp_path / "features"}))


@pytest.mark.parametrize(
    ("kind", "metrics"), [("linear", {"top1", "top5"}), ("knn", {"knn_top1"}), ("low_shot", {"top1", "top5"})]
)
def test_each_kind_leaves_its_figures_and_says_where_it_departs(
    run: Callable[[str], dict[str, Any]], kind: str, metrics: set[str]
) -> None:
    result = run(kind)
    assert result["metrics"].keys() == metrics
    assert all(100 / 7 < value <= 100 for value in result["metrics"].values())
    assert (result["train"], result["val"], result["classes"]) == (70, 35, 7)
    assert result["departures"] == list(DEPARTURES[kind])


def test_the_neighbours_figure_is_that_of_the_watch_while_training(
    run: Callable[[str], dict[str, Any]], frozen: FrozenFeatures
) -> None:
    top1 = knn_top1(frozen.train, frozen.train_labels, frozen.val, frozen.val_labels, 20, 0.07)
    assert run("knn")["metrics"] == {"knn_top1": top1}


def test_the_vote_tells_its_progress_and_does_not_depend_on_how_often(
    run: Callable[[str], dict[str, Any]], frozen: FrozenFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int, int]] = []
    monkeypatch.setattr(Spec, "activity", lambda spec, *activity: told.append(activity))
    monkeypatch.setattr("eval.probes.probe._AT_ONCE", 8)
    top1 = knn_top1(frozen.train, frozen.train_labels, frozen.val, frozen.val_labels, 20, 0.07)
    assert run("knn")["metrics"] == {"knn_top1": top1}
    assert told == [("voting", done, 35) for done in (0, 8, 16, 24, 32)]


def test_every_kind_says_where_it_departs() -> None:
    assert set(PROBES) == set(KINDS) == set(DEPARTURES)


def test_a_set_without_test_images_is_refused(
    frozen: FrozenFeatures, tmp_path: Path, make_spec: Callable[..., Spec]
) -> None:
    nothing = FrozenFeatures(
        frozen.train, frozen.train_labels, torch.empty(0, 8), torch.empty(0, dtype=torch.int64), frozen.classes
    )
    write_features(tmp_path, nothing)
    with pytest.raises(PCDError, match="no features of test images"):
        probe(make_spec({"probe": KINDS["knn"], "seed": 0}, {"features": tmp_path}))


def test_without_features_they_are_computed_first(data: Path, make_spec: Callable[..., Spec]) -> None:
    settings = {"probe": KINDS["linear"] | {"batch": 4}, "features": {"size": 32}, "student": "resnet18", "seed": 0}
    result = probe(make_spec(settings, {"data": data}))
    assert (result["train"], result["val"], result["classes"], result["channels"]) == (9, 6, 3, 512)
    assert result["metrics"].keys() == {"top1", "top5"}
    assert result["steps"] == 9


@pytest.mark.slow
def test_the_process_leaves_its_result_and_its_metrics(
    run_module: Callable[..., "CompletedProcess[str]"],
    new_spec: Callable[..., Path],
    frozen: FrozenFeatures,
    tmp_path: Path,
) -> None:
    settings = {"probe": KINDS["linear"], "seed": 0}
    write_features(tmp_path, frozen)
    done = run_module("eval.probes.probe", new_spec(tmp_path / "out", settings, {"features": tmp_path}))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "result.json").read_text())["metrics"]["top1"] > 30
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"spec.json", "metrics.jsonl", "result.json"}
