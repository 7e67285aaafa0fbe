"""How a run's settings depart from the named protocol that they stand on."""

from typing import Any

import pytest

from eval.departures import departures, other_share, protocol_line, resolve, told_departures
from eval.finetune_settings import FinetuneSettings
from eval.probes.settings import KnnSettings
from eval.profile_protocols import with_named_protocols
from pcd.errors import PCDError


def settings_of(block: Any, name: str = "mine") -> FinetuneSettings:
    return FinetuneSettings.model_validate(with_named_protocols({name: block})[name])


def test_a_base_is_departed_from_by_what_is_changed_alone() -> None:
    settings = settings_of({"base": "voc_c4_24k", "iterations": 1000})
    assert departures(settings) == [("iterations", 24_000, 1000)]
    assert settings.architecture == "faster_rcnn_c4"


def test_a_block_of_its_own_departs_from_nothing() -> None:
    settings = settings_of({"iterations": 2000})
    assert settings.base is None
    assert departures(settings) == []
    assert settings == FinetuneSettings(iterations=2000)


def test_a_misspelt_protocol_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(PCDError, match='did you mean "c4_2x"'):
        resolve("c4_2")


def test_departures_are_told_with_what_the_protocol_has() -> None:
    settings = settings_of({"base": "fpn_1x", "iterations": 9000, "batch": 4})
    assert told_departures(settings) == "iterations 9000 (named: 90000), batch 4 (named: 16)"
    assert told_departures(resolve("fpn_1x")) == ""


def test_a_log_names_the_protocol_of_detectors_and_probes_alike() -> None:
    assert protocol_line(resolve("knn")) == "the protocol knn as named"
    assert protocol_line(resolve("knn", {"neighbours": 5})) == "departs from the protocol knn: neighbours 5 (named: 20)"
    assert protocol_line(settings_of({"base": "fpn_1x", "batch": 4})) == (
        "departs from the protocol fpn_1x: batch 4 (named: 16)"
    )
    assert protocol_line(KnnSettings()) == "a protocol of its own, which departs from no named one"


@pytest.mark.parametrize(
    ("block", "processes", "told"),
    [
        ({"base": "fpn_1x"}, 8, None),
        ({"base": "fpn_1x"}, 4, "16 images of a step over 4 processes are 4 on each, where fpn_1x means 2 (16 over 8)"),
        ({"base": "fpn_1x", "world_size": 4}, 4, None),
        ({"base": "fpn_1x", "world_size": 4}, 1, "8 images of a step over one process are 8 on each, where fpn_1x"),
        (
            {"base": "cityscapes_fpn"},
            4,
            "8 images of a step over 4 processes are 2 on each, where cityscapes_fpn means 1",
        ),
        ({"iterations": 2000}, 3, None),
    ],
)
def test_another_share_of_the_batch_than_the_protocol_means_is_a_line(
    block: dict[str, Any], processes: int, told: str | None
) -> None:
    line = other_share(settings_of(block), processes)
    assert line is None if told is None else (line or "").startswith(told)


def test_a_probe_has_no_share() -> None:
    assert other_share(resolve("linear"), 4) is None
