from collections import deque

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from pcd.alignment import Geometry
from pcd.arms.pcd import PixelContrast
from pcd.distributed import rank
from pcd.objective import View
from pcd.queue import NegativeQueue, filling_warning
from pcd.settings import LossSettings, PretrainSettings
from pcd.students import Student, build_student
from pcd.teachers import TEACHERS, load_teacher
from pcd.teachers.registry import DEMO_CHECKPOINT
from pcd.train import replicate
from pcd.training_loss import training_loss
from tests.pcd.two_ranks import on_two_ranks


@given(length=st.integers(1, 9), batches=st.lists(st.integers(0, 25), max_size=6), seed=st.integers(0, 1000))
def test_queue_equals_a_slow_first_in_first_out_list(length: int, batches: list[int], seed: int) -> None:
    queue = NegativeQueue(length, 3, seed)
    slow = deque(queue.negatives.clone(), maxlen=length)
    for size in batches:
        vectors = torch.randn(size, 3)
        queue.enqueue(vectors)
        slow.extend(F.normalize(vectors, dim=1))
    oldest_first = queue.negatives.roll(-int(queue.pointer), dims=0)
    torch.testing.assert_close(oldest_first, torch.stack(list(slow)))


@pytest.mark.parametrize(("length", "warns"), [(1600, True), (1616, True), (400, False), (416, True)])
def test_a_queue_that_is_random_for_much_of_the_training_is_told(length: int, warns: bool) -> None:
    objective = torch.nn.ModuleDict({"queue": NegativeQueue(length, 2, seed=0)})
    told = filling_warning(objective, batch=16, steps=100)
    assert bool(told) == warns
    if told:
        assert f"only after {length // 16} steps of 100" in told
    assert filling_warning(torch.nn.Identity(), batch=16, steps=100) is None


def test_a_batch_that_meets_the_end_is_split() -> None:
    queue = NegativeQueue(5, 2, seed=0)
    queue.enqueue(torch.tensor([[1.0, 0.0]]).expand(4, 2))
    queue.enqueue(torch.tensor([[0.0, 1.0]]).expand(3, 2))
    assert queue.negatives[:, 1].tolist() == [1, 1, 0, 0, 1]


def test_vectors_are_normalised_when_they_enter() -> None:
    queue = NegativeQueue(6, 4, seed=0)
    queue.enqueue(100 * torch.randn(6, 4))
    torch.testing.assert_close(queue.negatives.norm(dim=1), torch.ones(6))


def test_half_precision_vectors_enter_in_fp32() -> None:
    queue = NegativeQueue(6, 4, seed=0)
    vectors = torch.randn(6, 4).bfloat16()
    queue.enqueue(vectors)
    torch.testing.assert_close(queue.negatives, F.normalize(vectors.float(), dim=1))


def test_queue_starts_as_unit_vectors() -> None:
    torch.testing.assert_close(NegativeQueue(50, 8, seed=3).negatives.norm(dim=1), torch.ones(50))


def test_start_depends_on_the_seed_alone() -> None:
    first = NegativeQueue(5, 4, seed=1).negatives
    torch.manual_seed(123)
    assert torch.equal(first, NegativeQueue(5, 4, seed=1).negatives)


def test_other_seeds_give_other_starts() -> None:
    assert not torch.equal(NegativeQueue(5, 4, seed=1).negatives, NegativeQueue(5, 4, seed=2).negatives)


@pytest.mark.parametrize("name", ["negatives", "pointer"])
def test_state_dict_restores(name: str) -> None:
    queue, other = NegativeQueue(5, 4, seed=0), NegativeQueue(5, 4, seed=1)
    queue.enqueue(torch.randn(3, 4))
    other.load_state_dict(queue.state_dict())
    assert torch.equal(getattr(other, name), getattr(queue, name))


def test_vectors_enter_without_gradient() -> None:
    queue = NegativeQueue(5, 4, seed=0)
    queue.enqueue(torch.randn(3, 4, requires_grad=True))
    assert not queue.negatives.requires_grad


def test_queue_has_no_parameters() -> None:
    assert not list(NegativeQueue(5, 4, seed=0).parameters())


def test_length_is_the_number_of_negatives() -> None:
    assert len(NegativeQueue(7, 4, seed=0)) == 7


def test_queue_is_no_part_of_what_ddp_broadcasts() -> None:
    # In the released code the queue is a buffer of the wrapped model: rank 0's would come to lie on every rank.
    def work() -> float:
        entry = TEACHERS["demo"]
        student = Student(build_student("resnet18"), entry.projector_widths(512), entry.predictor_widths(), None)
        settings = PretrainSettings(global_batch=4, loss=LossSettings(negatives=4))
        objective = PixelContrast(settings, entry, student, seed=0, steps=1)
        objective.queue.negatives.fill_(rank() + 1)
        view = View(torch.randn(2, 3, 64, 64), Geometry(torch.tensor([[0, 0, 1.0, 1.0]] * 2), torch.zeros(2).bool()))
        teacher = load_teacher("demo", DEMO_CHECKPOINT)
        loss, _ = training_loss(replicate(student), teacher, objective, view, view)
        loss.backward()
        return float(objective.queue.negatives.mean())

    assert on_two_ranks(work) == [1, 2]
