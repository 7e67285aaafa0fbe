import os
import sys

import pytest

from pcd.bench.loss import prepare_loss
from pcd.bench.memory import available_memory, compare_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peaks are reset through /proc")

SIZES = {"images": 4, "negatives": 20000, "channels": 16, "device": "cpu"}


@pytest.mark.slow
def test_plain_formula_holds_its_logits_several_times_and_ours_never() -> None:
    row = compare_memory("x", prepare_loss, SIZES | {"backend": "auto"}, SIZES | {"backend": "reference"})
    logits = 4 * 49 * SIZES["images"] * SIZES["negatives"] / 2**20  # MiB
    assert 3 * logits < row.baseline < 8 * logits
    assert row.ours < logits
    assert row.ratio == row.baseline / row.ours


def test_available_memory_is_part_of_the_machines() -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < available_memory() < total
