"""Cosines between two maps by hand, and what a pre-training leaves of them."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from pcd.similarity_maps import pixel_similarities, share_found, write_similarity_maps
from pcd.students import Student, build_student


def _student() -> Student:
    torch.manual_seed(3)
    return Student(build_student("resnet18"), (512, 24, 12), (12, 24, 12), 8)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 96, 96)


def test_a_similarity_is_the_cosine_of_two_pixels() -> None:
    maps, others = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4)
    found = pixel_similarities(maps, others)
    assert found.shape == (2, 12, 12)
    expected = torch.cosine_similarity(maps[1, :, 2, 1], others[1, :, 0, 3], dim=0)
    torch.testing.assert_close(found[1, 2 * 4 + 1, 3], expected)


def test_a_map_finds_all_of_itself_whatever_the_length_of_its_vectors() -> None:
    maps = torch.randn(2, 8, 4, 4)
    assert share_found(pixel_similarities(7 * maps, maps)) == 1.0


def test_a_map_turned_by_a_column_finds_nothing_at_its_own_place() -> None:
    maps = torch.randn(1, 8, 4, 4)
    assert share_found(pixel_similarities(maps.roll(1, dims=3), maps)) == 0.0


def test_a_student_that_says_what_the_teacher_says_finds_every_pixel(tmp_path: Path, images: Tensor) -> None:
    student = _student()
    twin = _student().eval()
    figures = write_similarity_maps(student, twin, images, tmp_path)
    assert figures == {"similarity/own place found": 1.0, "similarity/by chance": 1 / 9}
    record = json.loads((tmp_path / "similarity_maps.json").read_text())
    assert record == {"images": 2, "image_size": [96, 96], "grid": [3, 3], "found": 1.0, "chance": 1 / 9}
    with Image.open(tmp_path / "similarity_maps.png") as picture:
        assert picture.format == "PNG"


def test_a_finer_teacher_is_brought_to_the_students_grid_in_half_precision_too(tmp_path: Path, images: Tensor) -> None:
    fine = torch.randn(2, 12, 6, 6, dtype=torch.bfloat16)
    figures = write_similarity_maps(_student(), lambda _: fine, images, tmp_path, torch.bfloat16)
    assert 0 <= figures["similarity/own place found"] <= 1


def test_the_student_is_left_as_it_was(tmp_path: Path, images: Tensor) -> None:
    student = _student().train()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    random = torch.get_rng_state()
    write_similarity_maps(student, lambda seen: torch.ones(len(seen), 12, 3, 3), images, tmp_path)
    assert all(module.training for module in student.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
