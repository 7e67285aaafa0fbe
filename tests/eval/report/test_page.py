"""The page as a browser, a screen reader and a printer take it."""

import base64
import html
import itertools
import re
from pathlib import Path

import pytest

from eval.report.page import render_report, write_report
from tests.chromium import open_in_chromium
from tests.eval.report.reports import HOSTILE, Page, png, report

RENDERED = render_report(report())


@pytest.fixture
def page() -> Page:
    return Page(RENDERED)


def test_the_page_loads_nothing_from_anywhere(page: Page) -> None:
    loaded = [attributes["src"] for _, attributes in page.tags if "src" in attributes]
    assert len(loaded) == 2
    assert all(address.startswith("data:image/png;base64,") for address in loaded)
    assert [tag for tag, _ in page.tags if tag in ("link", "script", "iframe", "object", "base")] == []
    assert [a for _, attributes in page.tags if (a := attributes.get("href", "#"))[0] != "#"] == []
    assert "url(" not in RENDERED
    assert "@import" not in RENDERED


def test_a_picture_is_inside_bit_for_bit_with_its_size_and_its_words(page: Page) -> None:
    first = page.all("img")[0]
    assert base64.b64decode(first["src"].partition(",")[2]) == png()
    assert (first["width"], first["height"], first["alt"]) == ("40", "30", "ap: box AP 27.1.")


def test_text_from_outside_stays_text(page: Page) -> None:
    assert HOSTILE in page.text
    assert page.all("script") == []


def test_headings_are_one_h1_and_leave_no_level_out(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(behind <= before + 1 for before, behind in itertools.pairwise(levels))
    assert page.all("html")[0]["lang"] == "en"


def test_every_link_leads_to_a_place_on_the_page(page: Page) -> None:
    places = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(places) == len(set(places))
    links = {attributes["href"].removeprefix("#") for attributes in page.all("a")}
    assert links <= set(places)
    assert {"missing", "results", "figures", "cells", "settings", "environment"} <= links


def test_every_table_has_a_caption_a_scope_for_each_heading_and_a_box_that_scrolls(page: Page) -> None:
    tables = len(page.all("table"))
    assert tables == 3
    assert len(page.all("caption")) == tables
    assert {attributes.get("scope") for attributes in page.all("th")} == {"col", "row"}
    boxes = [attributes for attributes in page.all("div") if attributes["class"] == "wide"]
    assert [(box["role"], box["tabindex"]) for box in boxes] == [("region", "0")] * tables


def _luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    digits = "".join(2 * c for c in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("text", "ground"),
    [("text", "page"), ("quiet", "page"), ("link", "page"), ("text", "box"), ("alarm-text", "alarm")],
)
def test_text_stands_out_from_its_ground(text: str, ground: str, scheme: int) -> None:
    colours = [re.findall(rf"--{name}: (#\w+);", RENDERED)[scheme] for name in (text, ground)]
    dark, light = sorted(map(_luminance, colours))
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_a_command_that_cells_share_stands_once_and_is_linked_behind_that(page: Page) -> None:
    assert RENDERED.count("python -m eval.prepare_data") == 1
    assert {"href": "#cell-pcd.fpn.seed0"} in page.all("a")
    assert "no longer whole in the store" in page.text
    assert "processor another one" in page.text
    assert "No figures: out of memory" in page.text


def test_what_is_missing_is_named_and_else_not_spoken_of(page: Page) -> None:
    assert "The AP table: gone." in page.text
    assert 'id="missing"' not in render_report(report(missing=()))


def test_words_of_code_in_a_note_are_set_as_code() -> None:
    assert "<li>Run by <code>pcd run</code>.</li>" in RENDERED


def test_print_and_dark_have_rules_of_their_own() -> None:
    assert "@media screen and (prefers-color-scheme: dark)" in RENDERED
    printed = RENDERED[RENDERED.index("@media print") :]
    assert "figure, tr, .stages li { break-inside: avoid; }" in printed


def test_the_page_is_written_into_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    write_report(tmp_path / "reports" / "a.html", report())
    assert (tmp_path / "reports" / "a.html").read_text() == RENDERED


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
def test_in_chromium_the_page_is_no_wider_than_its_window(width: int, tmp_path: Path) -> None:
    # In a frame, since Chromium's own windows are 500 px wide at least.
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe style="border: 0" width="{width}" height="800" srcdoc="{html.escape(RENDERED)}" '
        'onload="const e = this.contentDocument.documentElement; '
        "document.title = [e.scrollWidth <= e.clientWidth, e.clientWidth, "
        "this.contentDocument.querySelectorAll('img')[1].naturalWidth]\"></iframe>"
    )
    assert f"<title>true,{width},1300</title>" in open_in_chromium(frame, tmp_path).dom


@pytest.mark.slow
def test_in_chromium_the_console_is_silent_and_no_request_leaves(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", report())
    opened = open_in_chromium(tmp_path / "report.html", tmp_path)
    assert "<h2>Figures</h2>" in opened.dom
    assert (opened.console, opened.requests) == ([], [])


@pytest.mark.slow
def test_a_page_that_errs_and_asks_would_be_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<script>console.error("no")</script><img src="http://127.0.0.1:9/picture.png">')
    opened = open_in_chromium(page, tmp_path)
    assert len(opened.console) == 1
    assert opened.requests == ["http://127.0.0.1:9/picture.png"]
