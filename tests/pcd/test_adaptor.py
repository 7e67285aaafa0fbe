import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pcd.adaptor import SpatialAdaptor
from pcd.heads import build_vector_head
from pcd.layouts import HeadLayout

LAYOUTS = st.builds(
    HeadLayout,
    widths=st.lists(st.integers(1, 12), min_size=2, max_size=4).map(tuple),
    bias=st.booleans(),
    norm=st.booleans(),
    last_norm=st.sampled_from(["none", "plain"]),
)


def _trained_looking(layout: HeadLayout, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """A head whose BatchNorms have seen data: statistics and affine far from their initial 0 and 1."""
    head = build_vector_head(layout)
    layers = [activation() if isinstance(layer, nn.ReLU) else layer for layer in head]
    for layer in layers:
        if isinstance(layer, nn.BatchNorm1d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            if layer.affine:
                nn.init.normal_(layer.weight)
                nn.init.normal_(layer.bias)
    return nn.Sequential(*layers).eval()


def _deviation(mapped: Tensor, vectors: Tensor) -> float:
    """Largest difference between a map's mean and the vectors, relative to the vectors' scale."""
    difference = (mapped.mean(dim=(2, 3)) - vectors).detach().abs().max()
    return float(difference / vectors.detach().abs().max().clamp(min=1))


@given(
    layout=LAYOUTS,
    activation=st.sampled_from([nn.ReLU, nn.GELU]),
    size=st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    seed=st.integers(0, 10_000),
)
def test_mean_of_adapted_map_equals_head_of_pooled_map(
    layout: HeadLayout, activation: type[nn.Module], size: tuple[int, int, int], seed: int
) -> None:
    torch.manual_seed(seed)
    head = _trained_looking(layout, activation)
    b, h, w = size
    maps = 3 * torch.randn(b, layout.widths[0], h, w) + torch.randn(b, layout.widths[0], 1, 1)
    expected = head(maps.mean(dim=(2, 3)))
    assert _deviation(SpatialAdaptor(head)(maps), expected) < 1e-4


def test_one_pixel_gets_what_the_head_gives_its_vector() -> None:
    head = _trained_looking(HeadLayout(widths=(8, 16, 4), bias=True, norm=True, last_norm="plain"))
    vectors = torch.randn(5, 8)
    expected = head(vectors)
    torch.testing.assert_close(SpatialAdaptor(head)(vectors[:, :, None, None])[:, :, 0, 0], expected)


def test_relu_of_each_pixel_breaks_the_identity() -> None:
    layout = HeadLayout(widths=(8, 16, 4), bias=True, norm=False, last_norm="none")
    head = _trained_looking(layout)
    maps = torch.randn(2, 8, 4, 4)
    expected = head(maps.mean(dim=(2, 3)))
    per_pixel = head(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    assert _deviation(per_pixel, expected) > 0.01


def test_batch_norm_in_train_mode_breaks_the_identity() -> None:
    head = _trained_looking(HeadLayout(widths=(8, 16, 4), bias=False, norm=True, last_norm="plain"))
    maps = torch.randn(4, 8, 4, 4)
    adapted = SpatialAdaptor(head)(maps)
    assert _deviation(adapted, copy.deepcopy(head).train()(maps.mean(dim=(2, 3)))) > 0.01


def test_pixels_of_a_map_differ() -> None:
    head = _trained_looking(HeadLayout(widths=(8, 16, 4), bias=True, norm=True, last_norm="plain"))
    adapted = SpatialAdaptor(head)(torch.randn(1, 8, 4, 4))
    assert adapted.flatten(2).std(dim=2).min() > 0.01


def test_head_stays_in_eval_mode_after_train() -> None:
    adaptor = SpatialAdaptor(_trained_looking(HeadLayout(widths=(8, 4), bias=True, norm=True, last_norm="plain")))
    nn.Sequential(adaptor).train()
    assert not any(module.training for module in adaptor.modules())


def test_running_statistics_do_not_move_after_train() -> None:
    adaptor = SpatialAdaptor(
        _trained_looking(HeadLayout(widths=(8, 6, 4), bias=True, norm=True, last_norm="plain"))
    ).train()
    before = copy.deepcopy(adaptor.state_dict())
    adaptor(torch.randn(2, 8, 3, 3))
    torch.testing.assert_close(adaptor.state_dict(), before, rtol=0, atol=0)


def test_head_parameters_take_no_gradient() -> None:
    head = _trained_looking(HeadLayout(widths=(8, 6, 4), bias=True, norm=True, last_norm="none"))
    maps = torch.randn(2, 8, 3, 3, requires_grad=True)
    SpatialAdaptor(head)(maps).sum().backward()
    assert all(parameter.grad is None for parameter in head.parameters())


def test_maps_take_a_gradient() -> None:
    head = _trained_looking(HeadLayout(widths=(8, 6, 4), bias=True, norm=True, last_norm="none"))
    maps = torch.randn(2, 8, 3, 3, requires_grad=True)
    SpatialAdaptor(head)(maps).sum().backward()
    assert maps.grad is not None
    assert maps.grad.abs().sum() > 0


def test_tanh_gelu_is_rejected() -> None:
    with pytest.raises(TypeError, match="tanh"):
        SpatialAdaptor(nn.Sequential(nn.Linear(4, 4), nn.GELU(approximate="tanh")))


def test_batch_norm_without_statistics_is_rejected() -> None:
    with pytest.raises(TypeError, match="running statistics"):
        SpatialAdaptor(nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False)))


@pytest.mark.parametrize("layer", [nn.Sigmoid(), nn.LayerNorm(4), nn.BatchNorm2d(4), nn.Dropout()], ids=repr)
def test_unknown_layer_is_rejected_by_name(layer: nn.Module) -> None:
    with pytest.raises(TypeError, match=type(layer).__name__):
        SpatialAdaptor(nn.Sequential(nn.Linear(4, 4), layer))


@given(layout=LAYOUTS, activation=st.sampled_from([nn.ReLU, nn.GELU]), seed=st.integers(0, 10_000))
def test_gated_by_pixels_the_head_says_of_each_what_it_says_of_a_vector(
    layout: HeadLayout, activation: type[nn.Module], seed: int
) -> None:
    torch.manual_seed(seed)
    head = _trained_looking(layout, activation)
    maps = torch.randn(2, layout.widths[0], 2, 3)
    pixels = head(maps.permute(0, 2, 3, 1).flatten(0, 2))  # (B*H*W, O)
    mapped = SpatialAdaptor(head, gate="pixel")(maps)
    torch.testing.assert_close(mapped.permute(0, 2, 3, 1).flatten(0, 2), pixels, rtol=1e-4, atol=1e-4)


def test_gated_by_pixels_the_mean_is_no_longer_what_the_head_says() -> None:
    head = _trained_looking(HeadLayout(widths=(8, 16, 4), bias=True, norm=True, last_norm="none"))
    maps = torch.randn(2, 8, 3, 3)
    assert _deviation(SpatialAdaptor(head, gate="pixel")(maps), head(maps.mean(dim=(2, 3)))) > 0.01
