"""Losses and gradients, against PyTorch's own kernels in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from cases import HALVES, INDEX_ERROR, SHAPES, SPECIAL, check, forms, make
from kernel_library import KernelError, call

aten = torch.ops.aten

# op, attributes, what PyTorch calls with (gradient, values)
POINTWISE = {
    "tanh": ("TANH_BACKWARD", [], aten.tanh_backward, (-1.0, 1.0)),
    "sigmoid": ("SIGMOID_BACKWARD", [], aten.sigmoid_backward, (0.0, 1.0)),
    "threshold": ("THRESHOLD_BACKWARD", [0], lambda g, x: aten.threshold_backward(g, x, 0), (-3.0, 3.0)),
    "gelu": ("GELU_BACKWARD", [0], lambda g, x: aten.gelu_backward(g, x, approximate="none"), (-6.0, 6.0)),
    "gelu tanh": ("GELU_BACKWARD", [1], lambda g, x: aten.gelu_backward(g, x, approximate="tanh"), (-6.0, 6.0)),
    "silu": ("SILU_BACKWARD", [], aten.silu_backward, (-9.0, 9.0)),
    "hardtanh": ("HARDTANH_BACKWARD", [-1, 1.5], lambda g, x: aten.hardtanh_backward(g, x, -1, 1.5), (-3.0, 3.0)),
    "leaky relu": ("LEAKY_RELU_BACKWARD", [0.1, False], lambda g, x: aten.leaky_relu_backward(g, x, 0.1, False), (-3.0, 3.0)),
    "elu": ("ELU_BACKWARD", [1.5, 2, 0.5, False], lambda g, x: aten.elu_backward(g, 1.5, 2, 0.5, False, x), (-3.0, 3.0)),
    "elu result": ("ELU_BACKWARD", [1.5, 2, 0.5, True], lambda g, x: aten.elu_backward(g, 1.5, 2, 0.5, True, x), (-2.9, 3.0)),
}


@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise_gradients_equal_pytorch(name):
    op, attrs, reference, (low, high) = POINTWISE[name]
    for dtype in [torch.float32, torch.float64, *HALVES]:
        for shape in SHAPES:
            g, x = make(shape, dtype), make(shape, dtype, low, high)
            theirs = reference(g.double(), x.double()).to(dtype)
            tolerance = {torch.float32: 1e-6, torch.float64: 1e-13}.get(dtype, 1.6e-2)
            check(op, theirs, [g, x], attrs, tolerance=tolerance)
    for x in forms((3, 4, 5, 6)):
        g = make((3, 4, 6, 5)).transpose(-1, -2)
        check(op, reference(g, x), [g, x], attrs, tolerance=2e-6)


@pytest.mark.parametrize("name", ["threshold", "hardtanh", "leaky relu", "tanh", "sigmoid"])
def test_pointwise_gradients_keep_nan_and_infinity_as_pytorch_does(name):
    op, attrs, reference, _ = POINTWISE[name]
    check(op, reference(torch.ones(20), SPECIAL), [torch.ones(20), SPECIAL], attrs, tolerance=1e-6)


def test_the_gradient_of_dropout_is_zero_where_it_dropped():
    for g in forms((5, 33)):
        mask = torch.rand(5, 33) < 0.5
        check("DROPOUT_BACKWARD", aten.native_dropout_backward(g, mask, 1.25), [g, mask], [1.25])


@pytest.mark.parametrize(
    "shape,dim", [((4, 33), 1), ((5, 1000), 1), ((7, 3, 5), 1), ((2, 9), 0), ((1,), 0), ((), 0), ((3, 0), 1), ((2, 5000), 1)]
)
def test_gradients_of_softmax_equal_pytorch(shape, dim):
    for dtype in [torch.float32, torch.float64, *HALVES]:
        g = make(shape, dtype)
        for op, function, gradient in [
            ("SOFTMAX_BACKWARD", torch.softmax, aten._softmax_backward_data),
            ("LOG_SOFTMAX_BACKWARD", torch.log_softmax, aten._log_softmax_backward_data),
        ]:
            y = function(make(shape, torch.float64), dim).to(dtype)
            theirs = gradient(g.double(), y.double(), dim, torch.float64).to(dtype)
            check(op, theirs, [g, y], [dim], tolerance={torch.float32: 2e-6, torch.float64: 1e-12}.get(dtype, 1.6e-2))
    if len(shape) == 2:
        g, y = make(shape[::-1]).t(), make(shape[::-1]).t()
        check("SOFTMAX_BACKWARD", aten._softmax_backward_data(g, y, dim, torch.float32), [g, y], [dim], tolerance=5e-6)


@pytest.mark.parametrize(
    "shape,normal",
    [
        ((4, 33), [33]),
        ((2, 3, 768), [768]),
        ((300, 70), [70]),
        ((2, 3, 5), [3, 5]),
        ((1, 1), [1]),
        ((0, 8), [8]),
        ((3, 5000), [5000]),
    ],
)
def test_gradients_of_layer_norm_equal_pytorch(shape, normal):
    for x in forms(shape):
        if x.stride(-1) == 0:
            continue  # rows without variance
        for weight in (make(normal), None):
            g = make(shape)
            _, mean, rstd = aten.native_layer_norm(x.double(), normal, None, None, 1e-5)
            wide = None if weight is None else weight.double()
            bias = None if weight is None else wide
            dx, dw, db = aten.native_layer_norm_backward(
                g.double(), x.double(), normal, mean, rstd, wide, bias, [True, *[weight is not None] * 2]
            )
            inputs = [g, x, mean.float(), rstd.float()]
            check("LAYER_NORM_BACKWARD", dx.float(), [*inputs, weight], [normal], tolerance=1e-5)
            if weight is not None:
                check("LAYER_NORM_BACKWARD_PARAMS", [dw.float(), db.float()], inputs, [normal], tolerance=1e-5)


def test_gradients_of_layer_norm_in_halves_equal_pytorch():
    for dtype in HALVES:
        x, g, weight = make((5, 40), dtype), make((5, 40), dtype), make((40,), dtype)
        _, mean, rstd = aten.native_layer_norm(x.float(), [40], None, None, 1e-5)
        dx, dw, db = aten.native_layer_norm_backward(
            g.float(), x.float(), [40], mean, rstd, weight.float(), weight.float(), [True] * 3
        )
        check("LAYER_NORM_BACKWARD", dx.to(dtype), [g, x, mean, rstd, weight], [[40]], tolerance=1.6e-2)
        check("LAYER_NORM_BACKWARD_PARAMS", [dw.to(dtype), db.to(dtype)], [g, x, mean, rstd], [[40]], tolerance=1.6e-2)


@pytest.mark.parametrize("shape,groups", [((2, 6, 5, 7), 3), ((3, 16), 2), ((1, 8, 40), 8), ((2, 4, 3), 1)])
def test_gradients_of_group_norm_equal_pytorch(shape, groups):
    n, c, plane = shape[0], shape[1], math.prod(shape[2:])
    x, g = make(shape), make(shape)
    for weight in (make((c,)), None):
        wide = None if weight is None else weight.double()
        _, mean, rstd = aten.native_group_norm(x.double(), wide, wide, n, c, plane, groups, 1e-5)
        mask = [True, *[weight is not None] * 2]
        theirs = aten.native_group_norm_backward(g.double(), x.double(), mean, rstd, wide, n, c, plane, groups, mask)
        dw, db = (t.float() if weight is not None else None for t in theirs[1:])
        inputs = [g, x, mean.float(), rstd.float(), weight]
        check("GROUP_NORM_BACKWARD", [theirs[0].float(), dw, db], inputs, [n, c, plane, groups], tolerance=1e-5)


@pytest.mark.parametrize("reduction", [0, 1, 2])
def test_the_loss_of_classes_and_its_gradient_equal_pytorch(reduction):
    for dtype in (torch.float32, torch.float64):
        for shape in [(7, 5), (1, 1), (0, 3), (300, 1000), (4,)]:
            x = make(shape, dtype)
            classes = torch.randint(0, shape[-1], shape[:-1])
            if classes.numel() > 2:
                classes[1] = -100
            for weight in (None, make((shape[-1],), dtype, 0.1, 2.0)):
                loss, total = aten.nll_loss_forward(x, classes, weight, reduction, -100)
                ours = check("NLL_LOSS", [loss, total], [x, classes, weight], [reduction, -100], tolerance=5e-6)
                g = make(tuple(loss.shape), dtype)
                theirs = aten.nll_loss_backward(g, x, classes, weight, reduction, -100, total)
                check("NLL_LOSS_BACKWARD", theirs, [g, x, classes, weight, ours[1]], [reduction, -100], tolerance=5e-6)
    x, classes = make((5, 6)).t(), torch.randint(0, 5, (12,))[::2]
    check("NLL_LOSS", F.nll_loss(x, classes), [x, classes, None], [1, -100], tolerance=1e-6)


def test_a_class_beyond_the_last_is_an_error():
    for classes in (torch.tensor([0, 5]), torch.tensor([-1, 0])):
        with pytest.raises(KernelError) as error:
            call("NLL_LOSS", [make((2, 5)), classes, None], [1, -100])
        assert error.value.code == INDEX_ERROR
        with pytest.raises(KernelError) as error:
            call("NLL_LOSS_BACKWARD", [make(()), make((2, 5)), classes, None, make(())], [1, -100])
        assert error.value.code == INDEX_ERROR


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_gradient_of_an_embedding_equals_pytorch(dtype):
    for shape, rows, width in [((2, 16), 50, 64), ((5,), 3, 200), ((), 4, 5), ((0,), 3, 4), ((40, 3), 1, 1), ((300,), 7, 130)]:
        for kind in (torch.int64, torch.int32):
            indices = torch.randint(0, rows, shape, dtype=kind)
            g = make((*shape, width), dtype)
            for padding, by_frequency in [(-1, False), (0, False), (-1, True)]:
                theirs = aten.embedding_dense_backward(g.double(), indices, rows, padding, by_frequency).to(dtype)
                attrs = [rows, padding, by_frequency]
                check("EMBEDDING_BACKWARD", theirs, [g, indices], attrs, tolerance=3e-2 if dtype == torch.bfloat16 else 1e-5)
    with pytest.raises(KernelError) as error:
        call("EMBEDDING_BACKWARD", [make((1, 4)), torch.tensor([3])], [3, -1, False])
    assert error.value.code == INDEX_ERROR


@pytest.mark.parametrize("shape", [(4, 5), (2, 6, 5, 7), (3, 2, 1500), (1, 1, 2, 1), (2, 3, 2, 3, 4)])
def test_batch_norm_in_training_and_its_gradient_equal_pytorch(shape):
    for x in forms(shape):
        if 0 in x.stride():
            continue
        for weight, bias in [(make((shape[1],)), make((shape[1],))), (None, None)]:
            wide = None if weight is None else weight.double()
            offset = None if bias is None else bias.double()
            y, mean, rstd = aten.native_batch_norm(x.double(), wide, offset, None, None, True, 0.1, 1e-5)
            dims = [d for d in range(x.dim()) if d != 1]
            theirs = [y.float(), mean.float(), rstd.float(), x.double().var(dims).float()]
            check("BATCH_NORM_TRAIN", theirs, [x, weight, bias], [1e-5], tolerance=1e-5)
            g = make(shape)
            for training in (True, False):
                theirs = aten.native_batch_norm_backward(
                    g.double(), x.double(), wide, mean, rstd**-2 - 1e-5, mean, rstd, training, 1e-5, [True] * 3
                )
                dw, db = (None if t is None else t.float() for t in theirs[1:])
                inputs = [g, x, weight, mean.float(), rstd.float()]
                check("BATCH_NORM_BACKWARD", [theirs[0].float(), dw, db], inputs, [training], tolerance=1e-5)


# input, weight, stride, padding, dilation, groups
CONVOLUTIONS = [
    ((2, 3, 20, 20), (33, 3, 7, 7), [2, 2], [3, 3], [1, 1], 1),
    ((2, 16, 15, 13), (40, 16, 3, 3), [1, 1], [1, 1], [1, 1], 1),
    ((3, 64, 7, 7), (100, 64, 1, 1), [1, 1], [0, 0], [1, 1], 1),
    ((1, 32, 14, 14), (48, 32, 1, 1), [2, 2], [0, 0], [1, 1], 1),
    ((2, 8, 9, 9), (8, 1, 3, 3), [2, 2], [1, 1], [1, 1], 8),
    ((2, 12, 9, 9), (32, 6, 3, 3), [1, 1], [2, 2], [2, 2], 2),
    ((1, 4, 5, 30), (9, 4, 1, 5), [1, 3], [0, 2], [1, 1], 1),
    ((2, 20, 100), (24, 20, 3), [2], [1], [1], 1),
    ((0, 3, 8, 8), (4, 3, 3, 3), [1, 1], [1, 1], [1, 1], 1),
    ((1, 1, 1, 1), (1, 1, 3, 3), [1, 1], [1, 1], [1, 1], 1),
]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_gradients_of_convolution_equal_pytorch(case):
    shape, kernel, stride, padding, dilation, groups = case
    zeros = [0] * (len(shape) - 2)
    window = [stride, padding, dilation, False, zeros, groups]
    for last in (False, True):
        if last and len(shape) != 4:
            continue
        x, w = make(shape), make(kernel, low=-0.3, high=0.3)
        if last:
            x = x.contiguous(memory_format=torch.channels_last)
        g = make(tuple(torch.convolution(x, w, None, *window).shape))
        dx, dw, _ = aten.convolution_backward(g.double(), x.double(), w.double(), None, *window, [True, True, False])
        check("CONVOLUTION_BACKWARD_INPUT", dx.float(), [g, x, w], window, tolerance=1e-5)
        check("CONVOLUTION_BACKWARD_WEIGHT", dw.float(), [g, x, w], window, tolerance=1e-5)


def test_gradients_of_pools_equal_pytorch():
    for x in forms((2, 3, 17, 15)):
        for kernel, stride, padding, dilation, ceil in [
            ([3, 3], [2, 2], [1, 1], [1, 1], False),
            ([2, 2], [], [0, 0], [1, 1], True),
            ([3, 2], [1, 2], [1, 0], [2, 1], False),
        ]:
            y, index = F.max_pool2d(x, kernel, stride or None, padding, dilation, ceil, return_indices=True)
            g, window = make(tuple(y.shape)), [kernel, stride, padding, dilation, ceil]
            theirs = aten.max_pool2d_with_indices_backward(g, x, *window, index)
            check("MAX_POOL2D_BACKWARD", theirs, [g, x, index], window, tolerance=1e-6)
        for include, divisor, ceil in [(True, None, False), (False, None, True), (True, 5, False)]:
            window = [[3, 2], [2, 2], [1, 1], ceil, include, divisor]
            g = make(tuple(aten.avg_pool2d(x, *window).shape))
            check("AVG_POOL2D_BACKWARD", aten.avg_pool2d_backward(g, x, *window), [g, x], window, tolerance=1e-6)
        for size in ([1, 1], [3, 4], [17, 15]):
            g = make((2, 3, *size))
            theirs = aten._adaptive_avg_pool2d_backward(g, x)
            check("ADAPTIVE_AVG_POOL2D_BACKWARD", theirs, [g, x], tolerance=1e-6)
    with pytest.raises(KernelError) as error:
        window = [[2, 2], [2, 2], [0, 0], [1, 1], False]
        call("MAX_POOL2D_BACKWARD", [make((1, 1, 1, 1)), make((1, 1, 2, 2)), torch.tensor([[[[4]]]])], window)
    assert error.value.code == INDEX_ERROR
