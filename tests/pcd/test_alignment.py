import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pcd.alignment import align

WHOLE = [0.0, 0.0, 1.0, 1.0]


def _align(
    maps: Tensor, teacher: list[float], student: list[float], grid: tuple[int, int], flips: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """All images with the same two crops; `flips` of teacher and student."""
    images = len(maps)
    boxes = [torch.tensor(box).expand(images, 4) for box in (teacher, student)]
    flipped = [torch.tensor(flip).expand(images) for flip in flips]
    return align(maps, boxes[0], flipped[0], boxes[1], flipped[1], grid)


def _image_coordinates(box: list[float], flipped: bool, grid: tuple[int, int]) -> Tensor:
    """(1, 2, H, W): row and column of each cell's centre in the image, written out cell by cell."""
    top, left, height, width = box
    out = torch.empty(1, 2, *grid)
    for i in range(grid[0]):
        for j in range(grid[1]):
            column = grid[1] - 1 - j if flipped else j
            out[0, 0, i, j] = top + height * (i + 0.5) / grid[0]
            out[0, 1, i, j] = left + width * (column + 0.5) / grid[1]
    return out


@pytest.mark.parametrize("flipped", [False, True])
def test_identical_crops_give_the_map_itself(flipped: bool) -> None:
    maps = torch.randn(2, 5, 7, 7)
    aligned, inside = _align(maps, [0.1, 0.2, 0.5, 0.3], [0.1, 0.2, 0.5, 0.3], (7, 7), (flipped, flipped))
    torch.testing.assert_close(aligned, maps, rtol=1e-4, atol=1e-5)
    assert inside.all()


@pytest.mark.parametrize("flips", [(True, False), (False, True)])
def test_a_flip_of_one_crop_mirrors_the_map(flips: tuple[bool, bool]) -> None:
    maps = torch.randn(2, 5, 6, 7)
    aligned, inside = _align(maps, [0.1, 0.2, 0.5, 0.3], [0.1, 0.2, 0.5, 0.3], (6, 7), flips)
    torch.testing.assert_close(aligned, maps.flip(3), rtol=1e-4, atol=1e-5)
    assert inside.all()


@pytest.mark.parametrize("cells", [1, 3, -2])
def test_a_shift_by_whole_columns_shifts_the_map(cells: int) -> None:
    maps = torch.randn(2, 5, 4, 4)
    aligned, inside = _align(maps, [0.5, 0.25, 0.25, 0.25], [0.5, 0.25 + cells / 16, 0.25, 0.25], (4, 4), (False,) * 2)
    inner = range(max(0, -cells), min(4, 4 - cells))  # the student's columns that the teacher saw
    assert inside[0, 0].tolist() == [j in inner for j in range(4)]
    for j in inner:
        torch.testing.assert_close(aligned[..., j], maps[..., j + cells], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cells", [1, -2])
def test_a_shift_by_whole_rows_shifts_the_map(cells: int) -> None:
    maps = torch.randn(2, 5, 4, 4)
    aligned, inside = _align(maps, [0.25, 0.5, 0.25, 0.25], [0.25 + cells / 16, 0.5, 0.25, 0.25], (4, 4), (False,) * 2)
    inner = range(max(0, -cells), min(4, 4 - cells))
    assert inside[0, :, 0].tolist() == [i in inner for i in range(4)]
    for i in inner:
        torch.testing.assert_close(aligned[..., i, :], maps[..., i + cells, :], rtol=1e-4, atol=1e-5)


def test_a_student_crop_of_half_the_size_reads_between_the_teachers_cells() -> None:
    maps = torch.arange(4.0).expand(1, 1, 4, 4)  # the value of a cell is its column
    aligned, inside = _align(maps, WHOLE, [0.25, 0.25, 0.5, 0.5], (4, 4), (False, False))
    torch.testing.assert_close(aligned[0, 0, 0], torch.tensor([0.75, 1.25, 1.75, 2.25]))
    assert inside.all()


def test_a_student_crop_of_twice_the_size_has_its_middle_inside() -> None:
    _, inside = _align(torch.randn(1, 3, 4, 4), [0.25, 0.25, 0.5, 0.5], WHOLE, (4, 4), (False, False))
    middle = torch.zeros(4, 4, dtype=torch.bool)
    middle[1:3, 1:3] = True
    assert torch.equal(inside[0], middle)


def test_a_centre_within_half_a_cell_of_the_border_takes_the_outermost_cells_value() -> None:
    maps = torch.tensor([5.0, 9.0]).expand(1, 1, 2, 2)
    aligned, inside = _align(maps, WHOLE, [0, 0, 1, 1], (2, 8), (False, False))
    assert aligned[0, 0, 0].tolist() == pytest.approx([5, 5, 5.5, 6.5, 7.5, 8.5, 9, 9])
    assert inside.all()


def test_a_centre_on_the_border_is_inside() -> None:
    _, inside = _align(torch.randn(1, 1, 3, 3), [0.1, 0.1, 0.3, 0.3], [0.1, 0.25, 0.3, 0.3], (3, 3), (False, False))
    assert inside[0, 0].tolist() == [True, True, False]


def test_disjoint_crops_have_no_pixel_inside() -> None:
    _, inside = _align(torch.randn(1, 3, 4, 4), [0, 0, 0.4, 0.4], [0.5, 0.5, 0.4, 0.4], (4, 4), (False, False))
    assert not inside.any()


boxes = st.tuples(st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0.1, 0.5), st.floats(0.1, 0.5)).map(list)


@given(teacher=boxes, student=boxes, flips=st.tuples(st.booleans(), st.booleans()), rows=st.integers(2, 9))
def test_a_map_of_image_coordinates_comes_out_with_the_students(
    teacher: list[float], student: list[float], flips: tuple[bool, bool], rows: int
) -> None:
    grid = (5, 3)
    maps = _image_coordinates(teacher, flips[0], (rows, 6))
    aligned, inside = _align(maps, teacher, student, grid, flips)
    expected = _image_coordinates(student, flips[1], grid)
    for axis, cells in ((0, rows), (1, 6)):
        # Between the outermost centres bilinear reading is exact; nearer the border it stops at half a cell.
        first, last = (teacher[axis] + teacher[axis + 2] * share / cells for share in (0.5, cells - 0.5))
        want = expected[:, axis].clamp(first, last)
        torch.testing.assert_close(aligned[:, axis][inside], want[inside], rtol=1e-4, atol=1e-5)
    low, size = torch.tensor(teacher).view(2, 2, 1, 1)
    place = (expected[0] - low) / size
    clear = (place - 0.5).abs().sub(0.5).abs().gt(1e-4).all(dim=0)  # centres on the border may fall on either side
    assert torch.equal(inside[0][clear], ((place >= 0) & (place <= 1)).all(dim=0)[clear])


def test_each_image_has_its_own_crops() -> None:
    maps = torch.randn(2, 3, 4, 4)
    teacher = torch.tensor([WHOLE, [0.5, 0.5, 0.25, 0.25]])
    student = torch.tensor([WHOLE, [0.5, 0.5625, 0.25, 0.25]])
    flips = torch.tensor([True, False]), torch.tensor([False, False])
    aligned, inside = align(maps, teacher, flips[0], student, flips[1], (4, 4))
    torch.testing.assert_close(aligned[0], maps[0].flip(2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(aligned[1, ..., :3], maps[1, ..., 1:], rtol=1e-4, atol=1e-5)
    assert inside.sum(dim=(1, 2)).tolist() == [16, 12]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_maps_keep_their_type(dtype: torch.dtype) -> None:
    maps = torch.randn(2, 3, 4, 4).to(dtype)
    aligned, _ = _align(maps, WHOLE, WHOLE, (4, 4), (False, False))
    assert aligned.dtype == dtype
    torch.testing.assert_close(aligned, maps, rtol=1e-2, atol=1e-2)
