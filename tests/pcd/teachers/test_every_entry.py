"""Every entry of the registry against a checkpoint as its publisher writes it, without any download."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pcd.adaptor import SpatialAdaptor
from pcd.errors import PCDError
from pcd.teachers import TEACHERS, Teacher, TeacherEntry
from pcd.teachers.load import load_entry
from pcd.teachers.tensors import read_published, write_converted
from tests.pcd.slow_parameters import slow_but
from tests.pcd.teachers.publishers import PUBLICATIONS, Publication, publish

QUICK = ("mocov3_vits", "mocov2_r50_800", "densecl_r50_mm", "simsiam_r50_100", "dino_vits16", "sup_r18")
"""One of each kind of trunk (bottlenecks, basic blocks, ViT), head (plain, normed, of GELU, dense), and last norm.
With tensors that take no memory all are read, quick or not."""

TWINS = {
    "mocov3_r50_100": "mocov3_r50_1000",
    "mocov3_r50_300": "mocov3_r50_1000",
    "mocov2_r50_200": "mocov2_r50_800",
    "simsiam_r50_100_256": "simsiam_r50_100",
    "sup_r50_v2": "sup_r50",
}
"""Entries of other runs of one script: laid out alike, so that real weights are tried with one of them."""
TRIED = [name for name in PUBLICATIONS if name not in TWINS]

Loaded = tuple[TeacherEntry, Publication, Path, Teacher]


def _entry(publication: str) -> TeacherEntry:
    return TEACHERS[publication.split(maxsplit=1)[0]]


@pytest.fixture(scope="module", params=slow_but(QUICK, TRIED))
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """The publisher's file with its last norm kept, as the publisher's own head has it."""
    torch.manual_seed(0)
    entry, publication = _entry(request.param), publish(request.param)
    path = tmp_path_factory.mktemp("published") / entry.file_name
    publication.save(path)
    yield entry, publication, path, load_entry(entry, path, keep_last_norm=True)
    path.unlink()  # up to 600 MB each


def _images(entry: TeacherEntry) -> Tensor:
    return torch.randn(1, 3, 224, 224) if "vit" in entry.name else torch.randn(2, 3, 64, 96)


def _deviation(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference relative to the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def test_every_entry_has_a_publication() -> None:
    assert {_entry(name).name for name in PUBLICATIONS} == set(TEACHERS) - {"demo"}


@pytest.mark.parametrize(("twin", "tried"), TWINS.items())
def test_twins_are_laid_out_alike(twin: str, tried: str) -> None:
    own = {"name", "title", "url", "published_hash", "reported_hash", "megabytes", "accuracy"}
    first, second = ({k: v for k, v in TEACHERS[name].describe().items() if k not in own} for name in (twin, tried))
    assert first == second


def test_the_map_says_what_the_publishers_head_says(loaded: Loaded) -> None:
    entry, publication, _, teacher = loaded
    images = _images(entry)
    maps = publication.trunk(images)
    if publication.is_dense or entry.head_prefix is None:  # the map itself is published
        assert _deviation(teacher(images), publication.head(maps)) < 1e-5
    else:
        assert _deviation(teacher(images).mean(dim=(2, 3)), publication.head(maps.mean(dim=(2, 3)))) < 1e-5


def test_mean_of_any_adapted_map_equals_the_publishers_head_of_its_mean(loaded: Loaded) -> None:
    entry, publication, _, teacher = loaded
    if publication.is_dense:
        assert not isinstance(teacher.adaptor, SpatialAdaptor)  # trained on maps, it needs none
        return
    maps = 2 * torch.randn(2, entry.head.widths[0], 3, 5) + torch.randn(2, entry.head.widths[0], 1, 1)
    expected = publication.head(maps.mean(dim=(2, 3)))
    assert _deviation(teacher.adaptor(maps).mean(dim=(2, 3)), expected) < 1e-5


def test_last_norm_is_dropped_unless_it_is_kept(loaded: Loaded) -> None:
    entry, publication, path, kept = loaded
    assert (entry.head.last_norm != "none") == publication.has_last_norm
    if publication.has_last_norm:
        dropped = load_entry(entry, path)
        maps = torch.randn(2, entry.head.widths[0], 1, 1)
        assert isinstance(publication.head, torch.nn.Sequential)
        expected = publication.head[:-1](maps[:, :, 0, 0])
        assert _deviation(dropped.adaptor(maps)[:, :, 0, 0], expected) < 1e-5
        assert _deviation(kept.adaptor(maps)[:, :, 0, 0], expected) > 0.1


def test_converted_file_gives_the_same_teacher(loaded: Loaded) -> None:
    entry, _, path, teacher = loaded
    converted = path.with_suffix(".safetensors")
    write_converted(entry, read_published(entry, path), converted, "0" * 64)
    again = load_entry(entry, converted, keep_last_norm=True)
    converted.unlink()
    assert again.state_dict().keys() == teacher.state_dict().keys()
    assert all(torch.equal(tensor, teacher.state_dict()[name]) for name, tensor in again.state_dict().items())


# --- names and shapes, with tensors that take no memory


Hollow = tuple[TeacherEntry, Publication, Path]


@pytest.fixture
def hollow(request: pytest.FixtureRequest, tmp_path: Path) -> Hollow:
    entry = _entry(request.param)
    return entry, publish(request.param, hollow=True), tmp_path / entry.file_name


def _read_names(entry: TeacherEntry, tensors: dict[str, Any]) -> list[str]:
    """Names that the teacher is made of: one of the trunk, of the head, and of an external last norm."""
    wrapper = entry.wrapper if any(name.startswith(entry.wrapper) for name in tensors) else ""
    prefixes = [entry.trunk_prefix, entry.head_prefix, entry.last_norm_prefix]
    left_out = tuple(pattern.removesuffix("*") for pattern in entry.dropped)
    chosen = []
    for prefix in (wrapper + prefix for prefix in prefixes if prefix is not None):
        names = [
            name
            for name in tensors
            if name.startswith(prefix)
            and not name.removeprefix(wrapper).startswith(left_out or ("nothing",))
            and not name.endswith("num_batches_tracked")
        ]
        chosen += [names[0], names[-1]]
    return list(dict.fromkeys(chosen))


def _tensors(entry: TeacherEntry, publication: Publication) -> dict[str, Any]:
    tensors: dict[str, Any] = publication.content[entry.top_key] if entry.top_key else publication.content
    return tensors


def _refusal(entry: TeacherEntry, publication: Publication, path: Path) -> str:
    publication.save(path)
    with pytest.raises(PCDError) as caught:
        read_published(entry, path)
    message = str(caught.value)
    assert message.startswith(f"{path} does not fit {entry.name}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("hollow", TRIED, indirect=True)
def test_hollow_publication_is_read(hollow: Hollow) -> None:
    entry, publication, path = hollow
    publication.save(path)
    assert {name.split(".")[0] for name in read_published(entry, path)} == (
        {"trunk", "head"} if entry.head_prefix is not None else {"trunk"}
    )


@pytest.mark.parametrize("hollow", slow_but(QUICK, TRIED), indirect=True)
def test_missing_tensor_is_named(hollow: Hollow) -> None:
    entry, publication, path = hollow
    tensors = _tensors(entry, publication)
    for name in _read_names(entry, tensors):
        taken = tensors.pop(name)
        assert f"1 missing ({name.removeprefix(entry.wrapper)})" in _refusal(entry, publication, path)
        tensors[name] = taken


@pytest.mark.parametrize("hollow", slow_but(QUICK, TRIED), indirect=True)
def test_extra_tensor_is_named(hollow: Hollow) -> None:
    entry, publication, path = hollow
    tensors = _tensors(entry, publication)
    for name in _read_names(entry, tensors):
        tensors[f"{name}_more"] = torch.zeros(1)
        assert f"1 unexpected ({name.removeprefix(entry.wrapper)}_more)" in _refusal(entry, publication, path)
        del tensors[f"{name}_more"]


@pytest.mark.parametrize("hollow", slow_but(QUICK, TRIED), indirect=True)
def test_tensor_of_another_shape_is_named(hollow: Hollow) -> None:
    entry, publication, path = hollow
    tensors = _tensors(entry, publication)
    for name in _read_names(entry, tensors):
        right = tensors[name]
        tensors[name] = torch.zeros(3, 1)
        message = _refusal(entry, publication, path)
        assert f"{name.removeprefix(entry.wrapper)} is (3, 1), expected {tuple(right.shape)}" in message
        tensors[name] = right


@pytest.mark.parametrize("name", [name for name in PUBLICATIONS if _entry(name).placeholders])
def test_what_publishers_save_along_is_refused_where_the_entry_does_not_allow_it(name: str, tmp_path: Path) -> None:
    publication, path = publish(name, hollow=True), tmp_path / "file.pth"
    if name == "byol_r50_airl":  # nothing but tensors by the released code; allowed for in case
        publication.content["args"] = publish("dino_vits16", hollow=True).content["args"]
    publication.save(path)
    stranger = TEACHERS["mocov2_r50_200"]
    with pytest.raises(PCDError, match=r"holds more than tensors .* is not among what this teacher's publisher"):
        read_published(stranger, path)
    read_published(_entry(name), path)
