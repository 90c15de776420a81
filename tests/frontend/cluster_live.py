"""A pool of real processes for the tests of deaths and second workers, each test with its own: a head, workers, and Python clients that run
what they are told line by line, so that a test can kill something between two lines. Every wait is bounded; all of them are gone at the end.
"""

from __future__ import annotations

import json
import os
import queue
import re
import secrets
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conftest import STOP_S, Process, build_folder

ANSWER_S = 60.0  # of a line in a client, if the test says nothing
DRIVER = Path(__file__).with_name("cluster_client.py")


def wait_until(holds: Callable[[], Any], seconds: float, what: str) -> Any:
    """Ask again and again until the answer is true, and return it."""
    deadline = time.monotonic() + seconds
    while True:
        answer = holds()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def rss_bytes(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found, f"process {pid} is gone"
    return int(found[1]) << 10


class ClientFailed(Exception):
    """A line in a client raised; what it raised is in the attributes."""

    def __init__(self, said: dict[str, Any], seconds: float) -> None:
        super().__init__(said["text"])
        self.classes: list[str] = said["classes"]
        self.code, self.op, self.module, self.site = said["code"], said["op"], said["module"], said["site"]
        self.text: str = said["text"]
        self.seconds = seconds


class Client:
    """A Python process with torch and djinn imported, that runs code it is sent."""

    def __init__(self, log: Path, environment: dict[str, str]) -> None:
        self.log, self.answers = log, queue.Queue()
        self.output = log.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", str(DRIVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.output,
            env=environment,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.seconds = 0.0  # that the last line took

    def _read(self) -> None:
        for line in self.process.stdout:
            self.answers.put(json.loads(line))
        self.answers.put(None)

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, code: str) -> None:
        self.process.stdin.write(json.dumps(textwrap.dedent(code)).encode() + b"\n")
        self.process.stdin.flush()

    def receive(self, timeout: float = ANSWER_S) -> Any:
        try:
            said = self.answers.get(timeout=timeout)
        except queue.Empty:
            self.process.send_signal(signal.SIGABRT)
            self.process.wait(STOP_S)
            raise AssertionError(f"no answer within {timeout} s:\n{self.log.read_text(errors='replace')}") from None
        assert said is not None, f"the client ended:\n{self.log.read_text(errors='replace')}"
        self.seconds = said["seconds"]
        if "text" in said:
            raise ClientFailed(said, self.seconds)
        return said["value"]

    def run(self, code: str, timeout: float = ANSWER_S) -> Any:
        """Run lines; the value of `answer` afterwards, or of the line if it is an expression."""
        self.send(code)
        return self.receive(timeout)

    def fails(self, code: str, timeout: float = ANSWER_S) -> ClientFailed:
        try:
            value = self.run(code, timeout)
        except ClientFailed as failed:
            return failed
        raise AssertionError(f"{code!r} did not fail but gave {value!r}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(STOP_S)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self.reader.join(STOP_S)
        self.process.stdout.close()
        self.output.close()


class Pool:
    """A folder, a token, and the processes started with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("DJINN_")}
        self.environment |= {
            "DJINN_TOKEN": secrets.token_hex(16),
            "XDG_STATE_HOME": str(folder),
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "OMP_NUM_THREADS": "1",
        }
        self.address = ""
        self.started: list[Process | Client] = []
        self.lives = 0

    def _start(self, name: str, *arguments: str) -> Process:
        self.lives += 1
        process = Process(self.folder / f"{name}-{self.lives}.log", "start", *arguments, environment=self.environment)
        self.started.append(process)
        return process

    def head(self, *arguments: str) -> Process:
        """Start a head; a later one takes the address of the first."""
        listen = self.address or "127.0.0.1:0"
        head = self._start("head", "--head", "--listen", listen, "--state", str(self.folder / "state"), *arguments)
        self.address = head.wait_for(r"ready at (127\.0\.0\.1:\d+)")
        self.environment["DJINN_ADDRESS"] = self.address
        return head

    def worker(self, name: str, *arguments: str) -> Process:
        given = (
            "--worker",
            "--head",
            self.address,
            "--listen",
            "127.0.0.1:0",
            "--gpus",
            "none",
            "--threads",
            "1",
            "--name",
            name,
        )
        worker = self._start(name, *given, *([] if "--memory" in arguments else ["--memory", "512M"]), *arguments)
        worker.wait_for(r"ready at")
        wait_until(lambda: name in self.workers(), 10, f"{name} joins")
        return worker

    def client(self, name: str = "client") -> Client:
        self.lives += 1
        client = Client(self.folder / f"{name}-{self.lives}.log", dict(self.environment))
        self.started.append(client)
        return client

    def ask(self, *arguments: str) -> Any:
        done = subprocess.run(
            [str(build_folder() / "bin" / "djinn"), *arguments, "--json"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def status(self) -> Any:
        return self.ask("status")

    def workers(self) -> dict[str, Any]:
        return {worker["name"]: worker for worker in self.status()["workers"]}

    def worker_of(self, client: Client) -> str:
        """The worker of a client's session, by the name that cluster_client.py gives it: its process number."""
        for session in self.status()["sessions"]:
            if session["name"] == str(client.pid):
                return session["grants"][-1]["worker"]
        raise AssertionError(f"no session of process {client.pid}: {self.status()['sessions']}")

    def end(self) -> None:
        for process in reversed(self.started):
            if isinstance(process, Client):
                process.end()
            else:
                if process.process.poll() is None:
                    process.process.send_signal(signal.SIGCONT)
                process.stop()


@contextmanager
def live_pool(folder: Path) -> Iterator[Pool]:
    pool = Pool(folder)
    try:
        yield pool
    finally:
        pool.end()
