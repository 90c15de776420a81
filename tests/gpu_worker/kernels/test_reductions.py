"""Reductions, scans, sorting."""

from __future__ import annotations

import itertools
import math

import torch
from cases import ALL, FLOATS, HALVES, INTS, NUMBERS, SPECIAL, check, forms, make

REDUCED_DIMS = [[0], [1], [2], [0, 1], [1, 2], [0, 2], [0, 1, 2], [-1]]


def reduced_inputs():
    yield from forms((3, 4, 5))
    yield make((2, 300, 70))
    yield make((2, 3, 9000))


def test_sums_and_means_equal_pytorch():
    for x in reduced_inputs():
        check("SUM", x.sum(), [x], tolerance=1e-5)
        check("MEAN", x.mean(), [x])
        for dims, keep in itertools.product(REDUCED_DIMS, (False, True)):
            check("SUM_DIM", x.sum(dims, keepdim=keep), [x], [dims, keep], tolerance=1e-5, threads=(1, 3))
            check("MEAN_DIM", x.mean(dims, keepdim=keep), [x], [dims, keep], threads=(1, 3))
    for dtype in ALL:
        x = make((6, 7), dtype)
        check("SUM", x.sum(), [x], threads=(1,))
        check("SUM_DIM", x.sum([0]), [x], [[0], False], threads=(1,))
    big = make((1 << 20,))
    check("SUM", big.double().sum().float(), [big], tolerance=1e-5)
    for shape in [(0,), (0, 3), (3, 0)]:
        x = make(shape)
        check("SUM", x.sum(), [x])
        check("SUM_DIM", x.sum([0]), [x], [[0], False])
        check("MEAN_DIM", x.mean([0]), [x], [[0], False])
    x = make((4,), torch.int64)
    check("SUM_DIM", x.float().sum([0]), [x], [[0], False], dtype=torch.float32)


def test_extremes_equal_pytorch():
    nan = make((3, 4, 5))
    nan[1, 2, 3] = math.nan
    ties = make((3, 4, 5), torch.int32).float()
    for x in [
        *reduced_inputs(),
        nan,
        ties,
        make((3, 4, 5), torch.int64),
        make((3, 4, 5), torch.bool),
        make((3, 4, 5), torch.float64),
    ]:
        check("MAX", x.max(), [x], threads=(1,))
        check("MIN", x.min(), [x], threads=(1,))
        if x.dtype != torch.bool:
            check("ARGMAX", x.argmax(), [x], [None, False], threads=(1,))
        for dims, keep in itertools.product(REDUCED_DIMS, (False, True)):
            check("AMAX", x.amax(dims, keepdim=keep), [x], [dims, keep], threads=(1,))
            check("AMIN", x.amin(dims, keepdim=keep), [x], [dims, keep], threads=(1,))
        for dim, keep in itertools.product((0, 1, -1), (False, True)):
            check("MAX_DIM", list(x.max(dim, keepdim=keep)), [x], [dim, keep])
            check("MIN_DIM", list(x.min(dim, keepdim=keep)), [x], [dim, keep])
            if x.dtype != torch.bool:
                check("ARGMAX", x.argmax(dim, keepdim=keep), [x], [dim, keep], threads=(1,))
                check("ARGMIN", x.argmin(dim, keepdim=keep), [x], [dim, keep], threads=(1,))


def test_logical_reductions_equal_pytorch():
    for dtype in ALL:
        for x in forms((3, 4), dtype):
            check("ANY", x.any(), [x], threads=(1,))
            check("ALL", x.all(), [x], threads=(1,))
            for dim in (0, 1):
                check("ANY_DIM", x.any(dim), [x], [dim, False], threads=(1,))
                check("ALL_DIM", x.all(dim, keepdim=True), [x], [dim, True], threads=(1,))
    x = torch.zeros(0, 3, dtype=torch.bool)
    check("ANY_DIM", x.any(0), [x], [0, False])
    check("ALL_DIM", x.all(0), [x], [0, False])


def test_other_reductions_equal_pytorch():
    for dtype in NUMBERS:
        x = make((2, 3), dtype)
        check("PROD", x.prod(), [x], threads=(1,))
    for x in reduced_inputs():
        check("VAR", x.var([1], correction=1), [x], [[1], 1, False], tolerance=1e-5)
        check("VAR", x.var([0, 2], correction=0, keepdim=True), [x], [[0, 2], 0, True], tolerance=1e-5)
        for order in (2, 1, 0, math.inf, 3.0):
            check("NORM_DIM", torch.linalg.vector_norm(x, order, [1]), [x], [order, [1], False], tolerance=1e-5, threads=(1,))


def test_running_sums_equal_pytorch():
    for dtype in ALL:
        for x in forms((3, 7), dtype):
            for dim in (0, 1, -1):
                check("CUMSUM", x.cumsum(dim), [x], [dim], threads=(1,), tolerance=None if dtype not in HALVES else 5e-2)
    x = make((3, 5000), torch.int64)
    check("CUMSUM", x.cumsum(1), [x], [1])
    x = torch.tensor(3)
    check("CUMSUM", x.cumsum(0), [x], [0])


def test_sorting_equals_pytorch():
    for dtype in ALL:
        for x in forms((5, 40), dtype):
            for dim, descending in itertools.product((0, -1), (False, True)):
                check(
                    "SORT", list(torch.sort(x, stable=True, dim=dim, descending=descending)), [x], [dim, descending], threads=(1,)
                )
    x = SPECIAL.clone()
    check("SORT", list(torch.sort(x, stable=True)), [x], [-1, False])
    x = torch.stack([torch.randperm(50257), torch.randperm(50257)]).float()  # without ties, whose order PyTorch leaves open
    for k in (1, 50, 0):
        check("TOPK", list(torch.topk(x, k)), [x], [k, -1, True, True])
        check("TOPK", list(torch.topk(x, k, largest=False)), [x], [k, -1, False, True])
    x = make((6, 5)).t()
    check("TOPK", list(torch.topk(x, 3, dim=0)), [x], [3, 0, True, True])


def test_membership_equals_pytorch():
    for dtype in FLOATS + INTS:
        x, y = make((4, 9), dtype), make((3,), dtype)
        for invert in (False, True):
            check("ISIN", torch.isin(x, y, invert=invert), [x, y], [invert])
    x, y = torch.tensor([1, 2]), torch.tensor([], dtype=torch.int64)
    check("ISIN", torch.isin(x, y), [x, y], [False])
