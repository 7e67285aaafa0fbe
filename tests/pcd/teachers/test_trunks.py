import pytest
import torch
from torch import nn

from pcd.errors import PCDError
from pcd.layouts import ResNetLayout, ViTLayout
from pcd.teachers.trunks import build_trunk

VIT = ViTLayout(width=24, depth=2, heads=3, patch=8, size=32)


@pytest.fixture
def vit() -> nn.Module:
    trunk = build_trunk(VIT).eval().requires_grad_(False)
    for parameter in trunk.parameters():
        nn.init.normal_(parameter, std=0.2)
    return trunk


def test_resnet_maps_have_a_stride_of_32() -> None:
    layout = ResNetLayout(block="bottleneck", layers=(1, 1, 1, 1), channels=(4, 4, 4, 6))
    assert build_trunk(layout)(torch.randn(1, 3, 64, 96)).shape == (1, layout.out_channels, 2, 3)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 32), (64, 40)])
def test_vit_maps_have_the_patchs_stride_at_any_size(vit: nn.Module, height: int, width: int) -> None:
    assert vit(torch.randn(2, 3, height, width)).shape == (2, 24, height // 8, width // 8)


@pytest.mark.parametrize(("height", "width"), [(30, 32), (32, 36)])
def test_images_that_do_not_divide_into_patches_are_refused(vit: nn.Module, height: int, width: int) -> None:
    with pytest.raises(PCDError, match=f"patches of 8 pixels cannot take images of {height} x {width}"):
        vit(torch.randn(1, 3, height, width))


def test_vit_pixels_lie_where_their_patches_lie(vit: nn.Module) -> None:
    images = torch.randn(1, 3, 32, 32)
    changed = images.clone()
    changed[:, :, 8:16, 24:32] += 3  # the patch in row 1, column 3
    moved = (vit(changed) - vit(images)).abs().sum(dim=1)[0]
    assert divmod(int(moved.argmax()), 4) == (1, 3)


def test_position_embedding_of_the_layouts_own_size_is_used_as_it_is(vit: nn.Module) -> None:
    images = torch.randn(1, 3, 8, 8).repeat(1, 1, 4, 4)  # all patches are alike: positions alone tell them apart
    with_positions = vit(images)
    vit.pos_embed.zero_()  # type: ignore[operator,union-attr]
    assert with_positions.flatten(2).std(dim=2).min() > 1e-3
    assert vit(images).flatten(2).std(dim=2).max() < 1e-6


def test_position_embedding_follows_the_image_to_another_size(vit: nn.Module) -> None:
    vit.pos_embed[:, 1:, :12] = torch.linspace(-1, 1, 16)[None, :, None]  # type: ignore[operator,index]
    maps = vit(torch.zeros(1, 3, 64, 64))  # (1, 24, 8, 8), positions rise from the first row to the last
    assert (maps[0, :, 0].mean(dim=1) - maps[0, :, -1].mean(dim=1)).abs().max() > 0.1


def test_class_token_is_no_pixel(vit: nn.Module) -> None:
    tokens = vit.forward_features(torch.ones(1, 3, 32, 32))  # type: ignore[operator]
    torch.testing.assert_close(vit(torch.ones(1, 3, 32, 32)).flatten(2).transpose(1, 2), tokens[:, 1:])
