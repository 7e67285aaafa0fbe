"""Figures that a viewer opens, and that show what they were given."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from eval.data import Split
from eval.figures import Curve, draw_ap_bars, draw_gallery, draw_losses
from eval.results_frame import Cell
from eval.table import METRICS, Hole, cell_table

BLUE, ORANGE = (31, 119, 180), (255, 127, 14)
"""The first two colours of matplotlib's tab10."""


def pixels_of(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as file:
        assert file.format == "PNG"
        return np.asarray(file.convert("RGB"))


def has_colour(pixels: NDArray[np.uint8], colour: tuple[int, int, int]) -> bool:
    return bool((abs(pixels.astype(int) - colour).max(axis=2) < 12).sum() >= 5)


def longest_black_line(pixels: NDArray[np.uint8]) -> int:
    """Pixels of the longest vertical one, right of the axis."""
    black = pixels[:, pixels.shape[1] // 5 :].max(axis=2) < 60  # (H, W)
    longest, run = 0, np.zeros(black.shape[1], int)
    for row in black:
        run = (run + 1) * row
        longest = max(longest, int(run.max()))
    return longest


def cells(*rows: tuple[str, str, int, float | None]) -> pd.DataFrame:
    """Rows of arm, protocol, seed and one figure for all metrics."""
    return cell_table(
        [
            Cell(
                cell=f"{arm}.{protocol}.{seed}",
                arm=arm,
                protocol=protocol,
                seed=seed,
                metrics=dict.fromkeys(METRICS, ap),
            )
            for arm, protocol, seed, ap in rows
        ]
    )


def metrics_file(path: Path, losses: list[float]) -> Path:
    lines = [{"step": i + 1, "total": len(losses), "time": 0.0, "loss": loss} for i, loss in enumerate(losses)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def gallery(tmp_path: Path, own_images: Path, own_coco: dict[str, Any]) -> Callable[..., NDArray[np.uint8]]:
    """Draw the gallery of `own_coco` with one column for each list of detections."""

    def draw(*detections: list[dict[str, Any]], coco: dict[str, Any] | None = None) -> NDArray[np.uint8]:
        (tmp_path / "val.json").write_text(json.dumps(coco or own_coco))
        files = {f"cell {i}": tmp_path / f"predictions{i}.json" for i in range(len(detections))}
        for file, records in zip(files.values(), detections, strict=True):
            file.write_text(json.dumps(records))
        draw_gallery(Split(own_images, tmp_path / "val.json"), files, tmp_path / "detections.png")
        return pixels_of(tmp_path / "detections.png")

    return draw


def detection(score: float) -> dict[str, Any]:
    rle = {"size": [40, 30], "counts": "0:n00000000Xo0"}
    return {"image_id": 3, "category_id": 7, "bbox": [0, 0, 5, 10], "score": score, "segmentation": rle}


def test_ap_bars_show_both_metrics_in_their_colours(tmp_path: Path) -> None:
    draw_ap_bars(cells(("random", "fpn", 0, 20.0), ("pcd", "fpn", 0, 30.0)), tmp_path / "bars.png")
    faded = [tuple(round(0.75 * c + 0.25 * 255) for c in colour) for colour in (BLUE, ORANGE)]
    pixels = pixels_of(tmp_path / "bars.png")
    assert [has_colour(pixels, colour) for colour in faded] == [True, True]  # type: ignore[arg-type]


def test_ap_bars_have_a_panel_for_each_protocol(tmp_path: Path) -> None:
    draw_ap_bars(cells(("pcd", "fpn", 0, 20.0)), tmp_path / "one.png")
    draw_ap_bars(cells(("pcd", "fpn", 0, 20.0), ("pcd", "c4", 0, 30.0)), tmp_path / "two.png")
    one, two = pixels_of(tmp_path / "one.png"), pixels_of(tmp_path / "two.png")
    assert one.shape[0] == two.shape[0]
    assert 1.5 * one.shape[1] < two.shape[1] < 2 * one.shape[1]


def test_ap_bars_name_holes_below_the_arm_and_leave_room_for_one_without_cells(tmp_path: Path) -> None:
    found = cells(("random", "fpn", 0, 20.0))
    for name, holes in (("whole", []), ("one", ["random"]), ("arm", ["pcd"])):
        lost = [Hole(cell=f"{arm}.fpn.1", arm=arm, protocol="fpn", seed=1, reason="failed") for arm in holes]
        draw_ap_bars(found, tmp_path / f"{name}.png", lost)
    whole, one, arm = (pixels_of(tmp_path / f"{name}.png") for name in ("whole", "one", "arm"))
    assert (one != whole).any()
    faded = tuple(round(0.75 * c + 0.25 * 255) for c in BLUE)
    blue = [(abs(pixels.astype(int) - faded).max(axis=2) < 12).sum() for pixels in (whole, arm)]
    assert 1.5 * blue[1] < blue[0]  # the same bar in a panel for two arms


def test_ap_bars_have_a_size_that_fits_a_screen(tmp_path: Path) -> None:
    draw_ap_bars(cells(("pcd", "fpn", 0, 20.0)), tmp_path / "bars.png")
    height, width, _ = pixels_of(tmp_path / "bars.png").shape
    assert 300 < height < 1000
    assert 400 < width < 1500


def test_ap_bars_show_the_spread_of_seeds(tmp_path: Path) -> None:
    draw_ap_bars(cells(("pcd", "fpn", 0, 20.0), ("pcd", "fpn", 1, 20.0)), tmp_path / "same.png")
    draw_ap_bars(cells(("pcd", "fpn", 0, 15.0), ("pcd", "fpn", 1, 25.0)), tmp_path / "spread.png")
    same, spread = pixels_of(tmp_path / "same.png"), pixels_of(tmp_path / "spread.png")
    # The error bar from 15 to 25 takes two fifths of an axis that ends a little above 25.
    assert longest_black_line(spread) > 0.25 * spread.shape[0] > 0.1 * same.shape[0] > longest_black_line(same)


def test_ap_bars_draw_an_arm_that_found_nothing(tmp_path: Path) -> None:
    draw_ap_bars(cells(("random", "fpn", 0, 0.0), ("pcd", "fpn", 0, 0.0)), tmp_path / "bars.png")
    assert pixels_of(tmp_path / "bars.png").std() > 5


def test_ap_bars_draw_a_figure_that_does_not_exist_as_none(tmp_path: Path) -> None:
    draw_ap_bars(cells(("random", "fpn", 0, None), ("pcd", "fpn", 0, 10.0)), tmp_path / "bars.png")
    assert pixels_of(tmp_path / "bars.png").std() > 5


def test_ap_bars_show_the_accuracy_of_a_probe_in_its_panel(tmp_path: Path) -> None:
    names = [("pcd", "fpn", dict.fromkeys(METRICS, 30.0)), ("pcd", "linear", {"top1": 60.0})]
    both = cell_table([Cell(cell=p, arm=a, protocol=p, seed=0, metrics=m) for a, p, m in names])  # type: ignore[arg-type]
    draw_ap_bars(both, tmp_path / "bars.png")
    pixels = pixels_of(tmp_path / "bars.png")
    faded = [tuple(round(0.75 * c + 0.25 * 255) for c in colour) for colour in (BLUE, ORANGE)]
    left, right = pixels[:, : pixels.shape[1] // 2], pixels[:, pixels.shape[1] // 2 :]
    shown = [[has_colour(half, colour) for colour in faded] for half in (left, right)]  # type: ignore[arg-type]
    assert shown == [[True, True], [True, False]]


def test_every_loss_curve_has_its_colour(tmp_path: Path) -> None:
    curves = [Curve(n, n, metrics_file(tmp_path / n, [3.0, 2.0, i])) for i, n in enumerate(("a", "b"))]
    draw_losses({"fine-tuning": curves}, ["a", "b"], tmp_path / "losses.png")
    pixels = pixels_of(tmp_path / "losses.png")
    assert [has_colour(pixels, colour) for colour in (BLUE, ORANGE)] == [True, True]


def test_an_arm_has_its_colour_in_every_panel_whoever_stands_in_it(tmp_path: Path) -> None:
    of_b = Curve("b", "b", metrics_file(tmp_path / "b", [3.0, 2.0]))
    draw_losses({"pre-training": [of_b]}, ["a", "b"], tmp_path / "losses.png")
    pixels = pixels_of(tmp_path / "losses.png")
    assert [has_colour(pixels, colour) for colour in (BLUE, ORANGE)] == [False, True]


def test_seeds_of_an_arm_share_a_colour(tmp_path: Path) -> None:
    curves = [Curve("a", "a.fpn", metrics_file(tmp_path / f"{i}", [3.0, 2.0, i])) for i in range(3)]
    draw_losses({"fine-tuning": curves}, ["a"], tmp_path / "losses.png")
    pixels = pixels_of(tmp_path / "losses.png")
    assert [has_colour(pixels, colour) for colour in (BLUE, ORANGE)] == [True, False]


def test_losses_have_a_panel_for_each_kind_of_stage(tmp_path: Path) -> None:
    curves = [Curve("a", "a", metrics_file(tmp_path / "a", [3.0, 2.0]))]
    draw_losses({"fine-tuning": curves}, ["a"], tmp_path / "one.png")
    draw_losses({"pre-training": curves, "fine-tuning": curves}, ["a"], tmp_path / "two.png")
    assert pixels_of(tmp_path / "two.png").shape[1] == 2 * pixels_of(tmp_path / "one.png").shape[1]


def test_losses_draw_a_stage_that_recorded_one_step(tmp_path: Path) -> None:
    curves = [Curve("a", "a", metrics_file(tmp_path / "a", [3.0]))]
    draw_losses({"fine-tuning": curves}, ["a"], tmp_path / "losses.png")
    assert pixels_of(tmp_path / "losses.png").std() > 5


def test_losses_skip_the_lines_that_have_none(tmp_path: Path) -> None:
    with_loss = metrics_file(tmp_path / "a", [3.0, 2.0, 1.0])
    (tmp_path / "b").write_text('{"step": 1, "total": 3, "time": 0.0}\n' + with_loss.read_text())
    draw_losses({"x": [Curve("a", "a", with_loss)]}, ["a"], tmp_path / "without.png")
    draw_losses({"x": [Curve("a", "a", tmp_path / "b")]}, ["a"], tmp_path / "with.png")
    assert (pixels_of(tmp_path / "without.png") == pixels_of(tmp_path / "with.png")).all()


def test_losses_are_drawn_without_a_line_that_was_cut_short(tmp_path: Path) -> None:
    whole = metrics_file(tmp_path / "a", [3.0, 2.0, 1.0])
    (tmp_path / "b").write_text(whole.read_text() + '{"step": 4, "lo')
    for name in ("a", "b"):
        draw_losses({"x": [Curve("a", "a", tmp_path / name)]}, ["a"], tmp_path / f"{name}.png")
    assert (pixels_of(tmp_path / "a.png") == pixels_of(tmp_path / "b.png")).all()


def test_losses_draw_a_stage_that_recorded_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"step": 1, "total": 3, "time": 0.0}\n')
    curves = [Curve("a", "a", tmp_path / "a"), Curve("b", "b", metrics_file(tmp_path / "b", [2.0, 1.0]))]
    draw_losses({"x": curves}, ["a", "b"], tmp_path / "losses.png")
    assert pixels_of(tmp_path / "losses.png").std() > 5


def test_the_gallery_has_a_column_for_each_cell_beside_the_ground_truth(
    gallery: Callable[..., NDArray[np.uint8]],
) -> None:
    assert gallery([], []).shape[1] == 3 * gallery().shape[1]


def test_the_gallery_has_a_row_for_each_image_with_objects(
    gallery: Callable[..., NDArray[np.uint8]], own_coco: dict[str, Any]
) -> None:
    fewer = own_coco | {"annotations": own_coco["annotations"][:1]}
    assert gallery([]).shape[0] == 3 * gallery([], coco=fewer).shape[0]


def test_the_gallery_draws_the_same_mask_from_polygon_and_both_kinds_of_rle(
    gallery: Callable[..., NDArray[np.uint8]], own_coco: dict[str, Any]
) -> None:
    box = own_coco["annotations"][2]
    uncompressed = own_coco["annotations"][1]["segmentation"]
    polygon = [[0, 0, 5, 0, 5, 10, 0, 10]]
    drawn = [
        gallery([], coco=own_coco | {"annotations": [box | {"segmentation": segmentation}]})
        for segmentation in (box["segmentation"], uncompressed, polygon)
    ]
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] == drawn[2]).all()


def test_the_gallery_tints_the_pixels_of_a_mask(
    gallery: Callable[..., NDArray[np.uint8]], own_coco: dict[str, Any]
) -> None:
    box = own_coco["annotations"][2]
    nothing = {"size": [40, 30], "counts": [1200]}
    masked, unmasked = (
        gallery(coco=own_coco | {"annotations": [box | {"segmentation": s}]}) for s in (box["segmentation"], nothing)
    )
    changed = (masked != unmasked).any(axis=2).mean()
    assert 0.01 < changed < 0.1  # 50 of 1200 pixels, in a panel with a margin


def test_the_gallery_of_a_set_of_boxes_is_drawn_without_masks(
    gallery: Callable[..., NDArray[np.uint8]], own_coco: dict[str, Any]
) -> None:
    boxes = [{n: v for n, v in record.items() if n != "segmentation"} for record in own_coco["annotations"]]
    found = {name: value for name, value in detection(0.9).items() if name != "segmentation"}
    plain = gallery([found], coco=own_coco | {"annotations": boxes})
    empty = gallery([found], coco=own_coco | {"annotations": [box | {"segmentation": []} for box in boxes]})
    assert (plain == empty).all()
    assert plain.shape == gallery([detection(0.9)]).shape


def test_the_gallery_shows_a_detection_however_unsure(gallery: Callable[..., NDArray[np.uint8]]) -> None:
    assert (gallery([detection(0.1)]) != gallery([])).any()


def test_the_gallery_shows_the_best_detections_as_many_as_there_are_objects(
    gallery: Callable[..., NDArray[np.uint8]], own_coco: dict[str, Any]
) -> None:
    image = detection(0.9)["image_id"]
    count = sum(a["image_id"] == image for a in own_coco["annotations"])
    best = [detection(0.9 - 0.01 * i) for i in range(count)]
    unsure = detection(0.1) | {"bbox": [10, 10, 10, 10]}
    assert (gallery([unsure, *best]) == gallery(best)).all()
    assert (gallery([unsure, *best[:-1]]) != gallery(best)).any()


def test_the_gallery_shows_six_images_at_most(
    gallery: Callable[..., NDArray[np.uint8]], own_coco: dict[str, Any]
) -> None:
    row = gallery(coco=own_coco | {"annotations": own_coco["annotations"][:1]}).shape[0]
    images = [own_coco["images"][0] | {"id": i} for i in range(9)]
    annotations = [own_coco["annotations"][0] | {"id": i, "image_id": i} for i in range(9)]
    assert gallery(coco=own_coco | {"images": images, "annotations": annotations}).shape[0] == 6 * row


def test_the_gallery_of_a_split_without_objects_can_be_drawn(
    gallery: Callable[..., NDArray[np.uint8]], own_coco: dict[str, Any]
) -> None:
    assert gallery([], coco=own_coco | {"annotations": []}).size > 0
