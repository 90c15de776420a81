"""One program on one device; prints a line of JSON for each way of running it: a digest, the milliseconds of each round, where they went.

    client.py --model gpt2 --device remote_accelerator --tokens 32 [--dtype bfloat16] [--out FILE]
    client.py --model gpt2 --device cuda --tokens 32 --how eager,default,reduce-overhead

With ``--tokens`` it decodes greedily behind a prompt, else it runs a forward ``--rounds`` times. Every round ends with its value in Python. The ways are
eager and modes of torch.compile; compiled decoding has a cache of fixed size (models.StaticDecoder), eager and remote decoding one that grows. What is
not counted before: ``--warm`` rounds. TF32 is off everywhere.
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

QUIET_TICKS = 2  # of all processes together in SETTLE_STEP_S
SETTLE_STEP_S = 0.25
REST_S = 0.3  # the worker's file of times is complete after 0.1 s without work


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm", type=int, default=2, help="tokens or forwards before those that count")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two tokens")
    parser.add_argument("--how", default="eager", help="eager and modes of torch.compile, commas between")
    parser.add_argument("--times", default=None, help="the worker's file of times")
    parser.add_argument("--rest-of", default="", help="numbers of the processes that must rest before it counts, commas between")
    parser.add_argument("--rest-most", type=float, default=20.0, help="seconds to wait for that")
    parser.add_argument("--tell", action="store_true", help="a line for each token")
    parser.add_argument("--upcast", action="store_true", help="compute in fp32 with the numbers of --dtype")
    parser.add_argument("--out", default=None, help="file for the last values of the first way")
    return parser.parse_args()


def ticks(pid: str) -> int:
    """Hundredths of a second that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


class Account:
    """What this process, and the worker's device if it writes a file, counted while rounds were measured."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.is_remote, self.file = given.device == "remote_accelerator", given.times
        self.rest_of = given.rest_of.split(",") if given.rest_of else []
        self.rest_most, self.before = given.rest_most, None

    def look(self) -> dict:
        if not self.is_remote:
            return {}
        import djinn

        client = {name: value for name, value in djinn.stats().items() if isinstance(value, int)}
        device = {}
        if self.file:
            time.sleep(REST_S)
            device = json.loads(Path(self.file).read_text())
        return {"client": client, "device": device}

    def begin(self) -> None:
        self.settle()
        self.before = self.look()

    def settle(self) -> None:
        """Weights reach the head's store behind the first results, and take cores for it."""
        end, before = time.monotonic() + self.rest_most, None
        while self.rest_of and time.monotonic() < end:
            now = sum(ticks(pid) for pid in self.rest_of)
            if before is not None and now - before <= QUIET_TICKS:
                break
            before = now
            time.sleep(SETTLE_STEP_S)

    def steps(self, count: int) -> dict:
        """Differences since the beginning, by step."""
        after = self.look()
        told: dict = {"steps": count}
        for part in after:
            now, then = after[part], self.before[part]
            told[part] = {
                name: (value - then.get(name, 0)) / count
                for name, value in now.items()
                if isinstance(value, int) and name != "gpu"
            }
        rows = {}
        for sign, look in ((1, after), (-1, self.before)):
            for row in look.get("device", {}).get("kernels", []):
                key = (row["op"], row["kernel"], (row["bytes"] // max(row["count"], 1)).bit_length())
                sums = rows.setdefault(key, {"op": row["op"], "kernel": row["kernel"], "count": 0, "ns": 0, "bytes": 0})
                for name in ("count", "ns", "bytes"):
                    sums[name] += sign * row[name] / count
        told["kernels"] = [row for row in rows.values() if row["count"] > 0]
        return told


def decode(model, x, given, how, account) -> tuple[list[int], torch.Tensor | None, list[float]]:  # noqa: ANN001
    logits, cache = model.step(x)
    ids, tokens, times, static = models.first_token(logits), [], [], None
    if how != "eager":
        static = models.StaticDecoder(model, cache, given.prompt + given.warm + given.tokens)
        static = torch.compile(static, mode=how, fullgraph=True)
    for i in range(given.warm + given.tokens):
        if i == given.warm:
            account.begin()
        begun = time.perf_counter()
        if static is not None:
            ids = static(ids, torch.tensor([given.prompt + i], device=given.device)).clone()
        else:
            logits, cache = model.step(ids, cache)
            ids = models.first_token(logits)
        tokens.append(ids.flatten().tolist())
        times.append(1000 * (time.perf_counter() - begun))
        if given.tell:
            print(json.dumps({"token": len(tokens)}), flush=True)
        time.sleep(given.pause)
    return tokens, logits.float().cpu() if static is None else None, times[given.warm :]


def forward(model, x, given, how, account) -> tuple[list, torch.Tensor, list[float]]:  # noqa: ANN001
    whole, times = torch.compile(model, mode=how) if how != "eager" else model, []
    for i in range(given.warm + given.rounds):
        if i == given.warm:
            account.begin()
        begun = time.perf_counter()
        value = whole(x)
        value = value.cpu()
        times.append(1000 * (time.perf_counter() - begun))
    return [], value.float(), times[given.warm :]


def run(model, x, given, how) -> dict:  # noqa: ANN001
    account = Account(given)
    tokens, value, times = (decode if given.tokens else forward)(model, x, given, how, account)
    told = account.steps(len(times))
    if given.out and how == given.how.split(",")[0]:
        torch.save({"tokens": tokens, "value": value}, given.out)
    digest = hashlib.sha256(repr(tokens).encode())
    if value is not None:
        value = value.contiguous()
        digest.update(ctypes.string_at(value.data_ptr(), value.nbytes))
    times.sort()
    return told | {
        "how": how,
        "digest": digest.hexdigest(),
        "tokens": hashlib.sha256(repr(tokens).encode()).hexdigest()[:16],
        "median_ms": statistics.median(times),
        "p95_ms": times[min(len(times) - 1, int(len(times) * 0.95))],
    }


def main() -> None:
    given, begun = options(), time.perf_counter()
    if given.device == "remote_accelerator":
        import djinn

        djinn.init()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    dtype = getattr(torch, given.dtype)
    model = models.make(given.model, dtype)
    x = models.inputs(given.model, given.batch, given.prompt)
    if x.is_floating_point():
        x = x.to(dtype)
    if given.upcast:
        model, x = model.float(), x.float() if x.is_floating_point() else x
    made = time.perf_counter()
    model, x = model.to(given.device), x.to(given.device)
    with torch.no_grad():
        for how in given.how.split(","):
            told = {"import_s": begun - START, "make_s": made - begun}
            try:
                told |= run(model, x, given, how)
            except Exception as error:
                if given.how == how:
                    raise
                told |= {"how": how, "error": f"{type(error).__name__}: {error}"[-1500:]}
            print(json.dumps(told), flush=True)


START = time.perf_counter()
if __name__ == "__main__":
    main()
