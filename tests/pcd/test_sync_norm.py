from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from pcd.distributed import rank
from pcd.errors import PCDError
from pcd.sync_norm import CpuSyncBatchNorm, synchronise_norms

CPU = torch.device("cpu")
BATCH = torch.randn(8, 5, 3, 4, generator=torch.Generator().manual_seed(1)) * 3 + 2
AIM = torch.randn(8, 5, 3, 4, generator=torch.Generator().manual_seed(2))


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(5, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 1), nn.BatchNorm2d(5))
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    return network


def _train_once(network: nn.Module, images: Tensor, aim: Tensor) -> dict[str, Any]:
    """Output, gradients of a sum over the images, and the state behind it."""
    images = images.clone().requires_grad_()
    out = network(images)
    (out * aim).sum().backward()
    gradients = {name: p.grad.tolist() for name, p in network.named_parameters() if p.grad is not None}
    return {"out": out.tolist(), "images": images.grad, "gradients": gradients, "state": _lists(network.state_dict())}


def _lists(tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {name: tensor.tolist() for name, tensor in tensors.items()}


@pytest.fixture
def on_two(of_two_ranks: Callable[[Callable[[], Any]], list[Any]]) -> list[dict[str, Any]]:
    """Each rank has half the batch."""

    def work() -> dict[str, Any]:
        half = slice(4 * rank(), 4 * rank() + 4)
        done = _train_once(synchronise_norms(_network(), CPU), BATCH[half], AIM[half])
        return done | {"images": done["images"].tolist()}

    return of_two_ranks(work)


def test_output_is_that_of_one_process_with_the_whole_batch(on_two: list[dict[str, Any]]) -> None:
    whole = torch.tensor(_train_once(_network(), BATCH, AIM)["out"])
    torch.testing.assert_close(torch.tensor(on_two[0]["out"] + on_two[1]["out"]), whole, rtol=1e-5, atol=1e-5)


def test_gradient_to_the_images_is_that_of_one_process(on_two: list[dict[str, Any]]) -> None:
    whole = _train_once(_network(), BATCH, AIM)["images"]
    torch.testing.assert_close(torch.tensor(on_two[0]["images"] + on_two[1]["images"]), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["0.weight", "1.weight", "1.bias", "4.weight", "4.bias"])
def test_gradients_of_both_ranks_sum_to_that_of_one_process(on_two: list[dict[str, Any]], name: str) -> None:
    whole = torch.tensor(_train_once(_network(), BATCH, AIM)["gradients"][name])
    summed = sum(torch.tensor(one["gradients"][name]) for one in on_two)
    torch.testing.assert_close(summed, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["1.running_mean", "1.running_var", "4.running_var", "4.num_batches_tracked"])
def test_running_statistics_are_those_of_one_process_on_both_ranks(on_two: list[dict[str, Any]], name: str) -> None:
    whole = torch.tensor(_train_once(_network(), BATCH, AIM)["state"][name])
    for one in on_two:
        torch.testing.assert_close(torch.tensor(one["state"][name]), whole)


def test_alone_it_is_an_ordinary_batch_norm() -> None:
    ours, plain = _train_once(synchronise_norms(_network(), CPU), BATCH, AIM), _train_once(_network(), BATCH, AIM)
    assert ours["out"] == plain["out"]


def test_names_and_values_of_the_tensors_stay() -> None:
    network = _network()
    before = _lists(network.state_dict())
    assert _lists(synchronise_norms(network, CPU).state_dict()) == before


def test_every_batch_norm_is_replaced() -> None:
    kinds = [type(module) for module in synchronise_norms(_network(), CPU)]
    assert kinds == [nn.Conv2d, CpuSyncBatchNorm, nn.ReLU, nn.Conv2d, CpuSyncBatchNorm]


def test_on_cuda_they_become_torchs_own() -> None:
    network = synchronise_norms(_network(), torch.device("cuda"))
    assert [type(module) for module in network.children()].count(nn.SyncBatchNorm) == 2


def test_a_norm_that_carries_its_activation_is_refused_on_cpu_ranks() -> None:
    with pytest.raises(PCDError, match=r"cannot synchronise 0 \(BatchNormAct2d\); set runtime\.processes to 1"):
        synchronise_norms(nn.Sequential(BatchNormAct2d(4)), CPU)
