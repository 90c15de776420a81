"""Matrix products of few rows or columns, and long sums: where backends have kernels of their own."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from cases import FLOATS, HALVES, bits, check, make
from kernel_library import call

TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-13, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def product(x, y):
    return (x.double() @ y.double()).to(x.dtype)


def shifted(x):
    """The same values and strides, one element further from an aligned address."""
    memory = torch.zeros(x.untyped_storage().nbytes() // x.element_size() + 1, dtype=x.dtype)
    moved = torch.as_strided(memory, x.shape, x.stride(), 1)
    moved.copy_(x)
    return moved


@pytest.mark.parametrize("dtype", FLOATS + HALVES)
@pytest.mark.parametrize("m", [1, 2, 4, 5, 8, 9])
def test_few_rows_equal_pytorch_in_every_layout(m, dtype):
    for k, n in [(64, 72), (257, 33), (600, 3)]:
        x = make((m, k), dtype)
        for y in [make((k, n), dtype), make((n, k), dtype).t(), make((k, 2 * n), dtype)[:, ::2]]:
            theirs = product(x, y)
            ours = check("MM", theirs, [x, y], tolerance=TOLERANCE[dtype], threads=(1, 2))[0]
            other = call("MM", [shifted(x), shifted(y)])[0]
            assert torch.equal(bits(ours), bits(other)), "the alignment shows"
            check("MM", product(y.t(), x.t()), [y.t(), x.t()], tolerance=TOLERANCE[dtype], threads=(1,))


@pytest.mark.parametrize("dtype", FLOATS + HALVES)
def test_long_sums_equal_pytorch(dtype):
    for m, k, n in [(1, 9001, 3), (3, 8200, 5), (8, 4100, 2)]:
        x, bias = make((m, k), dtype, -0.5, 0.5), make((m, 1), dtype)
        for y in [make((k, n), dtype, -0.5, 0.5), make((n, k), dtype, -0.5, 0.5).t()]:
            check("MM", product(x, y), [x, y], tolerance=TOLERANCE[dtype], threads=(1, 2))
            theirs = (0.5 * bias.double() - 2 * (x.double() @ y.double())).to(dtype)
            check("ADDMM", theirs, [bias, x, y], [0.5, -2], tolerance=TOLERANCE[dtype], threads=(1,))
    x, y = make((20000,), dtype, -0.5, 0.5), make((40000,), dtype, -0.5, 0.5)[::2]
    check("DOT", torch.dot(x.double(), y.double()).to(dtype), [x, y], tolerance=TOLERANCE[dtype], threads=(1, 2))


@pytest.mark.parametrize("dtype", FLOATS + HALVES)
def test_a_row_times_a_large_matrix_equals_pytorch(dtype):
    # Whole rounds of loads and every shorter one; blocks of both sizes.
    for k, n in [(2056, 24), (264, 8520)]:
        x, bias = make((1, k), dtype, -0.5, 0.5), make((n,), dtype)
        for y in [make((k, n), dtype, -0.5, 0.5), make((n, k), dtype, -0.5, 0.5).t()]:
            theirs = (bias.double() + x.double() @ y.double()).to(dtype)
            ours = check("ADDMM", theirs, [bias, x, y], [1, 1], tolerance=TOLERANCE[dtype], threads=(1,))[0]
            other = call("ADDMM", [bias, shifted(x), shifted(y)], [1, 1])[0]
            assert torch.equal(bits(ours), bits(other)), "the alignment shows"


@pytest.mark.parametrize("dtype", FLOATS + HALVES)
def test_few_rows_in_batches_equal_pytorch(dtype):
    for m, k, n in [(1, 64, 37), (1, 37, 64), (4, 64, 20), (12, 64, 20)]:
        x, y = make((6, m, k), dtype), make((6, k, n), dtype)
        layouts = [y, y.mT.contiguous().mT, y[:1].expand(6, k, n)]
        for weights, self in itertools.product(layouts, [make((6, m, n), dtype), make((n,), dtype), make((m, 1), dtype)]):
            check("BMM", product(x, weights), [x, weights], tolerance=TOLERANCE[dtype], threads=(1, 2))
            theirs = (self.double() + 0.5 * (x.double() @ weights.double())).to(dtype)
            check("BADDBMM", theirs, [self, x, weights], [1, 0.5], tolerance=TOLERANCE[dtype], threads=(1,))


def test_vectors_equal_pytorch_in_every_dtype():
    for dtype in [*FLOATS, *HALVES, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]:
        a, x = make((40, 70), dtype), make((70,), dtype)
        for matrix in [a, a.t().contiguous().t()]:
            theirs = torch.mv(matrix, x) if not dtype.is_floating_point else product(matrix, x)
            check("MV", theirs, [matrix, x], tolerance=TOLERANCE.get(dtype), threads=(1, 2))
        theirs = torch.dot(x, x) if not dtype.is_floating_point else product(x, x)
        check("DOT", theirs, [x, x], tolerance=TOLERANCE.get(dtype), threads=(1,))


def test_integers_wrap_as_in_pytorch():
    for dtype in [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]:
        top = torch.iinfo(dtype).max
        x, y, self = (torch.randint(top // 2, top, size, dtype=dtype) for size in [(3, 90), (90, 5), (5,)])
        check("MM", torch.mm(x, y), [x, y], threads=(1,))
        check("ADDMM", torch.addmm(self, x, y, beta=3, alpha=2), [self, x, y], [3, 2], threads=(1,))


def test_what_beta_leaves_out_is_not_read():
    for m in (2, 20):
        x, y = make((m, 40)), make((40, 6))
        check("ADDMM", product(x, y), [torch.full((6,), math.nan), x, y], [0, 1], tolerance=1e-5, threads=(1,))


def test_values_that_are_not_finite_stay_where_they_are():
    for k in (37, 64):
        for m in (1, 3, 20):
            x, y = make((m, k)), make((k, 21))
            x[0, 5], y[7, 3] = math.inf, math.nan
            for weights in (y, y.t().contiguous().t()):
                check("MM", torch.mm(x, weights), [x, weights], tolerance=1e-5, threads=(1,))
