import torch
from torch import nn

from pcd.heads import build_dense_head, build_pixel_mlp, build_vector_head
from pcd.layouts import HeadLayout


def test_layers_are_numbered_as_in_moco_v3_checkpoints() -> None:
    head = build_vector_head(HeadLayout(widths=(8, 6, 4), bias=False, norm=True, last_norm="plain"))
    norm = ("running_mean", "running_var", "num_batches_tracked")
    assert set(head.state_dict()) == {
        "0.weight", "1.weight", "1.bias", *(f"1.{n}" for n in norm), "3.weight", *(f"4.{n}" for n in norm)
    }  # fmt: skip


def test_tensors_have_the_layouts_widths() -> None:
    head = build_vector_head(HeadLayout(widths=(8, 6, 4), bias=True, norm=False, last_norm="none"))
    assert {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()} == {
        "0.weight": (6, 8),
        "0.bias": (6,),
        "2.weight": (4, 6),
        "2.bias": (4,),
    }


def test_head_without_hidden_layers_is_one_linear() -> None:
    head = build_vector_head(HeadLayout(widths=(8, 4), bias=True, norm=True, last_norm="none"))
    assert [type(layer) for layer in head] == [nn.Linear]


def test_head_of_its_input_alone_leaves_vectors_as_they_are() -> None:
    assert len(build_vector_head(HeadLayout(widths=(8,), bias=True, norm=True, last_norm="none"))) == 0


def test_last_bias_may_differ_from_the_others() -> None:
    head = build_vector_head(HeadLayout(widths=(8, 6, 4), bias=False, last_bias=True, norm=False, last_norm="none"))
    assert [name for name in head.state_dict() if name.endswith("bias")] == ["2.bias"]
    head = build_vector_head(HeadLayout(widths=(8, 6, 4), bias=True, last_bias=False, norm=False, last_norm="none"))
    assert [name for name in head.state_dict() if name.endswith("bias")] == ["0.bias"]


def test_activation_is_the_layouts() -> None:
    layout = HeadLayout(widths=(8, 6, 4), bias=True, norm=False, last_norm="none", activation="gelu")
    assert [type(layer) for layer in build_vector_head(layout)] == [nn.Linear, nn.GELU, nn.Linear]


def test_dense_head_treats_each_pixel_as_the_vector_head_treats_a_vector() -> None:
    layout = HeadLayout(widths=(8, 6, 4), bias=True, norm=True, last_norm="plain")
    dense, vector = build_dense_head(layout).eval(), build_vector_head(layout).eval()
    vector.load_state_dict({name: t[..., 0, 0] if t.ndim == 4 else t for name, t in dense.state_dict().items()})
    maps = torch.randn(2, 8, 3, 5)
    expected = vector(maps.permute(0, 2, 3, 1).flatten(0, 2)).view(2, 3, 5, 4).permute(0, 3, 1, 2)
    torch.testing.assert_close(dense(maps), expected)


def test_pixel_mlp_on_one_pixel_equals_the_vector_mlp_with_its_weights() -> None:
    pixel = build_pixel_mlp((8, 12, 6, 4)).eval()
    vector = build_vector_head(HeadLayout(widths=(8, 12, 6, 4), bias=True, norm=True, last_norm="none")).eval()
    for module in pixel:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            module.get_buffer("running_mean").normal_()
            module.get_buffer("running_var").uniform_(0.5, 2)
    weights = {name: tensor[..., 0, 0] if tensor.ndim == 4 else tensor for name, tensor in pixel.state_dict().items()}
    hidden_biases = {"0.bias": torch.zeros(12), "3.bias": torch.zeros(6)}
    vector.load_state_dict(weights | hidden_biases)
    x = torch.randn(5, 8)
    torch.testing.assert_close(pixel(x[:, :, None, None])[:, :, 0, 0], vector(x))


def test_pixel_mlp_treats_pixels_alike() -> None:
    mlp = build_pixel_mlp((8, 12, 4)).eval()
    maps = torch.randn(2, 8, 3, 5)
    torch.testing.assert_close(mlp(maps)[:, :, 2:, 3:4], mlp(maps[:, :, 2:, 3:4]))
