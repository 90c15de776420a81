"""Two workers: where sessions go, how weights get there, and a program that spans both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_live import Pool, live_pool, wait_until

# 8 MiB of weights from a fixed seed: the same content in every process that runs it.
MODEL = """
torch.manual_seed(0)
local = torch.nn.Sequential(torch.nn.Linear(1024, 1024), torch.nn.GELU(), torch.nn.Linear(1024, 1024)).eval().requires_grad_(False)
x = torch.randn(1, 1024)
import copy
def send(): return copy.deepcopy(local).to(D)
"""
WEIGHTS_BYTES = 2 * 1024 * 1025 * 4
SMALL = 256 << 10  # what may pass beyond weights: plans, inputs, results


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Pool]:
    with live_pool(tmp_path) as pool:
        pool.head()
        yield pool


def test_sessions_of_two_processes_land_on_different_workers_and_the_head_says_why(live: Pool) -> None:
    live.worker("one")
    live.worker("two")
    clients = [live.client(), live.client()]
    for client in clients:
        client.run(MODEL)
        assert client.run("torch.allclose(send()(x.to(D)).cpu(), local(x), atol=1e-5)")
    assert {live.worker_of(client) for client in clients} == {"one", "two"}
    assert sorted(worker["sessions"] for worker in live.workers().values()) == [1, 1]

    def plan() -> dict | None:
        plans = [plan for plan in live.ask("plan")["plans"] if len(plan["placed"]) == 2]
        return live.ask("plan", plans[0]["id"]) if plans else None

    told = wait_until(plan, 5, "a plan that ran on both")
    assert {run["worker"] for run in told["placed"]} == {"one", "two"}
    assert all("least loaded of 2 workers" in run["why"] for run in told["placed"]), told["placed"]
    assert {"ADDMM", "GELU"} <= {node["op"] for node in told["node"]}


def test_weights_are_uploaded_once_for_a_worker(live: Pool) -> None:
    live.worker("one")
    first, second = live.client(), live.client()
    for client in (first, second):
        client.run(MODEL)
        assert client.run("torch.allclose(send()(x.to(D)).cpu(), local(x), atol=1e-5)")
    sent, again = first.run("djinn.stats()"), second.run("djinn.stats()")
    assert sent["leaf_bytes_out"] >= WEIGHTS_BYTES
    assert again["leaf_bytes_out"] < SMALL and again["bytes_out"] < SMALL, again
    first.run("models = [send(), send()]\nz = [model(x.to(D)).cpu() for model in models]")
    more = first.run("djinn.stats()")
    assert more["leaf_bytes_out"] == sent["leaf_bytes_out"] and more["leaves_reused"] >= sent["leaves_reused"] + 4, more


def test_a_second_worker_fetches_weights_from_the_first_or_the_store_and_not_from_the_client(live: Pool) -> None:
    live.worker("one")
    first = live.client()
    first.run(MODEL)
    first.run("y = send()(x.to(D)).cpu()")
    live.worker("two")
    second = live.client()
    second.run(MODEL)
    assert second.run("torch.allclose(send()(x.to(D)).cpu(), local(x), atol=1e-5)")
    assert live.worker_of(second) == "two"
    assert second.run("djinn.stats()")["bytes_out"] < SMALL
    wait_until(lambda: live.workers()["two"]["leaf_bytes"] >= WEIGHTS_BYTES, 5, "a heartbeat tells that the weights are there")


def test_a_program_with_two_stages_on_two_workers_equals_local_and_its_plans_show_both(live: Pool) -> None:
    live.worker("one")
    live.worker("two")
    client = live.client()
    client.run(MODEL)
    client.run("""
        first, second = copy.deepcopy(local[0]).to(f"{D}:0"), copy.deepcopy(local[2]).to(f"{D}:1")
        middle = torch.nn.functional.gelu(first(x.to(f"{D}:0")))
        y = second(middle.to(f"{D}:1"))
        back = y.to(f"{D}:0") + middle
    """)
    assert client.run("[str(y.device), str(back.device)]") == ["remote_accelerator:1", "remote_accelerator:0"]
    assert client.run("torch.allclose(y.cpu(), local(x), atol=1e-5)")
    assert client.run("torch.allclose(back.cpu(), local(x) + local[1](local[0](x)), atol=1e-5)")
    assert client.run("sum(djinn.stats()['fallback_ops'].values())") == 0
    # The values crossed between the workers, not through the client: what it read is what was asked for.
    assert client.run("djinn.stats()['leaf_bytes_out']") < WEIGHTS_BYTES + SMALL

    def placed() -> dict[str, str]:
        return {run["worker"]: run["why"] for plan in live.ask("plan")["plans"] for run in plan["placed"]}

    wait_until(lambda: len(placed()) == 2, 5, "the head has learnt the plans of both stages")
    assert all("remote_accelerator" in why or "least loaded" in why for why in placed().values())
