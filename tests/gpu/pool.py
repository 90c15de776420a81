"""A head and a worker on the GPU, programs on it, and what they said when something failed. Every wait here ends."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tree import DJINN, WORK, Refused, environment, said_by

CLIENT = Path(__file__).with_name("client.py")
READY_S = 60.0
STOP_S = 10.0
TAIL = 3000  # characters of a log that are kept


class TooLong(RuntimeError):
    """A time ran out."""


@contextlib.contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """Raises TooLong in whatever the block waits for."""

    def ring(*_: object) -> None:
        raise TooLong(f"{what} took longer than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Pool:
    """A head and a worker on the GPU, with a state folder of their own."""

    def __init__(self, package: Path, memory_bytes: int, extra: dict[str, str] | None = None) -> None:
        WORK.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="pool-", dir=WORK))
        self.memory_bytes, self.processes, self.clients = memory_bytes, [], []
        self.env = environment() | {"PYTHONPATH": str(package), "XDG_STATE_HOME": str(self.folder)} | (extra or {})
        self.env.pop("DJINN_TOKEN", None)

    def begin(self) -> None:
        self.env["DJINN_ADDRESS"] = self.start("head", "start", "--head", "--listen", "127.0.0.1:0")
        self.worker()

    def worker(self) -> subprocess.Popen:
        """A worker with memory of a fixed size: what a killed one had is given back by the driver when it likes."""
        name = f"worker{len(self.processes)}"
        self.start(name, "start", "--worker", "--gpus", "0", "--name", name, "--memory", str(self.memory_bytes))
        return self.processes[-1]

    def start(self, name: str, *words: str) -> str:
        log = self.folder / f"{name}.log"
        with log.open("wb") as errors:
            process = subprocess.Popen([DJINN, *words], stdout=subprocess.PIPE, stderr=errors, text=True, env=self.env)
        self.processes.append(process)
        line = process.stdout.readline() if select.select([process.stdout], [], [], READY_S)[0] else ""
        if "ready at" not in line:
            ended = f"ended with {process.poll()}" if process.poll() is not None else f"was not ready within {READY_S:.0f} s"
            raise RuntimeError(f"djinn {' '.join(words)} {ended}: {log.read_text()[-TAIL:].strip()}")
        return line.split()[-1]

    def client(self, *words: object) -> subprocess.Popen:
        return self.run(self.env, CLIENT, "--device", "remote_accelerator", *words)

    def local(self, device: str, *words: object) -> subprocess.Popen:
        """The same program on this machine's torch."""
        return self.run(environment(), CLIENT, "--device", device, *words)

    def run(self, env: dict[str, str], program: Path, *words: object) -> subprocess.Popen:
        log = self.folder / f"client{len(self.clients)}.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, program, *map(str, words)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=env,
                start_new_session=True,
            )
        process.log = log
        self.clients.append(process)
        return process

    def is_alive(self) -> bool:
        return all(process.poll() is None for process in self.processes)

    def logs(self) -> str:
        """The ends of all logs, how the processes ended, and what the driver says: all there is to know once the machine is gone."""
        ends = [
            f"{' '.join(p.args[1:4])}: {'runs' if p.poll() is None else f'ended with {p.returncode}'}" for p in self.processes
        ]
        told = ["; ".join(ends)]
        for log in sorted(self.folder.glob("*.log")):
            text = log.read_text(errors="replace").strip()
            if text:
                told.append(f"--- {log.name}\n{text[-TAIL:]}")
        told.append("--- nvidia-smi\n" + said_by("nvidia-smi")[-TAIL:])
        return "\n".join(told)

    def end(self) -> None:
        for process in self.clients:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its session has what torch.compile started, too
            process.stdout.close()
            process.wait()
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
            process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def pool(package: Path, memory_bytes: int, extra: dict[str, str] | None = None) -> Iterator[Pool]:
    made = Pool(package, memory_bytes, extra)
    try:
        made.begin()
        yield made
    except BaseException as error:
        if not isinstance(error, Refused):
            error.add_note(made.logs())
        raise
    finally:
        made.end()


def answers_of(process: subprocess.Popen, timeout: float) -> list[dict]:
    """A client's lines of JSON; what it said when it failed is raised."""
    try:
        out, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, _ = process.communicate()
        errors = process.log.read_text(errors="replace")
        late = TooLong(f"{errors.strip()[-TAIL:]}\nnot within {timeout:.0f} s")
        late.answers = [json.loads(line) for line in out.splitlines() if line.startswith("{") and line.endswith("}")]
        raise late from None
    if process.returncode:
        errors = process.log.read_text(errors="replace").strip()
        raise RuntimeError(errors[-TAIL:] or f"exit status {process.returncode}")
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def answer_of(process: subprocess.Popen, timeout: float) -> dict:
    return answers_of(process, timeout)[-1]
