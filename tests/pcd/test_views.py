import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from pcd.random_streams import view_stream
from pcd.settings import ViewSettings
from pcd.views import IMAGENET_MEAN, IMAGENET_STD, Window, central_view, cut_view, draw_flip, draw_window

SIDES = st.integers(1, 600)
DRAWS = 4000


@given(height=SIDES, width=SIDES, seed=st.integers(0, 1000), min_scale=st.sampled_from([0.08, 0.5, 1.0]))
def test_windows_lie_inside_the_image(height: int, width: int, seed: int, min_scale: float) -> None:
    top, left, h, w = draw_window(view_stream(seed, 0, 0, 1), height, width, ViewSettings(min_scale=min_scale))
    assert min(h, w) >= 1
    assert 0 <= top <= height - h
    assert 0 <= left <= width - w


def _ours(height: int, width: int, min_scale: float) -> list[Window]:
    settings = ViewSettings(min_scale=min_scale)
    return [draw_window(view_stream(0, 0, i, 1), height, width, settings) for i in range(DRAWS)]


def _torchvisions(height: int, width: int, min_scale: float) -> list[Window]:
    transform, image = v2.RandomResizedCrop(224, scale=(min_scale, 1.0)), torch.empty(3, height, width)
    drawn = (transform.make_params([image]) for _ in range(DRAWS))
    return [Window(*(d[side] for side in ("top", "left", "height", "width"))) for d in drawn]


MEASURES = {
    "area": lambda window: window.height * window.width,
    "aspect": lambda window: window.width / window.height,
    "top": lambda window: window.top,
    "left": lambda window: window.left,
    "bottom": lambda window: window.top + window.height,
}


@pytest.mark.parametrize("image", [(380, 500, 0.08), (380, 500, 0.5), (300, 300, 0.2), (90, 400, 0.3)], ids=str)
def test_windows_are_distributed_as_torchvisions(image: tuple[int, int, float]) -> None:
    ours, theirs = _ours(*image), _torchvisions(*image)
    p_values = {
        name: ks_2samp([measure(w) for w in ours], [measure(w) for w in theirs]).pvalue
        for name, measure in MEASURES.items()
    }
    assert min(p_values.values()) > 0.005, p_values


@pytest.mark.parametrize("image", [(50, 200, 1.0), (200, 50, 1.0), (60, 61, 1.0), (7, 300, 0.9)], ids=str)
def test_windows_that_fit_nowhere_are_torchvisions_central_ones(image: tuple[int, int, float]) -> None:
    assert set(_ours(*image)) == set(_torchvisions(*image))


def test_half_of_the_views_are_flipped() -> None:
    flips = sum(draw_flip(view_stream(0, 0, i, 1)) for i in range(DRAWS))
    assert abs(flips - DRAWS / 2) < 4 * math.sqrt(DRAWS) / 2


def _textured(height: int = 190, width: int = 250) -> Image.Image:
    """Smooth and rough at once."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((width, height))
    noise = random.normal(0, 20, (height, width, 3))
    return Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("window", [(0, 0, 190, 250), (10, 20, 150, 160), (33, 41, 40, 35), (189, 249, 1, 1)], ids=str)
@pytest.mark.parametrize("size", [32, 96, 224])
def test_view_is_pillows_crop_within_one_rounding(window: tuple[int, int, int, int], size: int) -> None:
    image = _textured()
    ours = cut_view(functional.pil_to_tensor(image), Window(*window), flipped=False, size=size)
    theirs = functional.pil_to_tensor(functional.resized_crop(image, *window, [size, size]))
    assert (ours.int() - theirs.int()).abs().max() <= 1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_view_does_not_depend_on_the_layout_of_the_image(layout: torch.memory_format) -> None:
    image = functional.pil_to_tensor(_textured())
    laid_out = image[None].contiguous(memory_format=layout)[0]
    window = Window(3, 5, 120, 140)
    difference = cut_view(laid_out, window, False, 64).int() - cut_view(image, window, False, 64).int()
    assert difference.abs().max() <= 1


def test_flipped_view_is_mirrored_left_to_right() -> None:
    image, window = functional.pil_to_tensor(_textured()), Window(10, 20, 100, 90)
    assert torch.equal(cut_view(image, window, True, 64), cut_view(image, window, False, 64).flip(2))


@pytest.mark.parametrize("flipped", [True, False])
def test_views_are_contiguous_bytes(flipped: bool) -> None:
    view = cut_view(functional.pil_to_tensor(_textured()), Window(0, 0, 50, 50), flipped, 32)
    assert view.shape == (3, 32, 32)
    assert view.dtype == torch.uint8
    assert view.is_contiguous()


@pytest.mark.parametrize("shape", [(200, 50), (50, 200), (10, 10)], ids=str)
def test_central_view_is_a_square_of_any_image(shape: tuple[int, int]) -> None:
    assert central_view(torch.zeros(3, *shape, dtype=torch.uint8), 64).shape == (3, 64, 64)


def test_central_view_cuts_the_centre_at_256_to_224() -> None:
    pixels = torch.zeros(3, 256, 256, dtype=torch.uint8)
    pixels[:, 16:240, 16:240] = 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(central_view(pixels, 224) * std + mean, torch.ones(3, 224, 224))


def test_central_view_draws_nothing() -> None:
    image = functional.pil_to_tensor(_textured())
    assert torch.equal(central_view(image, 64), central_view(image, 64))
