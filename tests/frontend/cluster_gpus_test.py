"""Two workers on emulated GPUs of one machine: values go from the memory of one to that of the other, and what happens when one of them dies."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_live import Pool, live_pool, wait_until
from conftest import Process, build_folder

EMULATED = build_folder() / "lib" / "libdjinn_cuda_emulated.so"
BYTES = 64 * 1024 * 4  # of a value
PROGRAM = """
torch.manual_seed(0)
local = torch.randn(64, 1024)
first = local.to(f"{D}:0") * 2
second = first.to(f"{D}:1") + 1
"""


def start(pool: Pool, number: int) -> Process:
    return pool.worker(f"gpu{number}", "--gpus", str(number), "--memory", "64M")


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Pool]:
    if not EMULATED.exists():
        pytest.skip(f"{EMULATED} is not built")
    with live_pool(tmp_path) as pool:
        pool.environment |= {"DJINN_CUDA_MODULE": str(EMULATED), "DJINN_EMULATED_GPUS": "2", "DJINN_EMULATED_GIB": "1"}
        pool.head()
        yield pool


def came(pool: Pool, name: str) -> int:
    """The bytes that came to a worker from the other's memory."""
    return pool.workers()[name]["peer_bytes"]


def foreign(worker: Process) -> int:
    """How many of another process's memories a worker has open: it has two of its own."""
    maps = Path(f"/proc/{worker.process.pid}/maps").read_text().splitlines()
    return sum("memfd:fake-cuda" in line for line in maps) - 2


def test_values_go_from_one_gpus_memory_to_the_others_and_back(live: Pool) -> None:
    workers = [start(live, number) for number in range(2)]
    client = live.client()
    client.run(PROGRAM)
    client.run('third = second.to(f"{D}:0") - local.to(f"{D}:0")')
    assert client.run("torch.equal(second.cpu(), local * 2 + 1) and torch.equal(third.cpu(), local * 2 + 1 - local)")
    wait_until(lambda: came(live, "gpu0") == BYTES and came(live, "gpu1") == BYTES, 5, "heartbeats tell what came")
    assert [foreign(worker) for worker in workers] == [1, 1]
    assert client.run("sum(djinn.stats()['fallback_ops'].values())") == 0


def test_memory_of_a_gpus_worker_that_was_killed_is_let_go_of_and_its_values_come_back(live: Pool) -> None:
    workers = [start(live, number) for number in range(2)]
    client = live.client()
    client.run(PROGRAM)
    assert client.run("torch.equal(second.cpu(), local * 2 + 1)")
    assert foreign(workers[1]) == 1
    workers[0].process.kill()
    wait_until(lambda: foreign(workers[1]) == 0, 5, "the memory of the dead is closed")
    assert client.run('torch.equal((first.to(f"{D}:1") - second).cpu(), (local * 2) - (local * 2 + 1))')
    start(live, 0)
    assert client.run("torch.equal(first.cpu(), local * 2)")


def test_the_owner_killed_while_it_is_asked_costs_a_recovery(live: Pool) -> None:
    workers = [start(live, number) for number in range(2)]
    client = live.client()
    client.run(PROGRAM)
    assert client.run("torch.equal(second.cpu(), local * 2 + 1)")
    workers[0].process.send_signal(signal.SIGSTOP)
    client.send('torch.equal((first.to(f"{D}:1") * second).cpu(), (local * 2) * (local * 2 + 1))')
    time.sleep(0.3)
    workers[0].process.kill()
    assert client.receive()
