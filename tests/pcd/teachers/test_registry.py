import hashlib
import json

import pytest
import torch

from pcd.adaptor import SpatialAdaptor
from pcd.heads import build_vector_head
from pcd.teachers import TEACHERS, TeacherEntry, load_teacher
from pcd.teachers.registry import DEMO_CHECKPOINT, DEMO_RECIPE

ENTRIES = pytest.mark.parametrize("entry", TEACHERS.values(), ids=list(TEACHERS))


def test_entries_stand_under_their_own_names() -> None:
    assert [entry.name for entry in TEACHERS.values()] == list(TEACHERS)


def test_files_come_from_different_addresses() -> None:
    assert len({entry.url for entry in TEACHERS.values()}) == len(TEACHERS)


@ENTRIES
def test_address_is_of_a_checkpoint(entry: TeacherEntry) -> None:
    assert entry.url.startswith(("https://", "file:///"))
    assert entry.url.endswith(".pth.tar")


@ENTRIES
def test_head_starts_where_the_trunk_ends(entry: TeacherEntry) -> None:
    expansion = 4 if entry.trunk.block == "bottleneck" else 1
    assert entry.head.widths[0] == entry.trunk.channels[-1] * expansion


@ENTRIES
def test_head_can_be_adapted_to_maps(entry: TeacherEntry) -> None:
    maps = torch.randn(1, entry.head.widths[0], 2, 3)
    assert SpatialAdaptor(build_vector_head(entry.head))(maps).shape == (1, entry.head.widths[-1], 2, 3)


@ENTRIES
def test_noncommercial_licence_is_marked_as_such(entry: TeacherEntry) -> None:
    assert entry.noncommercial == ("-NC" in entry.licence)


@ENTRIES
def test_missing_hash_is_told_as_unverified(entry: TeacherEntry) -> None:
    assert entry.sha256 is not None or any("hash" in fact for fact in entry.unverified)


@ENTRIES
def test_description_is_plain_json(entry: TeacherEntry) -> None:
    assert json.loads(json.dumps(entry.describe()))["name"] == entry.name


def test_shipped_teacher_has_the_hash_of_its_recipe() -> None:
    recipe = json.loads(DEMO_RECIPE.read_text())
    assert hashlib.sha256(DEMO_CHECKPOINT.read_bytes()).hexdigest() == recipe["sha256"] == TEACHERS["demo"].sha256


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
