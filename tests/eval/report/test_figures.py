"""Figures of a report from small folders of stages."""

import json
from pathlib import Path

import pytest

from eval.report.figures import (
    Source,
    curve_figure,
    field_figures,
    gallery_figures,
    similarity_figures,
    table_figures,
)
from tests.eval.report.reports import png

TABLE = {
    "printed": [{"arm": "pcd", "protocol": "fpn", "box AP": "27.1 ± 0.3", "mask AP": "20.4"}],
    "cells": [{"cell": "pcd.fpn.seed0", "bbox/AP": 27.1, "segm/AP": 20.4}],
}
INTERVALS = """arm,protocol,task,n,ap,low,high
pcd,fpn,bbox,1,27.1,20.0,30.0
random,fpn,bbox,1,17.4,10.0,20.0
"""
MISTAKES = """arm,protocol,task,kind,count,cost
pcd,fpn,bbox,classification,3.0,1.5
pcd,fpn,bbox,missed,9.0,7.25
"""


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """A whole aggregate stage."""
    pictures = ("ap_by_arm", "intervals", "mistakes", "losses", "detections", "detections-mine")
    for name in pictures:
        (tmp_path / f"{name}.png").write_bytes(png())
    (tmp_path / "intervals.csv").write_text(INTERVALS)
    (tmp_path / "mistakes.csv").write_text(MISTAKES)
    files = frozenset(path.name for path in tmp_path.iterdir())
    return Source("aggregate", tmp_path, files, "python -m eval.aggregate spec.json")


def _alts(source: Source, curves: dict[str, Path] | None = None) -> dict[str, str]:
    return {figure.name: figure.alt for figure in table_figures(source, TABLE, curves or {}).figures}


def test_every_figure_of_the_table_is_there_with_the_command_behind_it(source: Source) -> None:
    found = table_figures(source, TABLE, {})
    assert [figure.name for figure in found.figures] == ["ap", "intervals", "mistakes", "losses"]
    assert {figure.command for figure in found.figures} == {source.command}
    assert all(figure.png == png() and figure.caption for figure in found.figures)
    assert found.missing == []


def test_the_main_figures_stand_in_words(source: Source, tmp_path: Path) -> None:
    lines = [{"step": step, "loss": loss} for step, loss in ((1, 5.0), (8, 4.5))]
    cut_short = '{"step": 9, "lo'
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + cut_short)
    alts = _alts(source, {"pcd.seed0": tmp_path / "metrics.jsonl", "gone": tmp_path / "gone.jsonl"})
    assert alts == {
        "ap": "AP by arm. Bars, in per cent: pcd by fpn: box AP 27.1 ± 0.3, mask AP 20.4.",
        "intervals": "Intervals and differences. Points with 95 % intervals over images; the differences stand in "
        "their table: pcd by fpn, box: AP 27.1 (20.0 to 30.0); random by fpn, box: AP 17.4 (10.0 to 20.0).",
        "mistakes": "What mistakes cost. Bars for each kind of mistake: pcd by fpn, box: missed costs most, 7.2 points "
        "of AP50.",
        "losses": "Losses. Lines of the loss: pcd.seed0: from 5 to 4.5 at step 8.",
    }


def test_a_figure_that_is_gone_is_named_and_the_others_stay(source: Source) -> None:
    (source.folder / "losses.png").unlink()
    found = table_figures(source, TABLE, {})
    assert [figure.name for figure in found.figures] == ["ap", "intervals", "mistakes"]
    told = "Figure “Losses”: losses.png of aggregate cannot be read (No such file or directory)."
    assert found.missing == [told]


def test_a_figure_that_was_cut_short_is_named(source: Source) -> None:
    (source.folder / "ap_by_arm.png").write_bytes(png()[:-20])
    assert table_figures(source, TABLE, {}).missing == ["Figure “AP by arm”: ap_by_arm.png of aggregate is damaged."]


def test_a_figure_that_the_stage_never_left_is_not_missed(source: Source) -> None:
    probes = Source("aggregate", source.folder, source.files - {"intervals.png", "mistakes.png"}, "")
    found = table_figures(probes, TABLE, {})
    assert ([figure.name for figure in found.figures], found.missing) == (["ap", "losses"], [])


@pytest.mark.parametrize("damage", [None, "another,table\n1,2\n"])
def test_a_figure_is_shown_also_without_its_words(source: Source, damage: str | None) -> None:
    file = source.folder / "intervals.csv"
    file.unlink() if damage is None else file.write_text(damage)
    assert _alts(source)["intervals"] == "Intervals and differences. The file with its figures is gone or unreadable."


def test_each_labelled_set_has_a_gallery_of_its_own(source: Source) -> None:
    found = gallery_figures(source, TABLE).figures
    assert [(figure.name, figure.heading) for figure in found] == [
        ("detections", "Detections"), ("detections-mine", "Detections on mine"),
    ]  # fmt: skip
    assert "pcd.fpn.seed0 with box AP 27.1, mask AP 20.4" in found[1].alt


def test_a_receptive_field_is_told_with_and_without_attention(tmp_path: Path) -> None:
    (tmp_path / "receptive_field.png").write_bytes(png())
    sides = {"backbone": {"side_50": 58, "side_95": 111}, "with_attention": {"side_50": 59, "side_95": 114}}
    (tmp_path / "receptive_field.json").write_text(json.dumps({"image_size": [128, 128], **sides}))
    source = Source("pretrain:pcd.seed0", tmp_path, frozenset({"receptive_field.png"}), "python -m pcd.train")
    (found,) = field_figures({"pcd.seed0": source}).figures
    assert found.name == "receptive-field-pcd-seed0"
    assert "backbone alone: half of the field in a square of 58 px, 95 % in 111 px" in found.alt
    assert "with self-attention: half of the field in a square of 59 px, 95 % in 114 px" in found.alt


def test_pixels_that_find_their_place_are_told(tmp_path: Path) -> None:
    (tmp_path / "similarity_maps.png").write_bytes(png())
    record = {"images": 8, "grid": [4, 4], "found": 0.75, "chance": 0.0625}
    (tmp_path / "similarity_maps.json").write_text(json.dumps(record))
    source = Source("pretrain:pcd.seed0", tmp_path, frozenset({"similarity_maps.png"}), "python -m pcd.train")
    (found,) = similarity_figures({"pcd.seed0": source}).figures
    assert found.alt.endswith(
        ". 75% of the student's pixels find their own place among 4 x 4 of the teacher's in 8 images; by chance 6%."
    )


def _watch(folder: Path, *points: tuple[float, float | None]) -> Source:
    folder.mkdir()
    curve = [{"epoch": epoch, "metrics": {"bbox/AP": ap}} for epoch, ap in points]
    (folder / "result.json").write_text(json.dumps({"curve": curve}))
    return Source(f"watch:{folder.name}", folder, frozenset({"result.json"}), f"watch {folder.name}")


def test_what_was_watched_becomes_one_figure_with_a_line_for_each(tmp_path: Path) -> None:
    names = {"pcd.seed0": ((1.0, 3.0), (2.0, 5.5)), "seed.seed0": ((1.0, None), (2.0, 4.0))}
    sources = {name: _watch(tmp_path / name, *points) for name, points in names.items()}
    (found,) = curve_figure(sources).figures
    assert found.heading == "By epoch: box AP"
    assert "pcd.seed0: 3.0 at epoch 1, 5.5 at epoch 2; seed.seed0: 4.0 at epoch 2, 4.0 at epoch 2" in found.alt
    assert found.command == "watch pcd.seed0\nwatch seed.seed0"
    assert found.png.startswith(b"\x89PNG")


def test_a_watch_that_cannot_be_read_is_named_and_the_others_are_drawn(tmp_path: Path) -> None:
    sources = {name: _watch(tmp_path / name, (1.0, 3.0)) for name in ("a.seed0", "b.seed0")}
    (tmp_path / "a.seed0" / "result.json").write_text("{")
    found = curve_figure(sources)
    assert found.missing == ["AP against epoch of a.seed0: result.json of watch:a.seed0 is gone or damaged."]
    assert [figure.command for figure in found.figures] == ["watch b.seed0"]


def test_a_watch_without_any_figure_draws_nothing(tmp_path: Path) -> None:
    assert curve_figure({"a": _watch(tmp_path / "a", (1.0, None))}).figures == []
