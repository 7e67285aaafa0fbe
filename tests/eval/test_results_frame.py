from eval.results_frame import RESULT_COLUMNS, Cell, results_frame

CELL = Cell(
    cell="pcd.fpn.seed1", arm="pcd", protocol="fpn", seed=1,
    metrics={"bbox/AP": 30.5, "segm/APl": None, "bbox/AP-traffic-light": 4.0, "bbox/AR100": 40.0, "top1": 60.0},
)  # fmt: skip


def test_there_is_one_row_for_each_cell_and_metric() -> None:
    frame = results_frame([CELL, CELL])
    assert list(frame.columns) == list(RESULT_COLUMNS)
    assert frame["metric"].tolist() == [*CELL.metrics] * 2


def test_a_metrics_name_is_taken_apart() -> None:
    frame = results_frame([CELL])
    assert frame[["task", "figure", "category"]].to_numpy().tolist() == [
        ["bbox", "AP", ""], ["segm", "APl", ""], ["bbox", "AP", "traffic-light"], ["bbox", "AR100", ""],
        ["", "top1", ""],
    ]  # fmt: skip


def test_what_the_split_has_no_object_of_is_blank_and_not_zero() -> None:
    assert results_frame([CELL])["value"].isna().tolist() == [False, True, False, False, False]


def test_without_cells_there_are_no_rows() -> None:
    assert results_frame([]).empty
