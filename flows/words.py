"""Lengths of time and of data in words, the same wherever a person reads them."""

__all__ = ["duration", "size"]


def duration(seconds: float) -> str:
    for unit, length, least in (("d", 86_400, 172_800), ("h", 3_600, 7_200), ("min", 60, 100)):
        if seconds >= least:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def size(length: float) -> str:
    """Of so many bytes, in powers of ten."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if length >= factor:
            return f"{length / factor:.1f} {unit}"
    return f"{length:.0f} B"
