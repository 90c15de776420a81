"""Deaths as a program sees them: a worker killed or stopped, the head killed, a client killed. A pause and the same values; a typed error
only where nothing can bring them back; no hang."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_live import Client, Pool, live_pool, wait_until

BACK_S = 1.0 + 4.0  # after a kill values are back within a second or so; the rest is for a machine that has other things to do
LEASE_S = 5.0  # after which a silent worker is fenced
FENCED_S = LEASE_S + 10.0

# Weights (1 MiB, larger than what the client keeps for nothing), and a cache made of them that exists on the worker only.
START = """
torch.manual_seed(0)
w = torch.randn(512, 512)
W = w.to(D)
cache = torch.ones(1, 512, device=D)
for _ in range(3):
    cache = torch.cat([cache, cache[-1:] @ W])
answer = cache.shape[0]
seen = (cache * 1).cpu()    # not the cache itself: what a client has read it keeps
"""
STEP = "cache = torch.cat([cache, cache[-1:] @ W])"
FRESH = "torch.allclose((torch.ones(1, 512).to(D) @ W).cpu(), torch.ones(1, 512) @ w, atol=1e-3)"
# Enough to be still running when the worker is killed.
LONG = """
big = torch.ones(1024, 1024).to(D)
for _ in range(200):
    big = (big @ big) * 1e-3
"""


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Pool]:
    with live_pool(tmp_path) as pool:
        yield pool


SAME = "torch.equal((cache * 1).cpu(), seen)"  # bit for bit


def assert_back(client: Client, code: str, within: float = BACK_S) -> None:
    assert client.run(code, timeout=within + 10), f"{code} is not what it was"
    assert client.seconds < within, f"took {client.seconds} s"


def test_a_killed_worker_is_a_pause_and_values_come_back_at_the_other(live: Pool) -> None:
    live.head()
    workers = {name: live.worker(name) for name in ("one", "two")}
    client = live.client()
    client.run(START)
    lost = live.worker_of(client)
    workers[lost].process.kill()
    assert_back(client, SAME)
    assert client.run(FRESH, timeout=20), "weights are in the store or the client: they come again"
    assert live.worker_of(client) == ({"one", "two"} - {lost}).pop()
    assert client.run("djinn.stats()['recoveries']") == 1
    assert f"djinn: worker {lost} was lost" in client.log.read_text(), "one line says why there was a pause"
    client.run(STEP)
    assert client.run("cache.shape[0]") == 5


def test_one_worker_after_the_other_dies_and_the_values_stay(live: Pool) -> None:
    live.head()
    name, worker = "zero", live.worker("zero")
    client = live.client()
    client.run(START)
    for number in range(3):
        worker.process.kill()
        name, worker = f"next{number}", live.worker(f"next{number}")
        assert_back(client, SAME, 10.0)
        assert live.worker_of(client) == name
        client.run(STEP)
        client.run("seen = (cache * 1).cpu()")


def test_what_a_client_has_read_outlives_its_worker(live: Pool) -> None:
    live.head()
    workers = {name: live.worker(name) for name in ("one", "two")}
    client = live.client()
    client.run(START)
    client.run("known = cache.cpu()")
    workers[live.worker_of(client)].process.kill()
    wait_until(lambda: len(live.workers()) == 1, 5, "the head notices")
    assert client.run("torch.equal(cache.cpu(), known)")
    assert client.run("torch.allclose((cache * 2).cpu(), known * 2)", timeout=20)


def test_a_read_that_waits_when_its_worker_is_killed_is_answered_by_the_other(live: Pool) -> None:
    live.head()
    workers = {name: live.worker(name) for name in ("one", "two")}
    client = live.client()
    client.run(START)
    client.run(LONG)
    client.run("undisturbed = big.cpu()", timeout=30)
    client.run(LONG)
    client.send("torch.equal(big.cpu(), undisturbed)")
    time.sleep(0.5)
    workers[live.worker_of(client)].process.kill()
    assert client.receive(45), "the same bits"
    assert client.run(FRESH, timeout=20)


def test_after_the_only_worker_died_the_next_one_gets_its_values(live: Pool) -> None:
    live.head()
    worker = live.worker("one")
    client = live.client()
    client.run(START)
    worker.process.kill()
    client.send(SAME)
    time.sleep(1.0)  # nobody is there, and nobody is told
    live.worker("next")
    assert client.receive(15)
    assert client.run(FRESH, timeout=20)
    assert live.worker_of(client) == "next"


def test_with_no_worker_for_too_long_a_read_is_a_typed_error(live: Pool) -> None:
    live.head()
    worker = live.worker("one")
    client = live.client()
    client.run("djinn.shutdown(); djinn.init(session='short', recovery_timeout=1.5)")
    client.run(START)
    worker.process.kill()
    failed = client.fails("cache.sum().cpu()", timeout=20)
    assert failed.code == "NO_WORKER" and "UnreachableError" in failed.classes, (failed.code, failed.text)
    assert 1.0 < failed.seconds < 6.0
    assert "one" in failed.text


def test_a_stopped_worker_is_fenced_and_its_values_come_back_elsewhere(live: Pool) -> None:
    live.head()
    workers = {name: live.worker(name) for name in ("one", "two")}
    client = live.client()
    client.run(START)
    name = live.worker_of(client)
    before = live.workers()[name]["incarnation"]
    workers[name].process.send_signal(signal.SIGSTOP)
    assert_back(client, "torch.equal((cache + 1).cpu(), seen + 1)", FENCED_S)
    assert client.run(FRESH, timeout=20)
    wait_until(lambda: name not in live.workers(), FENCED_S, "the stopped worker is no longer a member")
    workers[name].process.send_signal(signal.SIGCONT)
    again = wait_until(lambda: live.workers().get(name), 20, "it rejoins")
    assert again["incarnation"] != before
    assert_back(client, SAME)
    second = live.client()
    second.run(START)
    assert second.run("torch.equal((cache * 1).cpu(), seen)")


def test_a_generation_goes_on_without_a_head_and_a_new_head_learns_it(live: Pool) -> None:
    head = live.head()
    live.worker("one")
    client = live.client()
    client.run(START)
    before = wait_until(lambda: live.status()["store"]["executions"], 5, "some are recorded")
    head.process.kill()
    head.process.wait(10)
    rows = client.run("cache.shape[0]")
    client.run(
        f"""
        for _ in range(20):
            {STEP}
            last = cache[-1].sum().item()
        answer = cache.shape[0]
        """,
        timeout=20,
    )
    assert client.run("torch.allclose(cache[:4].cpu(), seen)")
    again = live.head()
    assert again.process.pid != head.process.pid
    wait_until(lambda: "one" in live.workers(), 15, "the worker rejoins")
    wait_until(lambda: live.status()["store"]["executions"] >= before + 20, 15, "the journal is sent again")
    wait_until(lambda: any(row["connected"] for row in live.status()["sessions"]), 5, "the session is resumed")
    client.run("for _ in range(5): (cache * 2).sum().item()")
    wait_until(
        lambda: client.run("djinn.stats()['executions_unacknowledged']") == 0, 10, "the new head's watermark empties the window"
    )
    assert client.run("cache.shape[0]") == rows + 20
    assert client.run(f"[float(cache[-1].sum().item()), {FRESH}][1]", timeout=20)
    second = live.client()
    second.run(START)
    assert second.run("torch.allclose((cache * 1).cpu(), seen)")


def test_a_session_older_than_its_head_is_still_moved_when_workers_die_one_after_the_other(live: Pool) -> None:
    head = live.head()
    workers = {name: live.worker(name) for name in ("one", "two")}
    client = live.client()
    client.run(START)
    first = live.worker_of(client)
    second = ({"one", "two"} - {first}).pop()
    head.process.kill()
    head.process.wait(10)
    live.head()
    wait_until(lambda: len(live.workers()) == 2, 15, "both workers rejoin")
    workers[first].process.kill()
    assert_back(client, SAME)
    assert client.run(FRESH, timeout=20)
    assert live.worker_of(client) == second
    live.worker("third")
    workers[second].process.kill()
    assert_back(client, SAME)
    client.run("x = torch.full((1, 512), 2.0)")
    assert client.run("torch.allclose((x.to(D) @ W).cpu(), x @ w, atol=1e-3)", timeout=20)
    assert live.worker_of(client) == "third"


def test_worker_and_head_die_together_and_values_come_back_from_the_store(live: Pool) -> None:
    head = live.head()
    worker = live.worker("one")
    client = live.client()
    client.run(START)
    wait_until(lambda: client.run("djinn.stats()['executions_unacknowledged']") == 0, 10, "all is durable")
    head.process.kill()
    worker.process.kill()
    head.process.wait(10)
    client.send(SAME)
    time.sleep(0.5)
    live.head()
    live.worker("two")
    assert client.receive(30)


def test_a_killed_client_leaves_nothing_on_the_worker_after_the_grace_period(live: Pool) -> None:
    live.head()
    live.worker("one", "--grace", "1")
    first = live.client()
    first.run("y = (torch.ones(1, device=D) + 1).cpu()")
    idle = wait_until(lambda: live.workers()["one"]["executions"] and live.workers()["one"], 5, "the heartbeat tells it")
    first.run(
        "values = [torch.full((1 << 20,), float(i), device=D) * 2 for i in range(16)]\nlast = values[-1][0].item()\nsums = [v.sum().item() for v in values]"
    )
    full = wait_until(lambda: (u := live.workers()["one"]["memory_used_bytes"]) > (60 << 20) and u, 5, "64 MiB are in use")
    first.kill()
    wait_until(lambda: live.workers()["one"]["memory_used_bytes"] < full - (60 << 20), 15, "they come back")
    assert live.workers()["one"]["memory_used_bytes"] <= idle["memory_used_bytes"] + (1 << 20)
    second = live.client()
    assert second.run("(torch.ones(2, device=D) + 1).sum().item()") == 4
