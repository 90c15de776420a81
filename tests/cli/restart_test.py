"""Processes that are killed, and what is left and comes back: the head's memory is its store, and workers find their head by themselves."""

from __future__ import annotations

import os
import subprocess
import time

import pytest
from live import DJINN, DONE, Pool, wait_until

HELLO = DJINN.parents[1] / "examples" / "hello"
GONE_S = 1.0
REJOIN_S = 10.0


def run_hello(pool: Pool, *session: str) -> subprocess.CompletedProcess[str]:
    """Without a name its session is over when it ends well, and its records go."""
    if not HELLO.exists():
        pytest.skip("examples/hello was not built")
    return subprocess.run([HELLO, *session], env=pool.environment, capture_output=True, text=True, timeout=30, check=False)


def test_a_head_that_was_killed_remembers_and_its_workers_come_back(pool: Pool) -> None:
    head = pool.start_head()
    workers = [pool.start_worker("one"), pool.start_worker("two")]
    done = run_hello(pool, "kept")
    assert done.returncode == DONE, done.stdout + done.stderr
    plans = wait_until(lambda: pool.answer("plan")["plans"], 5, "the plan is registered")
    before = wait_until(
        lambda: (status := pool.status())["store"]["executions"] and status["store"]["leaves"] and status, 5, "it is all stored"
    )
    head.kill()
    pool.start_head(listen=pool.address, name="head-again")
    after = pool.status()
    assert after["generation"] == before["generation"] + 1
    assert {key: after["store"][key] for key in ("plans", "leaves", "executions")} == {
        key: before["store"][key] for key in ("plans", "leaves", "executions")
    }
    again = pool.answer("plan")["plans"]
    assert [(plan["id"], plan["nodes"]) for plan in again] == [(plan["id"], plan["nodes"]) for plan in plans]
    assert plans[0]["id"] in pool.run("srg", "show", plans[0]["id"]).stdout
    wait_until(lambda: sorted(pool.worker_names()) == ["one", "two"], REJOIN_S, "the workers come back")
    assert all(worker.popen.poll() is None for worker in workers)
    assert run_hello(pool).returncode == DONE


def test_a_head_may_be_away_for_a_while(pool: Pool) -> None:
    pool.start_head().kill()
    worker = pool.start(
        "early", "start", "--worker", "--head", pool.address, "--name", "early", "--threads", "1", "--memory", "256M"
    )
    worker.ready()
    time.sleep(0.5)
    assert worker.popen.poll() is None
    pool.start_head(listen=pool.address, name="head-again")
    wait_until(lambda: pool.worker_names() == ["early"], REJOIN_S, "the worker joins")
    assert worker.text().count("no link to the head") <= 2, "it repeats itself"


def test_a_worker_that_was_killed_is_gone_within_a_second(pool: Pool) -> None:
    pool.start_head()
    doomed, other = pool.start_worker("doomed"), pool.start_worker("other")
    doomed.popen.kill()
    wait_until(lambda: pool.worker_names() == ["other"], GONE_S, "the head forgets it")
    doomed.wait()
    pool.start_worker("doomed")
    assert sorted(pool.worker_names()) == ["doomed", "other"]
    assert other.popen.poll() is None


def test_the_socket_of_a_killed_worker_is_removed_by_a_later_one(pool: Pool) -> None:
    pool.start_head()
    pool.start_worker("killed").kill()
    living = pool.start_worker("living")
    sockets = {path: path.stat() for path in pool.runtime.glob("djinn-*.sock")}
    assert len(sockets) == 2
    for path in sockets:
        os.utime(path, (time.time() - 3600, time.time() - 3600))
    pool.start_worker("later")
    kept = {pool.worker(name)["address_unix"].removeprefix("unix://") for name in ("living", "later")}
    assert {str(path) for path in pool.runtime.glob("djinn-*.sock")} == kept
    assert living.popen.poll() is None


def test_a_head_that_was_killed_again_and_again_keeps_everything(pool: Pool) -> None:
    pool.start_head()
    pool.start_worker("one")
    stored = 0
    for round_number in range(1, 5):
        assert run_hello(pool, f"kept-{round_number}").returncode == DONE
        wait_until(lambda least=stored: pool.status()["store"]["executions"] > least, 5, "the execution is stored")
        stored = pool.status()["store"]["executions"]
        assert pool.head is not None
        pool.head.kill()
        pool.start_head(listen=pool.address, name=f"head-{round_number}")
        assert pool.status()["store"]["executions"] >= stored
        wait_until(lambda: pool.worker_names() == ["one"], REJOIN_S, "the worker comes back")


def test_a_client_without_a_head_is_told(pool: Pool) -> None:
    pool.start_head().kill()
    done = run_hello(pool)
    assert done.returncode != DONE and pool.address in done.stderr, done.stderr
