from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pcd.weights_hash import weights_sha256


def _weights() -> dict[str, Tensor]:
    return {
        "conv": torch.arange(12.0).reshape(3, 4),
        "count": torch.tensor(3),
        "half": torch.ones(2, dtype=torch.bfloat16),
    }


def test_equal_weights_have_one_hash_in_whatever_order_and_layout() -> None:
    other = dict(reversed(_weights().items())) | {"conv": torch.arange(12.0).reshape(3, 4).T.contiguous().T}
    assert not other["conv"].is_contiguous()
    assert weights_sha256(other) == weights_sha256(_weights())


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w | {"conv": w["conv"] + torch.finfo(torch.float32).eps * 8},
        lambda w: w | {"conv": w["conv"].reshape(4, 3)},
        lambda w: w | {"count": w["count"].int()},
        lambda w: w | {"half": torch.zeros(2, dtype=torch.bfloat16)},
        lambda w: {name: tensor for name, tensor in w.items() if name != "count"},
        lambda w: {f"{name}s": tensor for name, tensor in w.items()},
    ],
    ids=["one value", "shape", "type", "bfloat16", "a tensor less", "names"],
)
def test_any_difference_changes_the_hash(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    assert weights_sha256(change(_weights())) != weights_sha256(_weights())


def test_hashing_leaves_the_weights_as_they_are() -> None:
    weights = _weights()
    weights_sha256(weights)
    assert all(torch.equal(tensor, _weights()[name]) for name, tensor in weights.items())
