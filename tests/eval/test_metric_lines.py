from pathlib import Path

from eval.metric_lines import read_metric_lines


def test_whole_lines_are_read_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    assert read_metric_lines(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]


def test_a_line_that_was_cut_short_is_passed_over_wherever_it_stands(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "lo{"step": 2}\n{"step": 3}\n{"step": 4, "to')
    assert read_metric_lines(tmp_path / "metrics.jsonl") == [{"step": 1}, {"step": 3}]


def test_without_a_file_there_are_no_lines(tmp_path: Path) -> None:
    assert read_metric_lines(tmp_path / "metrics.jsonl") == []


def test_a_line_that_was_cut_within_a_letter_hides_no_other(tmp_path: Path) -> None:
    cut = '{"step": 2, "phase": "ä'.encode()[:-1]
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + cut + b'\n{"step": 3}\n')
    assert read_metric_lines(tmp_path / "metrics.jsonl") == [{"step": 1}, {"step": 3}]
