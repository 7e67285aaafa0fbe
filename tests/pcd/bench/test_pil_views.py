import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pcd.bench.pil_views import PilTwoViews
from pcd.settings import ViewSettings
from pcd.views import IMAGENET_MEAN, IMAGENET_STD

PLAIN = ViewSettings(
    size=64, min_scale=1.0, jitter_probability=0, grayscale_probability=0,
    blur_probability=(0, 0), solarize_probability=(0, 0),
)  # fmt: skip


def _noise(size: int = 96) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8))


def _flat(grey: int) -> Image.Image:
    return Image.new("RGB", (80, 80), (grey, grey, grey))


def _roughness(view: Tensor) -> float:
    """Mean difference of neighbouring pixels."""
    return float(view.diff(dim=2).abs().mean())


def _pixels(view: Tensor) -> Tensor:
    """Back to 0 .. 1."""
    return view * torch.tensor(IMAGENET_STD)[:, None, None] + torch.tensor(IMAGENET_MEAN)[:, None, None]


@pytest.mark.parametrize("shape", [(200, 50), (50, 200), (10, 10)], ids=str)
@pytest.mark.parametrize("size", [32, 64])
def test_views_are_square_crops_of_any_image(shape: tuple[int, int], size: int) -> None:
    views = PilTwoViews(ViewSettings(size=size))(Image.new("RGB", shape))
    assert [tuple(view.shape) for view in views] == [(3, size, size)] * 2


def test_views_are_float() -> None:
    assert {view.dtype for view in PilTwoViews(ViewSettings(size=32))(_noise())} == {torch.float32}


def test_equal_random_state_gives_equal_views() -> None:
    views = PilTwoViews(ViewSettings(size=32))
    torch.manual_seed(3)
    first = views(_noise())
    torch.manual_seed(3)
    assert torch.equal(torch.stack(views(_noise())), torch.stack(first))


def test_other_random_state_gives_other_views() -> None:
    views = PilTwoViews(ViewSettings(size=32))
    assert not torch.equal(views(_noise())[0], views(_noise())[0])


def test_the_two_views_differ() -> None:
    view1, view2 = PilTwoViews(PLAIN.model_copy(update={"min_scale": 0.08}))(_noise())
    assert not torch.equal(view1, view2)


def test_view_1_is_always_blurred_and_view_2_is_not() -> None:
    views = PilTwoViews(
        PLAIN.model_copy(update={"size": 128, "blur_probability": (1.0, 0.0), "blur_sigma": (2.0, 2.0)})
    )
    image = _noise()
    pairs = [views(image) for _ in range(10)]
    assert max(_roughness(view1) for view1, _ in pairs) < 0.7 * min(_roughness(view2) for _, view2 in pairs)


def test_default_blurs_view_1_always() -> None:
    assert ViewSettings().blur_probability[0] == 1.0


def test_blur_shrinks_with_the_crop() -> None:
    """A blur of 2 pixels at 224 is one of 0.29 at 32, which leaves nearly all of a pixel's value in its place."""
    views = PilTwoViews(PLAIN.model_copy(update={"size": 32, "blur_probability": (1.0, 0.0), "blur_sigma": (2.0, 2.0)}))
    checkers = Image.fromarray((np.indices((32, 32)).sum(axis=0) % 2 * 255).astype(np.uint8)).convert("RGB")
    torch.manual_seed(0)
    blurred = _pixels(views(checkers)[0])
    assert blurred.max() - blurred.min() > 0.5


def test_only_view_2_is_solarized() -> None:
    views = PilTwoViews(PLAIN.model_copy(update={"solarize_probability": (0.0, 1.0)}))
    view1, view2 = views(_flat(230))
    torch.testing.assert_close(_pixels(view1), torch.full((3, 64, 64), 230 / 255))
    torch.testing.assert_close(_pixels(view2), torch.full((3, 64, 64), 25 / 255), rtol=1e-4, atol=1e-4)


def test_grey_views_have_equal_channels() -> None:
    view, _ = PilTwoViews(PLAIN.model_copy(update={"grayscale_probability": 1.0}))(_noise())
    pixels = _pixels(view)
    torch.testing.assert_close(pixels[0], pixels[1])


def test_views_are_normalised_by_imagenets_statistics() -> None:
    view, _ = PilTwoViews(PLAIN)(_flat(0))
    expected = torch.tensor([-m / s for m, s in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)])
    torch.testing.assert_close(view.mean(dim=(1, 2)), expected)
