import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pcd.errors import PCDError
from pcd.folder_index import FolderIndex
from pcd.image_folder import Listing
from pcd.image_sources import FolderImages, open_images
from pcd.receptive_field import effective_receptive_field, probe_images, smallest_square, write_receptive_field
from pcd.students import Student, build_student


def _convolutions(count: int, kernel: int = 3) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(count):
        layers += [nn.Conv2d(3 if i == 0 else 8, 8, kernel, padding=kernel // 2), nn.ReLU()]
    return nn.Sequential(*layers)


def _one_pixel(size: int, row: int, column: int) -> Tensor:
    field = torch.zeros(size, size)
    field[row, column] = 1
    return field


def test_a_one_by_one_convolution_sees_one_pixel() -> None:
    field = effective_receptive_field(nn.Conv2d(3, 4, 1), torch.randn(2, 3, 9, 9))
    torch.testing.assert_close(field, _one_pixel(9, 4, 4))


def test_a_linear_filter_sees_the_absolute_sum_of_its_weights() -> None:
    layer = nn.Conv2d(3, 4, 3, padding=1)
    field = effective_receptive_field(layer, torch.randn(5, 3, 7, 7))
    expected = layer.weight.detach().sum(dim=0).abs().sum(dim=0)  # over channels, then colours
    torch.testing.assert_close(field[2:5, 2:5], expected / expected.sum())


@pytest.mark.parametrize(("count", "kernel"), [(1, 3), (2, 3), (4, 3), (2, 5)])
def test_a_stack_of_convolutions_stays_inside_its_theoretical_field(count: int, kernel: int) -> None:
    reach = count * (kernel // 2)
    field = effective_receptive_field(_convolutions(count, kernel), torch.randn(4, 3, 31, 31))
    inside = field[15 - reach : 16 + reach, 15 - reach : 16 + reach]
    assert inside.sum() == pytest.approx(1)
    assert field.count_nonzero() == inside.count_nonzero()
    assert smallest_square(1.0, field)[0] == 2 * reach + 1


def test_a_stack_of_convolutions_holds_most_of_it_well_inside() -> None:
    # Luo et al.: the field is about a Gaussian, whose width grows with the root of the depth.
    field = effective_receptive_field(_convolutions(12), torch.randn(8, 3, 41, 41))
    assert smallest_square(1.0, field)[0] == 25
    assert smallest_square(0.5, field)[0] < 13


def test_it_is_the_mean_over_the_images() -> None:
    network, images = _convolutions(3), torch.randn(2, 3, 9, 9)

    def raw(image: Tensor) -> Tensor:
        image = image.clone().requires_grad_()
        network(image)[..., 4, 4].sum().backward()
        assert image.grad is not None
        return image.grad.abs().sum(dim=(0, 1))

    both = raw(images[:1]) + raw(images[1:])
    torch.testing.assert_close(effective_receptive_field(network, images), both / both.sum())


def test_a_network_that_nothing_moves_has_no_field() -> None:
    assert effective_receptive_field(lambda x: 0 * x, torch.randn(1, 3, 5, 5)).sum() == 0


@pytest.mark.parametrize(
    ("share", "expected"), [(0.3, (1, 5, 6)), (0.6, (3, 4, 5)), (0.999, (5, 3, 4)), (1.0, (5, 3, 4))]
)
def test_the_smallest_square_is_found_wherever_it_is(share: float, expected: tuple[int, int, int]) -> None:
    field = torch.full((12, 12), 0.0)
    field[3:8, 4:9] = 0.1 / 16
    field[4:7, 5:8] = 0.5 / 8
    field[5, 6] = 0.4
    assert smallest_square(share, field) == expected


@pytest.mark.parametrize("share", [0.25, 0.5, 0.95, 1.0])
def test_the_smallest_square_is_that_of_a_search_through_all(share: float) -> None:
    field = torch.rand(7, 7) ** 4
    windows = [
        (side, float(field[i : i + side, j : j + side].sum()))
        for side in range(1, 8)
        for i in range(8 - side)
        for j in range(8 - side)
    ]
    expected = min(side for side, held in windows if held >= share * float(field.sum()) - 1e-6)
    assert smallest_square(share, field)[0] == expected


def test_a_flat_field_is_held_by_a_square_of_the_shares_root() -> None:
    assert smallest_square(0.25, torch.ones(20, 20))[0] == 10


def test_a_field_that_is_not_square_raises_value_error() -> None:
    with pytest.raises(ValueError, match="not square"):
        smallest_square(0.5, torch.ones(4, 6))


def test_the_central_pixel_of_a_resnet_looks_at_the_very_centre() -> None:
    backbone = build_student("resnet18").eval()
    field = effective_receptive_field(backbone, torch.randn(4, 3, 64, 64))
    places = torch.arange(64) - 31.5
    assert abs(float(field.sum(dim=0) @ places)) < 3
    assert abs(float(field.sum(dim=1) @ places)) < 3


# ---- of a student


def _student(attention_heads: int | None = 8) -> Student:
    torch.manual_seed(3)
    return Student(build_student("resnet18"), (512, 24, 12), (12, 24, 12), attention_heads)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 96, 96)


def test_sleeping_attention_changes_nothing(tmp_path: Path, images: Tensor) -> None:
    figures = write_receptive_field(_student(), images, tmp_path)
    for share in ("50%", "95%"):
        assert figures[f"receptive field/with attention, {share}"] == figures[f"receptive field/backbone, {share}"]


def test_attention_that_is_awake_widens_the_field() -> None:
    student = _student().eval()
    images = torch.randn(2, 3, 224, 224)
    nn.init.normal_(student.attention.get_parameter("project.weight"), std=1.0)
    alone = effective_receptive_field(student.backbone, images)
    wide = effective_receptive_field(lambda x: student.attention(student.backbone(x)), images)
    assert smallest_square(0.95, wide)[0] > smallest_square(0.95, alone)[0]


def test_figures_are_shares_of_the_image_and_the_file_has_pixels(tmp_path: Path, images: Tensor) -> None:
    figures = write_receptive_field(_student(), images, tmp_path)
    record = json.loads((tmp_path / "receptive_field.json").read_text())
    assert (record["images"], record["image_size"]) == (2, [96, 96])
    for name in ("backbone", "with attention"):
        sides = record[name.replace(" ", "_")]
        assert 0 < sides["side_50"] < sides["side_95"] <= 96
        assert figures[f"receptive field/{name}, 95%"] == sides["side_95"] / 96


@pytest.mark.parametrize(("attention_heads", "panels"), [(8, 2), (None, 1)])
def test_the_picture_has_a_panel_for_each_network(
    attention_heads: int | None, panels: int, tmp_path: Path, images: Tensor
) -> None:
    write_receptive_field(_student(attention_heads), images, tmp_path)
    with Image.open(tmp_path / "receptive_field.png") as picture:
        assert picture.width == panels * 462


def test_the_student_is_left_as_it_was(tmp_path: Path, images: Tensor) -> None:
    student = _student().train()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    random = torch.get_rng_state()
    write_receptive_field(student, images, tmp_path)
    assert all(module.training for module in student.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())
    assert [name for name, p in student.named_parameters() if p.grad is not None] == []
    assert torch.equal(torch.get_rng_state(), random)


def _pool(paths: list[Path]) -> FolderImages:
    names = [str(path.relative_to("/")) for path in paths]
    return FolderImages(FolderIndex.of(Listing(Path("/"), names, [0] * len(names))))


@pytest.mark.parametrize(("size", "expected"), [(32, 64), (64, 64), (96, 128), (224, 256)])
def test_probe_images_have_a_map_with_an_even_side(image_pool: Path, size: int, expected: int) -> None:
    assert probe_images(open_images(image_pool), size).shape == (8, 3, expected, expected)


@pytest.mark.parametrize(("count", "chosen"), [(1, 1), (8, 8), (9, 5), (24, 8)])
def test_probe_images_come_from_all_over_the_pool(image_pool: Path, count: int, chosen: int) -> None:
    paths = sorted(image_pool.glob("*.png"))[:count]
    images = probe_images(_pool(paths), 32)
    assert len(images) == chosen
    assert torch.equal(images[:1], probe_images(_pool(paths[:1]), 32))


def test_probe_images_leave_out_what_cannot_be_read(image_pool: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged.png").write_bytes(b"damaged")
    good = sorted(image_pool.glob("*.png"))[0]
    assert len(probe_images(_pool([tmp_path / "damaged.png", tmp_path / "gone.png", good]), 32)) == 1


def test_where_none_of_the_chosen_images_can_be_read_others_are_taken(image_pool: Path, tmp_path: Path) -> None:
    good = sorted(image_pool.glob("*.png"))[:8]
    paths = [path for pair in zip([tmp_path / "gone.png"] * 8, good, strict=True) for path in pair]
    assert torch.equal(probe_images(_pool(paths), 32), probe_images(_pool(good), 32))


def test_a_pool_of_which_nothing_can_be_read_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(PCDError, match="no image of the pool can be read"):
        probe_images(_pool([tmp_path / "gone.png"]), 32)
