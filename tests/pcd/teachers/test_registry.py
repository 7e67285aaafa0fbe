import hashlib
import json
import re
import subprocess
import sys

import pytest
import torch

from pcd.teachers import TEACHERS, TeacherEntry, load_teacher
from pcd.teachers.entry import PublishedHash
from pcd.teachers.registry import DEMO_CHECKPOINT, DEMO_RECIPE
from tests.conftest import ROOT

ENTRIES = pytest.mark.parametrize("entry", TEACHERS.values(), ids=list(TEACHERS))


def test_entries_stand_under_their_own_names() -> None:
    assert [entry.name for entry in TEACHERS.values()] == list(TEACHERS)


def test_files_come_from_different_addresses() -> None:
    served = [entry.url for entry in TEACHERS.values() if entry.url]
    assert len(set(served)) == len(served) == len(TEACHERS) - 1


@ENTRIES
def test_address_is_of_a_checkpoint_or_the_file_can_be_found_otherwise(entry: TeacherEntry) -> None:
    if entry.url is None:
        assert entry.obtain
    else:
        assert entry.url.startswith(("https://", "file:///"))
        assert entry.file_name.endswith((".pth.tar", ".pth"))


@ENTRIES
def test_head_starts_where_the_trunk_ends(entry: TeacherEntry) -> None:
    assert entry.head.widths[0] == entry.trunk.out_channels


@ENTRIES
def test_a_head_with_layers_has_a_prefix(entry: TeacherEntry) -> None:
    assert (entry.head_prefix is not None) == (len(entry.head.widths) > 1)


@ENTRIES
def test_an_external_last_norm_has_a_prefix(entry: TeacherEntry) -> None:
    assert (entry.last_norm_prefix is not None) == (entry.head.last_norm == "external")


@ENTRIES
def test_no_drop_pattern_is_a_blanket(entry: TeacherEntry) -> None:
    for pattern in entry.dropped:
        fixed, star, rest = pattern.partition("*")
        assert (star, rest) == ("*", "")
        assert not entry.trunk_prefix.startswith(fixed)
        assert not (entry.head_prefix or "").startswith(fixed)
        read = [f"{entry.head_prefix}{name}." for name in entry.head.layer_names]
        assert not any(name.startswith(fixed) for name in read)


@ENTRIES
def test_noncommercial_licence_is_marked_as_such(entry: TeacherEntry) -> None:
    assert entry.noncommercial == ("-NC" in entry.licence)


@ENTRIES
def test_hash_that_is_not_wholly_published_is_told_as_unverified(entry: TeacherEntry) -> None:
    known = entry.published_hash is not None and entry.published_hash.is_whole
    assert known or any("hash" in fact for fact in entry.unverified)


@ENTRIES
def test_hash_in_the_files_name_is_the_published_one(entry: TeacherEntry) -> None:
    in_name = re.search(r"-([0-9a-f]{8})\.pth$", entry.file_name)
    if in_name:
        assert entry.published_hash == PublishedHash("sha256", in_name[1])


@ENTRIES
def test_hashes_are_hexadecimal_and_no_longer_than_their_algorithm_gives(entry: TeacherEntry) -> None:
    for known in (entry.published_hash, entry.reported_hash):
        if known:
            assert re.fullmatch(r"[0-9a-f]{8,}", known.hex_prefix)
            assert len(known.hex_prefix) <= hashlib.new(known.algorithm, usedforsecurity=False).digest_size * 2


def test_only_swav_was_normalised_otherwise() -> None:
    usual = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert {e.name: e.std for e in TEACHERS.values() if (e.mean, e.std) != usual} == {
        "swav_r50_800": (0.228, 0.224, 0.225)
    }


def test_registry_is_read_without_torch() -> None:
    code = (
        "import sys; from pcd.teachers import TEACHERS; import pcd.teachers.fetch, pcd.teachers.pins; "
        "print([m for m in ('torch', 'timm', 'safetensors') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@ENTRIES
def test_description_is_plain_json(entry: TeacherEntry) -> None:
    assert json.loads(json.dumps(entry.describe()))["name"] == entry.name


def test_shipped_teacher_has_the_hash_of_its_recipe() -> None:
    recipe = json.loads(DEMO_RECIPE.read_text())
    assert hashlib.sha256(DEMO_CHECKPOINT.read_bytes()).hexdigest() == recipe["sha256"]
    assert TEACHERS["demo"].published_hash == PublishedHash("sha256", recipe["sha256"])


def test_shipped_teacher_has_the_size_of_its_recipe() -> None:
    size = DEMO_CHECKPOINT.stat().st_size
    assert size == json.loads(DEMO_RECIPE.read_text())["size_bytes"] == TEACHERS["demo"].size_bytes


def test_shipped_teacher_is_small() -> None:
    assert DEMO_CHECKPOINT.stat().st_size < 6_000_000


def test_shipped_teacher_is_laid_out_as_moco_v3_publishes() -> None:
    names = torch.load(DEMO_CHECKPOINT, weights_only=True)["state_dict"]
    assert {name.split(".")[:2] == ["module", "momentum_encoder"] for name in names} == {True}
    assert {"module.momentum_encoder.conv1.weight", "module.momentum_encoder.fc.0.weight"} <= set(names)


def test_shipped_teacher_loads_by_its_name() -> None:
    teacher = load_teacher("demo", DEMO_CHECKPOINT)
    assert teacher(torch.randn(1, 3, 64, 96)).shape == (1, TEACHERS["demo"].head.widths[-1], 2, 3)


def test_shipped_teacher_has_not_collapsed() -> None:
    unit = torch.nn.functional.normalize(load_teacher("demo", DEMO_CHECKPOINT)(torch.randn(8, 3, 64, 64)), dim=1)
    assert unit.mean(dim=(2, 3)).std(dim=0).mean() > 1e-3
