"""Small costs: recording an op, an empty warm call, bytes beyond inputs and outputs, idle processes, start-up times."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import pool as bench
import torch

REMOTE = "remote_accelerator"


def record_cost(djinn: object) -> None:
    """Microseconds an op from Python, flush included only where it says so; the reference is the same op on the CPU, same run."""
    x, y = torch.ones(4, 16).to(REMOTE), torch.ones(4, 16).to(REMOTE)
    a, b = torch.ones(4, 16), torch.ones(4, 16)
    w, v = torch.ones(16, 16).to(REMOTE), torch.ones(16, 16)
    cases = {
        "add": (lambda: x + y, lambda: a + b),
        "mm": (lambda: x @ w, lambda: a @ v),
        "view": (lambda: x.view(16, 4), lambda: a.view(16, 4)),
        "softmax": (lambda: x.softmax(-1), lambda: a.softmax(-1)),
        "layer_norm": (lambda: torch.nn.functional.layer_norm(x, (16,)), lambda: torch.nn.functional.layer_norm(a, (16,))),
    }
    print(f"{'op':12} {'cpu eager, us':>14} {'recorded, us':>14} {'ratio':>7}")
    for name, (remote, local) in cases.items():
        times: dict[str, list[float]] = {"remote": [], "local": []}
        for _ in range(30):
            for key, call in (("remote", remote), ("local", local)):
                start = time.perf_counter()
                for _ in range(200):
                    call()
                times[key].append((time.perf_counter() - start) / 200)
            djinn.synchronize() if hasattr(djinn, "synchronize") else torch.remote_accelerator.synchronize()
        one, two = statistics.median(times["local"]), statistics.median(times["remote"])
        print(f"{name:12} {one * 1e6:14.2f} {two * 1e6:14.2f} {two / one:7.2f}")


def empty_call(djinn: object) -> None:
    """A warm call: one small op, its one element read. Time, and bytes beyond the input's and the output's."""
    x = torch.ones(1).to(REMOTE)
    for _ in range(50):
        (x + 1).item()
    before = djinn.stats()
    times = []
    for _ in range(500):
        start = time.perf_counter()
        (x + 1).item()
        times.append(time.perf_counter() - start)
    after = djinn.stats()
    out, into = (after[k] - before[k] for k in ("bytes_out", "bytes_in"))
    print(
        f"empty warm call: p50 {statistics.median(times) * 1e6:.1f} us, p95 {bench.percentile(times, 95) * 1e6:.1f} us; "
        f"{out / 500:.0f} bytes out, {into / 500:.0f} in"
    )


def idle(pool: bench.Pool) -> None:
    """Resident memory and CPU of head and worker over two idle seconds."""

    def ticks(pid: int) -> int:
        fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    fresh = bench.Pool(workers=1, threads=torch.get_num_threads())
    try:
        time.sleep(1)
        before = [ticks(p.pid) for p in fresh.processes]
        time.sleep(2)
        for name, process, old, start in zip(("head", "worker"), fresh.processes, before, fresh.started_s, strict=True):
            rss = next(int(line.split()[1]) for line in open(f"/proc/{process.pid}/status") if line.startswith("VmRSS"))
            print(
                f"idle {name}: {rss / 1024:.1f} MiB resident, {(ticks(process.pid) - old) / 2:.2f} % of a core; ready {start * 1e3:.0f} ms after start"
            )
    finally:
        fresh.close()


def embedded_start() -> None:
    code = (
        "import os, time; os.environ.pop('DJINN_ADDRESS', None)\nimport torch, djinn\n"
        "start = time.perf_counter(); djinn.init(); print((time.perf_counter() - start) * 1e3)"
    )
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout)
        for _ in range(3)
    ]
    print(f"embedded djinn.init(): {statistics.median(times):.0f} ms")


def main() -> None:
    pool = bench.Pool(workers=1, threads=torch.get_num_threads())
    try:
        import djinn

        print(bench.machine())
        with torch.no_grad():
            record_cost(djinn)
            empty_call(djinn)
        idle(pool)
        djinn.shutdown()
        embedded_start()
    finally:
        pool.close()


if __name__ == "__main__":
    main()
