"""The CPU kernel table through ctypes, on the memory of PyTorch tensors.

`call` infers the outputs with core/ops, runs one kernel and returns new tensors. DJINN_KERNELS_LIB names the library (the tests'
CMakeLists.txt builds it); without it build/lib/libdjinn_kernels_test.so is taken. DJINN_KERNELS_ALSO names another one, which `check` (cases.py) compares the
first with. A sanitizer's build cannot be loaded here.
"""

from __future__ import annotations

import ctypes
import os
import pathlib

import torch

RANK_MAX = 8
DTYPES = {
    torch.bool: 1,
    torch.uint8: 2,
    torch.int8: 3,
    torch.int16: 4,
    torch.int32: 5,
    torch.int64: 6,
    torch.float16: 7,
    torch.bfloat16: 8,
    torch.float32: 9,
    torch.float64: 10,
    torch.complex64: 11,
    torch.complex128: 12,
}
TORCH_DTYPES = {number: dtype for dtype, number in DTYPES.items()}
ABSENT, INT, BOOL, FLOAT, INTS = range(5)


class FlatTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_int64),
        ("dtype", ctypes.c_int64),
        ("rank", ctypes.c_int64),
        ("is_scalar", ctypes.c_int64),
        ("constant_key", ctypes.c_int64),
        ("size", ctypes.c_int64 * RANK_MAX),
        ("stride", ctypes.c_int64 * RANK_MAX),
    ]


class FlatAttr(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_int64),
        ("i", ctypes.c_int64),
        ("f", ctypes.c_double),
        ("count", ctypes.c_int64),
        ("first", ctypes.c_int64),
    ]


class FlatCall(ctypes.Structure):
    _fields_ = [
        ("op", ctypes.c_int64),
        ("n_in", ctypes.c_int64),
        ("n_out", ctypes.c_int64),
        ("n_attr", ctypes.c_int64),
        ("dtype", ctypes.c_int64),
        ("compute", ctypes.c_int64),
        ("threads", ctypes.c_int64),
        ("repeat", ctypes.c_int64),
        ("inputs", ctypes.POINTER(FlatTensor)),
        ("outputs", ctypes.POINTER(FlatTensor)),
        ("attrs", ctypes.POINTER(FlatAttr)),
        ("ints", ctypes.POINTER(ctypes.c_int64)),
        ("best_ns", ctypes.c_double),
        ("text", ctypes.c_char * 512),
    ]


def _find_library() -> pathlib.Path | None:
    named = os.environ.get("DJINN_KERNELS_LIB")
    if named:
        return pathlib.Path(named)
    built = pathlib.Path(__file__).resolve().parents[3] / "build" / "lib" / "libdjinn_kernels_test.so"
    return built if built.exists() else None


PATH = _find_library()


def _open(path: str) -> ctypes.CDLL:
    library = ctypes.CDLL(path)
    library.harness_numerics.restype = ctypes.c_char_p
    library.harness_op.argtypes = [ctypes.c_char_p]
    return library


LIB = _open(str(PATH)) if PATH else None
ALSO = _open(os.environ["DJINN_KERNELS_ALSO"]) if os.environ.get("DJINN_KERNELS_ALSO") else None


class KernelError(RuntimeError):
    """A kernel's typed refusal: `code` is its number in errors.def (negative: the harness's own)."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class Call:
    """One op with its inputs and attributes, kept alive so that it can be run repeatedly.

    Parameters
    ----------
    op : str
        Name in ops.def ("ADD").
    inputs : list
        Tensors, None for an absent optional, or Python numbers (wrapped scalars).
    attrs : list
        In the order of the signature: None, bool, int, float or list of int.
    dtype : torch.dtype, optional
        The result dtype where the op carries it.
    constant : int, optional
        Index of the input that is a weight.
    lib : ctypes.CDLL, optional
        Whose kernels.
    """

    def __init__(self, op, inputs, attrs=(), dtype=None, threads=1, constant=None, outputs=None, lib=None):
        self.lib = lib or LIB
        self.flat = FlatCall()
        self.flat.op = self.lib.harness_op(op.encode())
        assert self.flat.op > 0, f"no op {op}"
        self.flat.threads = threads
        self.flat.dtype = DTYPES[dtype] if dtype is not None else 0
        self._keep = []
        self._in = (FlatTensor * max(1, len(inputs)))()
        for i, value in enumerate(inputs):
            self._describe(self._in[i], value)
            if i == constant:
                self._in[i].constant_key = value.data_ptr() ^ 0x5BD1E995
        self._out = (FlatTensor * 4)()
        self._attrs = (FlatAttr * max(1, len(attrs)))()
        ints = [int(x) for a in attrs if isinstance(a, (list, tuple)) for x in a]
        self._ints = (ctypes.c_int64 * max(1, len(ints)))(*ints)
        first = 0
        for i, value in enumerate(attrs):
            flat = self._attrs[i]
            if value is None:
                flat.kind = ABSENT
            elif isinstance(value, bool):
                flat.kind, flat.i = BOOL, int(value)
            elif isinstance(value, int):
                flat.kind, flat.i = INT, value
            elif isinstance(value, float):
                flat.kind, flat.f = FLOAT, value
            else:
                flat.kind, flat.count, flat.first = INTS, len(value), first
                first += len(value)
        self.flat.inputs, self.flat.outputs = self._in, self._out
        self.flat.attrs, self.flat.ints = self._attrs, self._ints
        self.flat.n_in, self.flat.n_attr = len(inputs), len(attrs)
        self._make_outputs(outputs)

    def _describe(self, flat: FlatTensor, value) -> None:
        if value is None:
            return
        if not isinstance(value, torch.Tensor):
            kind = torch.bool if isinstance(value, bool) else torch.int64 if isinstance(value, int) else torch.float64
            value = torch.tensor(value, dtype=kind)
            flat.is_scalar = 1
        self._keep.append(value)
        flat.data = value.data_ptr()
        flat.dtype = DTYPES[value.dtype]
        flat.rank = value.dim()
        for d in range(value.dim()):
            flat.size[d], flat.stride[d] = value.shape[d], value.stride(d)

    def _make_outputs(self, outputs) -> None:
        if outputs is None:
            error = self.lib.harness_infer(ctypes.byref(self.flat))
            if error:
                raise KernelError(error, self.flat.text.decode())
            outputs = []
            for i in range(self.flat.n_out):
                out = self._out[i]
                size, stride = list(out.size)[: out.rank], list(out.stride)[: out.rank]
                outputs.append(torch.empty_strided(size, stride, dtype=TORCH_DTYPES[out.dtype]))
        self.outputs = outputs
        self.flat.n_out = len(outputs)
        for i, out in enumerate(outputs):
            if out.numel():  # garbage that a forgotten element would show
                bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(out.element_size())
                if bits is not None and out.dtype != torch.bool:
                    out.view(bits).fill_(0x55)
            self._describe(self._out[i], out)

    def run(self, repeat: int = 1):
        self.flat.repeat = repeat
        error = self.lib.harness_call(ctypes.byref(self.flat))
        if error:
            raise KernelError(error, self.flat.text.decode())
        return self.outputs


def call(op, inputs, attrs=(), dtype=None, threads=1, constant=None, outputs=None, lib=None):
    """Runs one op; see Call. Returns its outputs as a list of tensors."""
    return Call(op, inputs, attrs, dtype, threads, constant, outputs, lib).run()
