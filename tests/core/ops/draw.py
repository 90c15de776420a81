"""Random calls: shapes of sizes 0 to 3 on every dimension, every kind of stride, and dtypes; reproducible from a seed."""

from __future__ import annotations

import random

import torch

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
INTS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
ALL = [*FLOATS, *INTS, torch.bool]


class Draw:
    """Random shapes, strides and tensors; reproducible from its seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)

    def chance(self, p: float) -> bool:
        return self.random.random() < p

    def pick(self, items):
        return self.random.choice(list(items))

    def int(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def size(self) -> int:
        return self.pick([0, 1, 1, 2, 2, 3, 3, 3])

    def shape(self, low: int = 0, high: int = 5) -> list[int]:
        return [self.size() for _ in range(self.int(low, high))]

    def dtype(self) -> torch.dtype:
        return self.pick([torch.float32] * 6 + ALL)

    def float(self) -> torch.dtype:
        return self.pick([torch.float32] * 4 + FLOATS)

    def scalar(self):
        return self.pick([True, 2, -1, 0, 1, 0.5, 2.0])

    def fill(self, shape, dtype: torch.dtype) -> torch.Tensor:
        return torch.randint(0, 3, tuple(shape), generator=self.generator).to(dtype)

    def tensor(self, shape, dtype: torch.dtype | None = None, plain: float = 0.35) -> torch.Tensor:
        """A tensor of `shape`, contiguous with probability `plain`, else permuted, sliced, expanded or channels_last."""
        dtype = dtype or self.dtype()
        shape = list(shape)
        rank = len(shape)
        if rank == 0 or self.chance(plain):
            return self.fill(shape, dtype)
        kind = self.pick(["permute", "permute", "slice", "expand", "last", "odd", "mixed"])
        if kind in ("permute", "mixed"):
            order = list(range(rank))
            self.random.shuffle(order)
            out = self.fill([shape[i] for i in order], dtype).permute([order.index(i) for i in range(rank)])
            if kind == "mixed":
                out = self.tensor([*shape[:-1], shape[-1] * 2], dtype, 0.2)[..., ::2]
            return out
        if kind == "slice":
            dim, step, start = self.int(0, rank - 1), self.int(1, 2), self.int(0, 1)
            wide = shape.copy()
            wide[dim] = shape[dim] * step + start
            return self.fill(wide, dtype).narrow(dim, start, shape[dim] * step)[(slice(None),) * dim + (slice(None, None, step),)]
        if kind == "expand":
            return self.fill([1 if self.chance(0.4) else s for s in shape], dtype).expand(shape)
        if kind == "last" and rank in (4, 5):
            form = torch.channels_last if rank == 4 else torch.channels_last_3d
            return self.fill(shape, dtype).contiguous(memory_format=form)
        if kind == "odd":
            base = self.fill(shape, dtype)
            strides = [self.pick([0, 1, 2, 7]) if s == 1 else st for s, st in zip(shape, base.stride(), strict=True)]
            return base.as_strided(shape, strides)
        return self.fill(shape, dtype)

    def broadcastable(self, shape) -> list[int]:
        shape = [1 if self.chance(0.3) else s for s in shape]
        return shape[self.int(0, len(shape)) if self.chance(0.4) else 0 :]

    def dim(self, rank: int) -> int:
        limit = max(rank, 1)
        return self.int(-limit - 1, limit) if self.chance(0.1) else self.int(-limit, limit - 1)

    def dims(self, rank: int) -> list[int]:
        some = self.random.sample(range(rank), self.int(0, rank)) if rank else []
        some = [d - rank if self.chance(0.3) else d for d in some]
        return some + [0] if self.chance(0.05) else some

    def bool(self) -> bool:
        return self.chance(0.5)

    def index(self, shape, limit: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        """Indices below `limit`; zeros where the tensor is not contiguous, so that elements may overlap."""
        out = self.tensor(shape, dtype)
        if out.is_contiguous():
            return out.remainder_(max(limit, 1))
        whole = torch.zeros(out.untyped_storage().nbytes() // out.element_size(), dtype=dtype)
        return whole.as_strided(out.size(), out.stride(), out.storage_offset())
