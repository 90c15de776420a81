"""Every CPU kernel against PyTorch on the CPU, and against itself with other numbers of threads."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from kernel_library import LIB, Call, KernelError, call

torch.set_num_threads(1)  # its idle threads spin, and ours are what is tested here
pytestmark = pytest.mark.skipif(LIB is None, reason="libdjinn_kernels_test.so is not built")

FLOATS = [torch.float32, torch.float64]
HALVES = [torch.float16, torch.bfloat16]
INTS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
NUMBERS = FLOATS + HALVES + INTS
ALL = [*NUMBERS, torch.bool]
INDEX_ERROR, DIVISION_ERROR = 55, 2


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(20)


def make(shape, dtype=torch.float32, low=-3.0, high=3.0):
    if dtype == torch.bool:
        return torch.rand(shape) < 0.5
    if dtype.is_floating_point:
        return (torch.rand(shape, dtype=torch.float64) * (high - low) + low).to(dtype)
    low = 0 if dtype == torch.uint8 else -9
    return torch.randint(low, 10, shape).to(dtype)


def close(ours, theirs, tolerance=None):
    """A tolerance that a test names is relative to the largest value, as parity is measured; the default one to each value."""
    assert ours.dtype == theirs.dtype, (ours.dtype, theirs.dtype)
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    if theirs.is_floating_point():
        default = {torch.float32: 2e-6, torch.float64: 1e-13, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[theirs.dtype]
        finite = theirs[theirs.isfinite()].abs()
        scale = 1.0 if tolerance is None or not finite.numel() else max(1.0, float(finite.max()))
        tolerance = default if tolerance is None else tolerance
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
    else:
        assert torch.equal(ours, theirs)


def check(op, reference, inputs, attrs=(), dtype=None, tolerance=None, constant=None, threads=(1, 2, 3)):
    """Runs `op` and compares all outputs with `reference` and, bit for bit, between numbers of threads."""
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

UNARY = {
    "NEG": (torch.neg, NUMBERS),
    "ABS": (torch.abs, NUMBERS),
    "EXP": (torch.exp, ALL),
    "LOG": (torch.log, ALL),
    "SQRT": (torch.sqrt, ALL),
    "RSQRT": (torch.rsqrt, ALL),
    "RECIPROCAL": (torch.reciprocal, ALL),
    "SIN": (torch.sin, ALL),
    "COS": (torch.cos, ALL),
    "TANH": (torch.tanh, ALL),
    "SIGMOID": (torch.sigmoid, ALL),
    "ERF": (torch.erf, ALL),
    "RELU": (torch.relu, NUMBERS),
    "SILU": (F.silu, FLOATS + HALVES),
    "BITWISE_NOT": (torch.bitwise_not, [*INTS, torch.bool]),
    "LOGICAL_NOT": (torch.logical_not, ALL),
    "FLOOR": (torch.floor, NUMBERS),
    "CEIL": (torch.ceil, NUMBERS),
    "ROUND": (torch.round, NUMBERS),
    "TRUNC": (torch.trunc, NUMBERS),
    "SIGN": (torch.sign, ALL),
    "ISNAN": (torch.isnan, ALL),
    "EXP2": (torch.exp2, ALL),
    "LOG1P": (torch.log1p, ALL),
}


@pytest.mark.parametrize("op", UNARY)
def test_a_pointwise_op_of_one_input_equals_pytorch(op):
    reference, dtypes = UNARY[op]
    for dtype, shape in itertools.product(dtypes, [(), (5,), (3, 7), (0,), (2100,)]):
        for x in forms(shape, dtype):
            check(op, reference(x), [x], threads=(1,))
    big = make((3, 70000), dtypes[0])
    check(op, reference(big), [big])


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


@pytest.mark.parametrize("op", UNARY)
def test_a_pointwise_op_treats_infinities_and_nan_as_pytorch_does(op):
    if op == "BITWISE_NOT":
        return
    reference = UNARY[op][0]
    for dtype in FLOATS:
        x = SPECIAL.to(dtype)
        if op in ("SIN", "COS"):
            x = x[x.abs() != x.abs().max()] if dtype == torch.float32 else x
            x = x[~((x.abs() > 1e30) & x.isfinite())]
        check(op, reference(x), [x], threads=(1,), tolerance=4e-6 if dtype == torch.float32 else None)


def test_transcendental_functions_stay_within_a_few_units_in_the_last_place():
    x = torch.cat([torch.linspace(-20, 20, 400001), torch.linspace(-1, 1, 100001), torch.logspace(-30, 0, 10001)])
    for op, reference in [("EXP", torch.exp), ("TANH", torch.tanh), ("SIGMOID", torch.sigmoid), ("ERF", torch.erf)]:
        exact = reference(x.double())
        ours = call(op, [x])[0].double()
        ulp = torch.maximum(exact.abs(), torch.tensor(1e-37, dtype=torch.float64)) * 2.0**-23
        assert ((ours - exact).abs() / ulp).max() < 3.0, op


BINARY = {
    "ADD": (torch.add, ALL, [1]),
    "SUB": (torch.sub, NUMBERS, [1]),
    "MUL": (torch.mul, ALL, []),
    "DIV": (torch.div, ALL, []),
    "MINIMUM": (torch.minimum, ALL, []),
    "MAXIMUM": (torch.maximum, ALL, []),
    "ATAN2": (torch.atan2, NUMBERS, []),
    "EQ": (torch.eq, ALL, []),
    "NE": (torch.ne, ALL, []),
    "LT": (torch.lt, ALL, []),
    "LE": (torch.le, ALL, []),
    "GT": (torch.gt, ALL, []),
    "GE": (torch.ge, ALL, []),
    "BITWISE_AND": (torch.bitwise_and, [*INTS, torch.bool], []),
    "BITWISE_OR": (torch.bitwise_or, [*INTS, torch.bool], []),
    "BITWISE_XOR": (torch.bitwise_xor, [*INTS, torch.bool], []),
    "LOGICAL_AND": (torch.logical_and, ALL, []),
    "LOGICAL_OR": (torch.logical_or, ALL, []),
}


@pytest.mark.parametrize("op", BINARY)
def test_a_pointwise_op_of_two_inputs_equals_pytorch(op):
    reference, dtypes, attrs = BINARY[op]
    for a, b in itertools.product(dtypes, dtypes):
        x, y = make((4, 5), a), make((4, 5), b)
        check(op, reference(x, y), [x, y], attrs, threads=(1,))
    for x, y in itertools.product(forms((6, 9), dtypes[0]), forms((6, 9), dtypes[0])):
        check(op, reference(x, y), [x, y], attrs, threads=(1,))
    for left, right in [
        ((3, 1, 5), (4, 1)),
        ((1,), (7,)),
        ((), (3,)),
        ((0, 3), (1, 3)),
        ((2, 3, 4, 5), (3, 1, 1)),
        ((300, 1), (1, 300)),
    ]:
        x, y = make(left, dtypes[0]), make(right, dtypes[0])
        check(op, reference(x, y), [x, y], attrs)


@pytest.mark.parametrize("op", ["ADD", "MUL", "DIV", "LT"])
def test_a_python_number_promotes_weakly(op):
    reference, _, attrs = BINARY[op]
    for dtype in ALL:
        for number in (2, 2.5):
            x = make((3, 4), dtype)
            check(op, reference(x, number), [x, number], attrs, threads=(1,))


@pytest.mark.parametrize("op", ["MINIMUM", "MAXIMUM", "EQ", "LT", "GE", "ADD", "DIV", "ATAN2"])
def test_two_inputs_treat_infinities_and_nan_as_pytorch_does(op):
    reference, _, attrs = BINARY[op]
    x, y = SPECIAL[:, None], SPECIAL[None, :]
    check(op, reference(x, y), [x, y], attrs, threads=(1,))


def test_alpha_scales_the_second_operand():
    for dtype in NUMBERS:
        x, y = make((3, 4), dtype), make((3, 4), dtype)
        check("ADD", torch.add(x, y, alpha=3), [x, y], [3], threads=(1,))
        check("SUB", torch.sub(x, y, alpha=2), [x, y], [2], threads=(1,))
        check("RSUB_SCALAR", torch.rsub(x, 7, alpha=2), [x], [7, 2], threads=(1,))
    x = make((3, 4))
    check("RSUB_SCALAR", torch.rsub(x, 1.5), [x], [1.5, 1], threads=(1,))


@pytest.mark.parametrize("mode,name", [(0, None), (1, "trunc"), (2, "floor")])
def test_division_rounds_as_asked(mode, name):
    for a, b in itertools.product(FLOATS + INTS, FLOATS + INTS):
        x, y = make((50,), a), make((50,), b)
        y = torch.where(y == 0, torch.ones_like(y), y)
        check("DIV_MODE", torch.div(x, y, rounding_mode=name), [x, y], [mode], threads=(1,))
    x, y = SPECIAL[:, None], SPECIAL[None, :]
    check("DIV_MODE", torch.div(x, y, rounding_mode=name), [x, y], [mode], threads=(1,))


def test_remainder_has_the_sign_of_the_divisor():
    for dtype in FLOATS + INTS:
        x, y = make((200,), dtype), make((200,), dtype)
        y = torch.where(y == 0, torch.ones_like(y), y)
        check("REMAINDER", torch.remainder(x, y), [x, y], threads=(1,), tolerance=1e-5)


def test_integer_division_by_zero_is_refused():
    x, y = torch.tensor([1, 2]), torch.tensor([1, 0])
    for op, attrs in [("REMAINDER", []), ("DIV_MODE", [2])]:
        with pytest.raises(KernelError) as e:
            call(op, [x, y], attrs)
        assert e.value.code == DIVISION_ERROR


def test_powers_equal_pytorch():
    for p in (2, 3, 0.5, -0.5, -1, -2, 0, 1, 1.7, 2.0, 3.0):
        x = make((40,)).abs() + 0.1
        check("POW_SCALAR", torch.pow(x, p), [x], [p], threads=(1,), tolerance=3e-6)
    for dtype in INTS:
        x = make((40,), dtype)
        for p in (0, 1, 2, 3, 5):
            check("POW_SCALAR", torch.pow(x, p), [x], [p], threads=(1,))
        y = make((40,), dtype).abs()
        check("POW", torch.pow(x, y), [x, y], threads=(1,))
    x, y = make((40,)).abs() + 0.1, make((40,))
    check("POW", torch.pow(x, y), [x, y], threads=(1,), tolerance=3e-6)


@pytest.mark.parametrize("op", ["EQ", "NE", "LT", "LE", "GT", "GE"])
def test_comparison_with_a_number_equals_pytorch(op):
    reference = getattr(torch, op.lower())
    for dtype in ALL:
        for number in (1, 0, 0.5, True):
            x = make((3, 11), dtype)
            check(op + "_SCALAR", reference(x, number), [x], [number], threads=(1,))


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_equals_pytorch(approximate):
    for dtype in FLOATS + HALVES:
        for x in forms((7, 33), dtype):
            check("GELU", F.gelu(x, approximate=approximate), [x], [int(approximate == "tanh")], threads=(1,))
    x = torch.linspace(-12, 12, 100003)
    check("GELU", F.gelu(x, approximate=approximate), [x], [int(approximate == "tanh")])


def test_bounded_and_leaky_units_equal_pytorch():
    for dtype in FLOATS:
        x = torch.cat([make((50,), dtype, -10, 10), SPECIAL.to(dtype)])
        check("HARDTANH", F.hardtanh(x, -1.5, 2.0), [x], [-1.5, 2.0], threads=(1,))
        check("LEAKY_RELU", F.leaky_relu(x, 0.1), [x], [0.1], threads=(1,))
        x = make((50,), dtype, -10, 10)
        check("ELU", F.elu(x, 1.3), [x], [1.3, 1, 1], threads=(1,))


def test_clamp_takes_either_bound_or_both():
    for dtype in NUMBERS:
        x = make((40,), dtype)
        check("CLAMP", torch.clamp(x, 1, 4), [x], [1, 4], threads=(1,))
        check("CLAMP", torch.clamp(x, min=2), [x], [2, None], threads=(1,))
        check("CLAMP", torch.clamp(x, max=2), [x], [None, 2], threads=(1,))
        check("CLAMP_MIN", torch.clamp_min(x, 1), [x], [1], threads=(1,))
    check("CLAMP", torch.clamp(SPECIAL, -1.0, 1.0), [SPECIAL], [-1.0, 1.0], threads=(1,))


def test_where_and_masked_fill_equal_pytorch():
    condition = make((3, 1, 5), torch.bool)
    for a, b in itertools.product(ALL, ALL):
        x, y = make((4, 5), a), make((4, 1), b)
        check("WHERE", torch.where(condition, x, y), [condition, x, y], threads=(1,))
    for dtype in ALL:
        x = make((3, 4, 5), dtype)
        check("MASKED_FILL", x.masked_fill(condition, 1), [x, condition], [1], threads=(1,))
        value = make((), dtype)
        check("MASKED_FILL_TENSOR", x.masked_fill(condition, value), [x, condition, value], threads=(1,))
    x = make((3, 4, 5))
    check("MASKED_FILL", x.masked_fill(condition, -math.inf), [x, condition], [-math.inf])
    low = torch.finfo(torch.float32).min
    check("MASKED_FILL", x.masked_fill(condition, low), [x, condition], [low])


def test_fused_pointwise_ops_equal_pytorch():
    for dtype in FLOATS:
        x, y, z = make((5, 6), dtype), make((5, 6), dtype), make((6,), dtype)
        check("ADDCMUL", torch.addcmul(x, y, z, value=0.5), [x, y, z], [0.5], threads=(1,))
        check("ADDCDIV", torch.addcdiv(x, y, z, value=0.5), [x, y, z], [0.5], threads=(1,), tolerance=1e-5)
        for weight in (0.3, 0.8):
            check("LERP_SCALAR", torch.lerp(x, y, weight), [x, y], [weight], threads=(1,))


def test_conversions_equal_pytorch():
    for a, b in itertools.product(ALL, ALL):
        for x in forms((3, 9), a):
            if not b.is_floating_point and b != torch.bool and a.is_floating_point and b == torch.uint8:
                x = x.abs()
            check("TO_COPY", x.to(b), [x], [None], dtype=b, threads=(1,))
    x = torch.cat([SPECIAL, torch.linspace(-70000, 70000, 5001), torch.logspace(-9, 5, 5001)])
    for dtype in HALVES:
        check("TO_COPY", x.to(dtype), [x], [None], dtype=dtype, tolerance=0.0)
        check("TO_COPY", x.to(dtype).float(), [x.to(dtype)], [None], dtype=torch.float32, tolerance=0.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_copies_equal_pytorch(shape):
    for dtype in (torch.float32, torch.bool, torch.int16):
        for x in forms(shape, dtype):
            check("CLONE", x.clone(), [x], [None])
            check("CLONE", x.contiguous(), [x], [0])
            check("COPY_INTO", x.clone(), [torch.empty(shape, dtype=dtype), x])
    check("COPY_INTO", torch.ones(3, 4), [torch.empty(3, 4), torch.ones(1, dtype=torch.int64)])


def test_complex_tensors_are_copied():
    x = torch.randn(3, 4, dtype=torch.complex64)
    assert torch.equal(call("CLONE", [x.t()], [0])[0], x.t())


def test_creation_equals_pytorch():
    for dtype in ALL:
        check("FULL", torch.full((3, 4), 1, dtype=dtype), [], [[3, 4], 1], dtype=dtype)
        check("FILL", torch.full((3, 4), 1, dtype=dtype), [make((3, 4), dtype)], [1])
        check("FILL_TENSOR", torch.full((3, 4), 1, dtype=dtype), [make((3, 4), dtype), torch.tensor(1)])
    check("FULL", torch.full((0, 4), 1.5), [], [[0, 4], 1.5], dtype=torch.float32)
    check("FULL", torch.full((), -math.inf), [], [[], -math.inf], dtype=torch.float32)
    for arguments in [(0, 10, 1), (3, 100, 7), (10, 0, -3), (0, 0, 1), (0.0, 1.0, 0.1), (0, 5000, 1)]:
        for dtype in (torch.int64, torch.int32, torch.float32):
            if isinstance(arguments[2], float) and not dtype.is_floating_point:
                continue
            check("ARANGE", torch.arange(*arguments, dtype=dtype), [], list(arguments), dtype=dtype)
    check("EYE", torch.eye(3, 5), [], [[3, 5]], dtype=torch.float32)


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


PRODUCTS = [
    (1, 1, 1),
    (1, 768, 2304),
    (3, 64, 5),
    (4, 300, 33),
    (5, 33, 70),
    (13, 17, 31),
    (128, 768, 100),
    (29, 600, 65),
    (257, 40, 129),
    (1, 5, 20000),
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


def test_attention_with_every_key_hidden_gives_zeros():
    q, k, v = make((1, 2, 9, 16)), make((1, 2, 9, 16)), make((1, 2, 9, 16))
    mask = torch.ones(1, 1, 9, 9, dtype=torch.bool)
    mask[..., 4, :] = False
    ours = check("SDPA", attention_reference(q, k, v, mask, False, None), [q, k, v, mask], [False, None], tolerance=1e-5)
    assert (ours[0][:, :, 4] == 0).all()


def philox(seed, offset, block):
    counter = [block & 0xFFFFFFFF, block >> 32, offset & 0xFFFFFFFF, offset >> 32]
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [(b >> 32) ^ counter[1] ^ key[0], b & 0xFFFFFFFF, (a >> 32) ^ counter[3] ^ key[1], a & 0xFFFFFFFF]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return counter


def test_philox_gives_the_published_numbers():
    # Random123's known answers for philox4x32-10.
    assert philox(0, 0, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    all_ones = 0xFFFFFFFFFFFFFFFF
    assert philox(all_ones, all_ones, all_ones) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def test_random_numbers_are_a_function_of_seed_offset_and_element():
    seed, offset = 1234567890123, 77
    words = [w for block in range(5) for w in philox(seed, offset, block)]
    uniform = call("UNIFORM", [], [[20], -1.0, 3.0, seed, offset], dtype=torch.float32)[0]
    expected = torch.tensor([-1.0 + 4.0 * ((w >> 8) * 2.0**-24) for w in words])
    close(uniform, expected)
    keep = call("BERNOULLI", [], [[20], 0.3, seed, offset], dtype=torch.float32)[0]
    assert torch.equal(keep, torch.tensor([float((w >> 8) * 2.0**-24 < 0.3) for w in words]))
    integers = call("RANDINT", [], [[10], -5, 100, seed, offset], dtype=torch.int64)[0]
    draws = [words[2 * i] | words[2 * i + 1] << 32 for i in range(10)]
    assert integers.tolist() == [-5 + d % 105 for d in draws]
    many = check("UNIFORM", [], [], [[3, 50000], 0.0, 1.0, 5, 6], dtype=torch.float32)[0]
    assert 0 <= many.min() and many.max() < 1 and abs(many.mean() - 0.5) < 0.01
    normal = check("NORMAL", [], [], [[200000], 2.0, 3.0, 5, 6], dtype=torch.float32)[0]
    assert abs(normal.mean() - 2) < 0.05 and abs(normal.std() - 3) < 0.05


def test_dropout_drops_and_scales():
    x = make((300, 100))
    out, mask = check("DROPOUT", [], [x], [0.25, 3, 4])
    assert abs(mask.float().mean() - 0.75) < 0.02
    close(out, torch.where(mask, x / 0.75, torch.zeros(())))


def test_multinomial_draws_by_weight():
    weights = torch.tensor([[0.0, 1.0, 3.0], [5.0, 0.0, 5.0]])
    drawn = call("MULTINOMIAL", [weights], [20000, True, 1, 2])[0]
    share = torch.stack([(drawn == c).float().mean(1) for c in range(3)], 1)
    torch.testing.assert_close(share, torch.tensor([[0, 0.25, 0.75], [0.5, 0, 0.5]]), rtol=0, atol=0.02)
    drawn = call("MULTINOMIAL", [torch.tensor([0.0, 1.0, 2.0, 3.0])], [3, False, 1, 2])[0]
    assert sorted(drawn.tolist()) == [1, 2, 3]
    first = torch.stack([call("MULTINOMIAL", [torch.tensor([1.0, 3.0])], [1, False, seed, 0])[0] for seed in range(2000)])
    assert abs(first.float().mean() - 0.75) < 0.04
    with pytest.raises(KernelError):
        call("MULTINOMIAL", [torch.tensor([1.0, -1.0])], [1, True, 1, 2])


@pytest.mark.parametrize("op", ["ADD", "MUL", "MAXIMUM", "GELU", "EXP"])
def test_a_pointwise_op_may_write_over_its_input(op):
    x, y = make((3, 5000)), make((3, 5000))
    inputs, attrs = ([x, y], [1] if op == "ADD" else []) if op in BINARY else ([x], [0] if op == "GELU" else [])
    expected = call(op, inputs, attrs)[0]
    target = x.clone()
    flat = Call(op, [target, *inputs[1:]], attrs, outputs=[torch.empty_like(x)])
    flat._out[0].data = target.data_ptr()
    flat.run()
    assert torch.equal(target, expected)


@pytest.mark.skipif("DJINN_CPU_ISA" in os.environ, reason="this is that run")
@pytest.mark.parametrize("instructions", ["base", "avx2"])
def test_lesser_instruction_sets_pass_the_same_tests(instructions):
    if LIB.harness_numerics().decode().split()[1] == instructions:
        pytest.skip("this processor has no better one")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    run = subprocess.run(command, env={**os.environ, "DJINN_CPU_ISA": instructions}, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout[-4000:]
