"""Every figure is that of pycocotools."""

from typing import Any

import numpy as np
import pytest

from eval.coco.score import FIGURES, coco_figures, evaluate
from eval.coco.synthetic import make_detections, make_objects
from tests.eval.coco.reference import pycocotools_eval

Record = dict[str, Any]


@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize("which", ["ties", "distinct"])
def test_every_figure_is_that_of_pycocotools(
    which: str, task: str, coco: Record, request: pytest.FixtureRequest
) -> None:
    detections = request.getfixturevalue(which)
    ours, theirs = evaluate(coco, detections, task), pycocotools_eval(coco, detections, task)
    assert 0.1 < theirs.stats[0] < 0.9
    assert len({*theirs.stats.tolist()}) > 9  # by size and number of detections too
    np.testing.assert_allclose(ours.stats, theirs.stats, rtol=0, atol=1e-12)
    for name in ("precision", "recall", "scores"):  # by IoU, category, size class and detections an image
        np.testing.assert_allclose(ours.eval[name], theirs.eval[name], rtol=0, atol=1e-12)


def test_more_than_a_hundred_detections_of_an_image_are_cut_as_by_pycocotools() -> None:
    coco = make_objects(2, 30, 2, seed=3)
    detections = make_detections(coco, 260, seed=4, decimals=2)
    ours, theirs = evaluate(coco, detections, "bbox"), pycocotools_eval(coco, detections, "bbox")
    np.testing.assert_allclose(ours.stats, theirs.stats, rtol=0, atol=1e-12)


def test_the_figures_stand_under_their_names_in_per_cent(coco: Record, distinct: list[Record]) -> None:
    figures = coco_figures(coco, distinct)
    assert [figures[f"segm/{name}"] for name in FIGURES] == pytest.approx(
        (100 * pycocotools_eval(coco, distinct, "segm").stats).tolist()
    )
    precision = pycocotools_eval(coco, distinct, "bbox").eval["precision"]
    of_second = 100 * precision[:, :, 1, 0, -1].mean()
    assert figures["bbox/AP-category 2"] == pytest.approx(of_second)


def test_a_category_or_size_class_without_objects_has_no_figure_and_is_not_zero(
    coco: Record, distinct: list[Record]
) -> None:
    small = coco | {"annotations": [a | {"area": 10.0} for a in coco["annotations"]]}
    for detections in (distinct, []):
        figures = coco_figures(small, detections, ["bbox"])
        assert (figures["bbox/AP-unseen"], figures["bbox/APm"], figures["bbox/ARl"]) == (None, None, None)
        assert figures["bbox/APs"] is not None


def test_nothing_detected_scores_zero(coco: Record) -> None:
    figures = coco_figures(coco, [])
    assert {figures[f"{task}/{name}"] for task in ("bbox", "segm") for name in FIGURES} == {0.0}


def test_an_object_whose_id_is_zero_counts(coco: Record) -> None:
    # pycocotools would take it for "not matched".
    renumbered = coco | {"annotations": [a | {"id": i} for i, a in enumerate(coco["annotations"])]}
    perfect = [a | {"score": 0.5} for a in renumbered["annotations"] if not a["iscrowd"]]
    assert coco_figures(renumbered, perfect, ["bbox"])["bbox/AR100"] == 100


def test_polygons_score_as_the_masks_that_they_are(coco: Record, distinct: list[Record]) -> None:
    square = [[10, 10, 60, 10, 60, 50, 10, 50]]
    as_polygon = coco | {"annotations": [a | {"segmentation": square} for a in coco["annotations"]]}
    ours = coco_figures(as_polygon, distinct, ["segm"])
    theirs = pycocotools_eval(as_polygon, distinct, "segm").stats
    assert [ours[f"segm/{name}"] for name in FIGURES] == pytest.approx((100 * theirs).tolist())
