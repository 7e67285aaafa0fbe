"""Masks as run lengths, read without pycocotools, whose C code takes whatever it is given."""

__all__ = ["run_lengths", "why_no_mask"]


def run_lengths(counts: str) -> list[int] | None:
    """The runs that compressed counts stand for, column by column, background first; None if they stand for none.

    Six bits a character, from "0" on: five of a number, the lowest first, and whether more follow. From the fourth on,
    a number is the difference to the run two before (cocodataset/cocoapi@8c9bcc3 common/maskApi.c, rleFrString).
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= 1 << shift if bits & 16 else 0  # of the highest bit, as in two's complement
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs if not shift else None


def why_no_mask(counts: str | list[int], height: int, width: int) -> str | None:
    """What keeps counts from being a mask of this size; None if nothing does."""
    runs = run_lengths(counts) if isinstance(counts, str) else counts
    if runs is None:
        return "has a mask whose counts are no run lengths; export the masks again"
    if any(run < 0 for run in runs):
        return f"has a mask with a run of {min(runs)} pixels; export the masks again"
    if sum(runs) != height * width:
        return f"has a mask of {sum(runs)} pixels, and its image {height * width}"
    return None
