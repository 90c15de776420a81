"""Pointwise kernels, conversions and creation."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from cases import ALL, DIVISION_ERROR, FLOATS, HALVES, INTS, NUMBERS, SHAPES, SPECIAL, check, forms, make
from kernel_library import Call, KernelError, call

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
