import json
from collections.abc import Callable
from typing import Any

import pytest

from pcd.checkpoint import save_checkpoint
from pcd.errors import PCDError
from pcd.resume import load_own_checkpoint
from pcd.stage import Spec

MakeSpec = Callable[..., Spec]


def steps(spec: Spec) -> list[int]:
    return [json.loads(line)["step"] for line in spec.metrics.path.read_text().splitlines()]


def interrupted(make_spec: MakeSpec, settings: dict[str, Any]) -> Spec:
    """A run of three steps that was saved behind its second."""
    spec = make_spec(settings)
    for step in (1, 2, 3):
        spec.metrics.log(step, 4)
    save_checkpoint(spec.out / "checkpoint.pt", {"step": 2, "settings": settings})
    return spec


def test_a_run_goes_on_from_its_checkpoint_less_the_metrics_behind_it(
    make_spec: MakeSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = interrupted(make_spec, {"probe": {"rate": 1}})
    state = load_own_checkpoint(spec)
    assert state is not None
    assert state["step"] == 2
    assert steps(spec) == [1, 2]
    assert capsys.readouterr().out == "resumed from step 2\n"


def test_without_a_checkpoint_a_run_begins_anew_with_no_metrics(make_spec: MakeSpec) -> None:
    spec = make_spec({})
    spec.metrics.log(1, 4)
    assert load_own_checkpoint(spec) is None
    assert steps(spec) == []


@pytest.mark.parametrize(
    ("then", "now", "told"),
    [
        ({"a": {"rate": 1, "size": 2}}, {"a": {"rate": 3, "size": 4}}, "(a.rate: 1 then, 3 now)"),
        ({"a": {}}, {"a": {"rate": None}}, "(a: {} then, absent now)"),
        ({"a": {"size": 1}}, {"a": {"size": 1, "rate": None}}, "(a.rate: absent then, None now)"),
        ({"a": 1, "group": {}}, {"a": 1}, "(group: {} then, absent now)"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_by_the_first_that_differs(
    make_spec: MakeSpec, then: dict[str, Any], now: dict[str, Any], told: str
) -> None:
    spec = interrupted(make_spec, then)
    spec.settings = now
    with pytest.raises(PCDError) as caught:
        load_own_checkpoint(spec)
    assert told in str(caught.value)
    assert steps(spec) == [1, 2, 3]  # they are another run's


def test_a_checkpoint_without_settings_is_refused(make_spec: MakeSpec) -> None:
    spec = make_spec({"seed": 0})
    save_checkpoint(spec.out / "checkpoint.pt", {"step": 2})
    with pytest.raises(PCDError, match=r"\(seed: absent then, 0 now\)"):
        load_own_checkpoint(spec)
