"""What a program may do wrong or do for long against real processes: deferred errors, no memory, threads, thousands of steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_live import Pool, live_pool, rss_bytes, wait_until

MIB = 1 << 20
STEPS = 3000
JOURNAL_PER_STEP_MAX = 256  # bytes, design
WIRE_PER_STEP_MAX = 1024


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Pool]:
    with live_pool(tmp_path) as pool:
        pool.head()
        yield pool


def test_an_index_out_of_range_names_op_module_and_line_when_it_is_read(live: Pool) -> None:
    live.worker("one")
    client = live.client()
    client.run("""
        class Tiny(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.words = torch.nn.Embedding(10, 4)
            def forward(self, ids):
                return self.words(ids) * 2
        model = Tiny().eval().requires_grad_(False).to(D)
        y = model(torch.tensor([3, 10]).to(D))
    """)
    failed = client.fails("y.cpu()")
    assert {"DjinnError", "IndexError"} <= set(failed.classes) and failed.code == "INDEX", (failed.classes, failed.text)
    assert failed.op.upper() == "EMBEDDING" and failed.module == "Tiny.words", (failed.op, failed.module, failed.text)
    assert "functional.py:" in failed.site or "program.py:" in failed.site or "sparse.py:" in failed.site, failed.site
    assert failed.site in failed.text
    again = client.fails("y.sum().item()")
    assert again.code == "INDEX", "what needs the failed value fails as it did"
    assert client.run("model(torch.tensor([3, 9]).to(D)).shape[0]") == 2
    assert client.run("torch.equal(model(torch.tensor([3, 9]).to(D)).cpu(), model.words.weight.cpu()[[3, 9]] * 2)")


def test_no_memory_on_the_worker_is_an_out_of_memory_error_with_sizes_and_passes(live: Pool) -> None:
    worker = live.worker("small", "--memory", "64M")
    client = live.client()
    client.run("values = [torch.ones(1 << 20, device=D) * i for i in range(4)]\nlast = values[-1][0].item()")
    failed = client.fails("(torch.ones(1 << 25, device=D) * 2).cpu()")
    assert {"DjinnError", "OutOfMemoryError"} <= set(failed.classes) and failed.code == "DEVICE_MEMORY", (
        failed.classes,
        failed.text,
    )
    assert any(character.isdigit() for character in failed.text), failed.text
    print(failed.text)
    assert client.run("values[3][:4].cpu().tolist()") == [3, 3, 3, 3]
    failed = client.fails("many = [torch.ones(1 << 20, device=D) * i for i in range(40)]\nsums = [v.sum().item() for v in many]")
    assert failed.code == "DEVICE_MEMORY", failed.text
    client.run("del many\nvalues = []")
    assert client.run("(torch.ones(1 << 21, device=D) * 2).sum().item()") == 1 << 22
    assert worker.process.poll() is None
    wait_until(lambda: live.workers()["small"]["memory_used_bytes"] < 40 * MIB, 10, "memory comes back")


def test_threads_and_sessions_side_by_side_give_the_right_results(live: Pool) -> None:
    live.worker("one")
    clients = [live.client(), live.client()]
    for client in clients:
        client.send("""
            import threading
            torch.manual_seed(djinn.stats()["executions"])
            results = {}
            def work(number):
                w = torch.randn(64, 64, generator=torch.Generator().manual_seed(number)) / 8
                W, x, y = w.to(D), torch.ones(1, 64), torch.ones(1, 64).to(D)
                wrong = 0
                for _ in range(100):
                    x, y = torch.tanh(x @ w), torch.tanh(y @ W)
                    wrong += abs(x.sum().item() - y.sum().item()) > 1e-3
                results[number] = wrong
            threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
            [thread.start() for thread in threads]
            [thread.join(40) for thread in threads]
            answer = sorted(results.items())
        """)
    for client in clients:
        assert client.receive(60) == [[0, 0], [1, 0]]


DECODE = """
def decode(steps):
    global keys, token
    for _ in range(steps):
        key = table[token] @ W
        keys = torch.cat([keys, key], dim=-2)
        score = torch.softmax(key @ keys.transpose(-1, -2) / 8, -1)
        token = ((score @ keys) @ table.T).argmax(-1)
        read = token.item()
"""


def test_thousands_of_decode_steps_leave_no_process_growing(live: Pool) -> None:
    worker = live.worker("one")
    head = live.started[0]
    client = live.client()
    client.run(DECODE)
    client.run("""
        torch.manual_seed(0)
        table, W = torch.randn(64, 64).to(D), (torch.randn(64, 64) / 8).to(D)
        keys, token = torch.zeros(1, 64, device=D), torch.zeros(1, dtype=torch.int64).to(D)
        decode(200)
    """)

    def sizes() -> dict[str, int]:
        return {
            name: rss_bytes(pid)
            for name, pid in (("client", client.pid), ("worker", worker.process.pid), ("head", head.process.pid))
        }

    def stored() -> int:
        return sum(path.stat().st_blocks * 512 for path in (live.folder / "state").rglob("*") if path.is_file())

    client.run("decode(800)")
    settled = wait_until(lambda: client.run("djinn.stats()['executions_unacknowledged']") < 64, 10, "acknowledged")
    assert settled
    before, stats, store = sizes(), client.run("djinn.stats()"), stored()
    used, executions = live.workers()["one"]["memory_used_bytes"], live.status()["store"]["executions"]
    client.run(f"decode({STEPS})", timeout=120)
    wait_until(lambda: client.run("djinn.stats()['executions_unacknowledged']") < 64, 10, "acknowledged")
    after, more = sizes(), client.run("djinn.stats()")
    recorded = wait_until(lambda: (n := live.status()["store"]["executions"] - executions) >= STEPS and n, 10, "all are recorded")
    wire = (more["bytes_out"] + more["bytes_in"] - stats["bytes_out"] - stats["bytes_in"]) / STEPS
    journal = (stored() - store) / recorded
    print(
        f"grown: { ({name: (after[name] - before[name]) >> 10 for name in after}) } KiB; wire {wire:.0f} B, store {journal:.0f} B a step"
    )
    cache = STEPS * 64 * 4
    assert after["client"] - before["client"] < 8 * MIB
    assert after["head"] - before["head"] < 8 * MIB
    assert after["worker"] - before["worker"] < 8 * MIB + 4 * cache
    assert live.workers()["one"]["memory_used_bytes"] - used < 4 * cache + MIB
    assert more["handles_live"] < stats["handles_live"] + 64
    assert wire < WIRE_PER_STEP_MAX
    assert journal <= JOURNAL_PER_STEP_MAX, "what the store's files grew by"
    assert more["fallbacks"] == 0
