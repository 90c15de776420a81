"""Deaths as a program sees them: a worker killed or stopped, the head killed, a client killed. Typed errors, work that goes on, no hang."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_live import Client, Pool, live_pool, wait_until

LOST = {"WORKER_LOST", "HANDLE_LOST", "EPOCH_FENCED"}
TOLD_S = 1.0 + 1.5  # after a kill a read fails within a second; the rest is for a machine that has other things to do
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


def assert_lost(client: Client, code: str, within: float = TOLD_S) -> None:
    failed = client.fails(code, timeout=within + 10)
    assert failed.code in LOST and "DjinnError" in failed.classes and "LostError" in failed.classes, (failed.code, failed.text)
    assert failed.seconds < within, f"took {failed.seconds} s: {failed.text}"


def test_a_killed_worker_is_a_typed_error_and_work_goes_on_at_the_other(live: Pool) -> None:
    live.head()
    workers = {name: live.worker(name) for name in ("one", "two")}
    client = live.client()
    client.run(START)
    lost = live.worker_of(client)
    workers[lost].process.kill()
    assert_lost(client, "cache.sum().cpu()")
    assert client.run(FRESH, timeout=20), "weights are in the store or the client: they come again"
    assert live.worker_of(client) == ({"one", "two"} - {lost}).pop()
    for _ in range(3):
        assert_lost(client, "(cache * 2).cpu()")
        assert_lost(client, "(cache + 1).cpu()")
    client.run(START)
    assert client.run("torch.allclose((cache * 1).cpu(), seen)")


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


def test_a_read_that_waits_when_its_worker_is_killed_gets_a_typed_error(live: Pool) -> None:
    live.head()
    workers = {name: live.worker(name) for name in ("one", "two")}
    client = live.client()
    client.run(START)
    client.run(LONG)
    client.send("big.cpu()")
    time.sleep(0.5)
    workers[live.worker_of(client)].process.kill()
    killed = time.monotonic()
    with pytest.raises(Exception) as raised:
        client.receive(15)
    assert getattr(raised.value, "code", "") in LOST, raised.value
    assert time.monotonic() - killed < TOLD_S
    assert client.run(FRESH, timeout=20)


def test_after_the_only_worker_died_the_next_one_is_used(live: Pool) -> None:
    live.head()
    worker = live.worker("one")
    client = live.client()
    client.run(START)
    worker.process.kill()
    assert_lost(client, "(cache * 2).cpu()")
    failed = client.fails(FRESH, timeout=20)
    assert failed.code in LOST | {"NO_WORKER"}, (failed.code, failed.text)
    live.worker("next")
    assert client.run(FRESH, timeout=20)
    assert live.worker_of(client) == "next"
    assert_lost(client, "(cache * 2).cpu()")


def test_a_stopped_worker_is_fenced_and_rejoins_as_a_new_life(live: Pool) -> None:
    live.head()
    workers = {name: live.worker(name) for name in ("one", "two")}
    client = live.client()
    client.run(START)
    name = live.worker_of(client)
    before = live.workers()[name]["incarnation"]
    workers[name].process.send_signal(signal.SIGSTOP)
    assert_lost(client, "(cache + 1).cpu()", FENCED_S)
    assert client.run(FRESH, timeout=20)
    wait_until(lambda: name not in live.workers(), FENCED_S, "the stopped worker is no longer a member")
    workers[name].process.send_signal(signal.SIGCONT)
    again = wait_until(lambda: live.workers().get(name), 20, "it rejoins")
    assert again["incarnation"] != before
    assert_lost(client, "(cache * 2).cpu()")
    second = live.client()
    second.run(START)
    assert second.run("torch.allclose((cache * 1).cpu(), seen)")
    assert live.worker_of(second) == name, "the least loaded is the one that came back"


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
    assert_lost(client, "(cache * 2).cpu()")
    assert client.run(FRESH, timeout=20)
    assert live.worker_of(client) == second
    live.worker("third")
    workers[second].process.kill()
    client.run("x = torch.full((1, 512), 2.0)")
    assert client.run("torch.allclose((x.to(D) @ W).cpu(), x @ w, atol=1e-3)", timeout=20)
    assert live.worker_of(client) == "third"
    assert_lost(client, "(cache * 2).cpu()")


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
