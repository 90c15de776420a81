"""The C op table through ctypes: `Library().infer(row, args, dtype)` takes ATen arguments and returns what core/ops infers."""

from __future__ import annotations

import ctypes as c
import os
import pathlib
from dataclasses import dataclass

import torch

RANK_MAX, OUTPUTS_MAX, ATTRS_MAX = 8, 4, 10

DTYPES = [
    None,
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
]
NUMBER = {dtype: i for i, dtype in enumerate(DTYPES)}
ENUMS = {
    "format": {torch.contiguous_format: 0, torch.preserve_format: 1, torch.channels_last: 2, torch.channels_last_3d: 3},
    "approximate": {"none": 0, "tanh": 1},
    "rounding": {None: 0, "trunc": 1, "floor": 2},
}


class Meta(c.Structure):
    _fields_ = [("dtype", c.c_uint32), ("rank", c.c_uint32), ("size", c.c_int64 * RANK_MAX), ("stride", c.c_int64 * RANK_MAX)]


class _Value(c.Union):
    _fields_ = [("i", c.c_int64), ("f", c.c_double), ("ints", c.POINTER(c.c_int64))]


class Attr(c.Structure):
    _anonymous_ = ("value",)
    _fields_ = [("kind", c.c_uint8), ("count", c.c_uint8), ("value", _Value)]


class Call(c.Structure):
    _fields_ = [
        ("op", c.c_void_p),
        ("in_", c.POINTER(Meta)),
        ("in_is_scalar", c.POINTER(c.c_bool)),
        ("n_in", c.c_uint32),
        ("attr", c.POINTER(Attr)),
        ("dtype", c.c_uint32),
        ("default_dtype", c.c_uint32),
    ]


class Result(c.Structure):
    _fields_ = [("out", Meta * OUTPUTS_MAX), ("view_offset", c.c_int64 * OUTPUTS_MAX)]


class Fault(c.Structure):
    _fields_ = [("code", c.c_int), ("text", c.c_char * 512)]


@dataclass(frozen=True)
class Row:
    """One row of ops.def; `args` are (name, kind) with kinds as in op.h, `!` taken off, and `_` for what is not carried."""

    pointer: int
    name: str
    aten: str
    args: tuple[tuple[str, str], ...]
    outputs: int
    is_view: bool


@dataclass(frozen=True)
class Out:
    """Size, stride and dtype of one output; for views the offset from the input's first element, else 0."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    offset: int = 0


class Refused(Exception):
    """The C inference refused the call, with this text."""


class Scalar:
    """A Python number that PyTorch would wrap into a tensor of rank 0."""

    def __init__(self, value: bool | int | float) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Scalar({self.value!r})"


def _meta(tensor: torch.Tensor | Scalar | None) -> Meta:
    if tensor is None:
        return Meta(dtype=0)
    if isinstance(tensor, Scalar):
        kinds = {bool: torch.bool, int: torch.int64, float: torch.float64}
        return Meta(dtype=NUMBER[kinds[type(tensor.value)]], rank=0)
    size, stride = (c.c_int64 * RANK_MAX)(*tensor.size()), (c.c_int64 * RANK_MAX)(*tensor.stride())
    return Meta(dtype=NUMBER[tensor.dtype], rank=tensor.dim(), size=size, stride=stride)


def _attr(name: str, kind: str, value: object, keep: list) -> Attr:
    if kind.startswith("e"):
        return Attr(0) if value is None and kind.endswith("?") else Attr(1, 0, _Value(i=ENUMS[name][value]))
    if value is None:
        return Attr(0)
    if isinstance(value, (list, tuple)):
        ints = (c.c_int64 * max(len(value), 1))(*value)
        keep.append(ints)
        return Attr(4, len(value), _Value(ints=ints))
    if isinstance(value, bool):
        return Attr(2, 0, _Value(i=int(value)))
    if isinstance(value, int) and not kind.startswith("f"):
        return Attr(1, 0, _Value(i=value))
    return Attr(3, 0, _Value(f=float(value)))


class Library:
    def __init__(self) -> None:
        root = pathlib.Path(__file__).resolve().parents[3]
        self._c = c.CDLL(os.environ.get("DJINN_OPS_TEST", str(root / "build/lib/libdjinn_ops_test.so")))
        sizes = (c.c_size_t * 4)()
        self._c.ops_library_init(sizes)
        assert list(sizes) == [c.sizeof(t) for t in (Meta, Attr, Call, Result)], "oplib.py no longer mirrors op.h"
        self._c.ops_library_row.restype = c.c_void_p
        self.rows = [self._row(i) for i in range(self._c.ops_library_count())]

    def _row(self, i: int) -> Row:
        name, aten, signature, outputs, flags = c.c_char_p(), c.c_char_p(), c.c_char_p(), c.c_uint32(), c.c_uint32()
        pointer = self._c.ops_library_row(i, *map(c.byref, (name, aten, signature, outputs, flags)))
        args = []
        for token in signature.value.decode().split():
            arg, _, kind = token.partition(":")
            args.append((arg, kind.lstrip("!") or "_"))
        return Row(pointer, name.value.decode(), aten.value.decode(), tuple(args), outputs.value, bool(flags.value & 2))

    def promote(self, a: torch.dtype, b: torch.dtype) -> torch.dtype:
        return DTYPES[self._c.ops_library_promote(NUMBER[a], NUMBER[b])]

    def _call(self, row: Row, args: list, dtype: torch.dtype | None, keep: list) -> Call:
        inputs, attrs = [], []
        for (name, kind), value in zip(row.args, args, strict=True):
            if kind == "_":
                continue
            if kind in ("T", "T?"):
                inputs.append(value)
            elif kind in ("T[]", "T?[]"):
                inputs.extend(value)
            else:
                attrs.append(_attr(name, kind, value, keep))
        metas = (Meta * max(len(inputs), 1))(*map(_meta, inputs))
        scalars = (c.c_bool * max(len(inputs), 1))(*[isinstance(v, Scalar) for v in inputs])
        values = (Attr * max(len(attrs), 1))(*attrs)
        keep += [metas, scalars, values]
        default = NUMBER[torch.get_default_dtype()]
        return Call(row.pointer, metas, scalars, len(inputs), values, NUMBER[dtype], default)

    def compute_dtype(self, row: Row, args: list, dtype: torch.dtype | None = None) -> torch.dtype | None:
        keep: list = []
        return DTYPES[self._c.ops_library_compute_dtype(c.byref(self._call(row, args, dtype, keep)))]

    def infer(self, row: Row, args: list, dtype: torch.dtype | None = None) -> list[Out]:
        """Infers the outputs for ATen arguments in the row's order; `dtype` is the result dtype asked for.

        Raises
        ------
        Refused
            with the fault's text.
        """
        keep: list = []
        call, result, fault = self._call(row, args, dtype, keep), Result(), Fault()
        error = self._c.ops_library_infer(c.byref(call), c.byref(result), c.byref(fault))
        if error:
            assert fault.code == error and fault.text, "a refusal says why"
            raise Refused(fault.text.decode())
        outs = []
        for i in range(row.outputs):
            m = result.out[i]
            assert self._c.ops_library_check(c.byref(m), None) == 0, f"{row.name}: an output that tensor_check refuses"
            offset = result.view_offset[i] if row.is_view else 0
            outs.append(Out(tuple(m.size[: m.rank]), tuple(m.stride[: m.rank]), DTYPES[m.dtype], offset))
        return outs
