"""Djinn processes for tests: each with a folder of its own under build/test/cli, on loopback, on ports that the system chooses; every wait
is bounded, and all of them are gone when the test is over.

``DJINN_BUILD`` names the build folder whose ``bin/djinn`` is tested (default: ``build``).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DJINN = Path(os.environ.get("DJINN_BUILD", ROOT / "build")).resolve() / "bin" / "djinn"
RESULTS = ROOT / "build" / "test" / "cli"

READY_S = 20.0
STOP_S = 10.0
COMMAND_S = 30.0

DONE, FAILED, USAGE, UNREACHABLE, NO_DEVICE = 0, 1, 2, 3, 4


def wait_until(holds: Callable[[], Any], seconds: float, what: str) -> Any:
    """Asks again and again until the answer is true, and gives it."""
    deadline = time.monotonic() + seconds
    while True:
        answer = holds()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process runs: one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def rss_kib(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found, f"process {pid} is gone"
    return int(found[1])


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Process:
    """A djinn server. Its output goes to files, so that a full pipe never stops it."""

    def __init__(self, pool: Pool, name: str, *arguments: str, **popen: Any) -> None:
        self.out, self.log = pool.folder / f"{name}.out", pool.folder / f"{name}.log"
        with self.out.open("wb") as out, self.log.open("wb") as log:
            self.popen = subprocess.Popen(
                [DJINN, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=log, env=pool.environment, **popen
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def ready(self) -> str:
        """Waits for the ready line and gives the address in it."""

        def said() -> re.Match[str] | None:
            assert self.popen.poll() is None, f"ended with {self.popen.returncode}:\n{self.text()}"
            return re.match(r"djinn: ready at (\S+)\n", self.out.read_text())

        return wait_until(said, READY_S, "the ready line").group(1)

    def wait(self, seconds: float = STOP_S) -> int:
        return self.popen.wait(seconds)

    def terminate(self) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait(STOP_S)


class Pool:
    """A folder, an environment, and the processes that were started with them."""

    def __init__(self, name: str) -> None:
        self.folder = RESULTS / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.state = self.folder / "state" / "djinn"
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(("DJINN_", "XDG_"))}
        self.environment |= {
            "XDG_STATE_HOME": str(self.folder / "state"),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "LC_ALL": "C",
        }
        self.environment["HOME"] = str(self.folder)
        # A unix socket's path must be short, which those of build folders are not.
        self.runtime = Path(tempfile.mkdtemp(prefix="djinn-test-"))
        self.environment["XDG_RUNTIME_DIR"] = str(self.runtime)
        self.processes: list[Process] = []
        self.pids: list[int] = []  # of detached ones
        self.head: Process | None = None
        self.address = ""

    def start(self, name: str, *arguments: str, **popen: Any) -> Process:
        process = Process(self, name, *arguments, **popen)
        self.processes.append(process)
        return process

    def start_head(self, listen: str = "127.0.0.1:0", name: str = "head", **popen: Any) -> Process:
        self.head = self.start(name, "start", "--head", "--listen", listen, **popen)
        self.address = self.head.ready()
        self.environment["DJINN_ADDRESS"] = self.address
        return self.head

    def start_worker(self, name: str, *arguments: str, **popen: Any) -> Process:
        worker = self.start(
            name,
            "start",
            "--worker",
            "--head",
            self.address,
            "--name",
            name,
            "--threads",
            "1",
            "--memory",
            "256M",
            *arguments,
            **popen,
        )
        worker.ready()
        wait_until(lambda: name in self.worker_names(), READY_S, f"{name} joins:\n{worker.text()}")
        return worker

    def run(self, *arguments: str, **popen: Any) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        return subprocess.run(
            [DJINN, *arguments], env=self.environment, capture_output=True, text=True, timeout=COMMAND_S, check=False, **popen
        )

    def refused(self, code: int, *arguments: str, **popen: Any) -> str:
        """Runs a command that must fail with this exit code, and gives what it says."""
        done = self.run(*arguments, **popen)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert re.search(r"^djinn", done.stderr, re.M), done.stderr
        return done.stderr

    def answer(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == DONE, done.stderr
        return json.loads(done.stdout)

    def status(self) -> Any:
        return self.answer("status")

    def worker_names(self) -> list[str]:
        return [worker["name"] for worker in self.status()["workers"]]

    def worker(self, name: str) -> Any:
        return next(worker for worker in self.status()["workers"] if worker["name"] == name)

    def token(self) -> str:
        return (self.state / "token").read_text().strip()

    def end(self) -> None:
        for process in self.processes:
            if process.popen.poll() is None:
                process.popen.kill()
                process.popen.wait(STOP_S)
        for pid in self.pids:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.runtime, ignore_errors=True)
