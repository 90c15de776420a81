"""A head and two CPU workers as separate processes for the whole run, as a user starts them; every wait is bounded, all are stopped at the end.

``DJINN_TEST_GPUS`` is what the workers get as --gpus (default: none). ``DJINN_BUILD`` names the build folder (default: ``build/``, else the folder that the package was imported from). ``DJINN_ADDRESS``
uses a running head instead; ``DJINN_TEST_EMBEDDED=1`` uses the embedded one.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

READY_S = 30.0
STOP_S = 10.0
WORKERS = 2

ROOT = Path(__file__).resolve().parents[2]


def build_folder() -> Path:
    if "DJINN_BUILD" in os.environ:
        return Path(os.environ["DJINN_BUILD"]).resolve()
    import djinn

    beside = Path(djinn.__file__).resolve().parents[2]
    return beside if (beside / "bin" / "djinn").exists() else ROOT / "build"


class Process:
    """A djinn process whose output goes to a file, so that a full pipe never stops it."""

    def __init__(self, log: Path, *arguments: str, environment: dict[str, str]) -> None:
        self.log = log
        self.output = log.open("wb")
        self.process = subprocess.Popen(
            [str(build_folder() / "bin" / "djinn"), *arguments],
            stdout=self.output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
        )

    def wait_for(self, pattern: str) -> str:
        """Wait for a line that matches and return its first group."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            found = re.search(pattern, self.log.read_text(errors="replace"))
            if found:
                return found.group(1) if found.groups() else found.group(0)
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError(
            f"{self.process.args} said nothing like {pattern!r} within {READY_S} s:\n{self.log.read_text(errors='replace')}"
        )

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(STOP_S)
        self.output.close()


def cluster_environment(state: Path) -> dict[str, str]:
    environment = dict(os.environ)
    environment["DJINN_TOKEN"] = secrets.token_hex(16)
    environment["XDG_STATE_HOME"] = str(state)
    return environment


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment variables under which a process finds the pool."""
    if os.environ.get("DJINN_ADDRESS") or os.environ.get("DJINN_TEST_EMBEDDED"):
        yield dict(os.environ)
        return
    folder = tmp_path_factory.mktemp("cluster")
    environment = cluster_environment(folder)
    started: list[Process] = []
    try:
        head = Process(
            folder / "head.log",
            "start",
            "--head",
            "--listen",
            "127.0.0.1:0",
            "--state",
            str(folder / "state"),
            environment=environment,
        )
        started.append(head)
        address = head.wait_for(r"(127\.0\.0\.1:\d+)")
        environment["DJINN_ADDRESS"] = address
        for number in range(WORKERS):
            worker = Process(
                folder / f"worker{number}.log",
                *(
                    "start",
                    "--worker",
                    "--head",
                    address,
                    "--listen",
                    "127.0.0.1:0",
                    "--gpus",
                    os.environ.get("DJINN_TEST_GPUS", "none"),
                    "--threads",
                    "2",
                    "--name",
                    f"w{number}",
                ),
                environment=environment,
            )
            started.append(worker)
        for worker in started[1:]:
            worker.wait_for(r"127\.0\.0\.1:\d+")
        yield environment
    finally:
        for process in reversed(started):
            process.stop()


@pytest.fixture(scope="session", autouse=True)
def pool(cluster: dict[str, str]) -> Iterator[None]:
    """This process's connection to the pool."""
    import djinn

    os.environ.update({key: cluster[key] for key in ("DJINN_ADDRESS", "DJINN_TOKEN") if key in cluster})
    djinn.init()
    yield
    djinn.shutdown()


@pytest.fixture(autouse=True)
def seeds() -> None:
    torch.manual_seed(0)


@pytest.fixture
def run_python(cluster: dict[str, str]):
    """Run a program in a fresh interpreter that finds the pool; returns the completed process."""

    def run(program: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        environment = dict(cluster)
        environment["PYTHONPATH"] = os.pathsep.join([p for p in sys.path if p])
        return subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", program],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment,
        )

    return run
