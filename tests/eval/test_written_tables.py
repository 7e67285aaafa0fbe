import pandas as pd

from eval.written_tables import as_markdown, as_page

SHOWN = pd.DataFrame({"arm": ["pcd"], "n": ["3 | 2"], "AP": ["20.0"]})


def test_markdown_keeps_figures_as_they_are_printed_and_a_bar_in_its_column() -> None:
    header, _, row = as_markdown(SHOWN).splitlines()
    assert [text.strip() for text in header.strip("|").split("|")] == ["arm", "n", "AP"]
    assert [text.strip() for text in row.replace("\\|", "/").strip("|").split("|")] == ["pcd", "3 / 2", "20.0"]


def test_a_page_has_its_tables_in_order_and_the_notes_below_them() -> None:
    page = as_page("A title", [("First", SHOWN), ("Second", SHOWN)], ["A note."])
    places = [page.index(text) for text in ("First", "Second", "A note.")]
    assert "A title" in page
    assert page.count("3 | 2") == 2
    assert places == sorted(places)
