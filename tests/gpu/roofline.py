"""What this device can do at most, through torch: bytes a second read only, bytes a second copied (read and written, both counted), products a second.

    roofline.py cuda|cpu

Prints a line of JSON. Each figure is the best of several runs over data that no cache holds, timed by the device's events where there are any.
"""

from __future__ import annotations

import json
import sys
import time

import torch

device = sys.argv[1]
is_gpu = device == "cuda"


def best_s(work, runs: int = 12) -> float:  # noqa: ANN001
    best = float("inf")
    for _ in range(runs):
        if is_gpu:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            work()
            end.record()
            end.synchronize()
            best = min(best, begin.elapsed_time(end) / 1000)
        else:
            begun = time.perf_counter()
            work()
            best = min(best, time.perf_counter() - begun)
    return best


def rate(dtype: torch.dtype) -> float:
    n = 8192 if is_gpu else 256
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return 2 * n**3 / best_s(lambda: a @ b, 6)


def memory() -> dict:
    count = (1 << 30) if is_gpu else (1 << 22)
    data = torch.ones(count, dtype=torch.float32, device=device)
    other = torch.empty_like(data)
    reads = min(best_s(data.sum), best_s(data.amax))
    return {"read_bytes_per_s": 4 * count / reads, "copy_bytes_per_s": 8 * count / best_s(lambda: other.copy_(data))}


torch.backends.cuda.matmul.allow_tf32 = False
print(json.dumps(memory() | {"float32_flops": rate(torch.float32), "bfloat16_flops": rate(torch.bfloat16)}))
