"""The CPU kernels against PyTorch eager in the same run, calls interleaved: time of the fastest call of each, and their ratio.

Run: build/venv/bin/python tests/bench/kernels.py [--threads N] [--seconds S] [pattern]
"""

from __future__ import annotations

import argparse
import math
import pathlib
import platform
import sys
import time

import torch
import torch.nn.functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "gpu_worker" / "kernels"))
from kernel_library import LIB, Call  # noqa: E402


def product(m, k, n, layout):
    x, bias = torch.randn(m, k), torch.randn(n)
    weight = torch.randn(k, n) if layout == "kn" else torch.randn(n, k).t()
    return Call("ADDMM", [bias, x, weight], [1, 1], threads=THREADS, constant=2), lambda: torch.addmm(bias, x, weight)


def batched(b, m, k, n):
    x, y = torch.randn(b, m, k), torch.randn(b, n, k).transpose(1, 2)
    return Call("BMM", [x, y], threads=THREADS), lambda: torch.bmm(x, y)


def attention(heads, queries, keys, depth, causal=False, masked=False):
    q, k, v = (torch.randn(1, n, heads, depth).transpose(1, 2) for n in (queries, keys, keys))
    if queries == 1:
        k, v = torch.randn(1, heads, keys + 20, depth)[:, :, :keys], torch.randn(1, heads, keys + 20, depth)[:, :, :keys]
    mask = torch.zeros(1, 1, queries, keys) if masked else None
    return (
        Call("SDPA", [q, k, v, mask], [causal, None], threads=THREADS),
        lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal),
    )


def convolution(channels, outputs, size, kernel, stride, batch=1):
    x, w = torch.randn(batch, channels, size, size), torch.randn(outputs, channels, kernel, kernel)
    pad = [kernel // 2] * 2 if kernel < 16 else [0, 0]
    call = Call("CONVOLUTION", [x, w, None], [[stride] * 2, pad, [1, 1], False, [0, 0], 1], threads=THREADS, constant=1)
    return call, lambda: F.conv2d(x, w, None, stride, pad)


def unary(op, function, shape, attrs=()):
    x = torch.randn(shape)
    return Call(op, [x], list(attrs), threads=THREADS), lambda: function(x)


def binary(op, function, left, right, attrs=()):
    x, y = torch.randn(left), torch.randn(right)
    return Call(op, [x, y], list(attrs), threads=THREADS), lambda: function(x, y)


def layer_norm(rows, n):
    x, w, b = torch.randn(1, rows, n), torch.randn(n), torch.randn(n)
    return Call("LAYER_NORM", [x, w, b], [[n], 1e-5], threads=THREADS), lambda: F.layer_norm(x, [n], w, b, 1e-5)


def batch_norm(channels, size):
    x = torch.randn(1, channels, size, size)
    w, b, mean, var = (torch.rand(channels) + 0.5 for _ in range(4))
    return (
        Call("BATCH_NORM", [x, w, b, mean, var], [1e-5], threads=THREADS),
        lambda: F.batch_norm(x, mean, var, w, b, False, 0.1, 1e-5),
    )


def max_pool():
    x = torch.randn(1, 64, 112, 112)
    return (
        Call("MAX_POOL2D", [x], [[3, 3], [2, 2], [1, 1], [1, 1], False], threads=THREADS),
        lambda: F.max_pool2d(x, 3, 2, 1),
    )


CASES = {
    "gemv 768x2304 kn": lambda: product(1, 768, 2304, "kn"),
    "gemv 768x768 kn": lambda: product(1, 768, 768, "kn"),
    "gemv 768x3072 kn": lambda: product(1, 768, 3072, "kn"),
    "gemv 3072x768 kn": lambda: product(1, 3072, 768, "kn"),
    "gemv 768x3072 nk": lambda: product(1, 768, 3072, "nk"),
    "gemv 3072x768 nk": lambda: product(1, 3072, 768, "nk"),
    "gemv 768x50257 nk": lambda: product(1, 768, 50257, "nk"),
    "gemv 768x50257 kn": lambda: product(1, 768, 50257, "kn"),
    "gemm 4x768x2304 kn": lambda: product(4, 768, 2304, "kn"),
    "gemm 8x768x2304 kn": lambda: product(8, 768, 2304, "kn"),
    "gemm 32x768x2304 kn": lambda: product(32, 768, 2304, "kn"),
    "gemm 128x768x2304 kn": lambda: product(128, 768, 2304, "kn"),
    "gemm 128x768x3072 nk": lambda: product(128, 768, 3072, "nk"),
    "gemm 128x3072x768 nk": lambda: product(128, 3072, 768, "nk"),
    "gemm 128x768x768 nk": lambda: product(128, 768, 768, "nk"),
    "gemm 128x384x384 nk": lambda: product(128, 384, 384, "nk"),
    "gemm 197x768x3072 nk": lambda: product(197, 768, 3072, "nk"),
    "gemm 128x768x50257 nk": lambda: product(128, 768, 50257, "nk"),
    "gemm 1024x1024x1024 nk": lambda: product(1024, 1024, 1024, "nk"),
    "bmm 12x128x64x128": lambda: batched(12, 128, 64, 128),
    "attention 12x1x128x64": lambda: attention(12, 1, 128, 64),
    "attention 12x1x1024x64": lambda: attention(12, 1, 1024, 64),
    "attention 12x128x128x64 causal": lambda: attention(12, 128, 128, 64, True),
    "attention 12x128x128x64": lambda: attention(12, 128, 128, 64),
    "attention 12x128x128x64 mask": lambda: attention(12, 128, 128, 64, False, True),
    "attention 12x128x128x32": lambda: attention(12, 128, 128, 32),
    "attention 12x197x197x64": lambda: attention(12, 197, 197, 64),
    "layer norm 1x768": lambda: layer_norm(1, 768),
    "layer norm 128x768": lambda: layer_norm(128, 768),
    "gelu erf 128x3072": lambda: unary("GELU", F.gelu, (128, 3072), [0]),
    "gelu tanh 128x3072": lambda: unary("GELU", lambda x: F.gelu(x, approximate="tanh"), (128, 3072), [1]),
    "tanh 128x3072": lambda: unary("TANH", torch.tanh, (128, 3072)),
    "relu 64x112x112": lambda: unary("RELU", torch.relu, (64, 112, 112)),
    "softmax 12x128x128": lambda: unary("SOFTMAX", lambda x: F.softmax(x, -1), (12, 128, 128), [-1, False]),
    "add 128x768": lambda: binary("ADD", torch.add, (128, 768), (128, 768), [1]),
    "add 256x56x56": lambda: binary("ADD", torch.add, (256, 56, 56), (256, 56, 56), [1]),
    "mul 1x768": lambda: binary("MUL", torch.mul, (1, 768), (1, 768)),
    "transpose copy 12x128x64": lambda: (
        (x := torch.randn(1, 128, 12, 64).transpose(1, 2)) is not None
        and (Call("CLONE", [x], [0], threads=THREADS), lambda: x.contiguous())
    ),
    "cat 12x128x64 + 1": lambda: (
        (x := torch.randn(1, 12, 128, 64)) is not None
        and (y := torch.randn(1, 12, 1, 64)) is not None
        and (Call("CAT", [x, y], [2], threads=THREADS), lambda: torch.cat([x, y], 2))
    ),
    "argmax 50257": lambda: unary("ARGMAX", lambda x: x.argmax(-1), (1, 50257), [-1, False]),
    "conv 3>64 224 7x7/2": lambda: convolution(3, 64, 224, 7, 2),
    "conv 64>64 56 1x1": lambda: convolution(64, 64, 56, 1, 1),
    "conv 64>64 56 3x3": lambda: convolution(64, 64, 56, 3, 1),
    "conv 64>256 56 1x1": lambda: convolution(64, 256, 56, 1, 1),
    "conv 256>64 56 1x1": lambda: convolution(256, 64, 56, 1, 1),
    "conv 128>128 56 3x3/2": lambda: convolution(128, 128, 56, 3, 2),
    "conv 256>512 56 1x1/2": lambda: convolution(256, 512, 56, 1, 2),
    "conv 128>128 28 3x3": lambda: convolution(128, 128, 28, 3, 1),
    "conv 512>128 28 1x1": lambda: convolution(512, 128, 28, 1, 1),
    "conv 128>512 28 1x1": lambda: convolution(128, 512, 28, 1, 1),
    "conv 256>256 14 3x3": lambda: convolution(256, 256, 14, 3, 1),
    "conv 1024>256 14 1x1": lambda: convolution(1024, 256, 14, 1, 1),
    "conv 256>1024 14 1x1": lambda: convolution(256, 1024, 14, 1, 1),
    "conv 512>512 7 3x3": lambda: convolution(512, 512, 7, 3, 1),
    "conv 2048>512 7 1x1": lambda: convolution(2048, 512, 7, 1, 1),
    "conv 512>2048 7 1x1": lambda: convolution(512, 2048, 7, 1, 1),
    "conv 3>768 224 16x16/16": lambda: convolution(3, 768, 224, 16, 16),
    "batch norm 256x56x56": lambda: batch_norm(256, 56),
    "max pool 64x112x112": max_pool,
}


def measure(ours, theirs, seconds):
    """Fastest call of each, in alternating bursts. The pause lets the threads of PyTorch's OpenMP, which spin for milliseconds after
    a call, fall asleep: else they would take the cores from whoever comes next."""
    best = [math.inf, math.inf]
    end = time.perf_counter() + seconds
    rounds = 0
    while time.perf_counter() < end or rounds < 3:
        time.sleep(0.02)
        ours.run(5)
        best[0] = min(best[0], ours.flat.best_ns / 1e3)
        for _ in range(5):
            start = time.perf_counter()
            theirs()
            best[1] = min(best[1], (time.perf_counter() - start) * 1e6)
        rounds += 1
    return best


def main() -> None:
    global THREADS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", nargs="?", default="")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.3)
    arguments = parser.parse_args()
    THREADS = arguments.threads
    torch.set_num_threads(THREADS)
    torch.set_grad_enabled(False)
    print(f"{platform.node()}: {LIB.harness_numerics().decode()}; PyTorch {torch.__version__}; {THREADS} threads")
    print(f"{'case':34} {'djinn us':>10} {'torch us':>10} {'ratio':>6}")
    for name, build in CASES.items():
        if arguments.pattern not in name:
            continue
        ours, theirs = build()
        mine, torchs = measure(ours, theirs, arguments.seconds)
        print(f"{name:34} {mine:10.1f} {torchs:10.1f} {mine / torchs:6.2f}")


THREADS = 2
if __name__ == "__main__":
    main()
