"""The named protocols are the published ones."""

import pytest

from eval.departures import difference, resolve
from eval.finetune_settings import FinetuneSettings
from eval.protocols import PROTOCOLS


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
