"""What the tests of all kernel families share: dtypes, layouts, and the comparison with PyTorch and with other numbers of threads."""

from __future__ import annotations

import math

import torch
from kernel_library import ALSO, call

FLOATS = [torch.float32, torch.float64]
HALVES = [torch.float16, torch.bfloat16]
INTS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
NUMBERS = FLOATS + HALVES + INTS
ALL = [*NUMBERS, torch.bool]
INDEX_ERROR, DIVISION_ERROR = 55, 2


def make(shape, dtype=torch.float32, low=-3.0, high=3.0):
    if dtype == torch.bool:
        return torch.rand(shape) < 0.5
    if dtype.is_floating_point:
        return (torch.rand(shape, dtype=torch.float64) * (high - low) + low).to(dtype)
    low = 0 if dtype == torch.uint8 else -9
    return torch.randint(low, 10, shape).to(dtype)


def close(ours, theirs, tolerance=None, factor=1):
    """A tolerance that a test names is relative to the largest value, as parity is measured; the default one to each value. `factor`: of either."""
    assert ours.dtype == theirs.dtype, (ours.dtype, theirs.dtype)
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    if theirs.is_floating_point():
        default = {torch.float32: 2e-6, torch.float64: 1e-13, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[theirs.dtype]
        finite = theirs[theirs.isfinite()].abs()
        scale = 1.0 if tolerance is None or not finite.numel() else max(1.0, float(finite.max()))
        tolerance = default if tolerance is None else tolerance
        tolerance *= factor
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
    else:
        assert torch.equal(ours, theirs)


def check(op, reference, inputs, attrs=(), dtype=None, tolerance=None, constant=None, threads=(1, 2, 3)):
    """Runs `op` and compares all outputs with `reference`, bit for bit between numbers of threads, and with another library if one is named."""
    theirs = reference if isinstance(reference, (tuple, list)) else [reference]
    first = None
    for n in threads:
        ours = call(op, inputs, attrs, dtype=dtype, threads=n, constant=constant)
        if first is None:
            first = ours
            for a, b in zip(ours, theirs, strict=False):
                if b is not None:
                    close(a, b, tolerance)
        else:
            for a, b in zip(ours, first, strict=False):
                assert torch.equal(bits(a), bits(b)), f"{n} threads give other bits"
    if ALSO is not None:
        for a, b in zip(first, call(op, inputs, attrs, dtype=dtype, threads=2, constant=constant, lib=ALSO), strict=True):
            close(a, b, tolerance, 2)
    return first


def bits(x):
    return x.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8)


def forms(shape, dtype=torch.float32):
    """The same sizes in several layouts."""
    yield make(shape, dtype)
    if len(shape) >= 2:
        yield make(shape[:-2] + (shape[-1], shape[-2]), dtype).transpose(-1, -2)
        yield make((*shape[:-1], 2 * shape[-1]), dtype)[..., ::2]
        yield make((*shape[:-1], 1), dtype).expand(shape)
    if len(shape) == 4:
        yield make(shape, dtype).contiguous(memory_format=torch.channels_last)


SHAPES = [(), (1,), (0,), (5,), (33,), (3, 7), (2, 1, 5), (4, 0, 3), (2, 3, 4, 5), (70000,)]

SPECIAL = torch.tensor(
    [
        math.nan,
        math.inf,
        -math.inf,
        0.0,
        -0.0,
        1.0,
        -1.0,
        1e-40,
        -1e-40,
        3e38,
        -3e38,
        88.7,
        89.0,
        -87.0,
        -103.0,
        -104.5,
        0.5,
        1.5,
        2.5,
        -2.5,
    ]
)
