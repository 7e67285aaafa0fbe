import logging
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, library
from torch._subclasses.fake_tensor import FakeTensorMode

from pcd import loss_backends
from pcd.errors import PCDError
from pcd.loss import pixel_contrastive_loss
from pcd.loss_backends import _CHUNK, _ROWS, _attend_by_kernel, attend, choose_backend
from pcd.precision import autocast_type

CPU, CUDA, META = torch.device("cpu"), torch.device("cuda"), torch.device("meta")


def _units(pixels: int, negatives: int, channels: int) -> tuple[Tensor, Tensor]:
    return F.normalize(torch.randn(pixels, channels), dim=1), F.normalize(torch.randn(negatives, channels), dim=1)


@pytest.fixture
def nothing_chosen_yet() -> Iterator[None]:
    loss_backends._choose.cache_clear()
    yield
    loss_backends._choose.cache_clear()


@pytest.mark.parametrize("k", [1, 3, _CHUNK, _CHUNK + 1, 2 * _CHUNK + 7])
@pytest.mark.parametrize("pixels", [13, _ROWS + 1])
@pytest.mark.parametrize("backend", ["attention", "chunks"])
def test_backends_equal_the_plain_formula(backend: Any, pixels: int, k: int) -> None:
    s, n = _units(pixels, k, 16)
    for ours, plain in zip(
        attend(s, n, 0.2, backend, torch.float32), attend(s, n, 0.2, "reference", torch.float32), strict=True
    ):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["attention", "chunks"])
def test_an_exactly_opposite_negative_is_no_underflow_at_a_low_temperature(backend: Any) -> None:
    s, _ = _units(6, 1, 16)  # the logit of -s lies 2 / tau below the largest possible
    o, z = attend(s, -s[:1], 0.01, backend, torch.float32)
    torch.testing.assert_close(o, -s[:1].expand(6, 16))
    torch.testing.assert_close(z, s @ -s[0] / 0.01, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", ["attention", "chunks", "reference"])
def test_products_are_fp32_under_autocast(backend: Any) -> None:
    s, n = _units(13, 50, 16)
    expected = attend(s, n, 0.2, backend, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = attend(s, n, 0.2, backend, torch.float32)
    for under_autocast, plain in zip(mixed, expected, strict=True):
        torch.testing.assert_close(under_autocast, plain)


def test_chunks_in_bf16_stay_close() -> None:
    s, n = _units(50, 2 * _CHUNK, 64)
    o, z = attend(s, n, 0.2, "chunks", torch.bfloat16)
    exact_o, exact_z = attend(s, n, 0.2, "reference", torch.float32)
    assert o.dtype == z.dtype == torch.float32
    torch.testing.assert_close(z, exact_z, rtol=0, atol=5e-3)
    torch.testing.assert_close(o, exact_o, rtol=0, atol=5e-3)


@pytest.mark.parametrize(("pixels", "k"), [(784, 600), (784, 601), (5000, 600)])
def test_number_of_threads_does_not_matter(pixels: int, k: int) -> None:
    s, n = _units(pixels, k, 16)
    expected = attend(s, n, 0.2, "attention", torch.float32)
    torch.set_num_threads(2)
    try:
        shared = attend(s, n, 0.2, "attention", torch.float32)
    finally:
        torch.set_num_threads(1)
    for ours, alone in zip(shared, expected, strict=True):
        torch.testing.assert_close(ours, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "backend"), [(64, "attention"), (100, "attention"), (256, "attention"), (8192, "chunks")]
)
def test_on_the_cpu_the_width_decides(channels: int, backend: str) -> None:
    assert choose_backend(CPU, torch.float32, channels).backend == backend


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_maps_whose_type_the_cpu_gains_nothing_from_are_computed_in_fp32(dtype: torch.dtype) -> None:
    assert choose_backend(CPU, dtype, 64).dtype == torch.float32


def test_the_cpu_computes_bf16_maps_in_bf16_where_it_gains_from_that() -> None:
    expected = autocast_type("auto", CPU) or torch.float32
    assert choose_backend(CPU, torch.bfloat16, 64).dtype == expected


@pytest.mark.parametrize("backend", ["attention", "chunks", "reference"])
def test_a_backend_asked_for_is_taken(backend: Any) -> None:
    assert choose_backend(CPU, torch.float32, 64, backend).backend == backend


def test_other_devices_stream_over_chunks() -> None:
    assert choose_backend(META, torch.float32, 64).backend == "chunks"


def test_attention_asked_for_where_there_is_none_is_the_users_error() -> None:
    with pytest.raises(PCDError, match=r"loss\.backend attention does not work here \(meta.*set it to auto"):
        choose_backend(META, torch.float32, 64, "attention")


def test_reason_names_device_type_and_width() -> None:
    assert choose_backend(CPU, torch.float32, 64).reason == "cpu, float32, 64 channels"


def _broken(query: Tensor, keys: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    raise RuntimeError("no such kernel\nlong traceback")


def _wrong(query: Tensor, keys: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(query), torch.zeros(query.shape[:3])


def _not_a_number(query: Tensor, keys: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    return torch.full_like(query, torch.nan), torch.full(query.shape[:3], torch.nan)


@pytest.mark.parametrize(
    ("kernel", "named"),
    [(_broken, "no such kernel"), (_wrong, "away from the plain formula"), (_not_a_number, "nan away")],
)
@pytest.mark.usefixtures("nothing_chosen_yet")
def test_a_kernel_that_fails_its_check_gives_way_to_chunks_and_the_log_says_why(
    kernel: Callable[..., Any], named: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loss_backends, "_kernel", kernel)
    with caplog.at_level(logging.WARNING):
        choice = choose_backend(CPU, torch.float32, 24)
    assert choice.backend == "chunks"
    assert named in choice.reason
    assert "\n" not in choice.reason
    assert named in caplog.text


@pytest.mark.usefixtures("nothing_chosen_yet")
def test_the_check_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    choose_backend(CPU, torch.float32, 24)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("channels", [64, 100, 256, 512])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_calls_of_cudas_kernels_fit_their_signatures(channels: int, dtype: torch.dtype) -> None:
    with FakeTensorMode():  # shapes and types alone, by PyTorch's own description of the kernels
        s, n = torch.empty(33, channels, device="cuda"), torch.empty(70, channels, device="cuda")
        o, z = _attend_by_kernel(s, n, 0.2, dtype)
    assert (o.shape, z.shape) == ((33, channels), (33,))
    assert (o.dtype, z.dtype) == (torch.float32, torch.float32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("channels", [64, 100, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_cudas_kernels_pass_their_check(channels: int, dtype: torch.dtype) -> None:
    assert choose_backend(CUDA, dtype, channels, "attention").backend == "attention"


@pytest.mark.parametrize("backend", ["attention", "chunks"])
def test_operator_keeps_pytorchs_rules_for_operators(backend: str) -> None:
    s, t = (F.normalize(torch.randn(5, 8), dim=1) for _ in range(2))
    arguments = (s.requires_grad_(), t, torch.randn(20, 8), 0.2, backend, torch.float32)
    # test_aot_dispatch_dynamic asks for a gradient of the second result, which we refuse.
    library.opcheck(
        torch.ops.pcd.pixel_contrast.default,
        arguments,
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


def _loss_and_gradient(
    loss: Callable[..., Tensor], student: Tensor, *rest: Any, **keywords: Any
) -> tuple[Tensor, Tensor]:
    value = loss(student, *rest, **keywords)
    return value.detach(), torch.autograd.grad(value, student)[0]


def _assert_compiles(compiler: str, backend: str, images: int) -> None:
    torch.compiler.reset()
    arguments = torch.randn(images, 8, 3, 4, requires_grad=True), torch.randn(images, 8, 3, 4), torch.randn(50, 8), 0.2
    keywords = {"weights": torch.rand(images, 3, 4), "backend": backend}
    compiled = torch.compile(pixel_contrastive_loss, fullgraph=True, backend=compiler)
    for ours, plain in zip(
        _loss_and_gradient(compiled, *arguments, **keywords),
        _loss_and_gradient(pixel_contrastive_loss, *arguments, **keywords),
        strict=True,
    ):
        torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("compiler", [pytest.param("eager", marks=pytest.mark.slow), "aot_eager"])
@pytest.mark.parametrize("backend", ["auto", "chunks"])
@pytest.mark.parametrize("images", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_compiled_without_a_break_the_loss_is_the_same(compiler: str, backend: str, images: int) -> None:
    _assert_compiles(compiler, backend, images)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_compiled_by_inductor_the_loss_is_the_same() -> None:
    _assert_compiles("inductor", "auto", images=1)
