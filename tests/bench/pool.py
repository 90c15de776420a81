"""A head and workers as separate processes on loopback, for benchmarks; and the statistics that every benchmark prints."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
DJINN = ROOT / "build" / "bin" / "djinn"
READY_S = 20.0


class Pool:
    """Starts a head and ``workers`` CPU workers with ``threads`` threads each; ``address`` and ``environment`` reach them."""

    def __init__(self, workers: int = 1, threads: int = 1) -> None:
        (ROOT / "build").mkdir(exist_ok=True)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="bench-", dir=ROOT / "build"))
        self.environment = dict(os.environ, XDG_STATE_HOME=str(self.folder))
        self.environment.pop("DJINN_ADDRESS", None)
        self.processes: list[subprocess.Popen[str]] = []
        self.started_s: list[float] = []
        self.address = self._start("start", "--head", "--listen", "127.0.0.1:0")
        self.environment["DJINN_ADDRESS"] = self.address
        os.environ.update(DJINN_ADDRESS=self.address, XDG_STATE_HOME=str(self.folder))
        for index in range(workers):
            self._start("start", "--worker", "--head", self.address, "--threads", str(threads), "--name", f"worker{index}")
        self.wait_workers(workers)

    def _start(self, *arguments: str) -> str:
        log = open(self.folder / f"{len(self.processes)}.log", "w")
        start = time.perf_counter()
        process = subprocess.Popen([DJINN, *arguments], env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True)
        self.processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        self.started_s.append(time.perf_counter() - start)
        if "ready at" not in line:
            raise RuntimeError(f"djinn {' '.join(arguments)} did not start: {(self.folder / log.name).read_text()}")
        return line.rsplit(" ", 1)[1].strip()

    def status(self) -> dict:
        answer = subprocess.run(
            [DJINN, "status", "--json"], env=self.environment, capture_output=True, text=True, timeout=10, check=True
        )
        return json.loads(answer.stdout)

    def wait_workers(self, count: int) -> None:
        deadline = time.monotonic() + READY_S
        while len(self.status()["workers"]) < count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{count} workers did not join in {READY_S} s")
            time.sleep(0.02)

    def settle(self, timeout_s: float = 60.0) -> None:
        """Waits until no process of the pool works any more: weights reach the store behind the first results, and take a core for it."""
        deadline, quiet = time.monotonic() + timeout_s, 0
        before = self._ticks()
        while quiet < 4 and time.monotonic() < deadline:
            time.sleep(0.25)
            now = self._ticks()
            quiet = quiet + 1 if now - before <= 1 else 0
            before = now

    def _ticks(self) -> int:
        total = 0
        for process in self.processes:
            fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total

    def close(self) -> None:
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def machine() -> str:
    """The processor, the cores and the kernel, in one line."""
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    return f"{model}, {os.cpu_count()} CPUs, Linux {os.uname().release}"


def percentile(values: list[float], percent: float) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def summary(values: list[float]) -> str:
    """Median and p95 of seconds, in milliseconds."""
    return f"{statistics.median(values) * 1e3:9.3f} {percentile(values, 95) * 1e3:9.3f}"
