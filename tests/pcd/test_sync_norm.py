from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pcd.distributed import rank
from pcd.errors import PCDError
from pcd.students import Student, build_student
from pcd.sync_norm import CpuSyncBatchNorm, synchronise_norms
from pcd.teachers import TEACHERS
from tests.pcd.two_ranks import on_two_ranks

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


@pytest.fixture(scope="module")
def on_two() -> list[dict[str, Any]]:
    """Each rank has half the batch."""

    def work() -> dict[str, Any]:
        half = slice(4 * rank(), 4 * rank() + 4)
        done = _train_once(synchronise_norms(_network(), CPU), BATCH[half], AIM[half])
        return done | {"images": done["images"].tolist()}

    return on_two_ranks(work)


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


# ---- a whole student, in fp64: in fp32 its gradient amplifies rounding beyond any bound that would tell something


def _student() -> Student:
    torch.manual_seed(0)
    backbone, demo = build_student("resnet18"), TEACHERS["demo"]
    student = Student(backbone, demo.projector_widths(backbone.channels), demo.predictor_widths(), attention_heads=8)
    nn.init.normal_(student.get_parameter("attention.project.weight"), std=0.05)  # or attention would have no gradient
    return student


def _gradients(network: nn.Module, images: slice) -> dict[str, Tensor]:
    """Of a mean over the pixels of two views: both forward passes come before the one backward pass."""
    random = torch.Generator().manual_seed(3)
    views = torch.randn(2, 8, 3, 64, 64, generator=random, dtype=torch.float64)
    classes = torch.randint(128, (2, 8, 2, 2), generator=random)
    maps = [network(view[images]) for view in views]
    losses = [F.cross_entropy(F.normalize(out) / 0.2, aim[images]) for out, aim in zip(maps, classes, strict=True)]
    torch.stack(losses).mean().backward()
    return {name.removeprefix("module."): p.grad for name, p in network.named_parameters() if p.grad is not None}


def test_gradients_of_a_whole_student_are_those_of_one_process() -> None:
    whole = _gradients(_student().double(), slice(None))

    def work() -> set[str]:
        replica = DistributedDataParallel(synchronise_norms(_student(), CPU).double(), forward_sync_buffers=False)
        halves = _gradients(replica, slice(4 * rank(), 4 * rank() + 4))
        assert halves.keys() == whole.keys()
        # The absolute bound is for biases ahead of a BatchNorm, whose gradients vanish; the other norms are above 1e-3.
        return {name for name in whole if (halves[name] - whole[name]).norm() > 1e-9 * whole[name].norm() + 1e-12}

    assert on_two_ranks(work) == [set(), set()]
