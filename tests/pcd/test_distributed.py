import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pcd.alignment import Geometry
from pcd.distributed import (
    any_rank,
    gather,
    gather_objects,
    mean_over_ranks,
    process_group,
    rank,
    sum_over_ranks,
    world_size,
)
from pcd.pairing import paired_loss
from pcd.settings import LossSettings
from tests.pcd.two_ranks import FINISHED, on_two_ranks

CPU = torch.device("cpu")


def test_alone_this_is_rank_0() -> None:
    assert rank() == 0


def test_alone_the_world_is_one() -> None:
    assert world_size() == 1


def test_alone_gather_gives_its_input() -> None:
    x = torch.randn(3, 2)
    assert torch.equal(gather(x), x)


def test_alone_the_mean_is_the_value() -> None:
    assert mean_over_ranks(torch.tensor(2.5)).item() == 2.5


@pytest.mark.parametrize("flag", [True, False])
def test_alone_any_rank_is_this_rank(flag: bool) -> None:
    assert any_rank([flag], CPU) == [flag]


def test_alone_no_process_group_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group("cpu") as device:
        assert device == CPU
        assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("found_by", [0, 1])
def test_a_result_that_one_rank_found_ends_all_of_them(found_by: int) -> None:
    assert on_two_ranks(lambda: "went on", found_result_on=found_by) == [FINISHED, FINISHED]


def _rows() -> Tensor:
    return torch.tensor([[10 * rank(), 10 * rank() + 1]])


def test_ranks_know_their_number_and_the_worlds_size() -> None:
    assert on_two_ranks(lambda: (rank(), world_size())) == [(0, 2), (1, 2)]


def test_gather_stacks_in_the_order_of_ranks_on_every_rank() -> None:
    assert on_two_ranks(lambda: gather(_rows()).tolist()) == [[[0, 1], [10, 11]]] * 2


def test_mean_is_taken_over_the_ranks() -> None:
    assert on_two_ranks(lambda: mean_over_ranks(torch.tensor(float(rank()))).item()) == [0.5, 0.5]


@pytest.mark.parametrize("told", [0, 1])
def test_a_flag_of_one_rank_is_seen_by_all(told: int) -> None:
    assert on_two_ranks(lambda: any_rank([False, rank() == told], CPU)) == [[False, True]] * 2


def test_a_flag_of_no_rank_is_seen_by_none() -> None:
    assert on_two_ranks(lambda: any_rank([False], CPU)) == [[False]] * 2


def test_objects_come_in_the_order_of_ranks_on_every_rank() -> None:
    assert on_two_ranks(lambda: gather_objects({"rank": rank()})) == [[{"rank": 0}, {"rank": 1}]] * 2


def test_alone_an_object_is_the_only_one() -> None:
    assert gather_objects("a") == ["a"]


def test_sum_leaves_its_input_as_it_was() -> None:
    def work() -> list[float]:
        x = torch.tensor(rank() + 1.0)
        return [sum_over_ranks(x).item(), x.item()]

    assert on_two_ranks(work) == [[3, 1], [3, 2]]


@pytest.mark.parametrize("pairing", ["crossed", "aligned"])
def test_ddps_gradient_of_the_loss_over_two_ranks_is_the_whole_batchs(pairing: str) -> None:
    torch.manual_seed(0)
    maps = [torch.randn(4, 6, 3, 3) for _ in range(4)]
    crops = [torch.cat([torch.rand(4, 2) / 2, torch.full((4, 2), 0.4)], dim=1) for _ in range(2)]
    flipped, negatives = torch.tensor([True, False, True, False]), torch.randn(20, 6)
    settings = LossSettings.model_validate({"pairing": pairing})

    def gradient(student: nn.Module, images: slice) -> Tensor:
        first, second, *teacher = (x[images] for x in maps)
        geometries = [Geometry(boxes[images], flipped[images]) for boxes in crops]
        outputs = student(first), student(second)
        paired_loss(*outputs, *teacher, *geometries, negatives, settings, sum_over_ranks).backward()
        return torch.cat([parameter.grad.flatten() for parameter in student.parameters()])

    def student() -> nn.Module:
        torch.manual_seed(1)
        return nn.Conv2d(6, 6, 1)

    def of_this_rank() -> list[float]:
        replica = DistributedDataParallel(student())
        return gradient(replica, slice(2 * rank(), 2 * rank() + 2)).tolist()

    whole = gradient(student(), slice(None))
    for of_rank in on_two_ranks(of_this_rank):
        torch.testing.assert_close(torch.tensor(of_rank), whole, rtol=1e-4, atol=1e-6)
