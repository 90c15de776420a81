"""Kernels that move elements: joining, gathering, scattering."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cases import ALL, INDEX_ERROR, NUMBERS, check, forms, make
from kernel_library import KernelError, call


def test_joining_equals_pytorch():
    for dtype in ALL:
        x, y = make((2, 3, 4), dtype), make((2, 5, 4), dtype)
        check("CAT", torch.cat([x, y], 1), [x, y], [1])
        check("CAT", torch.cat([x, y], -2), [x, y], [-2])
    x, y = make((2, 3, 4)), make((2, 3, 4), torch.int64)
    check("CAT", torch.cat([x, y], 0), [x, y], [0])
    check("CAT", torch.cat([torch.empty(0), x], 2), [torch.empty(0), x], [2])
    x, y = make((2, 4, 3)).transpose(1, 2), make((2, 3, 0))
    check("CAT", torch.cat([x, y], 2), [x, y], [2])
    cache, new = make((1, 12, 200, 64)), make((1, 1, 12, 64)).transpose(1, 2)
    check("CAT", torch.cat([cache, new], 2), [cache, new], [2])


def test_rearrangement_equals_pytorch():
    for dtype in (torch.float32, torch.int64, torch.bool):
        x = make((2, 3, 5), dtype)
        check("FLIP", x.flip([0, -1]), [x], [[0, -1]])
        check("ROLL", x.roll([1, -2], [0, 2]), [x], [[1, -2], [0, 2]])
        check("REPEAT", x.repeat(2, 1, 3, 2), [x], [[2, 1, 3, 2]])
        check("REPEAT", x.repeat(1, 0, 1), [x], [[1, 0, 1]])
        check("CONSTANT_PAD", F.pad(x, [1, 2, 0, 1], value=1), [x], [[1, 2, 0, 1], 1])
        check("CONSTANT_PAD", F.pad(x, [-1, 2], value=0), [x], [[-1, 2], 0])
        for diagonal in (-6, -1, 0, 1, 6):
            check("TRIL", x.tril(diagonal), [x], [diagonal])
            check("TRIU", x.triu(diagonal), [x], [diagonal])
    x = make((5, 3)).t()
    check("TRIL", x.tril(), [x], [0])


def test_gathers_equal_pytorch():
    for dtype in ALL:
        weight = make((11, 6), dtype)
        for index in (
            torch.randint(0, 11, (2, 7)),
            torch.randint(0, 11, (2, 7), dtype=torch.int32),
            torch.randint(0, 11, ()),
            torch.empty(0, dtype=torch.int64),
        ):
            check("EMBEDDING", weight[index.long()], [weight, index])
    weight = make((6, 11)).t()
    index = torch.randint(0, 11, (3, 2))
    check("EMBEDDING", F.embedding(index, weight), [weight, index])
    x = make((4, 5, 6))
    for dim in (0, 1, -1):
        index = torch.randint(0, x.shape[dim], (9,))
        check("INDEX_SELECT", x.index_select(dim, index), [x, index], [dim])
        check("INDEX_SELECT", x.index_select(dim, index[0]), [x, index[0]], [dim])
        index = torch.randint(0, x.shape[dim], (3, 4, 5))
        check("GATHER", x.gather(dim, index), [x, index], [dim])
    wide = make((50, 3000))
    check(
        "GATHER", wide.gather(1, torch.zeros(50, 2000, dtype=torch.int64)), [wide, torch.zeros(50, 2000, dtype=torch.int64)], [1]
    )


def index_forms():
    i, j = torch.tensor([0, 2, -1]), torch.tensor([[1], [-2]])
    yield [i]
    yield [None, i]
    yield [i, j]
    yield [None, i, j]
    yield [i, None, j]
    yield [None, None, i]
    yield [torch.tensor(1), None, None, i]
    yield [None, torch.tensor(1), torch.tensor(-1)]
    yield [torch.empty(0, dtype=torch.int64)]


def test_advanced_indexing_equals_pytorch():
    for x in forms((3, 4, 5, 6)):
        for indices in index_forms():
            check("INDEX", torch.ops.aten.index(x, indices), [x, *indices])


def test_advanced_assignment_equals_pytorch():
    x = make((3, 4, 5, 6))
    for indices in index_forms():
        values = make(torch.ops.aten.index(x, indices).shape)
        theirs = torch.ops.aten.index_put(x, indices, values)
        check("INDEX_PUT", theirs, [x, *indices, values], [False])
    index, values = torch.tensor([0, 2, 0, 0]), make((4, 4, 5, 6))
    check("INDEX_PUT", x.index_put((index,), values, accumulate=True), [x, index, values], [True])
    mask = torch.zeros(3, 4, dtype=torch.int64)
    check("INDEX_PUT", mask.index_put((torch.tensor([1]),), torch.tensor(5)), [mask, torch.tensor([1]), torch.tensor(5)], [False])


def test_an_index_out_of_range_is_refused():
    x = make((4, 5))
    calls = [
        ("EMBEDDING", [x, torch.tensor([4])], []),
        ("INDEX", [x, torch.tensor([-5])], []),
        ("INDEX_SELECT", [x, torch.tensor([9])], [0]),
        ("GATHER", [x, torch.tensor([[5]])], [1]),
        ("SCATTER_SRC", [x, torch.tensor([[5]]), x], [1]),
        ("INDEX_PUT", [x, torch.tensor([4]), torch.tensor(1.0)], [False]),
    ]
    for op, inputs, attrs in calls:
        with pytest.raises(KernelError) as e:
            call(op, inputs, attrs)
        assert e.value.code == INDEX_ERROR, op


def test_scatters_equal_pytorch():
    for dtype in NUMBERS:
        x, src = make((4, 6), dtype), make((4, 6), dtype)
        index = torch.stack([torch.randperm(6)[:3] for _ in range(4)])
        check("SCATTER_SRC", x.scatter(1, index, src), [x, index, src], [1])
        check("SCATTER_VALUE", x.scatter(1, index, 2), [x, index], [1, 2])
        index = torch.randint(0, 4, (3, 5))
        check("SCATTER_ADD", x.scatter_add(0, index, src), [x, index, src], [0])
        index = torch.tensor([1, 1, 3])
        check("INDEX_ADD", x.index_add(0, index, src[:3], alpha=2), [x, index, src[:3]], [0, 2])


def test_region_scatters_equal_pytorch():
    x = make((4, 6, 3))
    src = make((4, 2, 3))
    check("SLICE_SCATTER", torch.slice_scatter(x, src, 1, 1, 5, 2), [x, src], [1, 1, 5, 2])
    check("SLICE_SCATTER", torch.slice_scatter(x, src, 1, -2), [x, src], [1, -2, None, 1])
    check("SELECT_SCATTER", torch.select_scatter(x, src[:, 0], 1, -1), [x, src[:, 0]], [1, -1])
    src = make((3, 2))
    check("AS_STRIDED_SCATTER", torch.as_strided_scatter(x, src, (3, 2), (7, 2), 5), [x, src], [[3, 2], [7, 2], 5])
