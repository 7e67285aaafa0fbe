import pytest
import torch

from pcd.errors import PCDError
from pcd.grid import fit_grid


def test_tokens_of_a_vit_are_averaged_two_by_two() -> None:
    maps = torch.randn(2, 5, 14, 14)
    blocks = maps.unfold(2, 2, 2).unfold(3, 2, 2)  # (B, C, 7, 7, 2, 2)
    torch.testing.assert_close(fit_grid(maps, 7, 7), blocks.mean(dim=(4, 5)))


@pytest.mark.parametrize(("height", "width"), [(7, 7), (2, 14), (1, 1), (14, 7)])
def test_mean_over_pixels_stays(height: int, width: int) -> None:
    maps = torch.randn(2, 5, 14, 14)
    fitted = fit_grid(maps, height, width)
    assert fitted.shape == (2, 5, height, width)
    torch.testing.assert_close(fitted.mean(dim=(2, 3)), maps.mean(dim=(2, 3)))


def test_same_grid_is_the_same_map() -> None:
    maps = torch.randn(2, 5, 7, 7)
    assert fit_grid(maps, 7, 7) is maps


@pytest.mark.parametrize(("height", "width"), [(6, 7), (7, 5), (28, 28)])
def test_grid_that_does_not_divide_is_refused_with_both_sizes(height: int, width: int) -> None:
    with pytest.raises(PCDError, match=rf"map of 14 x 14 .* student's {height} x {width};"):
        fit_grid(torch.randn(1, 2, 14, 14), height, width)
