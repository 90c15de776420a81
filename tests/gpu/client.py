"""One program on one device; prints one line of JSON: a digest, the values, the milliseconds of each round.

    client.py --model gpt2 --device remote_accelerator --tokens 32 [--dtype bfloat16] [--compile default] [--out FILE]

With ``--tokens`` it decodes greedily behind a prompt, else it runs a forward ``--rounds`` times. Every round ends with its value in Python.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import models  # noqa: E402
import torch  # noqa: E402


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two tokens")
    parser.add_argument("--compile", default=None, help="a mode of torch.compile")
    parser.add_argument("--out", default=None, help="file for the last values")
    return parser.parse_args()


def decode(model, step, x, given) -> tuple[list[int], torch.Tensor, list[float]]:  # noqa: ANN001
    logits, cache = model.step(x)
    ids, tokens, times = models.first_token(logits), [], []
    for _ in range(given.tokens):
        begun = time.perf_counter()
        tokens.append(ids.flatten().tolist())
        print(json.dumps({"token": len(tokens)}), flush=True)
        logits, cache = step(ids, cache)
        ids = models.first_token(logits)
        times.append(1000 * (time.perf_counter() - begun))
        time.sleep(given.pause)
    return tokens, logits.float().cpu(), times[1:]


def forward(model, x, given) -> tuple[list, torch.Tensor, list[float]]:  # noqa: ANN001
    times = []
    for _ in range(given.rounds + 2):
        begun = time.perf_counter()
        value = model(x)
        value = value.float().cpu()
        times.append(1000 * (time.perf_counter() - begun))
    return [], value, times[2:]


def main() -> None:
    given = options()
    if given.device == "remote_accelerator":
        import djinn

        djinn.init()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model = models.make(given.model).to(getattr(torch, given.dtype))
    x = models.inputs(given.model, given.batch, given.prompt)
    if x.is_floating_point():
        x = x.to(getattr(torch, given.dtype))
    model, x = model.to(given.device), x.to(given.device)
    with torch.no_grad():
        step, whole = getattr(model, "step", None), model
        if given.compile and given.tokens:
            step = torch.compile(step, mode=given.compile, dynamic=True)
        elif given.compile:
            whole = torch.compile(model, mode=given.compile)
        tokens, value, times = decode(model, step, x, given) if given.tokens else forward(whole, x, given)
    if given.out:
        torch.save({"tokens": tokens, "value": value}, given.out)
    value = value.contiguous()
    digest = hashlib.sha256(repr(tokens).encode() + ctypes.string_at(value.data_ptr(), value.nbytes)).hexdigest()
    times.sort()
    middle, high = (statistics.median(times), times[int(len(times) * 0.95)]) if times else (None, None)
    print(json.dumps({"digest": digest, "median_ms": middle, "p95_ms": high}))


if __name__ == "__main__":
    main()
