"""What is right, at which IoU: as pycocotools matches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.coco.bootstrap import weighted_ap
from eval.coco.matches import match_image, read_matches
from eval.coco.overlaps import IOU_THRESHOLDS, overlaps
from pcd.errors import PCDError
from tests.eval.coco.conftest import matches_of
from tests.eval.coco.reference import pycocotools_eval

Record = dict[str, Any]


@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize("which", ["ties", "distinct"])
def test_a_detection_is_right_or_ignored_where_pycocotools_says_so(
    which: str, task: str, coco: Record, request: pytest.FixtureRequest
) -> None:
    detections = request.getfixturevalue(which)
    theirs = pycocotools_eval(coco, detections, task)
    whole = {(e["image_id"], e["category_id"]): e for e in theirs.evalImgs if e and e["aRng"] == [0, 1e10]}
    counted = np.zeros(2, int)
    for place, image in enumerate(overlaps(coco, detections, task), start=1):  # ids are places from 1 on
        ours = match_image(image)
        for category in range(6):
            of = image.categories == category
            if of.any():
                expected = whole[place, category + 1]
                ignored = expected["dtIgnore"].astype(bool)
                np.testing.assert_array_equal(ours.ignored[of].T, ignored)
                np.testing.assert_array_equal(ours.true[of].T, (expected["dtMatches"] > 0) & ~ignored)
                counted += [ours.true[of].sum(), ignored.sum()]
    assert (counted > 20).all()


def test_an_object_that_a_surer_but_looser_detection_took_is_free_at_a_higher_iou() -> None:
    category = {"category_id": 1, "image_id": 1}
    coco = {
        "images": [{"id": 1, "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": 1, "bbox": [0, 0, 10, 10], "iscrowd": 0, **category}],
    }
    loose, tight = {"bbox": [0, 0, 10, 6.2], "score": 0.9}, {"bbox": [0, 0, 10, 9.2], "score": 0.8}
    (image,) = overlaps(coco, [loose | category, tight | category], "bbox")
    true = match_image(image).true
    assert true.sum(axis=0).tolist() == [1] * 9 + [0]  # up to 0.9
    assert true[0].tolist() == [True] * 3 + [False] * 7  # up to 0.6


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_matches_give_the_ap_of_every_iou_and_category(task: str, coco: Record, ties: list[Record]) -> None:
    ap = weighted_ap(matches_of(coco, ties, task), np.ones((40, 1)))[0]
    expected = pycocotools_eval(coco, ties, task).eval["precision"][:, :, :, 0, -1].mean(axis=1)
    np.testing.assert_allclose(np.nan_to_num(ap, nan=-1), expected, rtol=0, atol=1e-12)
    assert np.isnan(ap[:, 5]).all()
    assert ap.shape == (len(IOU_THRESHOLDS), 6)


def test_matches_read_back(coco: Record, distinct: list[Record], tmp_path: Path) -> None:
    written = matches_of(coco, distinct)
    written.write(tmp_path / "m.npz")
    read = read_matches(tmp_path / "m.npz")
    for name in type(written).__slots__:
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.npz").write_text("nonsense")
    with pytest.raises(PCDError, match="does not hold an evaluation's matches"):
        read_matches(tmp_path / "m.npz")
