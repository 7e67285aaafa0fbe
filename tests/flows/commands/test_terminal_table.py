import pandas as pd
import pytest

from flows.commands.terminal_table import plain_table, print_table, print_tables

WIDE = {f"column {i}": [f"{i}{'x' * 30}"] for i in range(9)}


def test_a_pipe_cuts_no_column(capsys: pytest.CaptureFixture[str]) -> None:
    print_tables([plain_table("wide", pd.DataFrame(WIDE))])
    told = capsys.readouterr().out
    assert all(value in told for (value,) in WIDE.values())
    assert "…" not in told


def test_each_protocol_has_its_differences_to_the_first_arm_that_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("seed", "random", "a"), ("seed", "pcd", "b"), ("seed", "random", "b")]
    differences = [{"arm": arm, "against": base, "protocol": p, "difference": f"{base} {p}"} for arm, base, p in rows]
    print_table({"title": "t", "printed": [], "notes": [], "further": {"Differences between arms": differences}})
    told = capsys.readouterr().out
    assert [text in told for text in ("random a", "pcd b", "random b")] == [True, True, False]
