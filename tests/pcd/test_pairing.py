from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from pcd.alignment import Geometry, align
from pcd.loss import reference_pixel_contrastive_loss
from pcd.pairing import paired_loss
from pcd.settings import LossSettings

Batch = tuple[Tensor, Tensor, Tensor, Tensor, Geometry, Geometry]

TOP_LEFT, BOTTOM_RIGHT = torch.tensor([0.0, 0.0, 0.4, 0.4]), torch.tensor([0.6, 0.6, 0.4, 0.4])


def _crops(images: int) -> Geometry:
    corner, size = 0.4 * torch.rand(images, 2), 0.2 + 0.4 * torch.rand(images, 2)
    return Geometry(torch.cat([corner, size], dim=1), torch.rand(images) < 0.5)


@pytest.fixture
def batch() -> Batch:
    """Four images whose crops overlap more or less."""
    maps = [torch.randn(4, 8, 5, 5) for _ in range(4)]
    return maps[0], maps[1], maps[2], maps[3], _crops(4), _crops(4)


@pytest.fixture
def negatives() -> Tensor:
    return torch.randn(30, 8)


def _part(batch: Batch, images: slice) -> Batch:
    s1, s2, t1, t2, first, second = batch
    crops = [Geometry(g.boxes[images], g.flipped[images]) for g in (first, second)]
    return s1[images], s2[images], t1[images], t2[images], crops[0], crops[1]


def _sums_of(parts: Sequence[Batch], settings: LossSettings) -> Callable[[Tensor], Tensor]:
    """What an all-reduce would give each of these ranks: the sum of what all of them send."""
    sent: list[Tensor] = []

    def remember(x: Tensor) -> Tensor:
        sent.append(x)
        return x

    for part in parts:
        paired_loss(*part, torch.randn(3, 8), settings, remember)
    total = torch.stack(sent).sum(dim=0)
    return lambda x: total


def test_aligned_pairing_is_the_reference_on_the_resampled_maps(batch: Batch, negatives: Tensor) -> None:
    s1, s2, t1, t2, first, second = batch
    loss = paired_loss(*batch, negatives, LossSettings(pairing="aligned"))
    expected = torch.zeros(())
    for student, teacher, seen, shown in ((s1, t2, second, first), (s2, t1, first, second)):
        maps, inside = align(teacher, *seen, *shown, (5, 5))
        assert 0 < inside.sum() < inside.numel()
        chosen = [x.permute(0, 2, 3, 1)[inside].T[None, :, None] for x in (student, maps)]  # (1, C, 1, inside)
        expected += reference_pixel_contrastive_loss(chosen[0], chosen[1], negatives, 0.2) / 2
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(("pairing", "partners"), [("crossed", (3, 2)), ("same", (2, 3))])
def test_pairing_by_grid_position_is_the_reference(
    batch: Batch, negatives: Tensor, pairing: str, partners: tuple[int, int]
) -> None:
    loss = paired_loss(*batch, negatives, LossSettings.model_validate({"pairing": pairing}))
    maps = batch[:4]
    losses = [reference_pixel_contrastive_loss(maps[i], maps[j], negatives, 0.2) for i, j in enumerate(partners)]
    torch.testing.assert_close(loss, (losses[0] + losses[1]) / 2)


def test_aligned_is_crossed_where_both_crops_are_the_same(batch: Batch, negatives: Tensor) -> None:
    maps, crops = batch[:4], batch[4]
    aligned, crossed = (
        paired_loss(*maps, crops, crops, negatives, LossSettings.model_validate({"pairing": pairing}))
        for pairing in ("aligned", "crossed")
    )
    torch.testing.assert_close(aligned, crossed, rtol=1e-4, atol=1e-5)


def test_disjoint_crops_have_loss_zero_and_gradient_zero(batch: Batch, negatives: Tensor) -> None:
    s1, s2, t1, t2, first, _ = batch
    s1.requires_grad_()
    crops = [Geometry(box.expand(4, 4), first.flipped) for box in (TOP_LEFT, BOTTOM_RIGHT)]
    loss = paired_loss(s1, s2, t1, t2, *crops, negatives, LossSettings(pairing="aligned"), lambda x: x)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(s1.grad, torch.zeros_like(s1))


def test_pixels_outside_the_overlap_do_not_matter(batch: Batch, negatives: Tensor) -> None:
    s1, s2, t1, t2, first, second = batch
    _, inside = align(t2, *second, *first, (5, 5))
    other = torch.where(inside[:, None], s1, torch.randn_like(s1))
    assert not torch.equal(other, s1)
    settings = LossSettings(pairing="aligned")
    changed = paired_loss(other, s2, t1, t2, first, second, negatives, settings)
    assert changed.item() == paired_loss(*batch, negatives, settings).item()


@pytest.mark.parametrize("pairing", ["aligned", "crossed", "same"])
def test_mean_over_two_ranks_is_the_whole_batchs_loss(batch: Batch, negatives: Tensor, pairing: str) -> None:
    settings = LossSettings.model_validate({"pairing": pairing})
    halves = [_part(batch, slice(0, 2)), _part(batch, slice(2, 4))]
    total = _sums_of(halves, settings) if pairing == "aligned" else None
    losses = torch.stack([paired_loss(*half, negatives, settings, total) for half in halves])
    torch.testing.assert_close(losses.mean(), paired_loss(*batch, negatives, settings))


def test_mean_over_two_ranks_is_the_whole_batchs_gradient(batch: Batch, negatives: Tensor) -> None:
    settings, student = LossSettings(pairing="aligned"), batch[0].requires_grad_()
    (whole,) = torch.autograd.grad(paired_loss(*batch, negatives, settings), student)
    halves = [_part(batch, slice(0, 2)), _part(batch, slice(2, 4))]
    total = _sums_of(halves, settings)
    mean = sum(paired_loss(*half, negatives, settings, total) for half in halves) / 2
    assert isinstance(mean, Tensor)
    (of_ranks,) = torch.autograd.grad(mean, student)
    torch.testing.assert_close(of_ranks, whole)


def test_a_rank_without_overlap_leaves_the_loss_to_the_others(batch: Batch, negatives: Tensor) -> None:
    settings, no = LossSettings(pairing="aligned"), torch.zeros(2, dtype=torch.bool)
    apart = (*_part(batch, slice(0, 2))[:4], *(Geometry(box.expand(2, 4), no) for box in (TOP_LEFT, BOTTOM_RIGHT)))
    seen = _part(batch, slice(2, 4))
    total = _sums_of([apart, seen], settings)
    losses = [paired_loss(*part, negatives, settings, total) for part in (apart, seen)]
    assert losses[0].item() == 0
    torch.testing.assert_close(losses[1] / 2, paired_loss(*seen, negatives, settings))


def test_the_teachers_grid_may_differ_from_the_students(batch: Batch, negatives: Tensor) -> None:
    s1, s2, _, _, first, second = batch
    fine = torch.randn(4, 8, 9, 9)
    loss = paired_loss(s1, s2, fine, fine, first, second, negatives, LossSettings(pairing="aligned"))
    assert loss.isfinite()


@pytest.mark.parametrize("backend", ["attention", "chunks", "reference"])
def test_the_settings_backend_changes_the_rounding_only(batch: Batch, negatives: Tensor, backend: str) -> None:
    settings = LossSettings.model_validate({"pairing": "aligned", "backend": backend})
    torch.testing.assert_close(
        paired_loss(*batch, negatives, settings), paired_loss(*batch, negatives, LossSettings(pairing="aligned"))
    )
