import pytest
import torch
from torch import nn

from pcd.attention import PixelAttention


def _awake(channels: int = 16, heads: int = 4) -> PixelAttention:
    """The block as after some training: its output projection is no longer zero."""
    block = PixelAttention(channels, heads)
    nn.init.normal_(block.project.weight, std=0.5)
    return block


def test_block_is_the_identity_at_initialisation() -> None:
    maps = torch.randn(2, 16, 3, 5)
    assert torch.equal(PixelAttention(16, 4)(maps), maps)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 5), (8, 2)], ids=str)
def test_shape_is_kept_for_any_map_size(size: tuple[int, int]) -> None:
    assert _awake()(torch.randn(2, 16, *size)).shape == (2, 16, *size)


@pytest.mark.parametrize("name", ["project.weight", "project.bias"])
def test_gradient_reaches_the_projection_at_initialisation(name: str) -> None:
    block = PixelAttention(16, 4)
    block(torch.randn(2, 16, 3, 3)).square().sum().backward()
    gradient = block.get_parameter(name).grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", ["norm.weight", "norm.bias", "qkv.weight", "qkv.bias", "project.weight"])
def test_gradient_reaches_every_parameter_once_the_projection_has_moved(name: str) -> None:
    block = _awake()
    block(torch.randn(2, 16, 3, 3)).square().sum().backward()
    gradient = block.get_parameter(name).grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_a_far_pixel_changes_the_output() -> None:
    block, maps = _awake(), torch.randn(1, 16, 6, 6)
    changed = maps.clone()
    changed[0, :, 5, 5] += torch.randn(16)
    assert (block(changed) - block(maps))[0, :, 0, 0].abs().max() > 1e-4


def test_images_of_a_batch_do_not_mix() -> None:
    block, maps = _awake(), torch.randn(2, 16, 4, 4)
    torch.testing.assert_close(block(maps)[:1], block(maps[:1]))


@pytest.mark.parametrize("place", [(0, 1), (1, 0)], ids=["column", "row"])
def test_equal_pixels_at_other_places_get_other_outputs(place: tuple[int, int]) -> None:
    maps = torch.randn(1, 16, 2, 2)
    maps[0, :, place[0], place[1]] = maps[0, :, 0, 0]
    out = _awake()(maps)
    assert (out[0, :, 0, 0] - out[0, :, place[0], place[1]]).abs().max() > 1e-4


def test_map_that_is_not_square_keeps_rows_and_columns_apart() -> None:
    block, maps = _awake(), torch.randn(1, 16, 2, 5)
    assert (block(maps.transpose(2, 3)).transpose(2, 3) - block(maps)).abs().max() > 1e-4


@pytest.mark.parametrize(("channels", "heads"), [(16, 3), (6, 2), (10, 4)])
def test_channels_that_do_not_split_raise_value_error(channels: int, heads: int) -> None:
    with pytest.raises(ValueError, match=str(channels)):
        PixelAttention(channels, heads)


def test_heads_that_do_not_split_the_channels_are_answered_with_those_that_do() -> None:
    with pytest.raises(ValueError, match=r"24 channels do not split into 5 heads; valid: 1, 2, 3, 4, 6$"):
        PixelAttention(24, 5)
