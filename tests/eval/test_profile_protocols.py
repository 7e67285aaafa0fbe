"""The named protocols as a profile writes them."""

from typing import Any

import pytest

from eval.departures import departures, resolve
from eval.finetune_settings import FinetuneSettings
from eval.profile_protocols import with_named_protocols


def settings_of(block: Any, name: str = "mine") -> FinetuneSettings:
    return FinetuneSettings.model_validate(with_named_protocols({name: block})[name])


def test_the_name_alone_takes_the_protocol_whole() -> None:
    assert settings_of({}, "fpn_1x") == settings_of(None, "fpn_1x") == resolve("fpn_1x")


def test_what_was_filled_up_once_stays_as_it_is() -> None:
    once = with_named_protocols({"mine": {"base": "fpn_1x", "world_size": 4}})
    again = FinetuneSettings.model_validate(once["mine"]).model_dump(mode="json")
    assert with_named_protocols({"mine": again}) == {"mine": again}


def test_a_misspelt_base_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match='unknown protocol "fpn1x": did you mean "fpn_1x"'):
        with_named_protocols({"mine": {"base": "fpn1x"}})


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


@pytest.mark.parametrize("world_size", [0, -1, "four", 2.5])
def test_a_world_size_that_is_no_number_of_processes_is_refused(world_size: object) -> None:
    with pytest.raises(ValueError, match="world_size is the number of processes"):
        with_named_protocols({"mine": {"base": "fpn_1x", "world_size": world_size}})


def test_a_world_size_that_leaves_no_whole_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 12, meant for 8 processes, leaves 3 no whole number"):
        with_named_protocols({"mine": {"base": "fpn_1x", "batch": 12, "world_size": 3}})
