"""Generated calls for every row of the op table: ATen arguments with sizes 0 to 3 on every dimension, every kind of stride, and dtypes.

`make(row, draw)` returns (arguments, dtype asked for or None). About one call in ten is wrong on purpose.
"""

from __future__ import annotations

from collections.abc import Callable

import cases_network as network
import torch
from draw import Draw
from oplib import Row, Scalar

# Rows of two tensors that PyTorch has no overload for with a number in place of the second, or one that looks at its value.
NO_SCALARS = {"POW", "LERP_SCALAR", "MINIMUM", "MAXIMUM", "LOGICAL_AND", "LOGICAL_OR", "ATAN2"}


def pair(draw: Draw, scalars: bool = True):
    shape = draw.shape()
    a_dtype = draw.dtype()
    a = draw.tensor(draw.broadcastable(shape) if draw.chance(0.4) else shape, a_dtype)
    if draw.chance(0.2) and scalars:
        return a, Scalar(draw.scalar())
    b_dtype = a_dtype if draw.chance(0.5) else draw.dtype()
    b = draw.tensor(draw.broadcastable(shape) if draw.chance(0.5) else shape, b_dtype)
    if draw.chance(0.2) and b.dim() == a.dim() and a.dtype == b.dtype:
        b = torch.empty_like(a)
    return (b, a) if draw.chance(0.3) else (a, b)


def pointwise(row: Row, draw: Draw):
    """Any row whose inputs all broadcast together; attributes by kind."""
    tensors = sum(kind == "T" for _, kind in row.args)
    shape = draw.shape()
    dtype = draw.dtype()
    inputs = (
        list(pair(draw, row.name not in NO_SCALARS))
        if tensors == 2
        else [draw.tensor(draw.broadcastable(shape), dtype) for _ in range(tensors)]
    )
    if row.name.endswith("_BACKWARD"):  # a gradient has the dtype of its values
        inputs = [draw.tensor(shape, dtype) for _ in range(2)]
    if tensors == 3:
        inputs[draw.int(0, 2)] = draw.tensor(shape, dtype if draw.chance(0.8) else None)
    if tensors == 1:
        inputs = [draw.tensor(shape, dtype)]
    if row.name.startswith("BITWISE"):
        kind = draw.pick([torch.bool, torch.int64, torch.uint8])
        inputs = [i if isinstance(i, Scalar) or draw.chance(0.1) else draw.tensor(i.shape, kind) for i in inputs]
    out = []
    for name, kind in row.args:
        if kind == "T":
            out.append(inputs.pop(0))
        elif kind == "n":
            out.append(draw.pick([1, 1, True, 0.5, 2]) if name == "alpha" else draw.scalar())
        elif kind == "n?":
            out.append(draw.pick([None, draw.scalar()]))
        elif kind == "f":
            out.append(draw.pick([1.0, 2.0, 0.5]))
        elif kind == "b":
            out.append(draw.bool())
        elif name == "approximate":
            out.append(draw.pick(["none", "tanh"]))
        elif name == "rounding":
            out.append(draw.pick([None, "trunc", "floor"]))
    return out, None


def where(row: Row, draw: Draw):
    shape = draw.shape()
    a, b = pair(draw)
    condition = draw.tensor(draw.broadcastable(shape if isinstance(b, Scalar) else b.shape), torch.bool)
    return [condition, a, b], None


def masked_fill(row: Row, draw: Draw):
    shape = draw.shape()
    self, mask = draw.tensor(draw.broadcastable(shape)), draw.tensor(draw.broadcastable(shape), torch.bool)
    return [self, mask, draw.scalar() if row.name == "MASKED_FILL" else draw.tensor([], self.dtype)], None


def copy(row: Row, draw: Draw):
    formats = [None, torch.preserve_format, torch.contiguous_format, torch.channels_last, torch.channels_last_3d]
    self, form = draw.tensor(draw.shape()), draw.pick(formats)
    if row.name == "CLONE":
        return [self, form], None
    dtype = draw.dtype()
    return [self, dtype, None, None, None, False, form], dtype


def fill(row: Row, draw: Draw):
    self = draw.tensor(draw.shape())
    return [self, draw.scalar() if row.name == "FILL" else draw.tensor([], self.dtype)], None


def cat(row: Row, draw: Draw):
    shape, dtype = draw.shape(1), draw.dtype()
    dim = draw.dim(len(shape))
    tensors = []
    for _ in range(draw.int(1, 4)):
        mine = shape.copy()
        mine[dim % len(shape)] = draw.size()
        mine = [0] if draw.chance(0.1) else mine
        tensors.append(draw.tensor(mine, dtype if draw.chance(0.8) else None))
    if draw.chance(0.2) and len(shape) == 4:
        tensors = [t if t.dim() != 4 else t.contiguous(memory_format=torch.channels_last) for t in tensors]
    return [tensors, dim], None


def embedding(row: Row, draw: Draw):
    weight = draw.tensor([3, draw.size()] if draw.chance(0.9) else draw.shape(), draw.float())
    return [weight, draw.tensor(draw.shape(), draw.pick([torch.int64, torch.int32])), -1, False, False], None


def indices(draw: Draw, self: torch.Tensor):
    common = draw.shape(0, 2)
    count = draw.int(1, max(self.dim(), 1) + (1 if draw.chance(0.1) else 0))
    out = []
    for i in range(count):
        limit = self.shape[i] if i < self.dim() else 1
        shape = draw.broadcastable(common)
        out.append(None if draw.chance(0.35) else draw.index(shape, limit, draw.pick([torch.int64] * 3 + [torch.int32])))
    if all(i is None for i in out):
        out[-1] = draw.index(common, 1)
    return out


def index(row: Row, draw: Draw):
    self = draw.tensor(draw.shape(1, 4))
    return [self, indices(draw, self)], None


def index_put(row: Row, draw: Draw):
    self = draw.tensor(draw.shape(1, 4))
    chosen = indices(draw, self)
    shape = draw.shape(0, 2)
    try:
        if draw.chance(0.8):
            shape = draw.broadcastable(self[tuple(slice(None) if i is None else i for i in chosen)].shape)
    except (IndexError, RuntimeError):
        pass
    return [self, chosen, draw.tensor(shape, self.dtype), draw.bool()], None


def index_select(row: Row, draw: Draw):
    self = draw.tensor(draw.shape())
    dim = draw.dim(self.dim())
    limit = self.shape[dim] if -self.dim() <= dim < self.dim() else 1
    return [self, dim, draw.index(draw.shape(0, 1), limit)], None


def gather(row: Row, draw: Draw):
    self = draw.tensor(draw.shape(0, 4))
    shape = [draw.int(0, s) for s in self.shape] if draw.chance(0.9) else draw.shape()
    return [self, draw.dim(self.dim()), draw.tensor(shape, torch.int64) * 0, False], None


def scatter(row: Row, draw: Draw):
    self = draw.tensor(draw.shape(0, 4))
    shape = [draw.int(0, s) for s in self.shape] if draw.chance(0.9) else draw.shape()
    index = draw.tensor(shape, torch.int64) * 0
    source = draw.tensor([s + draw.int(0, 1) for s in shape] if draw.chance(0.9) else draw.shape(), self.dtype)
    return [self, draw.dim(self.dim()), index, draw.scalar() if row.name == "SCATTER_VALUE" else source], None


def index_add(row: Row, draw: Draw):
    self = draw.tensor(draw.shape(0, 4))
    dim, count = draw.dim(self.dim()), draw.size()
    shape = list(self.shape)
    if -len(shape) <= dim < len(shape):
        shape[dim] = count
    source = draw.tensor(shape if draw.chance(0.9) else draw.shape(), self.dtype)
    return [self, dim, draw.tensor([count], torch.int64) * 0, source, draw.pick([1, 2, 0.5])], None


def slices(draw: Draw):
    bound = [None, 0, 1, 2, -1, -2, 5, -5, 2**62, -(2**62)]
    return [draw.pick(bound), draw.pick(bound), draw.pick([1, 1, 1, 2, 3, 7, 0])]


def slice_(row: Row, draw: Draw):
    self = draw.tensor(draw.shape())
    return [self, draw.dim(self.dim()), *slices(draw)], None


def slice_scatter(row: Row, draw: Draw):
    self = draw.tensor(draw.shape(1))
    dim, bounds = draw.dim(self.dim()), slices(draw)
    try:
        shape = torch.ops.aten.slice.Tensor(self, dim, *bounds).shape if draw.chance(0.9) else draw.shape()
    except (IndexError, RuntimeError):
        shape = draw.shape()
    return [self, draw.tensor(shape, self.dtype), dim, *bounds], None


def select(row: Row, draw: Draw):
    self = draw.tensor(draw.shape())
    return [self, draw.dim(self.dim()), draw.int(-3, 3)], None


def select_scatter(row: Row, draw: Draw):
    self = draw.tensor(draw.shape(1))
    dim, index = draw.dim(self.dim()), draw.int(-2, 2)
    try:
        shape = self.select(dim, index).shape if draw.chance(0.9) else draw.shape()
    except (IndexError, RuntimeError):
        shape = draw.shape()
    return [self, draw.tensor(shape, self.dtype), dim, index], None


def strided(draw: Draw):
    """A whole storage as a tensor, and a geometry that mostly lies within it."""
    self = draw.fill([draw.int(0, 30)], draw.dtype())
    shape = draw.shape(0, 3)
    strides = [draw.int(0, 4) for _ in shape]
    return self, shape, strides, draw.pick([None, 0, 1, 3, 40 if draw.chance(0.2) else 2])


def as_strided(row: Row, draw: Draw):
    return list(strided(draw)), None


def as_strided_scatter(row: Row, draw: Draw):
    self, shape, strides, offset = strided(draw)
    return [self, draw.tensor(shape if draw.chance(0.9) else draw.shape(), self.dtype), shape, strides, offset], None


def triangle(row: Row, draw: Draw):
    return [draw.tensor(draw.shape(1)), draw.int(-3, 3)], None


def pad(row: Row, draw: Draw):
    self = draw.tensor(draw.shape(1))
    count = draw.int(0, self.dim()) * 2 + (1 if draw.chance(0.05) else 0) + (2 if draw.chance(0.05) else 0)
    return [self, [draw.pick([0, 1, 2, -1]) for _ in range(count)], draw.pick([0, 1])], None


def repeat(row: Row, draw: Draw):
    self = draw.tensor(draw.shape(0, 3))
    count = self.dim() + draw.int(0, 2) - (1 if draw.chance(0.1) else 0)
    return [self, [draw.int(0, 3) for _ in range(count)]], None


def flip(row: Row, draw: Draw):
    self = draw.tensor(draw.shape())
    return [self, draw.dims(self.dim())], None


def roll(row: Row, draw: Draw):
    self = draw.tensor(draw.shape())
    dims = draw.dims(self.dim())
    return [self, [draw.int(-4, 4) for _ in (dims or [0])], dims], None


def view(row: Row, draw: Draw):
    self = draw.tensor(draw.shape())
    shape = list(self.shape)
    for _ in range(draw.int(0, 3)):
        i = draw.int(0, len(shape))
        if draw.chance(0.3):
            shape.insert(i, 1)
        elif draw.chance(0.5) and i + 1 < len(shape):
            shape[i : i + 2] = [shape[i] * shape[i + 1]]
        elif i < len(shape) and shape[i] % 2 == 0 and shape[i]:
            shape[i : i + 1] = [2, shape[i] // 2]
        elif 1 in shape:
            shape.remove(1)
    if shape and draw.chance(0.3):
        shape[draw.int(0, len(shape) - 1)] = -1
    return [self, shape if draw.chance(0.95) else draw.shape()], None


def permute(row: Row, draw: Draw):
    self = draw.tensor(draw.shape())
    dims = [d - self.dim() if draw.chance(0.3) else d for d in draw.random.sample(range(self.dim()), self.dim())]
    return [self, dims if draw.chance(0.9) else draw.dims(self.dim())], None


def transpose(row: Row, draw: Draw):
    self = draw.tensor(draw.shape())
    return [self, draw.dim(self.dim()), draw.dim(self.dim())], None


def unary_view(row: Row, draw: Draw):
    return [draw.tensor(draw.shape(0, 3 if row.name == "T" else 5))], None


def expand(row: Row, draw: Draw):
    shape = draw.shape()
    self = draw.tensor(draw.broadcastable(shape))
    shape = [-1 if draw.chance(0.2) and i >= len(shape) - self.dim() else s for i, s in enumerate(shape)]
    return [self, shape if draw.chance(0.95) else draw.shape(), False], None


def unsqueeze(row: Row, draw: Draw):
    self = draw.tensor(draw.shape())
    return [self, draw.dim(self.dim() + 1)], None


def squeeze(row: Row, draw: Draw):
    self = draw.tensor(draw.shape())
    return [
        self,
        *([draw.dim(self.dim())] if row.name == "SQUEEZE_DIM" else [draw.dims(self.dim())] if row.name == "SQUEEZE_DIMS" else []),
    ], None


def diagonal(row: Row, draw: Draw):
    self = draw.tensor(draw.shape(2 if draw.chance(0.95) else 0))
    return [self, draw.int(-4, 4), draw.dim(self.dim()), draw.dim(self.dim())], None


def unfold(row: Row, draw: Draw):
    self = draw.tensor(draw.shape())
    return [self, draw.dim(self.dim()), draw.int(0, 3), draw.int(1 if draw.chance(0.95) else 0, 3)], None


def reduce_all(row: Row, draw: Draw):
    self = draw.tensor(draw.shape())
    asked = draw.pick([None, None, draw.dtype()]) if len(row.args) > 1 else None
    return [self, asked][: len(row.args)], asked


def reduce(row: Row, draw: Draw):
    self = draw.tensor(draw.shape())
    out: list = []
    asked = None
    for name, kind in row.args:
        if kind == "T":
            out.append(self)
        elif kind == "i[]" or kind == "i[]?":
            out.append(None if kind == "i[]?" and draw.chance(0.2) else draw.dims(self.dim()))
        elif kind == "i" or kind == "i?":
            out.append(None if kind == "i?" and draw.chance(0.3) else draw.dim(self.dim()))
        elif kind == "b":
            out.append(draw.bool())
        elif name == "ord":
            out.append(draw.pick([2, 1, 2.0, 0.5]))
        elif name == "correction":
            out.append(draw.pick([None, 0, 1]))
        elif kind == "_":
            asked = draw.pick([None, None, draw.dtype()])
            out.append(asked)
    return out, asked


def isin(row: Row, draw: Draw):
    a, b = draw.tensor(draw.shape()), draw.tensor(draw.shape(0, 2))
    return [a, b, False, draw.bool()], None


def topk(row: Row, draw: Draw):
    self = draw.tensor(draw.shape())
    return [self, draw.int(0, 3), draw.dim(self.dim()), draw.bool(), draw.bool()], None


def sort(row: Row, draw: Draw):
    self = draw.tensor(draw.shape())
    return [self, draw.dim(self.dim()), draw.bool()], None


def matmul(row: Row, draw: Draw):
    m, k, n, b = draw.size(), draw.size(), draw.size(), draw.size()
    shapes = {
        "MM": ([m, k], [k, n]),
        "ADDMM": (draw.broadcastable([m, n]), [m, k], [k, n]),
        "BMM": ([b, m, k], [b, k, n]),
        "BADDBMM": (draw.broadcastable([b, m, n]), [b, m, k], [b, k, n]),
        "DOT": ([k], [k]),
        "MV": ([m, k], [k]),
    }[row.name]
    dtype = draw.dtype()
    tensors = [draw.tensor(s if draw.chance(0.97) else draw.shape(), dtype if draw.chance(0.97) else None) for s in shapes]
    return tensors + [draw.pick([1, 2]) for _ in range(len(row.args) - len(tensors))], None


def create(row: Row, draw: Draw):
    numbers = {"UNIFORM": [0.0, 1.0], "NORMAL": [0.0, 1.0], "BERNOULLI": [0.5], "RANDINT": [0, 3], "EYE": []}
    numbers["FULL"] = [draw.scalar()]
    dtype = torch.float32 if row.name in ("UNIFORM", "NORMAL", "BERNOULLI") else draw.pick([torch.float32, torch.int64])
    seed = [] if row.name in ("FULL", "EYE") else [1, 2]
    shape = draw.shape(2, 2) if row.name == "EYE" else draw.shape()
    if shape and draw.chance(0.05):
        shape[0] = -1
    return [shape, *numbers[row.name], *seed], dtype


def arange(row: Row, draw: Draw):
    numbers = [
        draw.pick([0, 1, 5, -3, 2.5, 10, 0.1]),
        draw.pick([0, 1, 5, 7, -3, 6.5, 1e3]),
        draw.pick([1, 1, 2, -1, 0.5, 0.1, 3, 0]),
    ]
    return numbers, draw.pick([torch.int64, torch.float32, torch.float64, torch.int32])


def multinomial(row: Row, draw: Draw):
    return [draw.tensor(draw.shape(0, 3), torch.float32) + 1, draw.int(0, 3), draw.bool(), 1, 2], None


def copy_into(row: Row, draw: Draw):
    shape = draw.shape()
    source = draw.tensor(draw.broadcastable(shape))
    return [draw.tensor(shape, plain=0.8), source if draw.chance(0.9) else source[None]], None


MAKERS: dict[str, Callable] = {
    "WHERE": where, "MASKED_FILL": masked_fill, "MASKED_FILL_TENSOR": masked_fill, "CLONE": copy, "TO_COPY": copy, "FILL": fill,
    "FILL_TENSOR": fill, "COPY_INTO": copy_into, "FULL": create, "ARANGE": arange, "UNIFORM": create, "NORMAL": create,
    "BERNOULLI": create, "RANDINT": create, "EYE": create, "MULTINOMIAL": multinomial, "CAT": cat, "EMBEDDING": embedding,
    "INDEX": index, "INDEX_PUT": index_put, "INDEX_SELECT": index_select, "GATHER": gather, "SCATTER_SRC": scatter,
    "SCATTER_VALUE": scatter, "SCATTER_ADD": scatter, "INDEX_ADD": index_add, "SLICE_SCATTER": slice_scatter,
    "SELECT_SCATTER": select_scatter, "AS_STRIDED_SCATTER": as_strided_scatter, "TRIL": triangle, "TRIU": triangle,
    "CONSTANT_PAD": pad, "REPEAT": repeat, "FLIP": flip, "ROLL": roll, "VIEW_SIZES": view, "UNSAFE_VIEW": view, "PERMUTE": permute,
    "TRANSPOSE": transpose, "T": unary_view, "ALIAS": unary_view, "EXPAND": expand, "SLICE": slice_, "SELECT": select,
    "UNSQUEEZE": unsqueeze, "SQUEEZE": squeeze, "SQUEEZE_DIM": squeeze, "SQUEEZE_DIMS": squeeze, "AS_STRIDED": as_strided,
    "DIAGONAL": diagonal, "UNFOLD": unfold, "ISIN": isin, "TOPK": topk, "SORT": sort,
    **network.MAKERS,
    **dict.fromkeys(["SUM", "MEAN", "MAX", "MIN", "ANY", "ALL", "PROD"], reduce_all),
    **dict.fromkeys(["SUM_DIM", "MEAN_DIM", "AMAX", "AMIN", "MAX_DIM", "MIN_DIM", "ARGMAX", "ARGMIN", "ANY_DIM", "ALL_DIM", "CUMSUM",
                     "VAR", "NORM_DIM"], reduce),
    **dict.fromkeys(["MM", "ADDMM", "BMM", "BADDBMM", "DOT", "MV"], matmul),
}  # fmt: skip


def make(row: Row, draw: Draw):
    """Arguments in the row's order, and the dtype asked for."""
    return MAKERS.get(row.name, pointwise)(row, draw)
