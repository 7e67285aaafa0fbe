import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pcd.arms.weights import SUPERVISED_WEIGHTS
from pcd.errors import PCDError
from pcd.layouts import HeadLayout, ResNetLayout
from pcd.teachers import TEACHERS
from pcd.teachers.entry import PublishedFile, PublishedHash, TeacherEntry
from pcd.teachers.fetch import Fetched, fetch_teacher, kept_file
from pcd.teachers.pins import LOCK_FILE, identify, pin, read_pins, replaced_hash
from tests.pcd.teachers.conftest import CONTENT, Publisher

SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = bytes(reversed(CONTENT))
OTHER_SHA256 = hashlib.sha256(OTHER).hexdigest()


def _entry(url: str | None, **changes: Any) -> TeacherEntry:
    """Nothing about the file is published, unless `changes` say so."""
    entry = TeacherEntry(
        name="tiny",
        title="",
        url=url,
        obtain=None if url else "it from a friend",
        published_hash=None,
        licence="Apache-2.0",
        noncommercial=False,
        top_key="state_dict",
        trunk_prefix="",
        head_prefix="fc.",
        trunk=ResNetLayout(block="basic", layers=(1, 1, 1, 1), channels=(8, 8, 8, 8)),
        head=HeadLayout(widths=(8, 4), bias=False, norm=True, last_norm="plain"),
        accuracy="",
        source="",
    )
    return replace(entry, **changes)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """The publisher's file on this machine."""
    path = tmp_path / "downloads" / "tiny.pth.tar"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


def _refusal(entry: PublishedFile, home: Path, **keywords: Any) -> str:
    """What a user reads; and nothing is kept or pinned then."""
    pins = read_pins(home)
    with pytest.raises(PCDError) as caught:
        fetch_teacher(entry, home, **keywords)
    assert read_pins(home) == pins
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _nothing_is_kept(home: Path) -> bool:
    return not any(path.is_file() for path in (home / "teachers" / "tiny").glob("*"))


# --- where the file comes from


def test_served_file_is_kept_in_the_home(publisher: Publisher, home: Path) -> None:
    fetched = fetch_teacher(_entry(publisher.address), home)
    assert fetched == Fetched(home / "teachers" / "tiny" / "tiny.pth.tar", publisher.address, SHA256, False, None)
    assert fetched.path.read_bytes() == CONTENT
    assert list(fetched.path.parent.iterdir()) == [fetched.path]


def test_kept_file_is_not_fetched_again(publisher: Publisher, home: Path) -> None:
    first, again = (fetch_teacher(_entry(publisher.address), home) for _ in range(2))
    assert len(publisher.asked) == 1
    assert again.path == first.path == kept_file(_entry(publisher.address), home)


def test_kept_file_that_was_damaged_is_fetched_again(publisher: Publisher, home: Path) -> None:
    path = fetch_teacher(_entry(publisher.address), home).path
    path.write_bytes(CONTENT[:-1] + b"x")
    assert fetch_teacher(_entry(publisher.address), home).sha256 == SHA256
    assert path.read_bytes() == CONTENT


def test_interrupted_fetch_goes_on_where_it_broke(publisher: Publisher, home: Path) -> None:
    publisher.breaks_after = [1_500_000, 0]
    _refusal(_entry(publisher.address), home)
    publisher.asked.clear()
    assert fetch_teacher(_entry(publisher.address), home).path.read_bytes() == CONTENT
    assert publisher.asked == ["bytes=1500000-"]


def test_file_of_a_file_address_is_used_where_it_lies(local: Path, home: Path) -> None:
    entry = _entry(local.as_uri())
    assert fetch_teacher(entry, home).path == local == kept_file(entry, home)
    assert _nothing_is_kept(home)


def test_local_file_comes_before_all_others(publisher: Publisher, local: Path, home: Path) -> None:
    fetched = fetch_teacher(_entry(publisher.address), home, file=local)
    assert (fetched.source, publisher.asked) == (str(local), [])
    assert fetched.path == home / "teachers" / "tiny" / "tiny.pth.tar"


def test_local_file_does_not_lie_on_the_disk_twice(local: Path, home: Path) -> None:
    assert fetch_teacher(_entry("https://127.0.0.1/tiny.pth.tar"), home, file=local).path.samefile(local)


def test_local_file_behind_a_link_is_kept_as_a_file(local: Path, home: Path) -> None:
    link = local.with_name("link.pth")
    link.symlink_to(local)
    path = fetch_teacher(_entry("https://127.0.0.1/tiny.pth.tar"), home, file=link).path
    local.unlink()
    assert path.read_bytes() == CONTENT


def test_entry_without_an_address_takes_a_local_file_and_keeps_it(local: Path, home: Path) -> None:
    fetch_teacher(_entry(None), home, file=local)
    assert fetch_teacher(_entry(None), home).path == home / "teachers" / "tiny" / "tiny.pth"


def test_entry_without_an_address_says_where_the_file_is(home: Path) -> None:
    message = _refusal(_entry(None), home)
    assert message.endswith("get it from a friend, then run `pcd teachers fetch tiny --file FILE`")


def test_missing_local_file_is_named(home: Path, tmp_path: Path) -> None:
    assert f"{tmp_path / 'none'} does not exist" in _refusal(_entry(None), home, file=tmp_path / "none")


@pytest.mark.parametrize("place", ["tiny.pth.tar", "tiny/tiny.pth.tar", "tiny/any-other-name.pth"])
def test_mirror_comes_before_the_address(publisher: Publisher, home: Path, tmp_path: Path, place: str) -> None:
    mirrored = tmp_path / "mirror" / place
    mirrored.parent.mkdir(parents=True)
    mirrored.write_bytes(CONTENT)
    fetched = fetch_teacher(_entry(publisher.address), home, mirror=tmp_path / "mirror")
    assert (fetched.source, publisher.asked) == (str(mirrored), [])


def test_mirror_without_the_file_leaves_it_to_the_address(publisher: Publisher, home: Path, tmp_path: Path) -> None:
    assert fetch_teacher(_entry(publisher.address), home, mirror=tmp_path).source == publisher.address


def test_file_name_that_two_teachers_share_is_not_taken_from_the_mirrors_top(home: Path, tmp_path: Path) -> None:
    shared = [e.file_name for e in TEACHERS.values() if e.name.startswith("simsiam")]
    assert shared == ["checkpoint_0099.pth.tar"] * 2
    (tmp_path / shared[0]).write_bytes(CONTENT)
    entry = replace(TEACHERS["simsiam_r50_100"], url=None, obtain="it", reported_hash=None)
    entry = replace(entry, url=f"file://{tmp_path}/none/{shared[0]}")
    assert "none/checkpoint_0099.pth.tar does not exist" in _refusal(entry, home, mirror=tmp_path)


def test_mirror_that_is_no_folder_is_named(publisher: Publisher, home: Path, tmp_path: Path) -> None:
    assert "is no folder" in _refusal(_entry(publisher.address), home, mirror=tmp_path / "none")


# --- what is checked before it is kept


def test_file_is_checked_before_it_is_kept_and_pinned(publisher: Publisher, home: Path) -> None:
    seen: list[tuple[bytes, str]] = []

    def check(path: Path, sha256: str) -> None:
        assert not kept_file(_entry(publisher.address), home).exists()
        assert read_pins(home) == {}
        seen.append((path.read_bytes(), sha256))

    fetch_teacher(_entry(publisher.address), home, check=check)
    assert seen == [(CONTENT, SHA256)]


def test_nothing_is_left_of_a_file_that_the_check_refuses(publisher: Publisher, home: Path) -> None:
    def check(path: Path, sha256: str) -> None:
        raise PCDError("an error page")

    assert _refusal(_entry(publisher.address), home, check=check) == "an error page"
    assert _nothing_is_kept(home)


def test_local_file_that_the_check_refuses_stays_the_users(local: Path, home: Path) -> None:
    def check(path: Path, sha256: str) -> None:
        raise PCDError("another teacher's")

    _refusal(_entry(None), home, file=local, check=check)
    assert local.read_bytes() == CONTENT
    assert _nothing_is_kept(home)


@pytest.mark.parametrize(
    "published",
    [PublishedHash("sha256", "0" * 64), PublishedHash("sha256", "00000000"), PublishedHash("md5", "00000000")],
    ids=str,
)
def test_another_hash_than_published_is_refused_with_both(
    publisher: Publisher, home: Path, published: PublishedHash
) -> None:
    message = _refusal(_entry(publisher.address, published_hash=published), home)
    assert f"where {published} was published" in message
    assert hashlib.new(published.algorithm, CONTENT).hexdigest() in message
    assert _nothing_is_kept(home)


@pytest.mark.parametrize("size", [1, len(CONTENT) - 1, len(CONTENT) + 1])
def test_wrong_size_is_refused_with_both_sizes(publisher: Publisher, home: Path, size: int) -> None:
    message = _refusal(_entry(publisher.address, size_bytes=size), home)
    assert f"{size:,} were expected" in message
    assert f"gave {len(CONTENT):,} bytes" in message
    assert _nothing_is_kept(home)


@pytest.mark.parametrize(
    ("digits", "as_reported"), [(SHA256[:10], True), ("0123456789", False)], ids=["equal", "different"]
)
def test_a_third_partys_hash_is_remarked_on_and_not_enforced(
    publisher: Publisher, home: Path, digits: str, as_reported: bool
) -> None:
    entry = _entry(publisher.address, reported_hash=PublishedHash("sha256", digits))
    assert fetch_teacher(entry, home).as_reported is as_reported


# --- pins


def test_whole_published_hash_needs_no_pin(publisher: Publisher, home: Path) -> None:
    fetched = fetch_teacher(_entry(publisher.address, published_hash=PublishedHash("sha256", SHA256)), home)
    assert fetched.was_published
    assert read_pins(home) == {}


@pytest.mark.parametrize(
    "published", [None, PublishedHash("sha256", SHA256[:8]), PublishedHash("md5", hashlib.md5(CONTENT).hexdigest())]
)
def test_hash_that_is_not_wholly_published_is_pinned_at_the_first_fetch(
    publisher: Publisher, home: Path, published: PublishedHash | None
) -> None:
    assert not fetch_teacher(_entry(publisher.address, published_hash=published), home).was_published
    pinned = json.loads((home / LOCK_FILE).read_text())["tiny"]
    assert (pinned["sha256"], pinned["bytes"], pinned["source"]) == (SHA256, len(CONTENT), publisher.address)
    assert pinned["replaces"] == []


def test_pin_holds_for_every_source(publisher: Publisher, local: Path, home: Path) -> None:
    fetch_teacher(_entry(publisher.address), home)
    local.write_bytes(OTHER)
    message = _refusal(_entry(publisher.address), home, file=local)
    assert f"{local} has SHA-256 {OTHER_SHA256} where {SHA256} was pinned" in message
    assert "to accept it, run `pcd teachers fetch tiny --accept-change`" in message
    assert kept_file(_entry(publisher.address), home).read_bytes() == CONTENT


def test_pin_outlives_the_file(publisher: Publisher, home: Path) -> None:
    fetch_teacher(_entry(publisher.address), home).path.unlink()
    publisher.content = OTHER
    assert "was pinned" in _refusal(_entry(publisher.address), home)
    assert _nothing_is_kept(home)


def test_changed_file_is_taken_when_the_user_accepts_it(publisher: Publisher, home: Path) -> None:
    fetch_teacher(_entry(publisher.address), home)
    publisher.content = OTHER
    fetched = fetch_teacher(_entry(publisher.address), home, accept_change=True)
    assert (fetched.sha256, fetched.path.read_bytes()) == (OTHER_SHA256, OTHER)
    assert read_pins(home)["tiny"]["replaces"] == [SHA256]
    assert fetch_teacher(_entry(publisher.address), home).sha256 == OTHER_SHA256


def test_what_an_arm_begins_with_is_called_no_teacher_and_brought_otherwise(
    local: Path, home: Path, tmp_path: Path
) -> None:
    arm = replace(SUPERVISED_WEIGHTS["resnet18"], published_hash=None)
    fetch_teacher(arm, home, file=local)
    local.unlink()  # what was kept may be the same file
    local.write_bytes(OTHER)
    messages = [
        _refusal(arm, home, file=local),
        _refusal(arm, home, file=tmp_path / "none"),
        _refusal(replace(SUPERVISED_WEIGHTS["resnet34"], url=None, obtain="it from a friend"), home),
    ]
    assert messages[0].endswith("it was not kept; to accept it, set supervised_file to it")
    assert messages[1].startswith("the weights supervised_resnet18: ")
    assert messages[2].startswith("nobody serves the weights supervised_resnet34 at an address: ")
    assert messages[2].endswith("get it from a friend, then set supervised_file to it")


def test_accepting_a_change_does_not_overrule_the_publisher(publisher: Publisher, home: Path) -> None:
    publisher.content = OTHER
    entry = _entry(publisher.address, published_hash=PublishedHash("sha256", SHA256[:8]))
    assert "was published" in _refusal(entry, home, accept_change=True)


def test_only_a_pin_that_took_anothers_place_counts_as_replaced(home: Path) -> None:
    assert replaced_hash("tiny", home) is None
    pin(_entry(None), SHA256, 1, "here", home)
    pin(_entry(None), SHA256, 1, "there", home)
    assert replaced_hash("tiny", home) is None
    pin(_entry(None), OTHER_SHA256, 1, "there", home)
    assert replaced_hash("tiny", home) == OTHER_SHA256


def test_pins_of_other_teachers_stay(home: Path) -> None:
    pin(_entry(None), SHA256, 1, "here", home)
    pin(_entry(None, name="other"), OTHER_SHA256, 1, "here", home)
    assert {name: pinned["sha256"] for name, pinned in read_pins(home).items()} == {
        "other": OTHER_SHA256,
        "tiny": SHA256,
    }


def test_damaged_lock_file_is_named(local: Path, home: Path) -> None:
    (home / LOCK_FILE).write_text("{")
    with pytest.raises(PCDError, match=rf"{LOCK_FILE} is damaged .* delete it"):
        fetch_teacher(_entry(None), home, file=local)


def test_file_that_nobody_has_fetched_is_not_pinned_by_being_looked_at(local: Path, home: Path) -> None:
    assert identify(_entry(None), local, home).rests_on == "unknown"
    assert not (home / LOCK_FILE).exists()
