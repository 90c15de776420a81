"""Real processes to break: a head, workers and programs in a folder of their own, and what is needed to kill them and to see what they did.

Used by scripts/prove, scripts/soak and tests/bench/recovery.py. DJINN_BUILD names another build than build/: a folder with bin/ and python/.
"""

from __future__ import annotations

import json
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = pathlib.Path(os.environ.get("DJINN_BUILD", ROOT / "build"))
DJINN = BUILD / "bin" / "djinn"
PYTHON = os.environ.get("DJINN_PYTHON", str(ROOT / "build" / "venv" / "bin" / "python"))
READY_S = 20.0
STOP_S = 15.0


class Lost(Exception):
    """Something that must hold did not."""


def wait_until(holds: Callable[[], Any], seconds: float, what: str, step: float = 0.02) -> Any:
    """Asks again and again until the answer is true, and gives it."""
    until = time.monotonic() + seconds
    while not (answer := holds()):
        if time.monotonic() > until:
            raise Lost(f"not within {seconds:.0f} s: {what}")
        time.sleep(step)
    return answer


class Program:
    """A program of this folder: its lines with the times at which they came."""

    def __init__(self, crew: Crew, file: str, *arguments: object, environment: dict[str, str] | None = None) -> None:
        self.log = crew.folder / f"program-{len(crew.programs)}.log"
        self.lines: queue.Queue[tuple[float, str] | None] = queue.Queue()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [PYTHON, str(HERE / file), *map(str, arguments)],
                env=crew.environment | (environment or {}),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.generations: list[str] = []
        self.result = ""
        self.progress = 0
        self.times: dict[int, float] = {}  # of each step of its progress
        threading.Thread(target=self._read, daemon=True).start()
        crew.programs.append(self)

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.put((time.monotonic(), line.strip()))
        self.lines.put(None)

    def step(self, timeout: float) -> str:
        """The next line; Lost when none comes or the program has ended."""
        try:
            said = self.lines.get(timeout=timeout)
        except queue.Empty:
            raise Lost(f"the program said nothing for {timeout:.0f} s after progress {self.progress}: {self.tail()}") from None
        if said is None:
            raise Lost(f"the program ended after progress {self.progress}: {self.tail()}")
        at, line = said
        word, _, rest = line.partition(" ")
        if word == "progress":
            self.progress = int(rest)
            self.times[self.progress] = at
        elif word == "generation":
            self.generations.append(rest)
        elif word == "error":
            raise Lost(f"the program met {rest}: {self.tail()}")
        elif word == "result":
            self.result = rest
        return line

    def until(self, progress: int, timeout: float) -> None:
        while self.progress < progress:
            self.step(timeout)

    def finish(self, timeout: float) -> str:
        while not self.result:
            self.step(timeout)
        self.process.stdin.close()
        self.process.wait(STOP_S)
        return self.result

    def go(self) -> None:
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-600:].strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(STOP_S)


class Crew:
    """A head, and workers called worker-1, worker-2, ...; whoever is killed can be replaced."""

    def __init__(
        self,
        workers: int = 2,
        threads: int = 1,
        memory: str = "3G",
        head: tuple[str, ...] = (),
        worker: tuple[str, ...] = (),
        name: str = "crew",
    ) -> None:
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"djinn-{name}-", dir="/tmp"))
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("DJINN_")} | {
            "XDG_STATE_HOME": str(self.folder),
            "XDG_RUNTIME_DIR": str(self.folder),
            "PYTHONPATH": f"{BUILD / 'python'}:{HERE}",
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        self.threads, self.memory, self.head_options, self.worker_options = threads, memory, head, worker
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.programs: list[Program] = []
        self.address, self.lives = "", 0
        self.start_head()
        for _ in range(workers):
            self.start_worker()

    def _start(self, name: str, *arguments: str) -> str:
        log = self.folder / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [DJINN, "start", *arguments, "--chaos"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
            )
        self.processes[name] = process
        line = process.stdout.readline().decode()
        if "ready at" not in line:
            raise Lost(f"{name} did not start: {log.read_text(errors='replace')[-600:]}")
        return line.split()[-1]

    def start_head(self) -> None:
        self.address = self._start("head", "--head", "--listen", self.address or "127.0.0.1:0", *self.head_options)
        self.environment["DJINN_ADDRESS"] = self.address

    def start_worker(self, wait: bool = True) -> str:
        self.lives += 1
        name = f"worker-{self.lives}"
        given = ["--worker", "--head", self.address, "--gpus", "none", "--threads", str(self.threads), "--memory", self.memory]
        self._start(name, *given, "--name", name, *self.worker_options)
        if wait:
            wait_until(lambda: name in self.workers(), READY_S, f"{name} joins")
        return name

    def ask(self, *arguments: str) -> Any:
        done = subprocess.run([DJINN, *arguments, "--json"], env=self.environment, capture_output=True, text=True, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def status(self) -> dict[str, Any]:
        return self.ask("status") or {}

    def workers(self) -> dict[str, Any]:
        return {worker["name"]: worker for worker in self.status().get("workers", [])}

    def serving(self) -> str:
        """The worker that a connected session was granted last."""

        last: list[Any] = []

        def find() -> str:
            last[:] = self.status().get("sessions", [])
            for session in last:
                for grant in reversed(session["grants"]):
                    if session["connected"] and grant["worker"] in self.processes:
                        return grant["worker"]
            return ""

        try:
            return wait_until(find, READY_S, "a worker serves the program")
        except Lost as lost:
            raise Lost(f"{lost}; the head says of sessions: {last}") from None

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait(STOP_S)
        process.stdout.close()

    def chaos(self, *arguments: str) -> None:
        done = subprocess.run([DJINN, "chaos", *arguments], env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Lost(f"djinn chaos {' '.join(arguments)}: {done.stderr.strip()}")

    def stop_for(self, name: str) -> None:
        """Stops a process as a hang would; close() lets it go on."""
        self.processes[name].send_signal(signal.SIGSTOP)

    def fenced(self) -> list[str]:
        """Workers that the head's log calls dead."""
        return re.findall(r"worker fenced name=(\S+)", (self.folder / "head.log").read_text(errors="replace"))

    def close(self, keep: bool = False) -> None:
        for program in self.programs:
            if program.process.poll() is None:
                program.kill()
            program.process.stdout.close()
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        left = []
        for name, process in self.processes.items():
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                left.append(name)
            process.stdout.close()
        self.processes.clear()
        if keep:
            print(f"logs: {self.folder}", file=sys.stderr, flush=True)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        if left:
            raise Lost(f"did not end when told to: {', '.join(left)}")

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.close(keep=kind is not None)
