"""The op table's inference against PyTorch: sizes, strides, dtypes, view offsets and refusals, on generated calls.

The reference is PyTorch's meta kernel. Some meta kernels are Python decompositions whose strides differ from what the eager kernels
return; the rows in EAGER follow the eager CPU kernel there, and one that neither explains is a failure. A call that PyTorch's meta
kernel takes but its CPU kernel refuses (a dtype without a kernel) may be refused.
"""

from __future__ import annotations

import os
import warnings
import zlib

import pytest
import torch
from cases import MAKERS, make
from draw import ALL, Draw
from oplib import Library, Out, Refused, Row, Scalar

warnings.filterwarnings("ignore")

CASES = int(os.environ.get("DJINN_META_CASES", "120"))
SEED = int(os.environ.get("DJINN_META_SEED", "1"))
LIBRARY = Library()
ROWS = {row.name: row for row in LIBRARY.rows}

EAGER = {
    *("MASKED_FILL", "MASKED_FILL_TENSOR", "FILL", "FILL_TENSOR", "COPY_INTO", "INDEX", "INDEX_PUT", "TRIL", "TRIU", "FLIP"),
    *("SUM_DIM", "AMAX", "AMIN", "VAR", "MEAN_DIM", "NORM_DIM", "ISIN", "SORT", "ARANGE", "INDEX_ADD"),
    *("LOG_SOFTMAX", "SOFTMAX", "LAYER_NORM", "BATCH_NORM", "GROUP_NORM", "CONVOLUTION", "SDPA", "DROPOUT"),
    *("LOG_SOFTMAX_BACKWARD", "SOFTMAX_BACKWARD", "LAYER_NORM_BACKWARD", "LAYER_NORM_BACKWARD_PARAMS", "GROUP_NORM_BACKWARD"),
    *("BATCH_NORM_TRAIN", "BATCH_NORM_BACKWARD", "NLL_LOSS", "DROPOUT_BACKWARD"),
}

# A new value here has no gaps, so these give empty_like()'s strides for inputs that are not dense, where PyTorch keeps the gaps.
NO_GAPS = {"SLICE_SCATTER", "SELECT_SCATTER"}


def reference(row: Row, args: list):
    """The callable that PyTorch has for a row, taking the row's arguments; rows lowered by hand have one written out here."""
    if row.name in MANUAL:
        return MANUAL[row.name]
    packet, _, overload = row.aten.partition(".")
    if row.name == "CONVOLUTION":
        return torch.ops.aten.convolution.default
    if any(isinstance(a, Scalar) for a in args):
        overload = {"WHERE": "ScalarOther", "DIV_MODE": "Scalar_mode"}.get(row.name, "Scalar")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def _sdpa(query, key, value, mask, is_causal, scale):
    if query.device.type == "cpu":  # there is no CPU kernel, but its meta kernel's allocation, which differs on meta tensors
        alloc = torch._meta_registrations.alloc_with_matching_layout
        lead = query.shape if query.dim() == 4 else (1, *query.shape)
        return alloc(query, (*query.shape[:-1], value.shape[-1])), torch.empty(lead[:3])
    out = torch.ops.aten._scaled_dot_product_fused_attention_overrideable(
        query, key, value, mask, 0.0, is_causal, False, scale=scale
    )
    return out[0], out[1]


def _isin(self, test, assume_unique, invert):
    try:
        return torch.ops.aten.isin.Tensor_Tensor(self, test, assume_unique=assume_unique, invert=invert)
    except RuntimeError as error:  # the CPU kernel views what cannot be viewed
        if "view size" not in str(error):
            raise
        return torch.ops.aten.isin.Tensor_Tensor(self.contiguous(), test.contiguous(), assume_unique=assume_unique, invert=invert)


def _create(function):
    return lambda *args, dtype, device: function(*args, dtype=dtype, device=device)


def _layer_norm_backward(grad, self, mean, rstd, weight, shape):
    mask = [True, False, False]
    return torch.ops.aten.native_layer_norm_backward(grad, self, shape, mean, rstd, weight, None, mask)[0]


def _layer_norm_backward_params(grad, self, mean, rstd, shape):
    weight = torch.ones(shape, dtype=self.dtype, device=self.device)
    return torch.ops.aten.native_layer_norm_backward(grad, self, shape, mean, rstd, weight, weight, [False, True, True])[1:]


def _batch_norm_train(self, weight, bias, eps):
    out, mean, rstd = torch.ops.aten.native_batch_norm(self, weight, bias, None, None, True, 0.1, eps)
    return out, mean, rstd, torch.empty_like(mean)


def _batch_norm_backward(grad, self, weight, mean, rstd, is_training):
    statistics = [mean, rstd, mean, rstd]
    return torch.ops.aten.native_batch_norm_backward(grad, self, weight, *statistics, is_training, 1e-5, [True] * 3)


def _group_norm_backward(grad, self, mean, rstd, weight, n, c, hxw, group):
    return torch.ops.aten.native_group_norm_backward(grad, self, mean, rstd, weight, n, c, hxw, group, [True] * 3)


def _convolution_backward(which):
    mask = [which == 0, which == 1, False]
    return lambda grad, self, weight, *window: torch.ops.aten.convolution_backward(grad, self, weight, None, *window, mask)[which]


GRADIENTS = {
    "LAYER_NORM_BACKWARD": _layer_norm_backward,
    "LAYER_NORM_BACKWARD_PARAMS": _layer_norm_backward_params,
    "BATCH_NORM_TRAIN": _batch_norm_train,
    "BATCH_NORM_BACKWARD": _batch_norm_backward,
    "GROUP_NORM_BACKWARD": _group_norm_backward,
    "CONVOLUTION_BACKWARD_INPUT": _convolution_backward(0),
    "CONVOLUTION_BACKWARD_WEIGHT": _convolution_backward(1),
}

MANUAL = {
    "FULL": _create(lambda size, value, **k: torch.full(size, value, **k)),
    "ARANGE": _create(lambda start, end, step, **k: torch.arange(start, end, step, **k)),
    "UNIFORM": _create(lambda size, low, high, seed, offset, **k: torch.empty(size, **k)),
    "NORMAL": _create(lambda size, mean, std, seed, offset, **k: torch.empty(size, **k)),
    "BERNOULLI": _create(lambda size, p, seed, offset, **k: torch.empty(size, **k)),
    "RANDINT": _create(lambda size, low, high, seed, offset, **k: torch.randint(low, high, size, **k)),
    "EYE": _create(lambda size, **k: torch.eye(*size, **k)),
    "MULTINOMIAL": lambda self, count, replacement, seed, offset: torch.multinomial(self, count, replacement),
    "COPY_INTO": lambda self, src: self.clone().copy_(src),
    "BATCH_NORM": lambda self, weight, bias, mean, var, eps: torch.native_batch_norm(
        self, weight, bias, mean, var, False, 0.1, eps
    )[0],
    "SDPA": _sdpa,
    "ISIN": _isin,
    **GRADIENTS,
    "DROPOUT": lambda self, p, seed, offset: 2 * (torch.native_dropout(self, p, True)[0],),
}
CREATES = {"FULL", "ARANGE", "UNIFORM", "NORMAL", "BERNOULLI", "RANDINT", "EYE"}


def on_meta(value):
    if isinstance(value, torch.Tensor):
        return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="meta")
    return [on_meta(v) for v in value] if isinstance(value, list) else value


def plain(value):
    return value.value if isinstance(value, Scalar) else [plain(v) for v in value] if isinstance(value, list) else value


def run(row: Row, args: list, dtype: torch.dtype | None, device: str) -> list[Out] | str:
    """What PyTorch returns on `device`, or the text with which it refuses."""
    function = reference(row, args)
    kinds = {"dtype": dtype, "device": device} if row.name in CREATES else {}
    args = [plain(on_meta(a) if device == "meta" else a) for a in args]
    schema = getattr(function, "_schema", None)
    if schema is not None:
        kinds = kinds | {a.name: v for a, v in zip(schema.arguments, args, strict=True) if a.kwarg_only}
        args = [v for a, v in zip(schema.arguments, args, strict=True) if not a.kwarg_only]
    try:
        result = function(*args, **kinds)
    except Exception as error:  # any refusal counts
        return f"{type(error).__name__}: {error}"
    if row.name == "DROPOUT":
        result = (result[0], torch.empty_like(result[1], dtype=torch.bool))
    if row.name in NO_GAPS:
        dense = torch.empty_like(torch.empty_strided(args[0].size(), args[0].stride(), dtype=args[0].dtype))
        result = result if dense.stride() == args[0].stride() else dense
    outs = result if isinstance(result, (tuple, list)) else [result]
    start = args[0].storage_offset() if row.is_view else 0
    return [Out(tuple(o.size()), tuple(o.stride()), o.dtype, o.storage_offset() - start if row.is_view else 0) for o in outs]


def text(value) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype)[6:]}{list(value.size())}@{list(value.stride())}"
    return (
        "[" + ", ".join(map(text, value)) + "]"
        if isinstance(value, list) and value and not isinstance(value[0], int)
        else repr(value)
    )


def is_pointwise(row: Row) -> bool:
    return row.name not in MAKERS or row.name == "WHERE"


def restrided(value, dtype: torch.dtype):
    """The same tensor in another dtype and the same strides."""
    if not isinstance(value, torch.Tensor):
        return value
    whole = torch.ones(value.untyped_storage().nbytes() // value.element_size(), dtype=dtype)
    return whole.as_strided(value.size(), value.stride(), value.storage_offset())


def uniform(row: Row, args: list, dtype: torch.dtype | None, meta: list[Out]) -> list[Out] | None:
    """What TensorIterator gives where no input must be converted: the CPU converts inputs first, and so lays them out anew, which a
    device does not. Strides of a run in one dtype, dtypes of the meta kernel."""
    first = 1 if row.name == "WHERE" else 0
    for kind in (LIBRARY.compute_dtype(row, args), torch.float32):
        same = run(row, [*args[:first], *(restrided(a, kind) for a in args[first:])], dtype, "cpu")
        if isinstance(same, list):
            return [Out(s.size, s.stride, m.dtype) for s, m in zip(same, meta, strict=True)]
    return None


def either_format(row: Row, mine: list[Out], theirs: list[Out]) -> list[Out]:
    """3-D and empty convolutions are channels_last by the backend's taste: cuDNN and oneDNN follow inputs, other kernels do not."""
    if row.name != "CONVOLUTION" or len(mine[0].size) == 3 or (len(mine[0].size) == 4 and 0 not in mine[0].size):
        return theirs
    form = torch.channels_last_3d if len(mine[0].size) == 5 else torch.channels_last
    return [Out(theirs[0].size, torch.empty(theirs[0].size, memory_format=form).stride(), theirs[0].dtype)]


def judge(row: Row, args: list, dtype: torch.dtype | None) -> tuple[str, str]:
    """("meta" | "eager" | "strict" | "refused" | "wrong", explanation)"""
    try:
        mine: list[Out] | str = LIBRARY.infer(row, args, dtype)
    except Refused as refusal:
        mine = str(refusal)
    meta = run(row, args, dtype, "meta")
    if isinstance(mine, list) and mine == meta:
        return "meta", ""
    if isinstance(mine, str) and isinstance(meta, str):
        return "refused", ""
    eager = run(row, args, dtype, "cpu")
    explanation = f"{row.name}({', '.join(map(text, args))}) dtype={dtype}\n  mine  {mine}\n  meta  {meta}\n  eager {eager}"
    if isinstance(mine, str):
        # Eager kernels meet a dtype that they do not have only where there is an element to compute.
        is_empty = (
            any(isinstance(a, torch.Tensor) and a.numel() == 0 for a in args) and "does not compute with this dtype" in mine
        )
        return ("strict" if isinstance(eager, str) or is_empty else "wrong"), explanation
    for theirs in (eager, meta):
        if isinstance(theirs, list) and mine in (theirs, either_format(row, mine, theirs)):
            return "eager", explanation
    if isinstance(meta, list) and is_pointwise(row) and mine == uniform(row, args, dtype, meta):
        return "eager", explanation
    if row.name == "CONVOLUTION" and 0 in mine[0].size:  # which of PyTorch's kernels take an empty output is chance
        return "strict", explanation
    return "wrong", explanation


TOTAL: dict[str, int] = {}
REPORT: list[str] = []


@pytest.mark.parametrize("name", list(ROWS))
def test_inference_gives_what_pytorch_gives(name: str) -> None:
    row, counts, examples = ROWS[name], {}, {}
    for case in range(CASES):
        draw = Draw(zlib.crc32(f"{name} {SEED} {case}".encode()))
        args, dtype = make(row, draw)
        verdict, explanation = judge(row, args, dtype)
        counts[verdict] = counts.get(verdict, 0) + 1
        examples.setdefault(verdict, explanation)
    TOTAL.update({k: TOTAL.get(k, 0) + v for k, v in counts.items()})
    REPORT.append(f"{name}: {counts}")
    assert "wrong" not in counts, f"{counts}\n{examples['wrong']}"
    assert name in EAGER or is_pointwise(row) or "eager" not in counts, (
        f"{counts}: differs from the meta kernel\n{examples['eager']}"
    )
    assert counts.get("meta", 0) + counts.get("eager", 0) >= CASES // 4, f"too few calls were valid: {counts}"


def test_promotion_is_pytorchs() -> None:
    dtypes = [*ALL, torch.complex64, torch.complex128]
    for a in dtypes:
        for b in dtypes:
            assert LIBRARY.promote(a, b) == torch.promote_types(a, b), (a, b)


def test_the_compute_dtype_is_the_promoted_one_whatever_is_asked_for() -> None:
    add, less = ROWS["ADD"], ROWS["LT_SCALAR"]
    for a in ALL:
        for b in ALL:
            for x, y in ((torch.zeros(2, dtype=a), torch.zeros((), dtype=b)), (torch.zeros(2, dtype=a), torch.zeros(2, dtype=b))):
                assert LIBRARY.compute_dtype(add, [x, y, 1], torch.float16) == torch.result_type(x, y)
        for number in (True, 3, 2.5):
            x = torch.zeros(2, dtype=a)
            assert LIBRARY.compute_dtype(less, [x, number]) == torch.result_type(x, number)
            assert LIBRARY.compute_dtype(add, [x, Scalar(number), 1]) == torch.result_type(x, number)


def test_every_row_was_compared(capsys: pytest.CaptureFixture) -> None:
    """Prints what was compared; runs last."""
    with capsys.disabled():
        print(f"\n{sum(TOTAL.values())} calls of {len(REPORT)} ops compared with PyTorch {torch.__version__}: {TOTAL}")
