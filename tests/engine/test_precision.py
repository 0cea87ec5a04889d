"""Products of float32 under what the caller allows."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from seewhy.engine.precision import exact_products, products_are_exact
from seewhy.methods.cam import eigen_cam

KINDS = ["cpu", "cuda"]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    was = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(was[0])
    torch.backends.cudnn.allow_tf32 = was[1]


def allowed() -> tuple[object, ...]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
@pytest.mark.parametrize("convolutions", [True, False])
def test_exact_within_and_as_before_after(kind: str, precision: str, *, convolutions: bool) -> None:
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = convolutions
    before, exact = allowed(), products_are_exact(kind)
    assert exact == (precision == "highest" and (kind == "cpu" or not convolutions))
    with exact_products(kind):
        assert products_are_exact(kind)
        with exact_products(kind):
            assert products_are_exact(kind)
        assert products_are_exact(kind)
    assert allowed() == before
    assert products_are_exact(kind) == exact


def test_put_back_on_the_way_out_of_an_error() -> None:
    torch.set_float32_matmul_precision("high")
    with pytest.raises(ValueError, match="amid"), exact_products("cuda"):
        raise ValueError("amid")
    assert torch.get_float32_matmul_precision() == "high"


def test_the_last_of_several_threads_puts_it_back() -> None:
    torch.set_float32_matmul_precision("high")
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with exact_products("cpu"):
            entered.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with exact_products("cpu"):
        thread.start()
        entered.wait()
    assert products_are_exact("cpu")
    leave.set()
    thread.join()
    assert torch.get_float32_matmul_precision() == "high"


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="older torch has none"
)
def test_settings_of_either_kind_are_read() -> None:
    matmul = torch.backends.cuda.matmul
    was = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        assert not products_are_exact("cuda")
        with exact_products("cuda"):
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = was


@pytest.mark.parametrize("shape", [(2, 5, 4, 6), (2, 30, 3, 3)])
def test_singular_vectors_ask_for_exact_products(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    eigh = torch.linalg.eigh
    monkeypatch.setattr(
        torch.linalg, "eigh", lambda m: seen.append(products_are_exact("cpu")) or eigh(m)
    )
    a = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.set_float32_matmul_precision("medium")
    found = eigen_cam.combine(a)
    assert seen
    assert all(seen)
    assert not products_are_exact("cpu")
    torch.set_float32_matmul_precision("highest")
    assert torch.equal(found, eigen_cam.combine(a))
