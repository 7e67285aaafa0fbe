import re
from pathlib import Path

import pytest
import torch

from pcd.precision import autocast_type

CPU = torch.device("cpu")


def test_fp32_needs_no_autocast() -> None:
    assert autocast_type("fp32", CPU) is None


def test_bf16_is_taken_as_asked() -> None:
    assert autocast_type("bf16", CPU) is torch.bfloat16


def test_auto_takes_bf16_where_the_processor_lists_instructions_for_it() -> None:
    listed = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    has_bf16 = re.search(r"\b(avx512_bf16|amx_bf16)\b", listed) is not None
    assert autocast_type("auto", CPU) is (torch.bfloat16 if has_bf16 else None)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_given_precision_does_not_depend_on_the_device(precision: str) -> None:
    assert autocast_type(precision, torch.device("cuda")) == autocast_type(precision, CPU)  # type: ignore[arg-type]
