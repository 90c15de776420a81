"""How tests compare: max|difference| / max(1, max|reference|), and which ops ran on the client in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import djinn
import torch

DEVICE = "remote_accelerator"
BOUND = 1e-5


def error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    actual = actual.detach().cpu()
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    if actual.numel() == 0:
        return 0.0
    if not actual.dtype.is_floating_point:
        return float((actual != expected).sum())
    same_nan = torch.equal(actual.isnan(), expected.isnan())
    assert same_nan, "NaNs differ"
    actual, expected = actual.nan_to_num(), expected.detach().nan_to_num()
    return float((actual - expected).abs().max() / max(1.0, float(expected.abs().max())))


def assert_close(actual: torch.Tensor, expected: torch.Tensor, bound: float = BOUND) -> None:
    assert error(actual, expected) <= bound


@contextmanager
def no_fallback() -> Iterator[None]:
    before = djinn.stats()["fallback_ops"]
    yield
    after = djinn.stats()["fallback_ops"]
    assert {name: count for name, count in after.items() if count != before.get(name, 0)} == {}
