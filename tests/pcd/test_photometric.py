import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import ks_2samp
from torch import Tensor
from torch.utils.data import default_collate
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from pcd.bench.pil_views import PilTwoViews
from pcd.photometric import PhotometricParameters, _blur_by_taps, _blur_matrices, draw_parameters, photometric
from pcd.random_streams import view_stream
from pcd.settings import ViewSettings
from pcd.views import IMAGENET_MEAN, IMAGENET_STD, cut_view, draw_flip, draw_window

OPERATIONS = ("brightness", "contrast", "saturation", "hue")
PLAIN = {
    "brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0, "order": (0, 1, 2, 3),
    "jittered": False, "grey": False, "blur_sigma": 0.0, "solarized": False,
}  # fmt: skip


def _parameters(**chosen: Any) -> PhotometricParameters:
    """Of one view, none of whose colours changes but for what is chosen."""
    values = PhotometricParameters(**(PLAIN | chosen))
    floats = {name: torch.tensor(getattr(values, name)) for name in (*OPERATIONS, "blur_sigma")}
    switches = {name: torch.tensor(getattr(values, name)) for name in ("jittered", "grey", "solarized")}
    return PhotometricParameters(order=torch.tensor(values.order, dtype=torch.uint8), **floats, **switches)


def _jittered(**chosen: Any) -> PhotometricParameters:
    return _parameters(jittered=True, **chosen)


def _levels(normalised: Tensor) -> Tensor:
    """Back to 0 .. 255."""
    return 255 * (normalised * torch.tensor(IMAGENET_STD)[:, None, None] + torch.tensor(IMAGENET_MEAN)[:, None, None])


def _textured(seed: int, size: int = 64) -> Image.Image:
    """Smooth, rough and in full colour."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((size, size))
    noise = random.normal(0, 12, (size, size, 3))
    return Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8))


IMAGES = [_textured(seed) for seed in range(4)]
PIXELS = torch.stack([functional.pil_to_tensor(image) for image in IMAGES])


def _ours(*parameters: PhotometricParameters) -> Tensor:
    """Levels of the four images after the same operations on each, or after one set for each."""
    chosen = parameters * 4 if len(parameters) == 1 else parameters
    return _levels(photometric(PIXELS, default_collate(list(chosen))))


def _theirs(transform: Callable[[Any], Any]) -> Tensor:
    """Levels of the four images after a transform of Pillow images or of uint8 tensors."""
    return torch.stack([functional.to_image(transform(image)).float() for image in IMAGES])


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.3])
def test_brightness_is_pillows_within_a_rounding(factor: float) -> None:
    theirs = _theirs(lambda image: functional.adjust_brightness(image, factor))
    assert (_ours(_jittered(brightness=factor)) - theirs).abs().max() < 1.01


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4])
def test_contrast_is_pillows_within_a_rounding(factor: float) -> None:
    theirs = _theirs(lambda image: functional.adjust_contrast(image, factor))
    assert (_ours(_jittered(contrast=factor)) - theirs).abs().max() < 1.51  # Pillow rounds the mean as well


@pytest.mark.parametrize("factor", [0.0, 0.8, 1.0, 1.2])
def test_saturation_is_pillows_within_a_rounding(factor: float) -> None:
    theirs = _theirs(lambda image: functional.adjust_saturation(image, factor))
    assert (_ours(_jittered(saturation=factor)) - theirs).abs().max() < 1.51  # and the grey


@pytest.mark.parametrize("turns", [-0.5, -0.1, 0.0, 0.03, 0.1, 0.37])
def test_hue_is_torchvisions_in_floats(turns: float) -> None:
    exact = functional.adjust_hue(PIXELS.float() / 255, turns) * 255
    torch.testing.assert_close(_ours(_jittered(hue=turns)), exact, atol=0.01, rtol=0)


@pytest.mark.parametrize("steps", [-25, -13, 13, 25])
def test_hue_is_pillows_as_far_as_its_byte_wide_hue_and_saturation_tell(steps: int) -> None:
    """Pillow's circle has 255 steps, worth 6 levels of a channel each; it rounds, and adding bytes may lose one."""
    theirs = _theirs(lambda image: functional.adjust_hue(image, math.copysign((abs(steps) + 0.5) / 255, steps)))
    difference = _ours(_jittered(hue=steps / 255)) - theirs
    assert difference.abs().max() < 12
    assert difference.abs().mean() < 1.2
    assert abs(difference.mean()) < 0.7


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (90, 90, 90)], ids=str)
def test_grey_has_no_hue_to_shift(colour: tuple[int, int, int]) -> None:
    pixels = torch.tensor(colour, dtype=torch.uint8)[None, :, None, None].expand(1, 3, 8, 8)
    shifted = _levels(photometric(pixels, default_collate([_jittered(hue=0.2)])))
    torch.testing.assert_close(shifted, pixels.float(), atol=0.01, rtol=0)


def test_a_third_of_a_turn_makes_red_green() -> None:
    pixels = torch.tensor((200, 20, 20), dtype=torch.uint8)[None, :, None, None].expand(1, 3, 8, 8)
    shifted = _levels(photometric(pixels, default_collate([_jittered(hue=1 / 3)])))
    torch.testing.assert_close(shifted[0, :, 0, 0], torch.tensor([20.0, 200.0, 20.0]), atol=0.01, rtol=0)


def test_grey_is_pillows_within_a_rounding() -> None:
    theirs = _theirs(lambda image: functional.to_grayscale(image, num_output_channels=3))
    assert (_ours(_parameters(grey=True)) - theirs).abs().max() < 0.51


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.5, 0.9, 1.4, 2.0])
def test_blur_is_torchvisions_of_13_taps_within_a_rounding(sigma: float) -> None:
    theirs = _theirs(lambda image: functional.gaussian_blur(functional.pil_to_tensor(image), [13, 13], [sigma, sigma]))
    assert (_ours(_parameters(blur_sigma=sigma)) - theirs).abs().max() < 1.01


@pytest.mark.parametrize("sigma", [0.05, 0.1, 0.7, 1.0, 2.0])
def test_blur_by_matrices_is_blur_by_taps(sigma: float) -> None:
    """The one is for GPUs, the other for the CPU."""
    image = torch.rand(3, 40, 40)
    (matrix,) = _blur_matrices(torch.tensor([[[sigma]]]), 40)
    torch.testing.assert_close(matrix @ image @ matrix.T, _blur_by_taps(image, sigma))


def test_solarized_is_torchvisions_within_a_rounding() -> None:
    theirs = _theirs(lambda image: functional.solarize(functional.pil_to_tensor(image), 128))
    assert (_ours(_parameters(solarized=True)) - theirs).abs().max() < 0.01


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2), (2, 0, 3, 1)], ids=str)
def test_jitter_follows_its_order(order: tuple[int, ...]) -> None:
    factors = {"brightness": 1.3, "contrast": 0.6, "saturation": 1.2, "hue": -0.1}
    expected = PIXELS.float() / 255
    for place in order:
        operation = getattr(functional, f"adjust_{OPERATIONS[place]}")
        expected = operation(expected, factors[OPERATIONS[place]])
    # torchvision's float luma has a digit less: 0.2989
    torch.testing.assert_close(_ours(_jittered(order=order, **factors)), 255 * expected, atol=0.1, rtol=0)


def test_orders_of_jitter_differ() -> None:
    factors = {"brightness": 1.4, "contrast": 0.6, "saturation": 1.2, "hue": -0.1}
    one, other = (_ours(_jittered(order=order, **factors)) for order in ((0, 1, 2, 3), (3, 2, 1, 0)))
    assert (one - other).abs().max() > 5


def test_factors_of_a_view_that_is_not_jittered_do_nothing() -> None:
    untouched = _ours(_parameters(brightness=1.4, contrast=0.6, saturation=1.2, hue=0.1))
    torch.testing.assert_close(untouched, PIXELS.float(), atol=1e-3, rtol=0)


def test_grey_comes_behind_jitter_blur_behind_grey_and_solarization_last() -> None:
    def expected(image: Image.Image) -> Tensor:
        jittered = functional.adjust_saturation(functional.adjust_brightness(image, 1.3), 0.5)
        grey = functional.pil_to_tensor(functional.to_grayscale(jittered, num_output_channels=3))
        return functional.solarize(functional.gaussian_blur(grey, [13, 13], [1.5, 1.5]), 128)

    ours = _ours(_jittered(brightness=1.3, saturation=0.5, grey=True, blur_sigma=1.5, solarized=True))
    assert (ours - _theirs(expected)).abs().max() < 2.01


def _random_batch(size: int = 64, views: int = 24) -> tuple[Tensor, PhotometricParameters]:
    settings = ViewSettings(size=size, blur_probability=(1.0, 0.5), solarize_probability=(0.0, 0.5))
    drawn = [draw_parameters(view_stream(0, 0, i, 2), settings, 2) for i in range(views)]
    return torch.stack([functional.pil_to_tensor(_textured(i, size)) for i in range(views)]), default_collate(drawn)


def test_a_views_result_depends_on_that_view_alone() -> None:
    pixels, parameters = _random_batch()
    alone = [
        photometric(pixels[i : i + 1], PhotometricParameters._make(p[i : i + 1] for p in parameters)) for i in range(24)
    ]
    assert torch.equal(photometric(pixels, parameters), torch.cat(alone))


def test_many_views_at_once_give_what_each_gives_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU computes them: every operation on those of the batch that it applies to."""
    pixels, parameters = _random_batch()
    alone = photometric(pixels, parameters)
    monkeypatch.setattr("pcd.photometric.TOGETHER", {"cpu": 10, "cuda": 10})
    torch.testing.assert_close(photometric(pixels, parameters), alone)


def test_inputs_are_left_alone() -> None:
    pixels, parameters = _random_batch()
    before = pixels.clone(), PhotometricParameters._make(p.clone() for p in parameters)
    photometric(pixels, parameters)
    assert torch.equal(pixels, before[0])
    assert all(torch.equal(p, q) for p, q in zip(parameters, before[1], strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_the_rounded_float(dtype: torch.dtype) -> None:
    pixels, parameters = _random_batch()
    assert torch.equal(photometric(pixels, parameters, dtype), photometric(pixels, parameters).to(dtype))


def test_autocast_leaves_the_precision_alone() -> None:
    pixels, parameters = _random_batch()
    with torch.autocast("cpu", torch.bfloat16):
        inside = photometric(pixels, parameters)
    assert torch.equal(inside, photometric(pixels, parameters))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_gives_what_the_cpu_gives() -> None:
    pixels, parameters = _random_batch()
    result = photometric(pixels.cuda(), parameters).cpu()
    torch.testing.assert_close(result, photometric(pixels, parameters), atol=2e-3, rtol=1e-3)


# ---- what is drawn

DRAWS = 3000
DEFAULTS = ViewSettings()


def _drawn(view: int, settings: ViewSettings = DEFAULTS) -> PhotometricParameters:
    collated: PhotometricParameters = default_collate(
        [draw_parameters(view_stream(0, 0, i, view), settings, view) for i in range(DRAWS)]
    )
    return collated


def _share_is(values: Tensor, probability: float) -> bool:
    spread = math.sqrt(probability * (1 - probability) / DRAWS)
    return abs(float(values.float().mean()) - probability) <= 4 * spread


@pytest.mark.parametrize("view", [1, 2])
def test_factors_are_distributed_as_torchvisions(view: int) -> None:
    ours, transform = _drawn(view), v2.ColorJitter(*DEFAULTS.jitter)
    theirs = [transform.make_params([]) for _ in range(DRAWS)]
    p_values = {
        name: ks_2samp(getattr(ours, name), [t[f"{name}_factor"] for t in theirs]).pvalue for name in OPERATIONS
    }
    assert min(p_values.values()) > 0.005, p_values


def test_every_order_comes_equally_often() -> None:
    _, counts = _drawn(1).order.unique(dim=0, return_counts=True)
    assert len(counts) == 24
    expected = DRAWS / 24
    assert ((counts - expected) ** 2 / expected).sum() < 49.7  # chi-squared of 23 degrees, 0.1 %


@pytest.mark.parametrize(("view", "blurred", "solarized"), [(1, 1.0, 0.0), (2, 0.1, 0.2)])
def test_operations_are_switched_on_as_often_as_their_settings_say(view: int, blurred: float, solarized: float) -> None:
    drawn = _drawn(view)
    assert _share_is(drawn.jittered, 0.8)
    assert _share_is(drawn.grey, 0.2)
    assert _share_is(drawn.blur_sigma > 0, blurred)
    assert _share_is(drawn.solarized, solarized)


def test_switches_are_independent() -> None:
    drawn = _drawn(2)
    columns = torch.stack([drawn.jittered, drawn.grey, drawn.blur_sigma > 0, drawn.solarized]).float()
    correlations = torch.corrcoef(columns) - torch.eye(4)
    assert correlations.abs().max() < 4 / math.sqrt(DRAWS)


@pytest.mark.parametrize("size", [224, 96])
def test_sigma_is_uniform_and_shrinks_with_the_view(size: int) -> None:
    sigma = _drawn(1, ViewSettings(size=size)).blur_sigma * 224 / size
    uniform = np.random.default_rng(0).uniform(0.1, 2.0, DRAWS)
    assert ks_2samp(sigma, uniform).pvalue > 0.005


def test_strengths_beyond_one_never_make_a_factor_negative() -> None:
    drawn = _drawn(1, ViewSettings(jitter=(2.0, 2.0, 2.0, 0.5)))
    assert min(float(getattr(drawn, name).min()) for name in OPERATIONS[:3]) >= 0


# ---- the whole against the whole


@pytest.mark.parametrize("view", [1, 2])
def test_views_are_distributed_as_the_released_pipelines(view: int) -> None:
    settings, draws = ViewSettings(size=32), 300
    images = [_textured(seed, 80) for seed in range(4)]
    theirs = torch.stack([PilTwoViews(settings)(images[i % 4])[view - 1] for i in range(draws)])
    crops, parameters = [], []
    for i in range(draws):
        random = view_stream(0, 0, i, view)
        window, flipped = draw_window(random, 80, 80, settings), draw_flip(random)
        crops.append(cut_view(functional.pil_to_tensor(images[i % 4]), window, flipped, 32))
        parameters.append(draw_parameters(random, settings, view))
    ours = photometric(torch.stack(crops), default_collate(parameters))
    measures: dict[str, Callable[[Tensor], Tensor]] = {
        "mean": lambda views: views.mean(dim=(1, 2, 3)),
        "red": lambda views: views[:, 0].mean(dim=(1, 2)),
        "spread": lambda views: views.std(dim=(1, 2, 3)),
        "colour": lambda views: views.std(dim=1).mean(dim=(1, 2)),
        "roughness": lambda views: views.diff(dim=3).abs().mean(dim=(1, 2, 3)),
    }
    p_values = {name: ks_2samp(measure(ours), measure(theirs)).pvalue for name, measure in measures.items()}
    assert min(p_values.values()) > 0.005, p_values


@given(draws=st.lists(st.integers(0, 10_000), min_size=1, max_size=6), view=st.sampled_from([1, 2]))
def test_results_are_finite_and_within_the_range_of_pixels(draws: list[int], view: int) -> None:
    settings = ViewSettings(size=32)
    parameters = default_collate([draw_parameters(view_stream(0, 1, i, view), settings, view) for i in draws])
    pixels = torch.randint(0, 256, (len(draws), 3, 32, 32), dtype=torch.uint8)
    levels = _levels(photometric(pixels, parameters))
    assert levels.isfinite().all()
    assert levels.min() >= -0.01
    assert levels.max() <= 255.01
