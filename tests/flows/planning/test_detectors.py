"""A detector that cannot be trained or judged is refused with the profile, not after a pre-training."""

import pytest

from eval.departures import resolve
from eval.finetune_settings import FinetuneSettings
from eval.protocols import PROTOCOLS
from flows.planning.detectors import check_detectors, shares_that_differ
from flows.profiles import load_profile, validate
from pcd.errors import PCDError

KINDS = {None: "shapes", "voc": "voc", "cityscapes": "cityscapes", "mine": "coco"}


def test_every_named_protocol_stands_on_a_resnet_and_its_kind_of_set() -> None:
    check_detectors(
        {f"protocols.{name}": resolve(name) for name in PROTOCOLS}, ["resnet18", "resnet34"], KINDS, processes=8
    )


@pytest.mark.parametrize(
    ("name", "changes", "student", "processes", "told"),
    [
        ("c4_1x", {}, "timm:convnext_atto", 1, 'mask_rcnn_c4 cannot stand on "timm:convnext_atto"; choose a student'),
        ("voc_fpn_24k", {"set": "mine"}, "resnet18", 1, 'score_by voc judges a set .* the set "mine" is of kind coco'),
        ("voc_fpn_24k", {"set": None}, "resnet18", 1, "the benchmark's `data` is of kind shapes; set score_by=coco"),
        ("fpn_1x", {"set": "voc"}, "resnet18", 1, "VOC has boxes alone; set .* architecture to faster_rcnn_fpn"),
        ("cityscapes_fpn", {}, "resnet18", 16, "a batch of 8 does not divide among 16 .*world_size=16"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    name: str, changes: dict[str, object], student: str, processes: int, told: str
) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        check_detectors({f"protocols.{name}": resolve(name, changes)}, [student], KINDS, processes)
    assert "\n" not in str(caught.value)


def test_a_pyramid_stands_on_every_student() -> None:
    check_detectors(
        {"protocols.fpn_1x": resolve("fpn_1x")}, ["mobilenet_v3_large", "timm:convnext_atto"], KINDS, processes=1
    )


def test_a_protocol_whose_share_differs_is_named() -> None:
    protocols = {"fpn_1x": resolve("fpn_1x"), "mine": FinetuneSettings(), "knn": resolve("knn")}
    (line,) = shares_that_differ(protocols, 4)
    assert line.startswith("protocols.fpn_1x: 16 images of a step over 4 processes are 4 on each, where fpn_1x means 2")
    assert shares_that_differ(protocols, 8) == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"overrides": {"finetune:*.seed0": {"batch": 3}}, "runtime": {"processes": 2}},
            "overrides of finetune:pcd.smoke_fpn.seed0: a batch of 3 does not divide among 2 processes",
        ),
        ({"overrides": {"finetune:*": {"score_by": "voc"}}}, "overrides of finetune:pcd.* score_by voc judges"),
        (
            {"watch": {"protocol": "smoke_fpn", "changes": {"score_by": "voc"}}},
            "watch.changes: score_by voc judges a set of that kind",
        ),
    ],
)
def test_what_an_override_or_a_watch_changes_is_looked_at_as_well(settings: dict[str, object], told: str) -> None:
    smoke = load_profile("smoke").model_dump(mode="json")
    with pytest.raises(PCDError, match=told):
        validate(smoke | settings | {"runtime": smoke["runtime"] | dict(settings.get("runtime", {}))}, "a profile")  # type: ignore[call-overload]


def test_a_watch_may_have_a_batch_that_divides_among_no_processes_since_it_has_one() -> None:
    smoke = load_profile("smoke").model_dump(mode="json")
    watch = {"protocol": "smoke_fpn", "changes": {"batch": 3}}
    assert validate(smoke | {"watch": watch, "runtime": smoke["runtime"] | {"processes": 2}}, "a profile").watch
