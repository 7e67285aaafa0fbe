from pathlib import Path

import pytest

from pcd.errors import PCDError
from pcd.teachers.download import download
from tests.pcd.teachers.conftest import CONTENT, Publisher

OTHER = bytes(reversed(CONTENT))


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "file.part"


def _fetch(publisher: Publisher, part: Path) -> list[tuple[int, int]]:
    told: list[tuple[int, int]] = []
    download(publisher.address, part, lambda done, total: told.append((done, total)))
    return told


def _break_off(publisher: Publisher, part: Path, then: int = 0) -> str:
    """One download that ends in the middle, its second try after `then` bytes more."""
    publisher.breaks_after = [1_500_000, then]
    with pytest.raises(PCDError) as caught:
        _fetch(publisher, part)
    publisher.asked.clear()
    publisher.breaks_after.clear()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("body", ["sized", "unsized", "chunked"])
def test_served_file_is_copied_unchanged(publisher: Publisher, part: Path, body: str) -> None:
    publisher.body = body
    _fetch(publisher, part)
    assert part.read_bytes() == CONTENT


def test_nothing_is_left_beside_the_file(publisher: Publisher, part: Path) -> None:
    _fetch(publisher, part)
    assert list(part.parent.iterdir()) == [part]


def test_progress_rises_to_the_whole_file(publisher: Publisher, part: Path) -> None:
    told = _fetch(publisher, part)
    assert len(told) > 1
    assert told == sorted(set(told))
    assert told[-1] == (len(CONTENT), len(CONTENT))


def test_broken_connection_is_taken_up_where_it_broke(publisher: Publisher, part: Path) -> None:
    publisher.breaks_after = [1_500_000, 300_000]
    _fetch(publisher, part)
    assert publisher.asked == ["", "bytes=1500000-", "bytes=1800000-"]
    assert part.read_bytes() == CONTENT


def test_broken_chunks_are_taken_up_where_they_broke(publisher: Publisher, part: Path) -> None:
    publisher.body, publisher.breaks_after = "chunked", [1_200_000]
    _fetch(publisher, part)
    assert part.read_bytes() == CONTENT


def test_file_that_breaks_off_keeps_what_came(publisher: Publisher, part: Path) -> None:
    message = _break_off(publisher, part)
    assert "broke off after 1,500,000 bytes" in message
    assert "it goes on from there" in message
    assert part.read_bytes() == CONTENT[:1_500_000]


def test_next_download_asks_for_the_rest_alone(publisher: Publisher, part: Path) -> None:
    _break_off(publisher, part)
    told = _fetch(publisher, part)
    assert publisher.asked == ["bytes=1500000-"]
    assert told[0][0] > 1_500_000
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert part.read_bytes() == CONTENT


def test_last_modified_serves_where_there_is_no_tag(publisher: Publisher, part: Path) -> None:
    publisher.tag, publisher.last_modified = None, "Mon, 01 Jan 2024 00:00:00 GMT"
    _break_off(publisher, part)
    _fetch(publisher, part)
    assert publisher.asked == ["bytes=1500000-"]
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize("tag", [None, 'W/"weak"'])
def test_server_that_cannot_promise_the_same_bytes_gives_them_anew(
    publisher: Publisher, part: Path, tag: str | None
) -> None:
    publisher.tag = tag
    assert "goes on" not in _break_off(publisher, part)
    _fetch(publisher, part)
    assert publisher.asked == [""]
    assert part.read_bytes() == CONTENT


def test_server_without_ranges_gives_the_file_anew(publisher: Publisher, part: Path) -> None:
    publisher.honours_range = False
    _break_off(publisher, part, then=1_500_000)
    _fetch(publisher, part)
    assert publisher.asked == ["bytes=1500000-"]
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize("honours_if_range", [True, False])
@pytest.mark.parametrize("content", [OTHER, OTHER[:1_000_000], OTHER + OTHER], ids=["same size", "shorter", "longer"])
def test_file_that_changed_in_between_is_fetched_anew(
    publisher: Publisher, part: Path, honours_if_range: bool, content: bytes
) -> None:
    _break_off(publisher, part)
    publisher.content, publisher.tag, publisher.honours_if_range = content, '"second"', honours_if_range
    _fetch(publisher, part)
    assert part.read_bytes() == content


def test_part_of_another_address_is_not_gone_on_with(publisher: Publisher, part: Path) -> None:
    _break_off(publisher, part)
    publisher.address += "-other"
    _fetch(publisher, part)
    assert publisher.asked == [""]
    assert part.read_bytes() == CONTENT


def test_part_of_unknown_origin_is_not_gone_on_with(publisher: Publisher, part: Path) -> None:
    part.write_bytes(b"what is this")
    _fetch(publisher, part)
    assert part.read_bytes() == CONTENT


def test_part_that_was_whole_already_is_not_fetched_again(publisher: Publisher, part: Path) -> None:
    _break_off(publisher, part)
    part.write_bytes(CONTENT)  # stopped before the note beside it was taken away
    _fetch(publisher, part)
    assert publisher.asked == []


def test_page_not_found_is_refused(publisher: Publisher, part: Path) -> None:
    publisher.body = "404"
    with pytest.raises(PCDError, match=r"cannot reach .*Not Found"):
        _fetch(publisher, part)


def test_closed_port_is_refused(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(PCDError, match=r"cannot reach http://127\.0\.0\.1:9/x"):
        download("http://127.0.0.1:9/x", part, lambda done, total: None)


def test_server_that_speaks_no_http_is_refused(publisher: Publisher, part: Path) -> None:
    publisher.body = "no http"
    with pytest.raises(PCDError, match="broke off after 0 bytes"):
        _fetch(publisher, part)


def test_full_disk_is_an_error_of_the_system(publisher: Publisher, part: Path) -> None:
    part.symlink_to("/dev/full")  # every write to it fails as on a full disk
    with pytest.raises(OSError, match="No space left on device"):
        _fetch(publisher, part)


def test_what_interrupts_the_progress_keeps_what_came(publisher: Publisher, part: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(publisher.address, part, interrupt)
    publisher.asked.clear()
    _fetch(publisher, part)
    assert publisher.asked == [f"bytes={1 << 20}-"]
    assert part.read_bytes() == CONTENT
