"""Calls of the ops of neural networks: norms, windows, attention, losses, gradients.

PyTorch's own gradient kernels trust their arguments and crash on others, so those are never wrong here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from draw import Draw
from oplib import Row


def softmax(row: Row, draw: Draw):
    self = draw.tensor(draw.shape(), draw.float() if draw.chance(0.9) else draw.dtype())
    return [self, draw.dim(self.dim()), False], None


def layer_norm(row: Row, draw: Draw):
    shape, dtype = draw.shape(1), draw.pick([torch.float32, torch.float64])
    last = shape[-draw.int(1, len(shape)) :] if draw.chance(0.95) else draw.shape()
    weight, bias = (draw.pick([None, draw.tensor(last, dtype)]) for _ in range(2))
    return [draw.tensor(shape, dtype), last, weight, bias, 1e-5], None


def batch_norm(row: Row, draw: Draw):
    shape, dtype = draw.shape(2), draw.pick([torch.float32, torch.float64])
    self = draw.tensor(shape, dtype)
    vectors = [draw.fill([shape[1]], dtype) for _ in range(4)]
    if draw.chance(0.2):
        vectors[0] = None
    return [self, *vectors, 1e-5], None


def group_norm(row: Row, draw: Draw):
    n, group, per = draw.size(), draw.int(1, 2), draw.int(1, 2)
    shape = [n, group * per, *draw.shape(0, 3)]
    area = 1
    for s in shape[2:]:
        area *= s
    dtype = draw.pick([torch.float32, torch.float64])
    weight, bias = (draw.pick([None, draw.fill([shape[1]], dtype)]) for _ in range(2))
    self = draw.fill(shape, dtype)
    if len(shape) == 4 and draw.chance(0.5):
        self = self.contiguous(memory_format=torch.channels_last)
    return [self, weight, bias, n, shape[1], area, group if draw.chance(0.9) else 3, 1e-5], None


def convolution(row: Row, draw: Draw):
    dims = draw.pick([1, 2, 2, 2, 3])
    groups, transposed = draw.pick([1, 1, 1, 2]), draw.chance(0.25)
    n, cin, cout = draw.int(1, 3), groups * draw.int(1, 3), groups * draw.int(1, 3)
    space, kernel = [draw.int(1, 6) for _ in range(dims)], [draw.int(1, 3) for _ in range(dims)]
    weight_shape = [cin, cout // groups, *kernel] if transposed else [cout, cin // groups, *kernel]
    self, weight = draw.tensor([n, cin, *space], torch.float32, 0.5), draw.tensor(weight_shape, torch.float32, 0.6)
    bias = draw.pick([None, draw.fill([cout if draw.chance(0.95) else 5], torch.float32)])
    stride, padding, dilation = ([draw.int(low, high) for _ in range(dims)] for low, high in ((1, 2), (0, 1), (1, 2)))
    extra = [draw.int(0, 1) if transposed else 0 for _ in range(dims)]
    return [self, weight, bias, stride, padding, dilation, transposed, extra, groups], None


def pool(row: Row, draw: Draw):
    shape = [draw.int(1, 3), draw.int(1, 3), draw.int(1, 6), draw.int(1, 6)]
    if draw.chance(0.2):
        shape[draw.int(0, 3)] = 0
    self = draw.tensor(shape if draw.chance(0.7) else shape[1:], draw.float(), 0.5)
    kernel = draw.pick([[2], [3, 2], [1, 1], [2, 3], [0, 1] if draw.chance(0.2) else [3]])
    stride, padding = draw.pick([[], [1], [2, 1], [3, 2]]), draw.pick([[0], [1, 0], [1], [0, 0]])
    if row.name == "MAX_POOL2D":
        return [self, kernel, stride, padding, draw.pick([[1], [2, 1]]), draw.bool()], None
    return [self, kernel, stride, padding, draw.bool(), draw.bool(), draw.pick([None, None, 3, 0])], None


def adaptive(row: Row, draw: Draw):
    shape = [draw.size(), draw.size(), draw.int(1, 6), draw.int(0, 6)]
    return [draw.tensor(shape if draw.chance(0.7) else shape[1:], draw.float(), 0.5), [draw.int(0, 4), draw.int(1, 4)]], None


def sdpa(row: Row, draw: Draw):
    b, h, lq, lk, d = (draw.int(1, 3) for _ in range(5))
    dv = d if draw.chance(0.7) else draw.int(1, 3)
    query, key, value = (draw.tensor(s, torch.float32) for s in ([b, h, lq, d], [b, h, lk, d], [b, h, lk, dv]))
    if draw.chance(0.2):
        query, key, value = query[0], key[0], (value if dv == d else key)[0]
    mask = draw.pick([None, None, draw.tensor([lq, lk], torch.float32)])
    return [query, key, value, mask, False if mask is not None else draw.bool(), draw.pick([None, 0.5])], None


def like(draw: Draw, tensor: torch.Tensor) -> torch.Tensor:
    """A gradient for `tensor`. Never of wrong sizes: PyTorch's own gradient kernels trust them, and crash."""
    return draw.tensor(tensor.shape, tensor.dtype)


def dropout_backward(row: Row, draw: Draw):
    grad = draw.tensor(draw.shape(), draw.float())
    return [grad, torch.ones_like(grad, dtype=torch.bool), 2.0], None


def softmax_backward(row: Row, draw: Draw):
    output = draw.tensor(draw.shape(), draw.float() if draw.chance(0.9) else draw.dtype())
    return [like(draw, output), output, draw.dim(output.dim()), output.dtype], None


def layer_norm_backward(row: Row, draw: Draw):
    shape, dtype = draw.shape(1), draw.pick([torch.float32, torch.float64])
    count = draw.int(1, len(shape))
    rows = [*shape[:-count], *[1] * count]
    self = draw.tensor(shape, dtype)
    weight = [] if row.name.endswith("PARAMS") else [draw.pick([None, draw.tensor(shape[-count:], dtype)])]
    return [like(draw, self), self, draw.fill(rows, dtype), draw.fill(rows, dtype), *weight, shape[-count:]], None


def filled(draw: Draw, low: int) -> list[int]:
    """A shape without zeros: PyTorch's own training kernels divide by sizes."""
    return [max(size, 1) for size in draw.shape(low)]


def batch_norm_train(row: Row, draw: Draw):
    shape, dtype = filled(draw, 2), draw.pick([torch.float32, torch.float64])
    vectors = [draw.pick([None, draw.fill([shape[1]], dtype)]) for _ in range(2)]
    return [draw.tensor(shape, dtype), *vectors, 1e-5], None


def batch_norm_backward(row: Row, draw: Draw):
    shape, dtype = filled(draw, 2), draw.pick([torch.float32, torch.float64])
    self, weight = draw.tensor(shape, dtype), draw.fill([shape[1]], dtype)
    return [like(draw, self), self, weight, *(draw.fill([shape[1]], dtype) for _ in range(2)), draw.bool()], None


def group_norm_backward(row: Row, draw: Draw):
    group, shape = draw.int(1, 2), filled(draw, 2)
    shape[1] *= group
    n, c, area = shape[0], shape[1], math.prod(shape[2:])
    self = draw.tensor(shape, draw.pick([torch.float32, torch.float64]), 0.6)
    weight = draw.fill([c], self.dtype)
    stats = (draw.fill([n, group], self.dtype) for _ in range(2))
    return [like(draw, self), self, *stats, weight, n, c, area, group], None


def nll_loss(row: Row, draw: Draw):
    safe = row.name != "NLL_LOSS"  # as in like()
    shape, dtype = draw.shape(1, 2 if safe or draw.chance(0.95) else 3), draw.float() if draw.chance(0.9) else draw.dtype()
    shape[-1] = max(shape[-1], 1)  # class 0 exists
    self = draw.tensor(shape, dtype)
    kind = torch.int64 if safe or draw.chance(0.95) else draw.pick([torch.uint8, torch.int32])
    target = draw.fill(shape[:-1] if safe or draw.chance(0.95) else draw.shape(0, 2), kind) * 0
    weight = draw.pick([None, draw.fill(shape[-1:], dtype)])
    reduction = draw.int(0, 2)
    if row.name == "NLL_LOSS":
        return [self, target, weight, reduction, -100], None
    each = len(shape) == 2 and reduction == 0
    grad = draw.fill(shape[:1] if each else [], dtype)
    return [grad, self, target, weight, reduction, -100, draw.fill([], dtype)], None


def embedding_backward(row: Row, draw: Draw):
    indices = draw.fill(draw.shape(0, 3), draw.pick([torch.int64, torch.int32])) * 0
    shape = [*indices.shape, draw.size()]
    return [draw.tensor(shape, draw.float()), indices, draw.int(1, 4), -1, draw.bool()], None


def convolution_backward(row: Row, draw: Draw):
    (self, weight, _, *window), _ = convolution(row, draw)
    try:
        shape = torch.convolution(self, weight, None, *window).shape
    except RuntimeError:
        shape = draw.shape()
    return [draw.tensor(shape, torch.float32, 0.7), self, weight, *window], None


def pool_backward(row: Row, draw: Draw):
    name = row.name.removesuffix("_BACKWARD")
    (self, *window), _ = adaptive(row, draw) if name.startswith("ADAPTIVE") else pool(Row(0, name, "", (), 0, False), draw)
    if name.startswith("ADAPTIVE") and 0 in self.shape:
        self = draw.tensor([max(size, 1) for size in self.shape], self.dtype)  # as in filled()
    shape = self.shape[:-2] + (draw.int(1, 3), draw.int(1, 3))
    try:
        if name == "MAX_POOL2D":
            shape = torch.ops.aten.max_pool2d_with_indices(self, *window)[0].shape
        elif name == "AVG_POOL2D":
            shape = torch.ops.aten.avg_pool2d(self, *window).shape
    except RuntimeError:
        pass
    grad = draw.tensor(shape, self.dtype, 0.7)
    if name == "MAX_POOL2D":
        return [grad, self, *window, torch.zeros(shape, dtype=torch.int64)], None
    return [grad, self, *([] if name.startswith("ADAPTIVE") else window)], None


def dropout(row: Row, draw: Draw):
    return [draw.tensor(draw.shape(), draw.float()), 0.5, 1, 2], None


MAKERS: dict[str, Callable] = {
    "SOFTMAX": softmax, "LOG_SOFTMAX": softmax,
    "LAYER_NORM": layer_norm, "BATCH_NORM": batch_norm, "GROUP_NORM": group_norm, "CONVOLUTION": convolution, "MAX_POOL2D": pool,
    "AVG_POOL2D": pool, "ADAPTIVE_AVG_POOL2D": adaptive, "SDPA": sdpa, "DROPOUT": dropout, "SOFTMAX_BACKWARD": softmax_backward,
    "LOG_SOFTMAX_BACKWARD": softmax_backward, "LAYER_NORM_BACKWARD": layer_norm_backward,
    "LAYER_NORM_BACKWARD_PARAMS": layer_norm_backward, "NLL_LOSS": nll_loss, "NLL_LOSS_BACKWARD": nll_loss,
    "EMBEDDING_BACKWARD": embedding_backward, "BATCH_NORM_TRAIN": batch_norm_train, "BATCH_NORM_BACKWARD": batch_norm_backward,
    "CONVOLUTION_BACKWARD_INPUT": convolution_backward, "CONVOLUTION_BACKWARD_WEIGHT": convolution_backward,
    "GROUP_NORM_BACKWARD": group_norm_backward, "MAX_POOL2D_BACKWARD": pool_backward, "AVG_POOL2D_BACKWARD": pool_backward,
    "ADAPTIVE_AVG_POOL2D_BACKWARD": pool_backward, "DROPOUT_BACKWARD": dropout_backward,
}  # fmt: skip
