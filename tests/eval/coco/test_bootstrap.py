"""A draw's AP is what evaluating the drawn images from scratch gives."""

import copy
from typing import Any

import numpy as np
import pytest

from eval.coco.bootstrap import draw_weights, interval, resample, weighted_ap
from eval.coco.synthetic import make_detections, make_objects
from pcd.errors import PCDError
from tests.eval.coco.conftest import matches_of
from tests.eval.coco.reference import pycocotools_eval

Record = dict[str, Any]


def drawn_set(coco: Record, detections: list[Record], weights: list[int]) -> tuple[Record, list[Record]]:
    """Each image as often as it was drawn, under ids of its own."""
    images, annotations, found = [], [], []
    for image, times in zip(coco["images"], weights, strict=True):
        for _ in range(times):
            own = {"image_id": len(images) + 1}
            images.append(image | {"id": own["image_id"]})
            mine = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
            annotations += [copy.deepcopy(a) | own | {"id": len(annotations) + 1 + i} for i, a in enumerate(mine)]
            found += [d | own for d in detections if d["image_id"] == image["id"]]
    return coco | {"images": images, "annotations": annotations}, found


@pytest.mark.parametrize("seed", [0, 1])
def test_a_draw_has_the_ap_of_its_images_evaluated_from_scratch(
    seed: int, coco: Record, distinct: list[Record]
) -> None:
    weights = draw_weights(40, 3, seed)
    assert weights.max() > 2
    assert weights.min() == 0
    ap = weighted_ap(matches_of(coco, distinct), weights, threads=2)
    assert ap.shape == (3, 10, 6)
    for draw in range(3):
        theirs = pycocotools_eval(*drawn_set(coco, distinct, weights[:, draw].astype(int).tolist()), "bbox")
        expected = theirs.eval["precision"][:, :, :, 0, -1].mean(axis=1)
        np.testing.assert_allclose(np.nan_to_num(ap[draw], nan=-1), expected, rtol=0, atol=1e-12)


def test_a_draw_without_any_object_of_a_category_leaves_it_out() -> None:
    coco = make_objects(4, 12, 1, seed=0, crowds=0)
    matches = matches_of(coco, make_detections(coco, 5, seed=0))
    of_first = np.array([[1.0, 0, 0, 0], [0, 1, 1, 1]]).T
    alone = coco | {"annotations": [a for a in coco["annotations"] if a["image_id"] > 1]}
    ap = weighted_ap(matches_of(alone, make_detections(coco, 5, seed=0)), of_first)
    assert np.isnan(ap[0]).all()
    assert not np.isnan(ap[1]).any()
    assert not np.isnan(weighted_ap(matches, of_first)).any()


def test_an_arms_draws_are_the_mean_over_its_seeds_of_the_same_images(
    coco: Record, distinct: list[Record], ties: list[Record]
) -> None:
    runs = [matches_of(coco, detections) for detections in (distinct, ties)]
    value, drawn = resample(runs, 50, seed=3)
    apart = [resample([run], 50, seed=3) for run in runs]
    assert value == pytest.approx(np.mean([ap for ap, _ in apart]))
    np.testing.assert_allclose(drawn, np.mean([draws for _, draws in apart], axis=0))
    assert value == pytest.approx(100 * np.mean([pycocotools_eval(coco, d, "bbox").stats[0] for d in (distinct, ties)]))


def test_paired_draws_tell_a_small_difference_that_unpaired_ones_do_not(coco: Record, distinct: list[Record]) -> None:
    worse = [d for i, d in enumerate(distinct) if i % 15]  # the same detector, which overlooks a few
    (a, drawn_a), (b, drawn_b) = (resample([matches_of(coco, d)], 400, seed=0) for d in (distinct, worse))
    paired = interval(a - b, drawn_a - drawn_b)
    _, unpaired = resample([matches_of(coco, worse)], 400, seed=1)
    apart = interval(a - b, drawn_a - unpaired)
    assert 0 < paired.low < paired.value < paired.high
    assert apart.low < 0
    assert paired.high - paired.low < (apart.high - apart.low) / 2


def test_an_interval_holds_the_ap_although_draws_repeat_images(coco: Record, distinct: list[Record]) -> None:
    value, drawn = resample([matches_of(coco, distinct)], 400, seed=0)
    assert drawn.mean() > value + 0.4  # fewer different objects
    found = interval(value, drawn)
    assert found.low < found.value < found.high
    assert found.high - found.low == pytest.approx(np.subtract(*np.quantile(drawn, (0.975, 0.025))))


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    """Sets of 60 images out of one population; binomial, so 34 of 40 or fewer have a chance of 1.4 %."""
    coco = make_objects(600, 1800, 2, seed=5, crowds=0)
    matches, random = matches_of(coco, make_detections(coco, 8, seed=6)), np.random.default_rng(7)
    sets = [np.sort(random.choice(600, 60, replace=False)) for _ in range(40)]
    found = []
    for chosen in sets:
        weights = np.zeros((600, 201))
        weights[chosen, 0] = 1  # as they are
        weights[chosen, 1:] = draw_weights(60, 200, seed=int(chosen[0]))
        drawn = 100 * weighted_ap(matches, weights).mean(axis=(1, 2))
        found.append(interval(float(drawn[0]), drawn[1:]))
    mean = np.mean([each.value for each in found])
    assert sum(each.low <= mean <= each.high for each in found) > 34


def test_detectors_of_different_images_are_not_resampled_together(coco: Record, distinct: list[Record]) -> None:
    other = make_objects(39, 100, 6, seed=0)
    with pytest.raises(PCDError, match="evaluated on different images"):
        resample([matches_of(coco, distinct), matches_of(other, [])], 2)


def test_draws_are_the_same_on_every_call(coco: Record, distinct: list[Record]) -> None:
    matches = matches_of(coco, distinct)
    assert (resample([matches], 20, seed=5)[1] == resample([matches], 20, seed=5, threads=2)[1]).all()
    assert (resample([matches], 20, seed=5)[1] != resample([matches], 20, seed=6)[1]).any()
