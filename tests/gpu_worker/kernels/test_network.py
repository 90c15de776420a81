"""Matrix products, norms, convolutions, pools, attention."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from cases import FLOATS, HALVES, bits, check, forms, make
from kernel_library import call

PRODUCTS = [
    (1, 1, 1),
    (1, 768, 300),
    (3, 64, 5),
    (4, 300, 33),
    (5, 33, 70),
    (13, 17, 31),
    (128, 768, 100),
    (29, 600, 65),
    (257, 40, 129),
    (1, 5, 9000),
]


@pytest.mark.parametrize("m,k,n", PRODUCTS)
def test_matrix_products_equal_pytorch(m, k, n):
    for x, y in itertools.product(
        [make((m, k)), make((k, m)).t(), make((m, 2 * k))[:, ::2]], [make((k, n)), make((n, k)).t(), make((2 * k, n))[::2]]
    ):
        theirs = (x.double() @ y.double()).float()
        tolerance = 2e-6
        check("MM", theirs, [x, y], tolerance=tolerance)
        check("MM", theirs, [x, y], tolerance=tolerance, constant=1)
        bias = make((n,))
        check("ADDMM", theirs + bias, [bias, x, y], [1, 1], tolerance=tolerance)
        full = make((m, n))
        check("ADDMM", 0.5 * full + 2.0 * theirs, [full, x, y], [0.5, 2.0], tolerance=2 * tolerance)


def test_batched_products_equal_pytorch():
    for m, k, n in [(1, 64, 90), (90, 64, 90), (7, 5, 33), (3, 1, 2)]:
        x, y, z = make((6, m, k)), make((6, n, k)).transpose(1, 2), make((6, m, n))
        theirs = torch.bmm(x.double(), y.double()).float()
        check("BMM", theirs, [x, y], tolerance=1e-5)
        check("BMM", theirs, [x, y.contiguous()], tolerance=1e-5)
        check("BADDBMM", 0.5 * z + 2 * theirs, [z, x, y], [0.5, 2], tolerance=2e-5)
        x = make((1, m, k)).expand(6, m, k)
        check("BMM", torch.bmm(x, y), [x, y], tolerance=1e-5)
    x, y = make((300,)), make((300,))
    check("DOT", torch.dot(x, y), [x, y], tolerance=1e-5)
    for a in (make((40, 300)), make((300, 40)).t()):
        check("MV", torch.mv(a, x), [a, x], tolerance=1e-5)


def test_products_in_other_dtypes_equal_pytorch():
    for dtype in [torch.float64, torch.int64, torch.int32, torch.uint8, *HALVES]:
        x, y = make((7, 9), dtype), make((8, 9), dtype).t()
        check("MM", torch.mm(x, y), [x, y])
        bias = make((8,), dtype)
        check("ADDMM", torch.addmm(bias, x, y), [bias, x, y], [1, 1], tolerance=None if dtype not in HALVES else 2e-2)


def test_empty_products_are_zero():
    check("MM", torch.zeros(3, 4), [torch.empty(3, 0), torch.empty(0, 4)])
    check("MM", torch.empty(0, 4), [torch.empty(0, 5), torch.empty(5, 4)])
    bias = make((4,))
    check("ADDMM", bias.expand(3, 4), [bias, torch.empty(3, 0), torch.empty(0, 4)], [1, 1])


def test_a_row_does_not_depend_on_the_rows_beside_it():
    x, y = make((128, 768)), make((768, 200))
    whole = call("MM", [x, y])[0]
    for first, last in [(0, 100), (17, 60), (100, 128)]:
        assert torch.equal(call("MM", [x[first:last], y])[0], whole[first:last])


def test_softmax_equals_pytorch():
    for dtype in FLOATS + HALVES:
        for x in forms((3, 5, 33), dtype):
            for dim in (0, 1, -1):
                check("SOFTMAX", F.softmax(x, dim), [x], [dim, False], threads=(1,))
                check(
                    "LOG_SOFTMAX",
                    F.log_softmax(x, dim),
                    [x],
                    [dim, False],
                    threads=(1,),
                    tolerance=None if dtype != torch.float32 else 5e-6,
                )
    x = make((40, 50257), low=-20, high=20)
    check("SOFTMAX", F.softmax(x, -1), [x], [-1, False])
    check("LOG_SOFTMAX", F.log_softmax(x, -1), [x], [-1, False], tolerance=1e-5)
    x = torch.tensor([[0.0, -math.inf], [math.nan, 1.0], [-math.inf, -math.inf], [1e30, 1e30]])
    check("SOFTMAX", F.softmax(x, -1), [x], [-1, False])
    check("SOFTMAX", F.softmax(torch.tensor(2.0), 0), [torch.tensor(2.0)], [0, False])


def test_norms_equal_pytorch():
    for shape, normal in [((4, 33), [33]), ((2, 3, 768), [768]), ((2, 3, 5), [3, 5]), ((1, 1), [1]), ((0, 8), [8])]:
        for x in forms(shape):
            if x.dim() > 1 and x.stride(-1) == 0:
                continue  # rows without variance: only noise to compare
            weight, bias = make(normal), make(normal)
            for w, b in [(weight, bias), (weight, None), (None, None)]:
                theirs = torch.native_layer_norm(x, normal, w, b, 1e-5)
                check("LAYER_NORM", list(theirs), [x, w, b], [normal, 1e-5], tolerance=1e-5)
    x = make((2, 1000)) + 1000
    exact = F.layer_norm(x.double(), [1000]).float()
    check("LAYER_NORM", [exact], [x, None, None], [[1000], 1e-5], tolerance=1e-3)
    for x in forms((2, 6, 5, 7)):
        weight, bias, mean, var = make((6,)), make((6,)), make((6,)), make((6,)).abs() + 0.1
        check(
            "BATCH_NORM",
            F.batch_norm(x, mean, var, weight, bias, False, 0.1, 1e-5),
            [x, weight, bias, mean, var],
            [1e-5],
            tolerance=1e-5,
        )
        check(
            "BATCH_NORM",
            F.batch_norm(x, mean, var, None, None, False, 0.1, 1e-5),
            [x, None, None, mean, var],
            [1e-5],
            tolerance=1e-5,
        )
        theirs = torch.native_group_norm(x.contiguous(), weight, bias, 2, 6, 35, 3, 1e-5)
        check("GROUP_NORM", list(theirs), [x.contiguous(), weight, bias], [2, 6, 35, 3, 1e-5], tolerance=1e-5)


CONVOLUTIONS = [
    # input, weight, stride, padding, dilation, groups
    ((1, 3, 20, 20), (33, 3, 7, 7), [2, 2], [3, 3], [1, 1], 1),
    ((2, 16, 15, 13), (40, 16, 3, 3), [1, 1], [1, 1], [1, 1], 1),
    ((1, 16, 14, 14), (64, 16, 3, 3), [2, 2], [1, 1], [1, 1], 1),
    ((2, 64, 7, 7), (100, 64, 1, 1), [1, 1], [0, 0], [1, 1], 1),
    ((1, 32, 14, 14), (48, 32, 1, 1), [2, 2], [0, 0], [1, 1], 1),
    ((1, 3, 32, 32), (50, 3, 16, 16), [16, 16], [0, 0], [1, 1], 1),
    ((1, 8, 9, 9), (8, 1, 3, 3), [1, 1], [1, 1], [1, 1], 8),
    ((1, 8, 9, 9), (8, 1, 3, 3), [2, 2], [1, 1], [1, 1], 8),
    ((2, 12, 9, 9), (32, 6, 3, 3), [1, 1], [2, 2], [2, 2], 2),
    ((1, 4, 5, 30), (9, 4, 1, 5), [1, 3], [0, 2], [1, 1], 1),
    ((1, 80, 100), (64, 80, 3), [1], [1], [1], 1),
    ((1, 64, 100), (64, 64, 3), [2], [1], [1], 1),
    ((0, 3, 8, 8), (4, 3, 3, 3), [1, 1], [1, 1], [1, 1], 1),
]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolutions_equal_pytorch(case):
    shape, kernel, stride, padding, dilation, groups = case
    x, weight, bias = make(shape), make(kernel, low=-0.3, high=0.3), make((kernel[0],))
    outs = [0] * (len(shape) - 2)
    for b, constant in [(bias, None), (None, 1), (bias, 1)]:
        exact = torch.convolution(
            x.double(), weight.double(), None if b is None else b.double(), stride, padding, dilation, False, outs, groups
        ).float()
        check(
            "CONVOLUTION",
            exact,
            [x, weight, b],
            [stride, padding, dilation, False, outs, groups],
            tolerance=1e-5,
            constant=constant,
        )
    if len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
        theirs = torch.convolution(x, weight, bias, stride, padding, dilation, False, outs, groups)
        check(
            "CONVOLUTION",
            theirs.contiguous(),
            [x, weight, bias],
            [stride, padding, dilation, False, outs, groups],
            tolerance=1e-5,
        )


def test_pools_equal_pytorch():
    for x in forms((2, 3, 17, 15)):
        for kernel, stride, padding, dilation, ceil in [
            ([3, 3], [2, 2], [1, 1], [1, 1], False),
            ([2, 2], [], [0, 0], [1, 1], True),
            ([3, 2], [1, 2], [1, 0], [2, 1], False),
        ]:
            theirs = F.max_pool2d(x, kernel, stride or None, padding, dilation, ceil, return_indices=True)
            check("MAX_POOL2D", list(theirs), [x], [kernel, stride, padding, dilation, ceil])
        for include, divisor, ceil in [(True, None, False), (False, None, True), (True, 5, False)]:
            theirs = F.avg_pool2d(x, [3, 2], [2, 2], [1, 1], ceil, include, divisor)
            check("AVG_POOL2D", theirs, [x], [[3, 2], [2, 2], [1, 1], ceil, include, divisor])
        for size in ([1, 1], [3, 4], [17, 15]):
            check("ADAPTIVE_AVG_POOL2D", torch.ops.aten._adaptive_avg_pool2d(x, size), [x], [size])
    x = make((1, 1, 6, 6))
    x[0, 0, 2, 2] = math.nan
    check("MAX_POOL2D", list(F.max_pool2d(x, 3, 1, return_indices=True)), [x], [[3, 3], [1, 1], [0, 0], [1, 1], False])


def attention_reference(q, k, v, mask, causal, scale):
    scores = q.double() @ k.double().transpose(-1, -2) * (scale if scale is not None else 1 / math.sqrt(q.shape[-1]))
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask.double()
    if causal:
        hidden = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(hidden, -math.inf)
    weights = torch.nan_to_num(scores.softmax(-1))
    return [(weights @ v.double()).float(), scores.logsumexp(-1).float()]


@pytest.mark.parametrize(
    "queries,keys,depth",
    [(1, 1, 8), (1, 130, 64), (3, 50, 64), (5, 33, 64), (128, 128, 64), (33, 600, 32), (40, 29, 80), (7, 7, 5)],
)
def test_attention_equals_its_definition(queries, keys, depth):
    batch, heads = 2, 3
    q = make((batch, queries, heads, depth)).transpose(1, 2)
    cache = make((batch, heads, keys + 7, depth))
    k, v = cache[:, :, :keys], make((batch, keys, heads, depth)).transpose(1, 2)
    masks = [
        None,
        torch.rand(batch, 1, queries, keys) < 0.7,
        make((1, 1, queries, keys)),
        make((batch, 1, 1, keys)),
        torch.zeros(1, 1, queries, keys).masked_fill(torch.rand(queries, keys) < 0.3, -math.inf),
        make((heads, 1, keys)),
    ]
    for mask, causal in itertools.product(masks, (False, True)):
        for scale in (None, 0.3):
            theirs = attention_reference(q, k, v, mask, causal, scale)
            check("SDPA", theirs, [q, k, v, mask], [causal, scale], tolerance=1e-5)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("depth", [64, 16])
def test_attention_of_prompts_in_halves_equals_its_definition(dtype, depth):
    # Lengths of one head's size: on a GPU they share one kernel of cuDNN. Its shares of a row are rounded before they are multiplied with
    # the values.
    tolerance = 4e-3 if dtype == torch.float16 else 3e-2
    for queries, keys in ((64, 64), (65, 65), (130, 130), (64, 97)):
        rows = make((1, max(queries, keys), 3, 2, depth), dtype)
        q, k, v = (rows[:, :n, i].transpose(1, 2) for i, n in ((0, queries), (1, keys), (2, keys)))
        for causal in (False, True):
            theirs = attention_reference(q, k, v, None, causal, None)
            check("SDPA", [theirs[0].to(dtype), theirs[1]], [q, k, v, None], [causal, None], tolerance=tolerance, threads=(1, 2))


def placed(x, way):
    """The same values at a multiple of 16 bytes, one element off, or apart from each other."""
    room = torch.full((2 * x.numel() + 1,), math.nan, dtype=x.dtype)
    if way == "apart":
        room = room[1:].view(*x.shape, 2)[..., 0]
    else:
        room = room[(way == "off") :][: x.numel()].view(x.shape)
    return room.copy_(x)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("depth", [64, 128, 256])
def test_attention_of_tokens_has_the_same_bits_wherever_rows_lie(dtype, depth):
    tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
    for queries, keys, values in ((1, 301, depth), (2, 70, depth - 16), (1, 9, depth)):
        q, k, v = make((2, 2, queries, depth), dtype), make((2, 2, keys, depth), dtype), make((2, 2, keys, values), dtype)
        v[0, 0, keys - 1, 0] = math.inf  # the last key counts once
        theirs = attention_reference(q, k, v, None, False, None)
        theirs = [theirs[0].to(dtype), theirs[1]]
        ways = [[placed(x, way) for x in (q, k, v)] + [None] for way in ("dense", "off", "apart")]
        first, *others = (check("SDPA", theirs, way, [False, None], tolerance=tolerance, threads=(1, 2)) for way in ways)
        for other in others:
            assert all(torch.equal(bits(a), bits(b)) for a, b in zip(first, other, strict=True))


def test_attention_of_many_heads_equals_its_definition():
    q, k, v = make((3, 200, 1, 8)), make((3, 200, 70, 8)), make((3, 200, 70, 8))
    for causal in (False, True):
        check(
            "SDPA",
            attention_reference(q, k, v, None, causal, None),
            [q, k, v, None],
            [causal, None],
            tolerance=1e-5,
            threads=(1, 2),
        )


def test_attention_of_tokens_to_no_key_gives_zeros():
    q, k = make((1, 2, 1, 64)), make((1, 2, 0, 64))
    ours = check("SDPA", attention_reference(q, k, k, None, False, None), [q, k, k, None], [False, None])
    assert (ours[0] == 0).all() and (ours[1] == -math.inf).all()


def test_attention_with_every_key_hidden_gives_zeros():
    q, k, v = make((1, 2, 9, 16)), make((1, 2, 9, 16)), make((1, 2, 9, 16))
    mask = torch.ones(1, 1, 9, 9, dtype=torch.bool)
    mask[..., 4, :] = False
    ours = check("SDPA", attention_reference(q, k, v, mask, False, None), [q, k, v, mask], [False, None], tolerance=1e-5)
    assert (ours[0][:, :, 4] == 0).all()
