"""The named protocols as a profile writes them, and what a profile changes of them."""

from typing import Any

import pytest

from eval.finetune_settings import FinetuneSettings
from eval.protocols import PROTOCOLS, departures, difference, other_share, resolve, with_named_protocols
from pcd.errors import PCDError


def settings_of(block: Any, name: str = "mine") -> FinetuneSettings:
    return FinetuneSettings.model_validate(with_named_protocols({name: block})[name])


@pytest.mark.parametrize(
    ("name", "batch", "rate", "warmup", "steps", "iterations"),
    [
        ("fpn_1x", 16, 0.02, 1000, [60_000, 80_000], 90_000),
        ("fpn_2x", 16, 0.02, 1000, [120_000, 160_000], 180_000),
        ("fpn_1x_4conv1fc", 16, 0.02, 1000, [60_000, 80_000], 90_000),
        ("fpn_1x_frozen", 16, 0.02, 1000, [60_000, 80_000], 90_000),
        ("sslight_fpn_1x", 16, 0.02, 1000, [60_000, 80_000], 90_000),
        ("c4_1x", 16, 0.02, 1000, [60_000, 80_000], 90_000),
        ("c4_2x", 16, 0.02, 1000, [120_000, 160_000], 180_000),
        ("voc_c4_24k", 16, 0.02, 100, [18_000, 22_000], 24_000),
        ("voc_fpn_24k", 16, 0.02, 100, [18_000, 22_000], 24_000),
        ("cityscapes_fpn", 8, 0.01, 1000, [18_000], 24_000),
    ],
)
def test_a_named_schedule_is_the_published_one(
    name: str, batch: int, rate: float, warmup: int, steps: list[int], iterations: int
) -> None:
    settings = resolve(name)
    assert isinstance(settings, FinetuneSettings)
    assert (settings.batch, settings.learning_rate, settings.warmup_iterations) == (batch, rate, warmup)
    assert settings.iterations == iterations
    assert [round(share * iterations) for share in settings.decay_at] == steps


def test_only_sslights_recipe_does_without_precise_statistics() -> None:
    counts = {name: resolve(name).model_dump().get("precise_bn_iterations") for name in PROTOCOLS}
    assert {name for name, count in counts.items() if count == 0} == {"sslight_fpn_1x"}
    assert {count for count in counts.values() if count} == {200}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_named_protocol_is_valid_and_departs_from_nothing(name: str) -> None:
    assert difference(resolve(name), name) == []
    assert PROTOCOLS[name].source


def test_the_name_alone_takes_the_protocol_whole() -> None:
    assert settings_of({}, "fpn_1x") == settings_of(None, "fpn_1x") == resolve("fpn_1x")


def test_a_base_is_departed_from_by_what_is_changed_alone() -> None:
    settings = settings_of({"base": "voc_c4_24k", "iterations": 1000})
    assert departures(settings) == [("iterations", 24_000, 1000)]
    assert settings.architecture == "faster_rcnn_c4"


def test_a_block_of_its_own_departs_from_nothing() -> None:
    settings = settings_of({"iterations": 2000})
    assert settings.base is None
    assert departures(settings) == []
    assert settings == FinetuneSettings(iterations=2000)


def test_what_was_filled_up_once_stays_as_it_is() -> None:
    once = with_named_protocols({"mine": {"base": "fpn_1x", "world_size": 4}})
    again = FinetuneSettings.model_validate(once["mine"]).model_dump(mode="json")
    assert with_named_protocols({"mine": again}) == {"mine": again}


def test_a_misspelt_base_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match='unknown protocol "fpn1x": did you mean "fpn_1x"'):
        with_named_protocols({"mine": {"base": "fpn1x"}})
    with pytest.raises(PCDError, match='did you mean "c4_2x"'):
        resolve("c4_2")


@pytest.mark.parametrize(
    ("base", "world_size", "scaled"),
    [
        ("fpn_1x", 16, (32, 0.04, 45_000, 500)),  # the example in Detectron2's auto_scale_workers, for its numbers
        ("fpn_1x", 1, (2, 0.0025, 720_000, 8_000)),
        ("fpn_1x", 8, (16, 0.02, 90_000, 1000)),
        ("cityscapes_fpn", 3, (3, 0.00375, 64_000, 2667)),
    ],
)
def test_other_numbers_of_processes_follow_the_reference_world_size_rule(
    base: str, world_size: int, scaled: tuple[int, float, int, int]
) -> None:
    settings = settings_of({"base": base, "world_size": world_size})
    assert (settings.batch, settings.learning_rate, settings.iterations, settings.warmup_iterations) == scaled
    named = {name for name, _, _ in departures(settings)}
    assert named == (set() if world_size == 8 else {"batch", "learning_rate", "iterations", "warmup_iterations"})


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


@pytest.mark.parametrize("world_size", [0, -1, "four", 2.5])
def test_a_world_size_that_is_no_number_of_processes_is_refused(world_size: object) -> None:
    with pytest.raises(ValueError, match="world_size is the number of processes"):
        with_named_protocols({"mine": {"base": "fpn_1x", "world_size": world_size}})


def test_a_world_size_that_leaves_no_whole_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 12, meant for 8 processes, leaves 3 no whole number"):
        with_named_protocols({"mine": {"base": "fpn_1x", "batch": 12, "world_size": 3}})
