"""Values of several sizes go from one device to another and back; prints a line of JSON: how many, whether all came whole, the milliseconds of the largest."""

from __future__ import annotations

import json
import sys
import time

import djinn
import torch

SIZES = [1, 1000, 1 << 16, 1 << 22, int(sys.argv[1])]  # floats


def main() -> None:
    djinn.init()
    torch.manual_seed(0)
    first, second = "remote_accelerator:0", "remote_accelerator:1"
    is_whole, took_ms = True, 0.0
    for size in SIZES:
        local = torch.randn(size)
        here = local.to(first) * 2
        here[0].item()
        begun = time.perf_counter()
        there = here.to(second)
        there[size // 2].item()
        took_ms = 1000 * (time.perf_counter() - begun)
        back = (there + 1).to(first) - here
        is_whole &= torch.equal(there.cpu(), local * 2) and torch.equal(back.cpu(), (local * 2 + 1) - local * 2)
    print(json.dumps({"values": 2 * len(SIZES), "bytes": 4 * 2 * sum(SIZES), "is_whole": is_whole, "largest_ms": took_ms}))


if __name__ == "__main__":
    main()
