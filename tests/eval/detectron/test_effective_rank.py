"""How many directions a backbone's maps use."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor

from eval.detectron.backbone import load_into_detector
from eval.detectron.effective_rank import effective_rank, map_ranks
from pcd.backbones import Backbone
from pcd.students import build_student
from pcd.views import IMAGENET_MEAN, IMAGENET_STD


@pytest.fixture(scope="module")
def student() -> Backbone:
    torch.manual_seed(3)
    return build_student("resnet18").eval()


@pytest.fixture(scope="module")
def detector(new_config: Callable[..., Any], new_detector: Callable[..., Any], student: Backbone) -> Any:
    built = new_detector(new_config())
    load_into_detector(built, student.state_dict())
    return built


@pytest.fixture(scope="module")
def names(shapes_set: Path) -> list[str]:
    return [image["file_name"] for image in json.loads((shapes_set / "val.json").read_text())["images"]]


def test_vectors_that_use_all_directions_alike_have_the_rank_of_their_channels() -> None:
    assert effective_rank(torch.eye(7).double()) == pytest.approx(7, abs=1e-4)


def test_vectors_along_one_direction_have_rank_1() -> None:
    direction = torch.randn(32, 1, generator=torch.Generator().manual_seed(0)).double()
    assert effective_rank(direction @ direction.T) == pytest.approx(1, abs=1e-3)


def test_maps_that_are_dead_have_rank_0() -> None:
    assert effective_rank(torch.zeros(4, 4).double()) == 0


@pytest.mark.parametrize("decay", [1.0, 0.8, 0.5])
def test_the_rank_is_that_of_the_papers_formula(decay: float) -> None:
    vectors = torch.randn(200, 24, generator=torch.Generator().manual_seed(1)).double() * decay ** torch.arange(24)
    singular = torch.linalg.svdvals(vectors)
    p = singular / singular.norm(p=1) + 1e-7
    assert effective_rank(vectors.T @ vectors) == pytest.approx(float((-(p * p.log()).sum()).exp()), rel=1e-6)


def test_ranks_of_a_detectors_maps_are_those_of_the_students_pixels(
    detector: Any, student: Backbone, names: list[str], shapes_set: Path
) -> None:
    mean, std = torch.tensor(IMAGENET_MEAN)[:, None, None], torch.tensor(IMAGENET_STD)[:, None, None]
    images = [to_tensor(Image.open(shapes_set / "val" / name).convert("RGB")) for name in names]
    with torch.no_grad():
        maps = [student.stages(((image - mean) / std)[None]) for image in images]
    found = map_ranks(detector, shapes_set / "val", names, "RGB")
    assert found.keys() == {"res2", "res3", "res4", "res5"}
    for stage, value in found.items():
        pixels = torch.cat([of_image[stage][0].flatten(1).T for of_image in maps]).double()  # (N * H * W, C)
        assert value == pytest.approx(effective_rank(pixels.T @ pixels), rel=1e-3)
        assert 1 < value < pixels.shape[1]


def test_the_detector_is_left_as_it_was(detector: Any, names: list[str], shapes_set: Path) -> None:
    detector.train()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    map_ranks(detector, shapes_set / "val", names, "RGB")
    assert detector.training
    assert all(torch.equal(before[name], tensor) for name, tensor in detector.state_dict().items())


def test_of_many_images_some_from_all_over_the_list_are_taken(
    detector: Any, names: list[str], shapes_set: Path
) -> None:
    every_second_is_there = [name for i in range(70) for name in (names[i % len(names)], "no such file.jpg")]
    assert map_ranks(detector, shapes_set / "val", every_second_is_there, "RGB")
